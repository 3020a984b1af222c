//! The pod's port and interface: MTU, MAC, hairpin, promiscuity, isolation, spoof check, duplicate addresses.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::frame::{self, mac};
use tests::{Host, Pod};

use crate::bridge_conf::{FIRST_V6, GATEWAY_V4, GATEWAY_V6, add, check, del, dual, layer2, rules, v4, v6, with};

fn port(host: &Host, result: &Value) -> Value {
    host.link(result["interfaces"][1]["name"].as_str().unwrap()).unwrap()
}

#[test]
fn the_mtu_is_that_of_both_ends_and_of_a_new_bridge() {
    for mtu in [1280, 1460, 9000] {
        let host = Host::new();
        let pod = host.pod();
        let result = add(&host, &with(&dual(), json!({ "mtu": mtu })), &pod);
        for (link, what) in
            [(pod.link("eth0").unwrap(), "pod"), (port(&host, &result), "host"), (host.link("cni0").unwrap(), "bridge")]
        {
            assert_eq!(link["mtu"], mtu, "{what}");
        }
        // IPv4 header and ICMP header are 28 bytes; -M do forbids fragments.
        let full = mtu - 28;
        assert!(pod.try_run(&format!("ping -n -q -c 1 -W 2 -M do -s {full} {GATEWAY_V4}")).status.success());
        assert!(!pod.try_run(&format!("ping -n -q -c 1 -W 1 -M do -s {} {GATEWAY_V4}", full + 1)).status.success());
    }
}

#[test]
fn mtu_0_is_the_kernels() {
    let host = Host::new();
    let pod = host.pod();
    add(&host, &with(&v4(), json!({"mtu": 0})), &pod);
    assert_eq!(pod.link("eth0").unwrap()["mtu"], 1500);
}

/// The kernel makes one for each processor there could be, and then waits for all of them to use one alone.
#[test]
fn both_ends_have_one_queue() {
    let host = Host::new();
    for plugin in ["bridge", "ptp"] {
        let pod = host.pod();
        let mut conf = dual();
        conf["type"] = plugin.into();
        let result = host.plugin(plugin).add(&conf, &pod, "eth0").success();
        let mut of_host = result["interfaces"].as_array().unwrap().iter().filter(|one| one["sandbox"].is_null());
        let name = of_host.next_back().unwrap()["name"].as_str().unwrap();
        for (end, what) in [(pod.link("eth0").unwrap(), "pod"), (host.link(name).unwrap(), "host")] {
            assert_eq!((&end["num_tx_queues"], &end["num_rx_queues"]), (&1.into(), &1.into()), "{plugin}, {what}");
        }
    }
}

fn ipv6_addresses(host: &Host, name: &str) -> Value {
    host.ip(&format!("-6 address show dev {name}")).pointer("/0/addr_info").cloned().unwrap_or_else(|| json!([]))
}

/// The bridge has one. With an address on each port the kernel looks through the routes of all of them for every pod.
#[test]
fn a_port_has_no_ipv6_address() {
    let host = Host::new();
    for reference in host.references("bridge") {
        let (pod, neighbour) = (host.pod(), host.pod());
        let result = add(&host, &dual(), &pod);
        let others = add(&host, &dual(), &neighbour);
        let name = result["interfaces"][1]["name"].as_str().unwrap();
        let address = |result: &Value| result["ips"][1]["address"].as_str().unwrap().replace("/64", "");
        assert!(pod.pings(GATEWAY_V4) && pod.pings(GATEWAY_V6) && pod.pings(&address(&others)));
        assert!(host.pings(&address(&result)));
        // The kernel gives it in the moment of the carrier, which ADD has waited for.
        assert!(ipv6_addresses(&host, "cni0").to_string().contains("fe80::"));
        assert_eq!(ipv6_addresses(&host, name), json!([]));
        assert_eq!(host.sysctl(&format!("net/ipv6/conf/{name}/accept_ra")), "0");
        check(&host, &dual(), &result, &pod).success();
        let known = tests::plugin::with_prev_result(&dual(), &result);
        reference.check(&known, &pod, "eth0").success();
        reference.del(&known, &pod, "eth0").success();
        assert!(host.link(name).is_none());
        del(&host, &dual(), &others, &neighbour);
    }
}

