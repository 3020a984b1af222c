//! The floor is worth something only if it makes what a plugin makes: the same state, read by programs of others.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::process::{Command, Output};

use serde_json::{Value, json};
use tests::{Host, Pod};

/// What a pod's ADD left: its addresses and routes, the port of the bridge, the rule.
#[derive(Debug, PartialEq)]
struct Made {
    addresses: Vec<String>,
    routes: Vec<Value>,
    port: Value,
    /// Of the port and of the pod's end, to send and to receive.
    queues: [[Value; 2]; 2],
    rules: Vec<Value>,
}

impl Made {
    fn of(host: &Host, pod: &Pod) -> Self {
        let mut routes = Vec::new();
        for family in ["-4", "-6"] {
            let listed = pod.ip(&format!("{family} route show dev eth0"));
            let of_network = |route: &&Value| !route["dst"].as_str().unwrap_or_default().starts_with("fe80");
            routes.extend(listed.as_array().unwrap().iter().filter(of_network).cloned());
        }
        let ports = host.ip("-d link show master cni0");
        let (port, eth0) = (&ports[0], pod.link("eth0").unwrap());
        let queues = [port, &eth0].map(|end| [end["num_tx_queues"].clone(), end["num_rx_queues"].clone()]);
        let port = json!({"up": port["flags"].to_string().contains("\"UP\""), "kind": port["linkinfo"]["info_kind"],
            "mtu": port["mtu"], "port": port["linkinfo"]["info_slave_kind"]});
        let listed = host.run("nft -j list chain inet cni_plugins_masquerade masq_checks");
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let rules = listed["nftables"].as_array().unwrap().iter().filter_map(|one| one.pointer("/rule/expr").cloned());
        Self { addresses: pod.addresses("eth0"), routes, port, queues, rules: rules.collect() }
    }
}

#[test]
fn it_makes_the_same_kernel_objects_as_the_plugin() {
    let host = Host::new();
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
        "ipMasq": true, "ipMasqBackend": "nftables",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd01::/64"}]]}});
    let pod = host.pod();
    host.plugin("bridge").add(&conf, &pod, "eth0").success();
    let by_plugin = Made::of(&host, &pod);
    assert_eq!(by_plugin.addresses, ["10.1.0.2/16", "fd01::2/64"]);
    host.plugin("bridge").del(&conf, &pod, "eth0").success();

    let pod = host.pod();
    let bridge = host.link("cni0").unwrap()["ifindex"].to_string();
    let netns = pod.path().display().to_string();
    let addresses = ["10.1.0.2/16=10.1.0.1", "fd01::2/64=fd01::1"];
    let arguments = [&["add", &netns, "floor1", &bridge, "nftables"][..], &addresses[..]].concat();
    let output = floor(&host, &arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(Made::of(&host, &pod), by_plugin);
    assert!(pod.pings("10.1.0.1") && pod.pings("fd01::1"));

    assert!(floor(&host, &["del", &netns]).status.success());
    assert!(pod.link("eth0").is_none() && host.link("floor1").is_none());
    // What the kernel refuses is not passed over: it would be a floor of nothing.
    assert!(!floor(&host, &["del", &netns]).status.success());
}

fn floor(host: &Host, arguments: &[&str]) -> Output {
    host.enter(|| Command::new(env!("CARGO_BIN_EXE_floor")).args(arguments).output().unwrap())
}
