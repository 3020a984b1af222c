//! bridge: what ADD makes and reports, what DEL leaves, and what stays the same meanwhile.

use serde_json::{Value, json};
use tests::{Host, Pod};

use crate::bridge_conf::{
    FIRST_V4, FIRST_V6, GATEWAY_V4, GATEWAY_V6, add, check, del, dual, layer2, leases, links, masqueraded, rules, v4,
    v6, with,
};

/// The host's end of a pod's pair, as the result names it.
fn host_end(result: &Value) -> &str {
    result["interfaces"][1]["name"].as_str().unwrap()
}

#[test]
fn the_result_has_bridge_host_end_and_pod_end_in_this_order() {
    for (conf, addresses) in [
        (v4(), vec![("10.1.0.2/24", GATEWAY_V4)]),
        (v6(), vec![("fd00:1::2/64", GATEWAY_V6)]),
        (dual(), vec![("10.1.0.2/24", GATEWAY_V4), ("fd00:1::2/64", GATEWAY_V6)]),
    ] {
        let host = Host::new();
        let pod = host.pod();
        let result = add(&host, &conf, &pod);

        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces.len(), 3, "{result}");
        let (bridge, port) = (host.link("cni0").unwrap(), host.link(host_end(&result)).unwrap());
        assert_eq!(interfaces[0], json!({"name": "cni0", "mac": bridge["address"]}), "{result}");
        assert_eq!(interfaces[1], json!({"name": port["ifname"], "mac": port["address"]}), "{result}");
        let sandbox = pod.path().to_str().unwrap();
        assert_eq!(interfaces[2], json!({"name": "eth0", "mac": pod.mac("eth0"), "sandbox": sandbox}), "{result}");

        let ips: Vec<Value> = addresses
            .iter()
            .map(|(address, gateway)| json!({"address": address, "gateway": gateway, "interface": 2}))
            .collect();
        assert_eq!(result["ips"], json!(ips));
        let default = |gateway: &str| if gateway.contains(':') { "::/0" } else { "0.0.0.0/0" };
        let routes: Vec<Value> = addresses.iter().map(|(_, gw)| json!({"dst": default(gw), "gw": gw})).collect();
        assert_eq!(result["routes"], json!(routes));
        assert_eq!(result["cniVersion"], "1.0.0");

        let programmed: Vec<&str> = addresses.iter().map(|(address, _)| *address).collect();
        assert_eq!(pod.addresses("eth0"), programmed);
        assert_eq!(port["master"], "cni0");
        assert_eq!(port["linkinfo"]["info_kind"], "veth");
        let name = host_end(&result);
        assert!(name.len() == 12 && name.starts_with("veth"), "{name}");
        assert!(name[4..].bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{name}");
        check(&host, &conf, &result, &pod).success();
    }
}

#[test]
fn without_a_gateway_the_bridge_has_no_address_and_the_pod_no_route() {
    let host = Host::new();
    let pod = host.pod();
    let mut conf = dual();
    conf["isDefaultGateway"] = false.into();
    let forwarding = host.sysctl("net/ipv4/ip_forward");
    let result = add(&host, &conf, &pod);
    assert_eq!(result.get("routes"), None, "{result}");
    assert_eq!(host.addresses("cni0"), [""; 0]);
    assert!(!pod.pings(GATEWAY_V4));
    assert_eq!(host.sysctl("net/ipv4/ip_forward"), forwarding, "nobody asked the host to forward");
    let second = host.pod();
    add(&host, &conf, &second);
    for neighbour in ["10.1.0.3", "fd00:1::3"] {
        assert!(pod.pings(neighbour), "{neighbour}");
    }
    check(&host, &conf, &result, &pod).success();
    del(&host, &conf, &result, &pod);
}

/// Reference defects 1 and 2: the bridge's MAC followed whichever port is lowest.
#[test]
fn the_bridge_keeps_its_mac_while_pods_come_and_go() {
    for conf in [dual(), layer2(), with(&v4(), json!({"isDefaultGateway": false}))] {
        let host = Host::new();
        let pods: Vec<Pod> = (0..6).map(|_| host.pod()).collect();
        let results: Vec<Value> = pods.iter().map(|pod| add(&host, &conf, pod)).collect();
        let mac = |host: &Host| host.link("cni0").unwrap()["address"].clone();
        let first = mac(&host);
        for (result, pod) in results.iter().zip(&pods) {
            assert_eq!(result["interfaces"][0]["mac"], first, "{result}");
            check(&host, &conf, result, pod).success();
            del(&host, &conf, result, pod);
            assert_eq!(mac(&host), first);
        }
        let late = host.pod();
        add(&host, &conf, &late);
        assert_eq!(mac(&host), first, "a bridge without ports keeps it, too");
    }
}