/// Where the host's end has no IPv6, the kernel refuses every word about its addresses.
#[test]
fn a_port_without_ipv6_is_a_port() {
    for (what, mtu, disable_ipv6) in [("an MTU below IPv6's 1280", 1000, "0"), ("disable_ipv6", 1500, "1")] {
        let host = Host::new();
        host.set_sysctl("net/ipv6/conf/default/disable_ipv6", disable_ipv6);
        let pod = host.pod();
        let result = add(&host, &with(&v4(), json!({ "mtu": mtu })), &pod);
        let end = port(&host, &result);
        assert!(end["ifalias"].as_str().is_some_and(|alias| !alias.is_empty()), "{what}: {end}");
        assert_eq!(ipv6_addresses(&host, end["ifname"].as_str().unwrap()), json!([]), "{what}");
        assert!(pod.pings(GATEWAY_V4), "{what}");
        del(&host, &v4(), &result, &pod);
    }
}

#[test]
fn hairpin_isolation_and_promiscuity_are_as_configured() {
    for (keys, hairpin, isolated, promiscuity) in [
        (json!({}), false, false, 0),
        (json!({"hairpinMode": true}), true, false, 0),
        (json!({"portIsolation": true}), false, true, 0),
        (json!({"promiscMode": true}), false, false, 1),
    ] {
        let host = Host::new();
        let pod = host.pod();
        let conf = with(&dual(), keys.clone());
        let result = add(&host, &conf, &pod);
        let data = port(&host, &result)["linkinfo"]["info_slave_data"].clone();
        assert_eq!((&data["hairpin"], &data["isolated"]), (&hairpin.into(), &isolated.into()), "{keys}");
        assert_eq!(host.link("cni0").unwrap()["promiscuity"], promiscuity, "{keys}");
        check(&host, &conf, &result, &pod).success();
    }
}

