//! portmap's rules: as the reference writes them, each attachment's own, and its defects (P1 to P22 of our list), mended.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Plugin, Pod};

use crate::bridge_conf::with;
use crate::parallel::at_once;
use crate::portmap_conf::{
    BACKENDS, PORT, add, both, chain, check, conf, connect, del, legacy, mapping, nft_chain, result_of, rules,
};

const ADDRESSES: [&str; 2] = ["10.77.0.2/24", "fd00:77::2/64"];

/// The reference's documented network and container.
fn spec(host: &Host) -> Plugin<'_> {
    host.plugin("portmap").env("CNI_CONTAINERID", "ctr1")
}

fn spec_conf(pod: &Pod, keys: Value) -> Value {
    with(&json!({"cniVersion": "1.0.0", "name": "spec2net", "prevResult": result_of(pod, &ADDRESSES)}), keys)
}

fn mappings(list: Value) -> Value {
    json!({"runtimeConfig": {"portMappings": list}})
}

#[test]
fn the_iptables_rules_are_the_references() {
    let host = Host::new();
    let pod = host.pod();
    let mut with_address = mapping("udp", 5353, 53);
    with_address["hostIP"] = "10.77.0.1".into();
    let list = json!([mapping("TCP", 8080, 80), with_address, mapping("sctp", 9000, 9001)]);
    let conf = spec_conf(&pod, mappings(list));
    spec(&host).add(&conf, &pod, "eth0").success();

    for from in ["PREROUTING", "OUTPUT"] {
        assert_eq!(chain(&host, "iptables", from), ["-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT"]);
    }
    let comment = r#"-m comment --comment "dnat name: \"spec2net\" id: \"ctr1\"" -m multiport --dports"#;
    let jump = "-j CNI-DN-4a087b41196ab77113b3f";
    let entries = ["sctp 9000", "tcp 8080", "udp 5353"].map(|entry| {
        let (protocol, port) = entry.split_once(' ').unwrap();
        format!("-p {protocol} {comment} {port} {jump}")
    });
    let masquerade = [r#"-m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ"#];
    for (program, network, to, local) in
        [("iptables", "10.77.0.0/24", "10.77.0.2", true), ("ip6tables", "fd00:77::/64", "[fd00:77::2]", false)]
    {
        assert_eq!(chain(&host, program, "CNI-HOSTPORT-DNAT"), entries);
        assert_eq!(chain(&host, program, "POSTROUTING"), masquerade);
        assert_eq!(chain(&host, program, "CNI-HOSTPORT-MASQ"), ["-m mark --mark 0x2000/0x2000 -j MASQUERADE"]);
        let set_mark = r#"-m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000"#;
        assert_eq!(chain(&host, program, "CNI-HOSTPORT-SETMARK"), [set_mark]);
        let mut expected = Vec::new();
        for (on, ports, target) in [
            ("", "-p tcp -m tcp --dport 8080", 80),
            (" -d 10.77.0.1/32", "-p udp -m udp --dport 5353", 53),
            ("", "-p sctp -m sctp --dport 9000", 9001),
        ] {
            if !local && !on.is_empty() {
                continue;
            }
            expected.push(format!("-s {network}{on} {ports} -j CNI-HOSTPORT-SETMARK"));
            expected.extend(local.then(|| format!("-s 127.0.0.1/32{on} {ports} -j CNI-HOSTPORT-SETMARK")));
            expected.push(format!("{on} {ports} -j DNAT --to-destination {to}:{target}").trim().to_owned());
        }
        let mut present = chain(&host, program, "CNI-DN-4a087b41196ab77113b3f");
        let tag = present.pop().unwrap();
        assert_eq!(present, expected, "{program}");
        assert!(tag.contains("net: spec2net, if: eth0, id: ctr1") && !tag.contains("-j"), "{tag}");
    }
    spec(&host).check(&conf, &pod, "eth0").success();
    spec(&host).del(&conf, &pod, "eth0").success();
    assert_eq!(rules(&host), [""; 0]);
}

#[test]
fn fifteen_ports_are_one_rule_and_sixteen_are_two() {
    let host = Host::new();
    let pod = host.pod();
    let list: Vec<Value> = (0..16).map(|number| mapping("tcp", 8000 + number, 80)).collect();
    let conf = spec_conf(&pod, mappings(list.into()));
    spec(&host).add(&conf, &pod, "eth0").success();
    let entries = chain(&host, "iptables", "CNI-HOSTPORT-DNAT");
    assert_eq!(entries.len(), 2);
    assert!(entries[0].contains("8000,8001") && entries[0].contains("8014 ") && entries[1].contains("--dports 8015 "));
    spec(&host).check(&conf, &pod, "eth0").success();
}

#[test]
fn the_nftables_rules_are_the_references_and_the_mark() {
    let host = Host::new();
    let pod = host.pod();
    let mut with_address = mapping("udp", 5354, 53);
    with_address["hostIP"] = "10.77.0.1".into();
    let list = json!([mapping("tcp", 8181, 80), with_address, mapping("SCTP", 9100, 9001)]);
    let conf = spec_conf(&pod, with(&mappings(list), json!({"backend": "nftables"})));
    spec(&host).add(&conf, &pod, "eth0").success();
    let comment = r#"comment "ctr1""#;
    let mark = "meta mark set meta mark | 0x00002000";
    let expected = [
        format!("ip saddr 10.77.0.0/24 tcp dport 8181 {mark} {comment}"),
        format!("tcp dport 8181 dnat to 10.77.0.2:80 {comment}"),
        format!("ip saddr 10.77.0.0/24 ip daddr 10.77.0.1 udp dport 5354 {mark} {comment}"),
        format!("ip daddr 10.77.0.1 udp dport 5354 dnat to 10.77.0.2:53 {comment}"),
        format!("ip saddr 10.77.0.0/24 sctp dport 9100 {mark} {comment}"),
        format!("sctp dport 9100 dnat to 10.77.0.2:9001 {comment}"),
    ];
    assert_eq!(nft_chain(&host, "ip", "hostports"), expected);
    assert_eq!(nft_chain(&host, "ip6", "hostports").len(), 4);
    assert_eq!(nft_chain(&host, "ip", "hostports_all"), ["jump hostip_hostports", "jump hostports"]);
    for from in ["prerouting", "output"] {
        assert_eq!(nft_chain(&host, "ip", from), ["fib daddr type local jump hostports_all"]);
    }
    let marked = r#"meta mark & 0x00002000 == 0x00002000 masquerade comment "CNI portfwd requiring masquerade""#;
    assert_eq!(
        nft_chain(&host, "ip", "masquerading"),
        [
            format!("ip saddr 10.77.0.2 ip daddr 10.77.0.2 masquerade {comment}"),
            format!("ip saddr 127.0.0.1 ip daddr 10.77.0.2 masquerade {comment}"),
            marked.to_owned(),
        ]
    );
    spec(&host).check(&conf, &pod, "eth0").success();
    spec(&host).del(&conf, &pod, "eth0").success();
    assert_eq!(rules(&host), [""; 0]);
}

/// P1, P13: and P10, where the address is another by then.
#[test]
fn a_second_add_replaces_the_first() {
    for backend in BACKENDS {
        let host = Host::new();
        let pod = host.pod();
        let conf = conf(backend, both(PORT, 80));
        let first = result_of(&pod, &ADDRESSES);
        add(&host, &conf, &first, &pod).success();
        let before = rules(&host);
        add(&host, &conf, &first, &pod).success();
        assert_eq!(rules(&host), before, "{backend}");
        let second = result_of(&pod, &["10.77.0.3/24", "fd00:77::3/64"]);
        add(&host, &conf, &second, &pod).success();
        assert_eq!(rules(&host).len(), before.len(), "{backend}");
        assert!(!rules(&host).iter().any(|rule| rule.contains("77.0.2") || rule.contains("77::2")), "{backend}");
        check(&host, &conf, &second, &pod).success();
        check(&host, &conf, &first, &pod).failure();
        del(&host, &conf, &second, &pod);
        assert_eq!(rules(&host), [""; 0], "{backend}");
    }
}

/// P11: and the late DEL of the one before leaves it, which is said on stderr.
#[test]
fn the_newest_add_has_the_port() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let (old, new) = (host.pod(), host.pod());
        let server = new.listen();
        let conf = conf(backend, both(PORT, server.port()));
        let old_result = connect(&host, "bridge", &conf, &old);
        let new_result = host.plugin("bridge").add(crate::portmap_conf::main_conf("bridge"), &new, "eth0").success();
        let outcome = add(&host, &conf, &new_result, &new);
        outcome.success();
        for word in [&*old.id(), &*new.id(), "\"net\"", "\"eth0\"", "8080"] {
            assert!(outcome.stderr.contains(word), "{backend}: {word} is not in {}", outcome.stderr);
        }
        let node = tests::Internet::HOST_V4.to_string();
        assert!(internet.asks_at(&node, PORT).is_ok(), "{backend}");
        del(&host, &conf, &old_result, &old);
        check(&host, &conf, &new_result, &new).success();
        assert!(internet.asks_at(&node, PORT).is_ok(), "{backend}");
    }
}