#[test]
fn an_existing_bridge_is_used_as_it_is() {
    let host = Host::new();
    host.run("ip link add cni0 type bridge");
    host.run("ip link set cni0 mtu 1400 address 02:00:00:00:00:01");
    let before = host.link("cni0").unwrap();
    let pod = host.pod();
    let result = add(&host, &with(&dual(), json!({"mtu": 1300})), &pod);
    let after = host.link("cni0").unwrap();
    assert_eq!(after["ifindex"], before["ifindex"]);
    assert_eq!(after["address"], "02:00:00:00:00:01");
    assert_eq!(pod.link("eth0").unwrap()["mtu"], 1300);
    assert!(pod.pings(GATEWAY_V4) && pod.pings(GATEWAY_V6));
    del(&host, &dual(), &result, &pod);
    assert!(host.link("cni0").is_some());
}

/// A node's bridge with its network card in it: nobody gave it an address, so it has the lowest of its ports'.
#[test]
fn a_bridge_with_a_network_card_keeps_the_cards_mac() {
    let host = Host::new();
    host.run("ip link add cni0 type bridge");
    host.run("ip link add card address f8:ff:ff:ff:ff:ff type veth peer name cable");
    host.run("ip link set card master cni0");
    for pod in (0..8).map(|_| host.pod()) {
        let result = add(&host, &layer2(), &pod);
        assert_eq!(host.link("cni0").unwrap()["address"], "f8:ff:ff:ff:ff:ff");
        del(&host, &layer2(), &result, &pod);
    }
}

/// A bridge without an address of its own takes that of a port: the result has the one it has then, by which the
/// reference's CHECK knows it.
#[test]
fn the_result_has_the_mac_of_the_bridge_that_the_pod_has_joined() {
    let host = Host::new();
    host.run("ip link add cni0 type bridge");
    let pods: Vec<_> = (0..4).map(|_| host.pod()).collect();
    for pod in &pods {
        let result = add(&host, &layer2(), pod);
        assert_eq!(result["interfaces"][0]["mac"], host.link("cni0").unwrap()["address"]);
    }
}

/// With a first pod there, so that the bridge and forwarding are: then DEL of the second leaves what ADD found.
#[test]
fn the_state_before_add_is_the_state_after_del() {
    for backend in ["iptables", "nftables"] {
        let host = Host::new();
        let conf = with(&masqueraded(backend), json!({"macspoofchk": true, "hairpinMode": true}));
        let first = host.pod();
        add(&host, &conf, &first);

        let pod = host.pod();
        let (before, pod_before) = (host.state(), pod.state());
        let result = add(&host, &conf, &pod);
        assert_ne!(host.state(), before);
        check(&host, &conf, &result, &pod).success();
        del(&host, &conf, &result, &pod);
        host.state().assert_same(&before);
        // What is left in the pod is of sysctls that no link has: the pod's `lo` has IPv6.
        pod.state().assert_same(&pod_before);
    }
}

#[test]
fn after_the_last_del_only_the_bridge_and_forwarding_are_left() {
    for backend in ["iptables", "nftables"] {
        let host = Host::new();
        let before = host.state();
        let conf = with(&masqueraded(backend), json!({"macspoofchk": true}));
        let pod = host.pod();
        let result = add(&host, &conf, &pod);
        del(&host, &conf, &result, &pod);
        assert_eq!(rules(&host), [""; 0]);
        let after = host.state().without_link("cni0").without("sysctls").without("nft");
        after.assert_same(&before.without("sysctls").without("nft"));
        assert_eq!(links(&host, "bridge"), ["cni0"]);
        assert_eq!(host.addresses("cni0"), ["10.1.0.1/24", "fd00:1::1/64"]);
    }
}

#[test]
fn del_may_be_repeated_and_needs_no_add() {
    let host = Host::new();
    let conf = with(&masqueraded("nftables"), json!({"macspoofchk": true}));
    let pod = host.pod();
    host.plugin("bridge").del(&conf, &pod, "eth0").success();
    let result = add(&host, &conf, &pod);
    for _ in 0..2 {
        del(&host, &conf, &result, &pod);
        assert_eq!((leases(&host), rules(&host)), (vec![], vec![]));
    }
    host.plugin("bridge").del(&conf, &pod, "eth0").success();
}

