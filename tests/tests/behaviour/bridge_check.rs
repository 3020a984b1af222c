//! CHECK: it finds what is damaged, names it, and mends nothing.

use serde_json::{Value, json};
use tests::Host;

use crate::bridge_conf::{add, check, dual, layer2, masqueraded, with};
use crate::damage::{self, Table};

/// The name of the pod's port on the host.
fn port(result: &Value) -> &str {
    result["interfaces"][1]["name"].as_str().unwrap()
}

/// What is broken, what the message must contain, and how it is broken.
const ATTACHMENT: &Table = &[
    ("IPv4 address removed", "10.1.0.2/24", |_, pod, _| drop(pod.run("ip address del 10.1.0.2/24 dev eth0"))),
    ("IPv6 address removed", "fd00:1::2/64", |_, pod, _| drop(pod.run("ip address del fd00:1::2/64 dev eth0"))),
    ("default route removed", "default via 10.1.0.1", |_, pod, _| drop(pod.run("ip route del default"))),
    ("IPv6 default route removed", "via fd00:1::1", |_, pod, _| drop(pod.run("ip -6 route del default"))),
    ("route removed", "192.0.2.0/24", |_, pod, _| drop(pod.run("ip route del 192.0.2.0/24"))),
    ("route by another gateway", "192.0.2.0/24", |_, pod, _| {
        pod.run("ip route replace 192.0.2.0/24 via 10.1.0.9");
    }),
    ("link down", "eth0", |_, pod, _| drop(pod.run("ip link set eth0 down"))),
    ("link removed", "eth0", |_, pod, _| drop(pod.run("ip link delete eth0"))),
    ("link of another kind", "eth0", |_, pod, _| {
        pod.run("ip link delete eth0");
        pod.run("ip link add eth0 type bridge");
    }),
    ("MAC changed", "02:00:00:00:00:09", |_, pod, _| drop(pod.run("ip link set eth0 address 02:00:00:00:00:09"))),
    ("port taken from the bridge", "cni0", |host, _, result| {
        host.run(&format!("ip link set {} nomaster", port(result)));
    }),
    ("port down", "cni0", |host, _, result| drop(host.run(&format!("ip link set {} down", port(result))))),
    ("hairpin switched off", "hairpin", |host, _, result| {
        host.run(&format!("ip link set {} type bridge_slave hairpin off", port(result)));
    }),
    ("isolation switched off", "isolat", |host, _, result| {
        host.run(&format!("ip link set {} type bridge_slave isolated off", port(result)));
    }),
    ("gateway address removed", "10.1.0.1/24", |host, _, _| drop(host.run("ip address del 10.1.0.1/24 dev cni0"))),
    ("IPv6 gateway address removed", "fd00:1::1/64", |host, _, _| {
        host.run("ip address del fd00:1::1/64 dev cni0");
    }),
    ("bridge down", "cni0", |host, _, _| drop(host.run("ip link set cni0 down"))),
    ("bridge removed", "cni0", |host, _, _| drop(host.run("ip link delete cni0"))),
    ("lease removed", "host-local", |host, _, _| {
        for address in ["10.1.0.2", "fd00:1::2"] {
            std::fs::remove_file(host.store().join("networks/net").join(address)).unwrap();
        }
    }),
    ("jump to the spoof check flushed", "spoof check", |host, _, _| {
        host.run("nft flush chain bridge nat PREROUTING");
    }),
    ("spoof check removed", "spoof check", |host, _, _| drop(host.run("nft delete table bridge nat"))),
    ("spoof check emptied", "spoof check", |host, _, _| drop(host.run("nft flush table bridge nat"))),
];

const OF_IPTABLES: &Table = &[
    ("jumps flushed", "10.1.0.2", |host, _, _| drop(host.run("iptables -t nat -F POSTROUTING"))),
    ("IPv6 jumps flushed", "fd00:1::2", |host, _, _| drop(host.run("ip6tables -t nat -F POSTROUTING"))),
    ("chains emptied", "CNI-", |host, _, _| drop(host.run("iptables -t nat -F"))),
    ("chain emptied", "CNI-", |host, _, _| {
        let saved = host.run("iptables-save -t nat");
        let chain = saved.lines().find_map(|line| line.strip_prefix(":CNI-")?.split(' ').next()).unwrap();
        host.run(&format!("iptables -t nat -F CNI-{chain}"));
    }),
];

