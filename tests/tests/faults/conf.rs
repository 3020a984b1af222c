//! The chains that are run.

use serde_json::{Value, json};

/// The gateways of [`bridge`]'s network.
pub const GATEWAYS: [&str; 2] = ["10.1.0.1", "fd00:1::1"];

/// bridge with all that it can have: dual stack, masquerade, spoof check.
pub fn bridge(backend: &str) -> Vec<Value> {
    vec![json!({
        "cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
        "ipMasq": true, "ipMasqBackend": backend, "macspoofchk": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
    })]
}

/// ptp with the same.
pub fn ptp(backend: &str) -> Vec<Value> {
    let ranges = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]);
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    vec![json!({
        "cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipMasq": true, "ipMasqBackend": backend,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
    })]
}

/// The whole chain.
pub fn chain(backend: &str) -> Vec<Value> {
    let rates = json!({"ingressRate": 10_000_000, "ingressBurst": 2_000_000, "egressRate": 10_000_000,
        "egressBurst": 2_000_000});
    let link = |plugin: &str, keys: Value| with(&json!({"cniVersion": "1.1.0", "name": "net", "type": plugin}), keys);
    let mut all = bridge(backend);
    all.extend([
        link("portmap", json!({"backend": backend, "runtimeConfig": {"portMappings": mappings(8080)}})),
        link("firewall", json!({"backend": backend})),
        link("bandwidth", json!({"runtimeConfig": {"bandwidth": rates}})),
        link("tuning", json!({"mtu": 1400, "promisc": true, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}})),
    ]);
    all
}

/// The same chain for another pod: another network, if it is to be one, other addresses and ports.
pub fn of_neighbour(chain: &[Value], network: &str) -> Vec<Value> {
    let ranges = json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100"}],
        [{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::100"}]]);
    let keys = |plugin: &str| match plugin {
        "bridge" | "ptp" => json!({"name": network, "ipam": {"type": "host-local", "ranges": ranges}}),
        "portmap" => json!({"name": network, "runtimeConfig": {"portMappings": mappings(8081)}}),
        _ => json!({"name": network}),
    };
    chain.iter().map(|conf| with(conf, keys(conf["type"].as_str().unwrap_or_default()))).collect()
}

fn mappings(port: u16) -> Value {
    let mapping = |protocol| json!({"hostPort": port, "containerPort": 80, "protocol": protocol});
    json!([mapping("tcp"), mapping("udp")])
}

/// The same with these keys in place of its own.
pub fn with(conf: &Value, keys: Value) -> Value {
    let mut conf = conf.clone();
    if let (Value::Object(into), Value::Object(keys)) = (&mut conf, keys) {
        into.extend(keys);
    }
    conf
}
