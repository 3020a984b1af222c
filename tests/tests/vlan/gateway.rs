//! `isGateway` with `vlan`: the gateway is an interface of its own, `<bridge>.<vlan>`, in the pods' VLAN.

use std::path::Path;

use serde_json::json;
use tests::{Host, Internet, bins};

use crate::bridge_conf::{add, check, del, leases, links, with};
use crate::ports::{layer2, newer, port, port_of, routed, vlans};

/// The state without the bridge, the gateway's interface and its port, which stay.
fn without_gateway(host: &Host, port: &str) -> tests::State {
    let state = host.state().without("sysctls");
    state.without_link("cni0").without_link("cni0.100").without_link(port)
}

/// The reference's table, but that only the VLAN itself is on the gateway's port.
#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn the_gateways_address_is_on_an_interface_in_the_vlan() {
    for (subnets, gateways) in [
        (&["10.1.0.0/24"][..], &["10.1.0.1/24"][..]),
        (&["fd00:1::/64"], &["fd00:1::1/64"]),
        (&["10.1.0.0/24", "fd00:1::/64", "fd00:2::/64"], &["10.1.0.1/24", "fd00:1::1/64", "fd00:2::1/64"]),
    ] {
        let host = Host::new();
        let before = host.state().without("sysctls");
        let conf = routed(subnets);
        let (one, two) = (host.pod(), host.pod());
        let first = add(&host, &conf, &one);

        let interfaces = first["interfaces"].as_array().unwrap();
        let link = host.link("cni0.100").unwrap();
        assert_eq!(interfaces.len(), 4, "{first}");
        assert_eq!(interfaces[3], json!({"name": "cni0.100", "mac": link["address"]}));
        assert_eq!(first["ips"][0]["interface"], 2);
        assert!(link["flags"].as_array().unwrap().contains(&json!("UP")), "{link}");
        let mut present = host.addresses("cni0.100");
        present.sort(); // IPv6 addresses are listed the newest first
        assert_eq!(present, gateways);
        assert_eq!(host.addresses("cni0"), [""; 0]);
        let gateway_port = port_of(&host, "cni0.100");
        assert_eq!(host.link(&gateway_port).unwrap()["master"], "cni0");
        assert_eq!(vlans(&host, &gateway_port), ["100 PVID untagged"]);
        for name in ["cni0", "cni0.100", &gateway_port, port(&first)] {
            assert_eq!(host.sysctl(&format!("net/ipv6/conf/{name}/accept_ra")), "0", "{name}");
        }

        let second = add(&host, &conf, &two);
        assert_eq!(second["interfaces"][3], interfaces[3]);
        assert_eq!(links(&host, "veth").len(), 4, "two pods, the gateway and its port");
        assert_eq!(host.link("cni0.100").unwrap()["ifindex"], link["ifindex"]);
        for address in gateways {
            let address = address.split('/').next().unwrap();
            assert!(one.pings(address) && two.pings(address), "{address}");
        }
        for (pod, result) in [(&one, &first), (&two, &second)] {
            check(&host, &conf, result, pod).success();
            del(&host, &conf, result, pod);
            del(&host, &conf, result, pod);
        }
        assert_eq!(leases(&host), [""; 0]);
        without_gateway(&host, &gateway_port).assert_same(&before);
    }
}

/// The node masquerades what leaves the VLAN, and what is not routed does not pass.
///
/// Not where `br_netfilter` shows the frames of a bridge to the IP firewall: they would meet the masquerade rules on
/// their way to the gateway, before they are routed. With the reference's rules it is the same.
#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn pods_leave_by_the_gateway_of_their_vlan() {
    for backend in ["iptables", "nftables"] {
        let host = Host::new();
        let internet = host.internet();
        for family in ["iptables", "ip6tables"] {
            let key = format!("net/bridge/bridge-nf-call-{family}");
            if host.enter(|| Path::new("/proc/sys").join(&key).exists()) {
                host.set_sysctl(&key, "0");
            }
        }
        let conf = with(&routed(&["10.1.0.0/24", "fd00:1::/64"]), json!({"ipMasq": true, "ipMasqBackend": backend}));
        let (one, two, other) = (host.pod(), host.pod(), host.pod());
        let before = host.state().without("sysctls");
        let first = add(&host, &conf, &one);
        let second = add(&host, &conf, &two);
        let outside = internet.listen();
        assert_eq!(one.asks(Internet::V4, &outside), Ok(Internet::HOST_V4));
        assert_eq!(one.asks(Internet::V6, &outside), Ok(Internet::HOST_V6));
        let neighbour = two.listen();
        assert_eq!(one.asks("10.1.0.3", &neighbour), Ok([10, 1, 0, 2].into()));

        // Another VLAN of the bridge has neither their gateway nor them.
        add(&host, &layer2(json!({"name": "other", "vlan": 200})), &other);
        other.run("ip address add 10.1.0.99/24 dev eth0");
        assert!(!other.pings("10.1.0.1"));
        assert!(!other.pings("10.1.0.2"));
        host.plugin("bridge").del(layer2(json!({"name": "other", "vlan": 200})), &other, "eth0").success();

        for (result, pod) in [(&first, &one), (&second, &two)] {
            check(&host, &conf, result, pod).success();
            del(&host, &conf, result, pod);
        }
        without_gateway(&host, &port_of(&host, "cni0.100")).assert_same(&before);
    }
}

