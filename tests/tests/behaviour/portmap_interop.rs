//! portmap against the reference: what one suite ADDed, the other CHECKs and DELs, and nothing is left.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::with_prev_result;
use tests::{Host, Plugin, namespace};

use crate::bridge_conf::with;
use crate::portmap_conf::{addresses, both, chain, conf, main_conf, mapping, rules};

/// The attachments for every pair of suites, with the IP versions of the pod.
fn mapped(newer: bool, port: u16, container_port: u16) -> Vec<(&'static str, Value)> {
    let on = |ip: &str| with(&mapping("udp", port + 1, container_port), json!({"hostIP": ip}));
    let mut list = both(port, container_port);
    list.as_array_mut().unwrap().extend([on("198.51.100.1"), on("::"), mapping("sctp", port, container_port)]);
    // 1.1.1 has no key `backend`, and ignores it.
    let iptables = conf("iptables", list);
    let mut all = vec![
        ("iptables", iptables.clone()),
        ("iptables at 0.4.0", with(&iptables, json!({"cniVersion": "0.4.0"}))),
        ("iptables without snat", with(&iptables, json!({"snat": false}))),
        ("iptables with another mark", with(&iptables, json!({"markMasqBit": 7}))),
        ("iptables with conditions", with(&iptables, json!({"conditionsV4": ["!", "-s", "203.0.113.0/24"]}))),
    ];
    if newer {
        let nftables = with(&iptables, json!({"backend": "nftables"}));
        all.push(("iptables, all masqueraded", with(&iptables, json!({"masqAll": true}))));
        all.push(("nftables without snat", with(&nftables, json!({"snat": false}))));
        all.push(("nftables", nftables));
    }
    all
}

fn pair(adder: &Plugin<'_>, remover: &Plugin<'_>, host: &Host, what: &str, conf: &Value, ipv4_only: bool) {
    let internet = host.internet();
    let (first, pod) = (host.pod(), host.pod());
    let server = pod.listen();
    let mut main = with(&main_conf("bridge"), json!({"cniVersion": conf["cniVersion"]}));
    if ipv4_only {
        main["ipam"]["ranges"].as_array_mut().unwrap().truncate(1);
    }
    let conf_of = |port: u16, container_port: u16| {
        let mut conf = conf.clone();
        for mapping in conf["runtimeConfig"]["portMappings"].as_array_mut().unwrap() {
            mapping["containerPort"] = container_port.into();
            mapping["hostPort"] = (mapping["hostPort"].as_u64().unwrap() + u64::from(port)).into();
        }
        conf
    };
    // The first pod is the other suite's: they share the chains.
    let first_result = host.plugin("bridge").add(&main, &first, "eth0").success();
    let first_conf = with_prev_result(&conf_of(100, 80), &first_result);
    remover.add(&first_conf, &first, "eth0").success();
    let before = rules(host);
    let result = host.plugin("bridge").add(&main, &pod, "eth0").success();
    let known = with_prev_result(&conf_of(0, server.port()), &result);
    adder.add(&known, &pod, "eth0").success();
    for (address, node) in addresses(&result).iter().zip([tests::Internet::HOST_V4, tests::Internet::HOST_V6]) {
        assert!(internet.asks_at(&node.to_string(), 8000).is_ok(), "{what}: {node} to {address}");
    }
    remover.check(&known, &pod, "eth0").success();
    adder.check(&known, &pod, "eth0").success();
    adder.check(&first_conf, &first, "eth0").success();
    remover.del(&known, &pod, "eth0").success();
    assert_eq!(rules(host), before, "{what}");
    // And the first goes by the hand that did not make it.
    remover.check(&first_conf, &first, "eth0").success();
    adder.del(&first_conf, &first, "eth0").success();
    assert_eq!(rules(host), [""; 0], "{what}");
}

/// A directory without ip6tables. 1.1.1's CHECK asks every iptables that there is for the rules of one address: with both it
/// finds none right, its own neither.
fn iptables_alone() -> TempDir {
    let directory = TempDir::new().unwrap();
    symlink(namespace::find("iptables").unwrap(), directory.path().join("iptables")).unwrap();
    directory
}