#[test]
fn one_port_on_two_addresses_or_of_two_protocols_is_no_conflict() {
    for backend in BACKENDS {
        let host = Host::new();
        let on = |protocol: &str, ip: &str| {
            let mut mapping = mapping(protocol, PORT, 80);
            mapping["hostIP"] = ip.into();
            conf(backend, json!([mapping]))
        };
        for (number, conf) in
            [on("tcp", "192.0.2.1"), on("tcp", "192.0.2.2"), on("udp", ""), on("tcp", "::")].iter().enumerate()
        {
            let pod = host.pod();
            let addresses = [format!("10.77.0.{}/24", number + 2), format!("fd00:77::{}/64", number + 2)];
            let result = result_of(&pod, &[&addresses[0], &addresses[1]]);
            let outcome = add(&host, conf, &result, &pod);
            outcome.success();
            assert_eq!(outcome.stderr, "", "{backend} {conf}");
            check(&host, conf, &result, &pod).success();
        }
        let pod = host.pod();
        let outcome = add(&host, &on("tcp", "0.0.0.0"), &result_of(&pod, &["10.77.0.9/24"]), &pod);
        outcome.success();
        assert_eq!(outcome.stderr.lines().count(), 2, "{backend}: {}", outcome.stderr);
    }
}

/// P3, P4: neither the network nor the interface is in the reference's comment or chain.
#[test]
fn each_attachment_of_a_container_has_its_own_rules() {
    for backend in BACKENDS {
        let host = Host::new();
        let pod = host.pod();
        let portmap = host.plugin("portmap");
        let attachments = [("net", "eth0", 2), ("net", "eth1", 3), ("other", "eth2", 4)];
        let confs = attachments.map(|(network, ifname, number)| {
            let mut result = result_of(&pod, &[&format!("10.77.0.{number}/24"), &format!("fd00:77::{number}/64")]);
            result["interfaces"][1]["name"] = ifname.into();
            let conf = conf(backend, both(8000 + number, 80));
            with(&with_prev_result(&conf, &result), json!({"name": network}))
        });
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
            for ((_, ifname, _), conf) in attachments.iter().zip(&confs) {
                portmap.add(conf, &pod, ifname).success();
            }
            for (gone, which) in order.iter().enumerate() {
                portmap.del(&confs[*which], &pod, attachments[*which].1).success();
                for left in &order[gone + 1..] {
                    portmap.check(&confs[*left], &pod, attachments[*left].1).success();
                }
            }
            assert_eq!(rules(&host), [""; 0], "{backend} {order:?}");
        }
    }
}

