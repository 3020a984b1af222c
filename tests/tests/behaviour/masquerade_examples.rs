//! The examples that show how to masquerade: the network sees what they promise.

use std::net::IpAddr;

use tests::{Host, Internet};

use crate::bridge_conf::{leases, rules};
use crate::conf_examples::directory;
use crate::masquerade_keys::machine_behind;

/// The files of conf-examples/ that are run here.
pub const FILES: [&str; 3] =
    ["bridge-no-masquerade-to-cluster.conflist", "bridge-masquerade-ipv4-only.conflist", "ptp-source-address.conflist"];

/// ADD of the network, the packets, CHECK and DEL. `routes` are the internet's, by the host; `seen` are places, and whom
/// each sees.
fn attach(network: &str, routes: [&str; 2], seen: &[(&str, &str)]) {
    let host = Host::new();
    let internet = host.internet();
    internet.run(&format!("ip route add {} via {}", routes[0], Internet::HOST_V4));
    internet.run(&format!("ip -6 route add {} via {}", routes[1], Internet::HOST_V6));
    let other_node = machine_behind(&host, "other", "10.97.0.2", "fd00:97::2");
    let cnitool = host.cnitool(&directory());
    let pods = [host.pod(), host.pod()];
    for pod in &pods {
        cnitool.call("add", network, pod).success();
    }
    let (outside, of_node) = (internet.listen(), other_node.listen());
    for (place, who) in seen {
        let who: IpAddr = who.parse().unwrap();
        let echo = if [Internet::V4, Internet::V6].contains(place) { &outside } else { &of_node };
        assert_eq!(pods[0].asks(place, echo), Ok(who), "{network}: {place}");
    }
    for address in pods[1].addresses("eth0") {
        assert!(pods[0].pings(address.split('/').next().unwrap()), "{network}: {address}");
    }
    for pod in &pods {
        cnitool.call("check", network, pod).success();
        cnitool.call("del", network, pod).success();
    }
    assert_eq!((rules(&host), leases(&host)), (vec![], vec![]), "{network}");
}

/// The internet is masqueraded; a machine of the private ranges, such as another node's pod, sees the pod itself.
#[test]
fn no_masquerade_to_the_cluster() {
    attach(
        "podwire-no-masquerade-to-cluster",
        ["10.98.0.0/16", "fd00:98::/64"],
        &[
            (Internet::V4, "198.51.100.1"),
            (Internet::V6, "2001:db8:51::1"),
            ("10.97.0.2", "10.98.0.2"),
            ("fd00:97::2", "fd00:98::2"),
        ],
    );
}

/// IPv6 addresses that the network routes need none of the node's.
#[test]
fn masquerade_of_ipv4_only() {
    attach(
        "podwire-masquerade-ipv4-only",
        ["10.99.0.0/16", "2001:db8:99::/64"],
        &[(Internet::V4, "198.51.100.1"), (Internet::V6, "2001:db8:99::2")],
    );
}

/// The internet sends what is for these addresses to the host, which has neither.
#[test]
fn a_source_address() {
    attach(
        "podwire-source-address",
        ["192.0.2.10", "2001:db8:2::10"],
        &[(Internet::V4, "192.0.2.10"), (Internet::V6, "2001:db8:2::10")],
    );
}