fn every_pair(order: for<'a> fn(Plugin<'a>, Plugin<'a>) -> (Plugin<'a>, Plugin<'a>)) {
    for which in 0..Host::new().references("portmap").len() {
        let versions = Host::new().references("portmap")[which].version().success()["supportedVersions"].clone();
        let newer = versions.as_array().unwrap().contains(&"1.1.0".into());
        for (what, conf) in mapped(newer, 8000, 80) {
            let host = Host::new();
            let mut theirs = host.references("portmap").swap_remove(which);
            let path = iptables_alone();
            if !newer {
                theirs = theirs.env("PATH", path.path().display());
            }
            let (adder, remover) = order(host.plugin("portmap"), theirs);
            pair(&adder, &remover, &host, &format!("{what}, reference {which}"), &conf, !newer);
        }
    }
}

#[test]
fn what_the_reference_added_we_check_and_delete() {
    every_pair(|ours, theirs| (theirs, ours));
}

#[test]
fn what_we_added_the_reference_checks_and_deletes() {
    every_pair(|ours, theirs| (ours, theirs));
}

/// Our CHECK takes a dual-stack pod of 1.1.1, and our DEL removes it; its CHECK does not.
#[test]
fn a_dual_stack_pod_of_every_reference_is_checked_and_deleted() {
    for which in 0..Host::new().references("portmap").len() {
        let host = Host::new();
        let pod = host.pod();
        let result = host.plugin("bridge").add(main_conf("bridge"), &pod, "eth0").success();
        let known = with_prev_result(&conf("iptables", both(8000, 80)), &result);
        host.references("portmap")[which].add(&known, &pod, "eth0").success();
        host.plugin("portmap").check(&known, &pod, "eth0").success();
        host.plugin("portmap").del(&known, &pod, "eth0").success();
        assert_eq!(rules(&host), [""; 0]);
    }
}

/// What the reference added is replaced, not joined, by our ADD: also its duplicates of what is shared.
#[test]
fn our_add_after_theirs_leaves_one() {
    for (which, backend) in [(0, "iptables"), (1, "iptables"), (1, "nftables")] {
        let host = Host::new();
        let pod = host.pod();
        let Some(theirs) = host.references("portmap").into_iter().nth(which) else { continue };
        let result = host.plugin("bridge").add(main_conf("bridge"), &pod, "eth0").success();
        let known = with_prev_result(&conf(backend, both(8000, 80)), &result);
        let ours = host.plugin("portmap");
        ours.add(&known, &pod, "eth0").success();
        let alone = rules(&host);
        ours.del(&known, &pod, "eth0").success();
        theirs.add(&known, &pod, "eth0").success();
        host.run("iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j ACCEPT");
        ours.add(&known, &pod, "eth0").success();
        let (mut found, mut expected) = (rules(&host), alone);
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{backend}, reference {which}");
        ours.check(&known, &pod, "eth0").success();
        theirs.del(&known, &pod, "eth0").success();
        assert_eq!(rules(&host), [""; 0]);
    }
}

/// Before its version 0.7 the reference had chains for the source, too.
#[test]
fn chains_of_the_reference_before_its_0_7_go_as_well() {
    let host = Host::new();
    let pod = host.pod();
    let old = "CNI-SN-4a087b41196ab77113b3f";
    for command in ["-N CNI-HOSTPORT-SNAT", &format!("-N {old}"), &format!("-A CNI-HOSTPORT-SNAT -j {old}")] {
        host.run(&format!("iptables -t nat {command}"));
    }
    let conf = json!({"cniVersion": "1.0.0", "name": "spec2net"});
    host.plugin("portmap").env("CNI_CONTAINERID", "ctr1").del(&conf, &pod, "eth0").success();
    assert_eq!(chain(&host, "iptables", "CNI-HOSTPORT-SNAT"), [""; 0]);
    assert!(!host.run("iptables-save -t nat").contains("CNI-SN-"));
}