/// How the pod can be gone when DEL comes. Reference defect 6: its rules leaked in all three.
#[test]
fn del_of_a_pod_that_is_gone_leaves_nothing_of_either_backend() {
    type Vanish = fn(&mut Pod);
    let ways: [(&str, Vanish); 3] = [
        ("no CNI_NETNS", |_| ()),
        ("netns gone", Pod::destroy),
        ("link gone", |pod| drop(pod.run("ip link delete eth0"))),
    ];
    for (way, vanish) in ways {
        for (backend, configured) in
            [("iptables", "nftables"), ("nftables", "iptables"), ("iptables", "iptables"), ("nftables", "nftables")]
        {
            let host = Host::new();
            let conf = with(&masqueraded(backend), json!({"macspoofchk": true}));
            let mut pod = host.pod();
            add(&host, &conf, &pod);
            assert_eq!(leases(&host), [FIRST_V4, FIRST_V6]);
            assert!(rules(&host).len() >= 4, "{:?}", rules(&host));
            vanish(&mut pod);
            let mut plugin = host.plugin("bridge");
            if way == "no CNI_NETNS" {
                plugin = plugin.without_env("CNI_NETNS");
            }
            // Whoever changed the configuration meanwhile has not changed what is there.
            let changed = with(&conf, json!({"ipMasq": false, "macspoofchk": false, "ipMasqBackend": configured}));
            plugin.del(&changed, &pod, "eth0").success();
            assert_eq!(rules(&host), [""; 0], "{way}, made with {backend}, configured {configured}");
            assert_eq!(leases(&host), [""; 0], "{way}");
            plugin.del(&changed, &pod, "eth0").success();
        }
    }
}

/// A pod must be removable whatever the runtime passes by then. The reference refuses a key that it does not know on DEL too.
#[test]
fn del_does_not_judge_cni_args() {
    for args in ["FOO=1", "no pair", "MAC=nonsense"] {
        let host = Host::new();
        let pod = host.pod();
        add(&host, &dual(), &pod);
        host.plugin("bridge").env("CNI_ARGS", args).del(dual(), &pod, "eth0").success();
        assert!(pod.link("eth0").is_none() && leases(&host).is_empty(), "{args}");
    }
}

/// The path of a namespace can go before the namespace does: a process of the pod holds it. Its address is free after
/// DEL, so it must not answer for it any more.
#[test]
fn del_takes_the_interface_of_a_pod_whose_netns_path_alone_is_gone() {
    let host = Host::new();
    let (pod, other) = (host.pod(), host.pod());
    let result = add(&host, &dual(), &pod);
    let name = host_end(&result);
    assert_eq!(host.link(name).unwrap()["ifalias"], format!("net {} eth0", pod.id()));
    add(&host, &dual(), &other);
    let plugin = host.plugin("bridge").env("CNI_NETNS", "/run/netns/gone");
    plugin.del(dual(), &pod, "eth0").success();
    assert!(pod.link("eth0").is_none());
    assert_eq!(links(&host, "veth").len(), 1);
    assert!(other.pings(GATEWAY_V4));
}

/// The reference refuses such a DEL, and the pod stays until somebody mends the file.
#[test]
fn del_works_with_a_configuration_that_was_broken_since() {
    let host = Host::new();
    for broken in [json!({"vlan": 4095}), json!({"mtu": "big"}), json!({"ipMasqBackend": "foo"})] {
        let pod = host.pod();
        add(&host, &dual(), &pod);
        host.plugin("bridge").del(with(&dual(), broken), &pod, "eth0").success();
        assert!(pod.link("eth0").is_none());
        assert_eq!((leases(&host), rules(&host)), (vec![], vec![]));
    }
}

/// Names of 8 hex digits can be the same for two pods. What tells them apart is the alias.
#[test]
fn del_leaves_the_interface_of_another_pod_that_has_the_name() {
    let host = Host::new();
    let pod = host.pod();
    let result = add(&host, &dual(), &pod);
    host.run(&format!("ip link set dev {} alias other", host_end(&result)));
    host.plugin("bridge").without_env("CNI_NETNS").del(dual(), &pod, "eth0").success();
    assert!(pod.link("eth0").is_some());
}

