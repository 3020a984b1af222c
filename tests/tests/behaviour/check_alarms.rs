//! CHECK raises no false alarm where the reference's does (its defect 10, and its comparison of texts), and still sees when
//! the thing itself is gone.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Pod};

use crate::bridge_conf::with;

const PLUGINS: [&str; 2] = ["bridge", "ptp"];

/// `static` addresses with routes.
fn network(plugin: &str, ipam: Value) -> Value {
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": plugin, "ipam": {"type": "static"}});
    with(&conf, json!({ "ipam": ipam }))
}

fn dual(plugin: &str, routes: Value) -> Value {
    let address = |address: &str, gateway: &str| json!({"address": address, "gateway": gateway});
    let addresses = [address("10.1.0.2/24", "10.1.0.1"), address("fd00:1::2/64", "fd00:1::1")];
    network(plugin, json!({"addresses": addresses, "routes": routes}))
}

/// ADD, what happens then, a CHECK that is well; what goes then, and a CHECK that says so with `word`.
fn sees(plugin: &str, conf: &Value, between: impl Fn(&Host, &Pod), gone: &str, word: &str) {
    let host = Host::new();
    let pod = host.pod();
    let result = host.plugin(plugin).add(conf, &pod, "eth0").success();
    between(&host, &pod);
    let known = with_prev_result(conf, &result);
    host.plugin(plugin).check(&known, &pod, "eth0").success();
    pod.run(gone);
    let error = host.plugin(plugin).check(&known, &pod, "eth0").failure();
    assert!(error["msg"].as_str().unwrap().contains(word), "{plugin}: {gone}: {error}");
}

fn nothing(_: &Host, _: &Pod) {}

#[test]
fn addresses_of_one_alone() {
    let address = |address: &str, gateway: &str| json!({"address": address, "gateway": gateway});
    for plugin in PLUGINS {
        let gateways = if plugin == "ptp" { ("169.254.1.1", "fd00:1::1") } else { ("", "") };
        let mut addresses = json!([address("10.1.0.2/32", gateways.0), address("fd00:1::2/128", gateways.1)]);
        if plugin == "bridge" {
            addresses = json!([{"address": "10.1.0.2/32"}, {"address": "fd00:1::2/128"}]);
        }
        let conf = network(plugin, json!({ "addresses": addresses }));
        sees(plugin, &conf, nothing, "ip address del 10.1.0.2/32 dev eth0", "10.1.0.2/32");
        sees(plugin, &conf, nothing, "ip address del fd00:1::2/128 dev eth0", "fd00:1::2/128");
    }
}

/// The kernel keeps the network's address of what was written.
#[test]
fn a_destination_with_host_bits() {
    for plugin in PLUGINS {
        let conf = dual(plugin, json!([{"dst": "192.0.2.77/24"}, {"dst": "2001:db8:9::7/48"}]));
        sees(plugin, &conf, nothing, "ip route del 192.0.2.0/24", "192.0.2.");
        sees(plugin, &conf, nothing, "ip -6 route del 2001:db8:9::/48", "2001:db8:9::");
    }
}

#[test]
fn routes_of_tables() {
    for plugin in PLUGINS {
        let conf =
            dual(plugin, json!([{"dst": "192.0.2.0/24", "table": 100}, {"dst": "2001:db8:9::/48", "table": 5000}]));
        sees(plugin, &conf, nothing, "ip route flush table 100", "192.0.2.0/24");
        sees(plugin, &conf, nothing, "ip -6 route flush table 5000", "2001:db8:9::/48");
    }
}

/// Somebody else's next hop beside ours: the kernel then shows one route of several.
#[test]
fn a_route_that_has_become_one_of_several_hops() {
    for plugin in PLUGINS {
        let conf = dual(plugin, json!([{"dst": "2001:db8:9::/48", "gw": "fd00:1::1"}]));
        let append = |_: &Host, pod: &Pod| {
            pod.run("ip -6 route append 2001:db8:9::/48 via fd00:1::1:9 dev eth0 onlink");
            assert!(pod.run("ip -6 route show 2001:db8:9::/48").contains("nexthop"), "several hops");
        };
        sees(plugin, &conf, append, "ip -6 route del 2001:db8:9::/48 via fd00:1::1", "2001:db8:9::/48");
    }
}

/// A runtime may write what it was told in another way: the reference compares the texts.
#[test]
fn other_spellings() {
    for plugin in PLUGINS {
        let host = Host::new();
        let pod = host.pod();
        let conf = dual(plugin, json!([{"dst": "::/0"}]));
        let mut result = host.plugin(plugin).add(&conf, &pod, "eth0").success();
        for interface in result["interfaces"].as_array_mut().unwrap() {
            interface["mac"] = interface["mac"].as_str().unwrap().to_uppercase().into();
        }
        result["ips"][1]["address"] = "FD00:0001:0:0:0:0:0:2/64".into();
        result["ips"][1]["gateway"] = "fd00:0001:0::0001".into();
        result["routes"][0]["dst"] = "0:0::/0".into();
        host.plugin(plugin).check(with_prev_result(&conf, &result), &pod, "eth0").success();
    }
}

/// Defect 2: without a gateway the reference's bridge takes the lowest MAC of its ports, and every pod that joins or
/// leaves fails the CHECK of the others.
#[test]
fn others_that_come_and_go() {
    for keys in [json!({}), json!({"isGateway": true})] {
        let host = Host::new();
        let pod = host.pod();
        let conf = with(&network("bridge", json!({"type": "host-local", "subnet": "10.1.0.0/24"})), keys);
        let result = host.plugin("bridge").add(&conf, &pod, "eth0").success();
        let known = with_prev_result(&conf, &result);
        let others: Vec<Pod> = (0..8).map(|_| host.pod()).collect();
        for other in &others {
            host.plugin("bridge").add(&conf, other, "eth0").success();
            host.plugin("bridge").check(&known, &pod, "eth0").success();
        }
        for other in &others {
            host.plugin("bridge").del(&conf, other, "eth0").success();
            host.plugin("bridge").check(&known, &pod, "eth0").success();
        }
    }
}

/// Layer 2 alone: the reference asks an IPAM plugin that nobody has named.
#[test]
fn a_bridge_without_addresses() {
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge"});
    sees("bridge", &conf, nothing, "ip link set eth0 down", "eth0");
}