/// P4: network and container are joined without a separator in the name of the chain.
#[test]
fn two_containers_whose_chains_have_one_name() {
    let host = Host::new();
    let pods = [host.pod(), host.pod()];
    let confs = [("ab", "c", 2_u16), ("a", "bc", 3)].map(|(network, id, number)| {
        let result = result_of(&pods[usize::from(number) - 2], &[&format!("10.77.0.{number}/24")]);
        let conf = conf("iptables", json!([mapping("tcp", 8000 + number, 80)]));
        (with(&with_prev_result(&conf, &result), json!({"name": network})), id)
    });
    for ((conf, id), pod) in confs.iter().zip(&pods) {
        host.plugin("portmap").env("CNI_CONTAINERID", id).add(conf, pod, "eth0").success();
    }
    host.plugin("portmap").env("CNI_CONTAINERID", "c").del(&confs[0].0, &pods[0], "eth0").success();
    host.plugin("portmap").env("CNI_CONTAINERID", "bc").check(&confs[1].0, &pods[1], "eth0").success();
    host.plugin("portmap").env("CNI_CONTAINERID", "bc").del(&confs[1].0, &pods[1], "eth0").success();
    assert_eq!(rules(&host), [""; 0]);
}

/// P2: the reference has them in the rule that all share, where the last ADD's hold for everybody.
#[test]
fn conditions_are_an_attachments_own() {
    for (backend, conditions) in [
        ("iptables", json!(["!", "-s", "198.51.100.0/24"])),
        ("nftables", json!(["ip", "saddr", "!=", "198.51.100.0/24"])),
    ] {
        let host = Host::new();
        let internet = host.internet();
        let (with_conditions, without) = (host.pod(), host.pod());
        let (first, second) = (with_conditions.listen(), without.listen());
        let open = conf(backend, both(PORT + 1, second.port()));
        let open_result = connect(&host, "bridge", &open, &without);
        let closed = with(&conf(backend, both(PORT, first.port())), json!({"conditionsV4": conditions}));
        let result = connect(&host, "bridge", &closed, &with_conditions);
        check(&host, &closed, &result, &with_conditions).success();
        let node = tests::Internet::HOST_V4.to_string();
        assert!(internet.asks_at(&node, PORT).is_err(), "{backend}");
        assert!(internet.asks_at(&node, PORT + 1).is_ok(), "{backend}");
        assert!(without.asks_at(&node, PORT).is_ok(), "{backend}");
        assert!(internet.asks_at(&tests::Internet::HOST_V6.to_string(), PORT).is_ok(), "{backend}");
        // A second ADD, without them.
        let opened = conf(backend, both(PORT, first.port()));
        add(&host, &opened, &result, &with_conditions).success();
        assert!(!host.run("nft list ruleset").contains("conditions-"), "{backend}");
        assert!(internet.asks_at(&node, PORT).is_ok(), "{backend}");
        del(&host, &closed, &result, &with_conditions);
        del(&host, &open, &open_result, &without);
        assert_eq!(rules(&host), [""; 0], "{backend}");
        assert!(!host.run("nft list ruleset").contains("conditions-"), "{backend}");
    }
}

