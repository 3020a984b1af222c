//! Configurations of bridge, and what a runtime does with them: the words that the tests of this directory share.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Outcome, Pod};

/// What [`v4`] and [`dual`] give to the first pod, and the gateway.
pub const FIRST_V4: &str = "10.1.0.2";
pub const GATEWAY_V4: &str = "10.1.0.1";
/// The same of IPv6.
pub const FIRST_V6: &str = "fd00:1::2";
pub const GATEWAY_V6: &str = "fd00:1::1";

/// A gateway on `cni0`, with one range of each subnet.
pub fn of(subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
    json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
        "ipam": {"type": "host-local", "ranges": ranges}})
}

pub fn v4() -> Value {
    of(&["10.1.0.0/24"])
}

pub fn v6() -> Value {
    of(&["fd00:1::/64"])
}

pub fn dual() -> Value {
    of(&["10.1.0.0/24", "fd00:1::/64"])
}

/// Without `ipam`: layer 2 only.
pub fn layer2() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0"})
}

/// The dual-stack network, masqueraded.
pub fn masqueraded(backend: &str) -> Value {
    with(&dual(), json!({"ipMasq": true, "ipMasqBackend": backend}))
}

/// The same with these keys set; of two objects the keys are joined.
pub fn with(conf: &Value, keys: Value) -> Value {
    let mut conf = conf.clone();
    merge(&mut conf, keys);
    conf
}

fn merge(into: &mut Value, keys: Value) {
    match (into, keys) {
        (Value::Object(into), Value::Object(keys)) => {
            for (key, value) in keys {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

#[track_caller]
pub fn add(host: &Host, conf: &Value, pod: &Pod) -> Value {
    host.plugin("bridge").add(conf, pod, "eth0").success()
}

/// CHECK as a runtime calls it: with the result of the ADD.
pub fn check(host: &Host, conf: &Value, result: &Value, pod: &Pod) -> Outcome {
    host.plugin("bridge").check(with_prev_result(conf, result), pod, "eth0")
}

/// DEL as a runtime calls it: with the result of the ADD.
#[track_caller]
pub fn del(host: &Host, conf: &Value, result: &Value, pod: &Pod) {
    host.plugin("bridge").del(with_prev_result(conf, result), pod, "eth0").success();
}

/// The links of a host or pod of a kind (`veth`, `bridge`).
pub fn links(place: &tests::Namespace, kind: &str) -> Vec<String> {
    let all = place.ip("-d link show");
    let of_kind = all.as_array().into_iter().flatten().filter(|link| link["linkinfo"]["info_kind"] == kind);
    of_kind.filter_map(|link| Some(link["ifname"].as_str()?.to_owned())).collect()
}

/// The routes of a family, of all tables but `local`, as `ip -j` shows them.
pub fn routes(place: &tests::Namespace, family: &str) -> Vec<Value> {
    let all = place.ip(&format!("-d {family} route show table all"));
    let routes = all.as_array().into_iter().flatten();
    routes.filter(|route| route["table"] != "local" && route["type"] == "unicast").cloned().collect()
}

/// Everything of masquerade and spoof check on a host: the lines that name a rule or a chain of ours.
pub fn rules(host: &Host) -> Vec<String> {
    let state = host.state();
    let mut found = Vec::new();
    for section in ["iptables-save", "ip6tables-save", "nft"] {
        let ours = |line: &&str| {
            // What iptables wrote is seen by nft as well.
            let twice = section == "nft" && line.contains(r#""family":"ip"#);
            !twice && ["CNI-", "net: ", "cni-br-iface-"].iter().any(|mark| line.contains(mark))
        };
        found.extend(state.section(section).into_iter().filter(ours).map(|line| format!("{section}: {line}")));
    }
    found
}

/// The leases on a host: names of the files that are addresses.
pub fn leases(host: &Host) -> Vec<String> {
    let state = host.state();
    let files = state.section("files").into_iter().filter_map(|line| {
        let (path, _) = line.split_once(": ")?;
        Some(path.rsplit('/').next()?.to_owned())
    });
    files.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
}

/// A host without the programs of iptables and nftables, until [`show_firewall_programs`].
pub fn hide_firewall_programs(host: &Host) {
    for program in FIREWALL_PROGRAMS {
        host.run(&format!("mount --bind /dev/null {}", real_path(program)));
    }
}

pub fn show_firewall_programs(host: &Host) {
    for program in FIREWALL_PROGRAMS {
        host.run(&format!("umount {}", real_path(program)));
    }
}

const FIREWALL_PROGRAMS: [&str; 2] = ["iptables", "nft"];

/// Debian's iptables is a chain of symbolic links to one program for all its names.
fn real_path(program: &str) -> String {
    let path = tests::namespace::find(program).unwrap();
    std::fs::canonicalize(path).unwrap().display().to_string()
}