/// With hairpin a pod reaches itself through an address of the bridge that leads back to it.
#[test]
fn hairpin_lets_a_pod_reach_itself_over_the_bridge() {
    for hairpin in [true, false] {
        let host = Host::new();
        let (pod, bystander) = (host.pod(), host.pod());
        let result = add(&host, &with(&v4(), json!({ "hairpinMode": hairpin })), &pod);
        add(&host, &v4(), &bystander);
        let own = mac(&pod.mac("eth0"));
        // Broadcast from a foreign source, so that what comes back is not taken for the pod's own.
        let frame = frame::arp_request(mac("02:00:00:00:00:77"), own, [10, 1, 0, 77].into(), [10, 1, 0, 99].into());
        let name = result["interfaces"][1]["name"].as_str().unwrap().to_owned();
        let sent = |host: &Host| {
            let link = host.ip(&format!("-s link show dev {name}"));
            link[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
        };
        std::thread::sleep(Duration::from_millis(300)); // the neighbours' first words
        let before = sent(&host);
        (0..20).for_each(|_| pod.send_frame("eth0", &frame));
        std::thread::sleep(Duration::from_millis(100));
        let came_back = sent(&host) - before >= 20;
        assert_eq!(came_back, hairpin, "{} frames went to the pod", sent(&host) - before);
    }
}

#[test]
fn isolated_pods_reach_the_gateway_and_not_each_other() {
    let host = Host::new();
    let isolated = with(&dual(), json!({"portIsolation": true}));
    let (one, two, open) = (host.pod(), host.pod(), host.pod());
    add(&host, &isolated, &one);
    add(&host, &isolated, &two);
    add(&host, &dual(), &open);
    for gateway in [GATEWAY_V4, GATEWAY_V6] {
        assert!(one.pings(gateway) && two.pings(gateway), "{gateway}");
    }
    for (neighbour, of_open) in [("10.1.0.3", "10.1.0.4"), ("fd00:1::3", "fd00:1::4")] {
        assert!(!one.try_run(&format!("ping -n -q -c 1 -W 1 {neighbour}")).status.success(), "{neighbour}");
        assert!(one.pings(of_open), "{of_open}");
    }
}

/// Whether a frame that names `sender` comes out of the neighbour's link.
fn arp_arrives(from: &Pod, to: &Pod, source: frame::Mac, sender: [u8; 4]) -> bool {
    let request = frame::arp_request(source, source, sender.into(), [10, 1, 0, 3].into());
    let send = || from.send_frame("eth0", &request);
    frame::watch(to, "eth0", Duration::from_millis(600), send, move |seen| seen.get(28..32) == Some(&sender)).is_some()
}

fn advertisement_arrives(from: &Pod, to: &Pod, source: frame::Mac, target: &str) -> bool {
    let target: Ipv6Addr = target.parse().unwrap();
    let frame = frame::neighbour_advertisement(source, FIRST_V6.parse().unwrap(), target, source);
    let send = || from.send_frame("eth0", &frame);
    let wanted = move |seen: &[u8]| seen.get(62..78) == Some(&target.octets());
    frame::watch(to, "eth0", Duration::from_millis(600), send, wanted).is_some()
}

#[test]
fn macspoofchk_drops_frames_with_a_foreign_source() {
    let host = Host::new();
    let conf = with(&dual(), json!({"macspoofchk": true}));
    let (checked, free) = (host.pod(), host.pod());
    let result = add(&host, &conf, &checked);
    add(&host, &dual(), &free);
    let (own, foreign) = (mac(&checked.mac("eth0")), mac("02:00:00:00:00:99"));
    assert!(arp_arrives(&checked, &free, own, [10, 1, 0, 78]));
    assert!(!arp_arrives(&checked, &free, foreign, [10, 1, 0, 79]));
    assert!(arp_arrives(&free, &checked, foreign, [10, 1, 0, 80]), "who is not checked may send what he likes");
    assert!(advertisement_arrives(&checked, &free, own, "fd00:1::78"));
    assert!(!advertisement_arrives(&checked, &free, foreign, "fd00:1::79"));
    assert!(checked.pings("10.1.0.3") && checked.pings("fd00:1::3"));
    check(&host, &conf, &result, &checked).success();
    del(&host, &conf, &result, &checked);
    assert_eq!(rules(&host), [""; 0]);
}

/// Names, order and comments as the reference has them: 1 rule to jump, 1 in the private chain, 2 in its `-mac`.
#[test]
fn the_spoof_check_has_the_references_rules() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&layer2(), json!({"macspoofchk": true}));
    let bridge = host.plugin("bridge").env("CNI_CONTAINERID", "ctr1");
    let result = bridge.add(&conf, &pod, "eth0").success();
    let table = host.run("nft list table bridge nat");
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let (port, mac) = (result["interfaces"][1]["name"].as_str().unwrap(), pod.mac("eth0"));
    let comment = r#"comment "macspoofchk-ctr1-eth0""#;
    for line in [
        "chain PREROUTING {",
        &format!("iifname \"{port}\" jump cni-br-iface-ctr1-eth0 {comment}"),
        "chain cni-br-iface-ctr1-eth0 {",
        &format!("jump cni-br-iface-ctr1-eth0-mac {comment}"),
        "chain cni-br-iface-ctr1-eth0-mac {",
        &format!("ether saddr {mac} return {comment}"),
        &format!("drop {comment}"),
    ] {
        assert!(lines.contains(&line), "{line} is missing in\n{table}");
    }
    assert_eq!(table.matches(comment).count(), 4, "{table}");
    bridge.del(&conf, &pod, "eth0").success();
    assert_eq!(rules(&host), [""; 0]);
}

const IN_ARGS: &str = "02:00:00:00:00:01";
const IN_CNI: &str = "02:00:00:00:00:02";
const IN_RUNTIME: &str = "02:00:00:00:00:03";

/// `MAC` of CNI_ARGS counts least, `runtimeConfig.mac` most.
#[test]
fn the_mac_comes_from_the_strongest_source() {
    for (args, cni, runtime, expected) in [
        (true, false, false, IN_ARGS),
        (false, true, false, IN_CNI),
        (false, false, true, IN_RUNTIME),
        (true, true, false, IN_CNI),
        (true, true, true, IN_RUNTIME),
        (true, false, true, IN_RUNTIME),
    ] {
        let host = Host::new();
        let pod = host.pod();
        let mut conf = with(&v4(), json!({"macspoofchk": true}));
        if cni {
            conf = with(&conf, json!({"args": {"cni": {"mac": IN_CNI}}}));
        }
        if runtime {
            conf = with(&conf, json!({"runtimeConfig": {"mac": IN_RUNTIME}}));
        }
        let mut bridge = host.plugin("bridge");
        if args {
            bridge = bridge.env("CNI_ARGS", format!("IgnoreUnknown=1;MAC={IN_ARGS};K8S_POD_NAME=web"));
        }
        let result = bridge.add(&conf, &pod, "eth0").success();
        assert_eq!(pod.mac("eth0"), expected);
        assert_eq!(result["interfaces"][2]["mac"], expected);
        assert_ne!(port(&host, &result)["address"], expected, "the host's end has its own");
        assert!(pod.pings(GATEWAY_V4));
        bridge.check(tests::plugin::with_prev_result(&conf, &result), &pod, "eth0").success();
        bridge.del(&conf, &pod, "eth0").success();
    }
}