/// P6, with iptables and with nftables: whose address the pod sees.
#[test]
fn everybody_is_masqueraded_if_asked_for() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let pod = host.pod();
        let server = pod.listen();
        let conf = with(&conf(backend, both(PORT, server.port())), json!({"masqAll": true, "markMasqBit": 5}));
        let result = connect(&host, "bridge", &conf, &pod);
        for (node, gateway) in [(tests::Internet::HOST_V4, "10.1.0.1"), (tests::Internet::HOST_V6, "fd00:1::1")] {
            assert_eq!(internet.asks_at(&node.to_string(), PORT), Ok(gateway.parse().unwrap()), "{backend}");
        }
        let ruleset = host.run("nft list ruleset");
        assert!(!ruleset.contains("0x2000") && !ruleset.contains("0x00002000"), "{backend}: {ruleset}");
        check(&host, &conf, &result, &pod).success();
        check(&host, &with(&conf, json!({"markMasqBit": 6})), &result, &pod).failure();
    }
}

/// P22: the reference leaves the mark of before beside the new one.
#[test]
fn another_mark_replaces_the_one_before() {
    let host = Host::new();
    let (one, two) = (host.pod(), host.pod());
    let conf = conf("iptables", both(PORT, 80));
    add(&host, &conf, &result_of(&one, &ADDRESSES), &one).success();
    let other = with(&conf, json!({"markMasqBit": 5}));
    add(&host, &other, &result_of(&two, &["10.77.0.3/24"]), &two).success();
    for (name, sign) in [("CNI-HOSTPORT-SETMARK", "--set-xmark 0x20/0x20"), ("CNI-HOSTPORT-MASQ", "--mark 0x20/0x20")] {
        let rules = chain(&host, "iptables", name);
        assert!(rules.len() == 1 && rules[0].contains(sign), "{rules:?}");
    }
}

#[test]
fn somebody_elses_chain_may_set_the_mark() {
    let host = Host::new();
    let pod = host.pod();
    let conf =
        with(&conf("iptables", json!([mapping("tcp", PORT, 80)])), json!({"externalSetMarkChain": "PLEASE_MARK"}));
    let result = result_of(&pod, &ADDRESSES[..1]);
    let before = host.state();
    let outcome = add(&host, &conf, &result, &pod);
    assert!(outcome.failure()["msg"].as_str().unwrap().contains("PLEASE_MARK"), "{outcome}");
    assert_eq!(host.state().without("nft").difference(&before.without("nft")), "", "nothing is left of it");
    host.run("iptables -t nat -N PLEASE_MARK");
    add(&host, &conf, &result, &pod).success();
    check(&host, &conf, &result, &pod).success();
    assert_eq!(rules(&host).iter().filter(|rule| rule.ends_with("-j PLEASE_MARK")).count(), 2);
    assert!(chain(&host, "iptables", "POSTROUTING").is_empty());
    del(&host, &conf, &result, &pod);
    assert_eq!(rules(&host), [""; 0]);
}