const OF_NFTABLES: &Table = &[
    ("rules flushed", "10.1.0.2", |host, _, _| {
        host.run("nft flush chain inet cni_plugins_masquerade masq_checks");
    }),
    ("table removed", "cni_plugins_masquerade", |host, _, _| {
        host.run("nft delete table inet cni_plugins_masquerade");
    }),
    ("base chain emptied", "postrouting", |host, _, _| {
        host.run("nft flush chain inet cni_plugins_masquerade postrouting");
    }),
];

fn damaged(backend: &str, table: &Table) {
    let conf = with(
        &masqueraded(backend),
        json!({"macspoofchk": true, "hairpinMode": true, "portIsolation": true,
            "ipam": {"routes": [{"dst": "192.0.2.0/24"}]}}),
    );
    damage::is_found("bridge", &conf, table);
}

#[test]
fn a_damaged_attachment_is_found() {
    damaged("nftables", ATTACHMENT);
}

#[test]
fn damaged_masquerade_rules_are_found_iptables() {
    damaged("iptables", OF_IPTABLES);
}

#[test]
fn damaged_masquerade_rules_are_found_nftables() {
    damaged("nftables", OF_NFTABLES);
}

#[test]
fn a_bridge_that_is_not_promiscuous_any_more_is_found() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&dual(), json!({"promiscMode": true}));
    let result = add(&host, &conf, &pod);
    check(&host, &conf, &result, &pod).success();
    host.run("ip link set cni0 promisc off");
    let error = check(&host, &conf, &result, &pod).failure();
    assert!(error["msg"].as_str().unwrap().contains("Promisc"), "{error}");
}

#[test]
fn damage_to_layer_2_is_found() {
    let host = Host::new();
    let pod = host.pod();
    let result = add(&host, &layer2(), &pod);
    check(&host, &layer2(), &result, &pod).success();
    host.run(&format!("ip link set {} nomaster", port(&result)));
    check(&host, &layer2(), &result, &pod).failure();
}

/// A prevResult that is another attachment's.
#[test]
fn a_foreign_prev_result_is_found() {
    let host = Host::new();
    let (pod, other) = (host.pod(), host.pod());
    let result = add(&host, &dual(), &pod);
    let foreign = add(&host, &dual(), &other);
    check(&host, &dual(), &foreign, &pod).failure();
    let mut renamed = result.clone();
    renamed["interfaces"][2]["name"] = "eth9".into();
    assert!(check(&host, &dual(), &renamed, &pod).failure()["msg"].as_str().unwrap().contains("eth0"));
    let mut elsewhere = result.clone();
    elsewhere["interfaces"][2]["sandbox"] = "/run/netns/other".into();
    assert!(check(&host, &dual(), &elsewhere, &pod).failure()["msg"].as_str().unwrap().contains("/run/netns/other"));
    let mut without_bridge = result;
    without_bridge["interfaces"].as_array_mut().unwrap().remove(0);
    check(&host, &dual(), &without_bridge, &pod).failure();
}

/// What somebody else has done beside it is no damage.
#[test]
fn additions_of_others_are_no_damage() {
    for backend in ["iptables", "nftables"] {
        let host = Host::new();
        let pod = host.pod();
        let conf = masqueraded(backend);
        let result = add(&host, &conf, &pod);
        pod.run("ip address add 192.0.2.7/32 dev eth0");
        pod.run("ip route add 198.18.0.0/15 via 10.1.0.1");
        host.run("ip address add 192.0.2.8/32 dev cni0");
        host.run("ip link set cni0 promisc on");
        host.run("iptables -t nat -I POSTROUTING -s 203.0.113.7 -j ACCEPT");
        host.run("nft add table inet mine");
        check(&host, &conf, &result, &pod).success();
    }
}

/// A plugin chained after bridge may add an interface with an address: neither bridge's gateway nor its masquerade knows it.
#[test]
fn an_address_of_another_interface_is_not_looked_for() {
    for backend in ["iptables", "nftables"] {
        let host = Host::new();
        let pod = host.pod();
        let conf = masqueraded(backend);
        let mut result = add(&host, &conf, &pod);
        let other = json!({"name": "net1", "sandbox": pod.path()});
        result["interfaces"].as_array_mut().unwrap().push(other);
        let address = json!({"interface": 3, "address": "198.18.0.2/24", "gateway": "198.18.0.1"});
        result["ips"].as_array_mut().unwrap().push(address);
        check(&host, &conf, &result, &pod).success();
    }
}