/// The other spellings that the reference's parser reads.
#[test]
fn a_mac_may_be_written_with_hyphens_or_dots() {
    for text in ["02-00-00-00-00-aa", "0200.0000.00aa", "02:00:00:00:00:AA"] {
        let host = Host::new();
        let pod = host.pod();
        add(&host, &with(&layer2(), json!({"runtimeConfig": {"mac": text}})), &pod);
        assert_eq!(pod.mac("eth0"), "02:00:00:00:00:aa", "{text}");
    }
}

/// The IPv6 addresses of the pod that IPAM gave, and are still tested.
fn tentative(pod: &Pod) -> Vec<Value> {
    let all = pod.ip("-6 address show dev eth0");
    let addresses = all[0]["addr_info"].as_array().into_iter().flatten();
    addresses.filter(|a| a["scope"] == "global" && a["tentative"] == true).cloned().collect()
}

#[test]
fn an_ipv6_address_is_usable_at_once() {
    let host = Host::new();
    let first = host.pod();
    add(&host, &dual(), &first);
    for conf in [dual(), v6()] {
        let pod = host.pod();
        let start = Instant::now();
        add(&host, &conf, &pod);
        let took = start.elapsed();
        assert_eq!(tentative(&pod), Vec::<Value>::new());
        // The kernel's test for duplicates takes one second and more.
        assert!(took < Duration::from_millis(900), "ADD took {took:?}");
        assert_eq!(pod.sysctl("net/ipv6/conf/eth0/accept_dad"), "0");
        assert_eq!(pod.sysctl("net/ipv6/conf/eth0/keep_addr_on_down"), "1");
        assert_eq!(pod.sysctl("net/ipv4/conf/eth0/arp_notify"), "1");
        assert!(pod.pings(GATEWAY_V6));
    }
}

#[test]
fn enabledad_tests_for_duplicates_before_add_returns() {
    let host = Host::new();
    let conf = with(&dual(), json!({"enabledad": true}));
    let pod = host.pod();
    let result = add(&host, &conf, &pod);
    assert_eq!(tentative(&pod), Vec::<Value>::new());
    assert_eq!(pod.sysctl("net/ipv6/conf/eth0/accept_dad"), "1");
    assert_eq!(pod.sysctl("net/ipv6/conf/eth0/enhanced_dad"), "1");
    assert!(pod.pings(GATEWAY_V6));
    check(&host, &conf, &result, &pod).success();
}

#[test]
fn enabledad_refuses_an_address_that_somebody_has() {
    let host = Host::new();
    let first = host.pod();
    add(&host, &dual(), &first);
    let (second, before) = (host.pod(), host.state());
    // A store of its own knows nothing of the first pod.
    let conf = with(&dual(), json!({"name": "other", "enabledad": true}));
    let error = host.plugin("bridge").add(&conf, &second, "eth0").failure();
    assert!(error["msg"].as_str().unwrap().contains(FIRST_V6), "{error}");
    host.state().assert_same(&before);
}

/// Where a runtime has switched IPv6 off for its pods, an IPv6 address switches it on for this link.
#[test]
fn ipv6_is_switched_on_where_there_is_an_address() {
    let host = Host::new();
    let pod = host.pod();
    for link in ["all", "default"] {
        pod.set_sysctl(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1");
    }
    add(&host, &dual(), &pod);
    assert_eq!(pod.sysctl("net/ipv6/conf/eth0/disable_ipv6"), "0");
    assert!(pod.pings(GATEWAY_V6));
}
