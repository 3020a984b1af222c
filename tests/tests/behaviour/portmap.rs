//! portmap: who reaches a pod through a port of the node, and whose address the pod sees then.

use std::net::IpAddr;

use serde_json::json;
use tests::{Host, Internet};

use crate::bridge_conf::with;
use crate::portmap_conf::{PORT, add, both, check, conf, del, main_conf, rules};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// From the internet, the node by all its names, a neighbour, and the pod itself; in both IP versions.
fn from_everywhere(kind: &str, backend: &str, bridge_netfilter: bool) {
    let what = format!("{kind}, {backend}, br_netfilter {bridge_netfilter}");
    let host = Host::new();
    let internet = host.internet();
    let (pod, neighbour) = (host.pod(), host.pod());
    let server = pod.listen();
    let conf = conf(backend, both(PORT, server.port()));
    for version in ["iptables", "ip6tables"] {
        host.set_sysctl(&format!("net/bridge/bridge-nf-call-{version}"), &u8::from(bridge_netfilter).to_string());
    }
    // With br_netfilter a frame to the pod's own port turns back on the bridge, which then must let it.
    let mut main = main_conf(kind);
    if bridge_netfilter {
        main = with(&main, json!({"hairpinMode": true}));
    }
    let result = host.plugin(kind).add(&main, &pod, "eth0").success();
    assert_eq!(add(&host, &conf, &result, &pod).success(), result);
    host.plugin(kind).add(&main, &neighbour, "eth0").success();
    check(&host, &conf, &result, &pod).success();

    for (node, outside) in [(Internet::HOST_V4, Internet::V4), (Internet::HOST_V6, Internet::V6)] {
        let node = node.to_string();
        assert_eq!(internet.asks_at(&node, PORT), Ok(address(outside)), "{what}: from the internet");
        for (place, who) in [(&*host, "the node"), (&*neighbour, "a neighbour"), (&*pod, "the pod itself")] {
            let seen = place.asks_at(&node, PORT);
            assert!(seen.is_ok(), "{what}: from {who} to {node}: {seen:?}");
        }
    }
    assert!(host.asks_at("127.0.0.1", PORT).is_ok(), "{what}: 127.0.0.1");
    // What the node does not have is not taken (CVE-2025-67499).
    let outside = internet.listen();
    assert!(neighbour.asks_at(Internet::V4, PORT).is_err(), "{what}: forwarded");
    drop(outside);

    del(&host, &conf, &result, &pod);
    assert_eq!(rules(&host), [""; 0], "{what}");
    assert!(internet.asks_at(&Internet::HOST_V4.to_string(), PORT).is_err());
}

#[test]
fn bridge_with_iptables() {
    from_everywhere("bridge", "iptables", false);
}

#[test]
fn bridge_with_nftables() {
    from_everywhere("bridge", "nftables", false);
}

#[test]
fn bridge_with_iptables_and_br_netfilter() {
    from_everywhere("bridge", "iptables", true);
}

#[test]
fn bridge_with_nftables_and_br_netfilter() {
    from_everywhere("bridge", "nftables", true);
}

#[test]
fn ptp_with_iptables() {
    from_everywhere("ptp", "iptables", false);
}

#[test]
fn ptp_with_nftables() {
    from_everywhere("ptp", "nftables", false);
}