#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn a_name_that_is_too_long_is_refused_before_anything_is_made() {
    let host = Host::new();
    let pod = host.pod();
    let before = host.state();
    // 15 bytes are a name: with ".100" there is room for 11.
    let conf = |bridge: &str| with(&routed(&["10.1.0.0/24"]), json!({"bridge": bridge}));
    let error = host.plugin("bridge").add(conf("br-of-twelve"), &pod, "eth0").failure();
    assert_eq!(error["code"], 7, "{error}");
    assert!(error.to_string().contains("br-of-twelve.100"), "{error}");
    host.state().assert_same(&before);
    add(&host, &conf("br-eleven00"), &pod);
    assert!(host.link("br-eleven00.100").is_some());
}

/// The pod's trunk is not the gateway's: it would hear, and answer, what is not its own.
#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn the_gateways_port_has_no_trunk() {
    let host = Host::new();
    let conf = with(&routed(&["10.1.0.0/24"]), json!({"vlanTrunk": [{"minID": 101, "maxID": 110}]}));
    let result = add(&host, &conf, &host.pod());
    assert_eq!(vlans(&host, port(&result)), ["100 PVID untagged", "101-110"]);
    assert_eq!(vlans(&host, &port_of(&host, "cni0.100")), ["100 PVID untagged"]);
}

/// As the reference has it.
#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn the_default_vlan_is_preserved_on_the_gateways_port_too() {
    let expected = ["1 untagged", "100 PVID untagged"];
    for reference in [false, true] {
        let host = Host::new();
        let conf = with(&routed(&["10.1.0.0/24"]), json!({"preserveDefaultVlan": true}));
        let plugin = if reference { newer(&host) } else { Some(host.plugin("bridge")) };
        let Some(plugin) = plugin else { continue };
        let result = plugin.add(&conf, &host.pod(), "eth0").success();
        assert_eq!(vlans(&host, port(&result)), expected);
        assert_eq!(vlans(&host, &port_of(&host, "cni0.100")), expected);
    }
}

/// An ADD was killed after it had made the interface and before it had put it into the VLAN.
#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn a_gateway_that_was_half_made_is_finished() {
    let host = Host::new();
    let (conf, pod) = (routed(&["10.1.0.0/24"]), host.pod());
    host.run("ip link add cni0 type bridge vlan_filtering 1");
    host.run("ip link add cni0.100 type veth peer name half");
    host.run("ip link set half master cni0");
    let result = add(&host, &conf, &pod);
    assert_eq!(vlans(&host, "half"), ["100 PVID untagged"]);
    assert!(pod.pings("10.1.0.1"));
    check(&host, &conf, &result, &pod).success();
}

/// `conf-examples/bridge-vlan.conflist`, as it stands, by cnitool.
#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn the_example_works() {
    let host = Host::new();
    let cnitool = host.cnitool(&bins::root().join("conf-examples"));
    let (one, two) = (host.pod(), host.pod());
    let before = host.state().without("sysctls");
    let result = cnitool.call("add", "podwire-vlan", &one).success();
    cnitool.call("add", "podwire-vlan", &two).success();
    assert_eq!(vlans(&host, port(&result)), ["100 PVID untagged"]);
    assert_eq!(one.addresses("eth0"), ["10.91.0.2/16"]);
    assert_eq!(host.addresses("br-vlan.100"), ["10.91.0.1/16"]);
    let neighbour = two.listen();
    assert!(one.pings("10.91.0.1"));
    assert_eq!(one.asks("10.91.0.3", &neighbour), Ok([10, 91, 0, 2].into()));
    for pod in [&one, &two] {
        cnitool.call("check", "podwire-vlan", pod).success();
        cnitool.call("del", "podwire-vlan", pod).success();
    }
    let gateway_port = port_of(&host, "br-vlan.100");
    let mut state = host.state().without("sysctls");
    for stays in ["br-vlan", "br-vlan.100", &gateway_port] {
        state = state.without_link(stays);
    }
    state.assert_same(&before);
}