/// P15: duplicates of what is shared, and ADDs that fail.
#[test]
fn twenty_first_adds_at_once_make_what_is_shared_once() {
    for (backend, flavour) in [("iptables", "nft"), ("nftables", "nft"), ("iptables", "legacy")] {
        let host = Host::new();
        let path = legacy();
        let mut portmap = host.plugin("portmap");
        if flavour == "legacy" {
            portmap = portmap.env("PATH", path.path().display());
        }
        let pods: Vec<Pod> = (0..20).map(|_| host.pod()).collect();
        let confs: Vec<Value> = (0..20_u16)
            .map(|number| {
                let conf = conf(backend, both(8000 + number, 80));
                let addresses = [format!("10.77.0.{}/24", number + 2), format!("fd00:77::{:x}/64", number + 2)];
                with_prev_result(&conf, &result_of(&pods[usize::from(number)], &[&addresses[0], &addresses[1]]))
            })
            .collect();
        let (portmap, confs) = (&portmap, &confs);
        at_once(&pods, |number, pod| portmap.add(&confs[number], pod, "eth0").success());
        at_once(&pods, |number, pod| portmap.check(&confs[number], pod, "eth0").success());
        if backend == "iptables" {
            for program in ["iptables", "ip6tables"] {
                let program = if flavour == "legacy" { format!("{program}-legacy") } else { program.to_owned() };
                for name in ["PREROUTING", "OUTPUT", "POSTROUTING", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"] {
                    assert_eq!(chain(&host, &program, name).len(), 1, "{program} {name}");
                }
                assert_eq!(chain(&host, &program, "CNI-HOSTPORT-DNAT").len(), 40, "{program}");
            }
        } else {
            for family in ["ip", "ip6"] {
                for name in ["prerouting", "output"] {
                    assert_eq!(nft_chain(&host, family, name).len(), 1);
                }
                assert_eq!(nft_chain(&host, family, "hostports").len(), 80);
            }
        }
        at_once(&pods, |number, pod| portmap.del(&confs[number], pod, "eth0").success());
        let left: BTreeSet<String> = if flavour == "legacy" {
            chain(&host, "iptables-legacy", "CNI-HOSTPORT-DNAT").into_iter().collect()
        } else {
            rules(&host).into_iter().collect()
        };
        assert_eq!(left, BTreeSet::new(), "{backend} {flavour}");
    }
}

/// P9: of the reference's DELs of one container, at once, some fail.
#[test]
fn ten_dels_of_one_attachment_all_succeed() {
    for backend in BACKENDS {
        let host = Host::new();
        let pod = host.pod();
        let conf = conf(backend, both(PORT, 80));
        let result = result_of(&pod, &ADDRESSES);
        add(&host, &conf, &result, &pod).success();
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| del(&host, &conf, &result, &pod));
            }
        });
        assert_eq!(rules(&host), [""; 0]);
    }
}

/// P8: nft takes no comment of more than 128 bytes.
#[test]
fn a_long_container_id() {
    for backend in BACKENDS {
        let host = Host::new();
        let pod = host.pod();
        let portmap = host.plugin("portmap").env("CNI_CONTAINERID", "x".repeat(240));
        let conf = with_prev_result(&conf(backend, both(PORT, 80)), &result_of(&pod, &ADDRESSES));
        portmap.add(&conf, &pod, "eth0").success();
        host.run("nft list ruleset");
        portmap.check(&conf, &pod, "eth0").success();
        portmap.del(&conf, &pod, "eth0").success();
        assert_eq!(rules(&host), [""; 0]);
    }
}

#[test]
fn both_ip_versions_have_their_own_mappings() {
    for backend in BACKENDS {
        let host = Host::new();
        let pod = host.pod();
        let on = |port: u16, ip: &str| {
            let mut mapping = mapping("tcp", port, 80);
            mapping["hostIP"] = ip.into();
            mapping
        };
        let list = json!([on(1, ""), on(2, "0.0.0.0"), on(3, "::"), on(4, "192.0.2.1"), on(5, "2001:db8::1")]);
        let conf = with(&conf(backend, list), json!({"snat": false}));
        let result = result_of(&pod, &ADDRESSES);
        add(&host, &conf, &result, &pod).success();
        check(&host, &conf, &result, &pod).success();
        let to = |v6: bool| -> Vec<String> {
            let sign = if v6 { "fd00:77::2]:80" } else { "10.77.0.2:80" };
            rules(&host).into_iter().filter(|rule| rule.contains(sign)).collect()
        };
        assert_eq!((to(false).len(), to(true).len()), (3, 3), "{backend}: {:?}", rules(&host));
        assert!(to(false)[2].contains("192.0.2.1") && to(true)[2].contains("2001:db8::1"), "{backend}");
        assert!(!rules(&host).iter().any(|rule| rule.contains("mark") || rule.contains("MARK")), "{backend}");
        assert_eq!(host.sysctl("net/ipv4/conf/all/route_localnet"), "0");
    }
}
