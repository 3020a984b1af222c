//! The kernel itself: what it can, and that the plain things work on this one, too. The virtual machine's is Debian
//! stable's, older than that of most machines that run the other tests.

use serde_json::json;
use tests::{Host, Internet};

use crate::bridge_conf::{add, check, del, masqueraded, with};

#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn the_kernel_filters() {
    let host = Host::new();
    host.run("ip link add cni0 type bridge vlan_filtering 1");
    let bridge = host.link("cni0").unwrap();
    assert_eq!(bridge.pointer("/linkinfo/info_data/vlan_filtering").unwrap(), 1, "{bridge}");
    host.run("ip link add one type veth peer name two");
    host.run("ip link set one master cni0");
    host.run("bridge vlan add dev one vid 100 pvid untagged");
    let vlans = host.run("bridge -j vlan show dev one");
    assert!(vlans.contains("\"vlan\":100"), "{vlans}");
    host.run("ip link add link cni0 name cni0.100 type vlan id 100");
}

#[test]
#[ignore = "a second kernel: cargo xtask test runs it"]
fn a_dual_stack_pod_on_this_kernel() {
    for backend in ["iptables", "nftables"] {
        let host = Host::new();
        let internet = host.internet();
        let conf = with(&masqueraded(backend), json!({"hairpinMode": true}));
        let (one, two) = (host.pod(), host.pod());
        let (before, pod_before) = (host.state().without("sysctls"), one.state());
        let first = add(&host, &conf, &one);
        let second = add(&host, &conf, &two);
        let (outside, neighbour) = (internet.listen(), two.listen());
        assert!(one.pings("10.1.0.1") && one.pings("fd00:1::1"), "{backend}");
        assert_eq!(one.asks("10.1.0.3", &neighbour), Ok([10, 1, 0, 2].into()), "{backend}");
        assert_eq!(one.asks("fd00:1::3", &neighbour), Ok("fd00:1::2".parse().unwrap()), "{backend}");
        assert_eq!(one.asks(Internet::V4, &outside), Ok(Internet::HOST_V4), "{backend}");
        assert_eq!(one.asks(Internet::V6, &outside), Ok(Internet::HOST_V6), "{backend}");
        for (result, pod) in [(&first, &one), (&second, &two)] {
            check(&host, &conf, result, pod).success();
            del(&host, &conf, result, pod);
        }
        host.state().without_link("cni0").without("sysctls").assert_same(&before);
        one.state().assert_same(&pod_before);
    }
}