#[test]
fn layer_2_has_no_addresses_and_carries_frames() {
    let host = Host::new();
    let (one, two) = (host.pod(), host.pod());
    let result = add(&host, &layer2(), &one);
    add(&host, &layer2(), &two);
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 3, "{result}");
    assert_eq!((result.get("ips"), result.get("routes")), (None, None), "{result}");
    assert_eq!(one.addresses("eth0"), [""; 0]);
    assert_eq!(host.addresses("cni0"), [""; 0]);
    one.run("ip address add 192.0.2.1/24 dev eth0");
    two.run("ip address add 192.0.2.2/24 dev eth0");
    assert!(one.pings("192.0.2.2"));
    // Reference defect 10: CHECK was impossible without ipam.
    check(&host, &layer2(), &result, &one).success();
    del(&host, &layer2(), &result, &one);
    assert!(one.link("eth0").is_none() && host.link(host_end(&result)).is_none());
}

#[test]
fn a_disabled_interface_stays_down() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&layer2(), json!({"disableContainerInterface": true}));
    let result = add(&host, &conf, &pod);
    let flags = pod.link("eth0").unwrap()["flags"].clone();
    assert!(!flags.as_array().unwrap().contains(&"UP".into()), "{flags}");
    check(&host, &conf, &result, &pod).success();
    del(&host, &conf, &result, &pod);
}

/// ipMasq means nothing without addresses, as in the reference.
#[test]
fn layer_2_is_not_masqueraded() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&layer2(), json!({"ipMasq": true}));
    let result = add(&host, &conf, &pod);
    assert_eq!(rules(&host), [""; 0]);
    check(&host, &conf, &result, &pod).success();
    del(&host, &conf, &result, &pod);
}

#[test]
fn dns_of_the_configuration_replaces_that_of_ipam() {
    let host = Host::new();
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 192.0.2.53\nsearch example.org\noptions ndots:5\n").unwrap();
    let conf = with(&v4(), json!({"ipam": {"resolvConf": resolv_conf}}));
    let of_ipam = json!({"nameservers": ["192.0.2.53"], "search": ["example.org"], "options": ["ndots:5"]});
    for (dns, expected) in [
        (Value::Null, of_ipam.clone()),
        (json!({}), of_ipam),
        (json!({"domain": "example.com"}), json!({"domain": "example.com"})),
        (json!({"nameservers": ["192.0.2.1"]}), json!({"nameservers": ["192.0.2.1"]})),
        (json!({"nameservers": []}), Value::Null),
    ] {
        let pod = host.pod();
        let mut conf = conf.clone();
        conf["dns"] = dns.clone();
        let result = add(&host, &conf, &pod);
        assert_eq!(result["dns"], expected, "dns: {dns}");
    }
}

/// The specification: an unknown key is no error. rkt's configuration has one with a value of text.
#[test]
fn unknown_keys_and_the_case_of_keys_do_not_matter() {
    let host = Host::new();
    let pod = host.pod();
    let conf = json!({"CNIVERSION": "1.0.0", "Name": "net", "TYPE": "bridge", "BRIDGE": "cni0", "IsGateway": true,
        "addIf": "true", "x-mine": [1, {"a": null}], "ipmasq": true, "MTU": 1400, "hairpinmode": null,
        "IPAM": {"Type": "host-local", "Subnet": "10.1.0.0/24", "RANGESTART": "10.1.0.9"}});
    let result = add(&host, &conf, &pod);
    assert_eq!(result["ips"][0]["address"], "10.1.0.9/24");
    assert_eq!(pod.link("eth0").unwrap()["mtu"], 1400);
    assert!(!rules(&host).is_empty());
    check(&host, &conf, &result, &pod).success();
    del(&host, &conf, &result, &pod);
}

#[test]
fn status_says_whether_an_add_could_succeed() {
    let host = Host::new();
    let conf = with(&dual(), json!({"cniVersion": "1.1.0"}));
    host.plugin("bridge").status(&conf).success();
    host.run("ip link add cni0 type veth peer name other");
    let error = host.plugin("bridge").status(&conf).failure();
    assert_eq!(error["code"], 50, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("cni0"), "{error}");
    host.run("ip link delete cni0");
    let missing = with(&conf, json!({"ipam": {"type": "missing"}}));
    let error = host.plugin("bridge").status(missing).failure();
    assert!(error["msg"].as_str().unwrap().contains("missing"), "{error}");
}
