//! firewall: the reference's list of tests, and that its rules are what independent code reads.
//!
//! That of firewalld is with its own tests; that of the policies is by packets (`firewall_policy`).

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Pod};

use crate::bridge_conf::with;
use crate::firewall_conf::{FLAVOURS, Node, addresses, net, programs, reaches};

/// The reference's versions.
const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];

/// A result of another plugin, as the reference's tests have it: an address of each family.
fn result(version: &str) -> Value {
    let mut ips =
        json!([{"address": "10.0.0.2/24", "interface": 0}, {"address": "2001:db8:1:2::1/64", "interface": 0}]);
    let mut result = json!({"cniVersion": version, "interfaces": [{"name": "dummy0"}]});
    if version < "1.0.0" {
        ips[0]["version"] = "4".into();
        ips[1]["version"] = "6".into();
        result["dns"] = json!({});
    }
    result["ips"] = ips;
    result
}

fn conf(version: &str, keys: Value) -> Value {
    let conf = json!({"cniVersion": version, "name": "test", "type": "firewall", "backend": "iptables",
        "ifName": "dummy0", "prevResult": result(version)});
    with(&conf, keys)
}

const FAMILIES: [(&str, &str); 2] = [("iptables", "10.0.0.2/32"), ("ip6tables", "2001:db8:1:2::1/128")];

/// The rules of the pod as the reference writes them, and ours behind them.
fn assert_rules(node: &Node, admin: &str, pod: &Pod) {
    for (program, address) in FAMILIES {
        let forward = node.rules(program, "FORWARD");
        assert_eq!(forward, ["-A FORWARD -m comment --comment \"CNI firewall plugin rules\" -j CNI-FORWARD"]);
        let rules = node.rules(program, "CNI-FORWARD");
        assert_eq!(
            rules[..3],
            [
                format!("-A CNI-FORWARD -m comment --comment \"CNI firewall plugin admin overrides\" -j {admin}"),
                format!("-A CNI-FORWARD -d {address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
                format!("-A CNI-FORWARD -s {address} -j ACCEPT"),
            ]
        );
        let ours = format!("-A CNI-FORWARD -d {address} -m conntrack --ctstate DNAT -m comment --comment ");
        assert!(rules[3].starts_with(&ours) && rules[3].ends_with(" -j ACCEPT"), "{}", rules[3]);
        assert!(
            rules[3].contains(", net: test, if: dummy0, id: ") && rules[3].contains(&pod.id()[..50]),
            "{}",
            rules[3]
        );
        assert_eq!(rules.len(), 4);
        assert_eq!(node.rules(program, admin), [""; 0]);
    }
}

fn lifecycle(flavour: &'static str, version: &str, keys: Value, admin: &str) {
    let node = Node::new(flavour);
    let (firewall, pod) = (node.firewall(), node.host.pod());
    let conf = conf(version, keys);
    assert_eq!(firewall.add(&conf, &pod, "dummy0").success(), result(version), "the previous result passes through");
    assert_rules(&node, admin, &pod);
    // A second one changes nothing.
    let before = node.host.state();
    firewall.add(&conf, &pod, "dummy0").success();
    node.host.state().assert_same(&before);
    firewall.check(&conf, &pod, "dummy0").success();
    node.host.state().assert_same(&before);
    for _ in 0..2 {
        firewall.del(&conf, &pod, "dummy0").success();
        for (program, _) in FAMILIES {
            assert_eq!(node.rules(program, "FORWARD").len(), 1, "chains and jumps stay");
            assert_eq!(node.rules(program, "CNI-FORWARD").len(), 1);
        }
    }
    firewall.check(&conf, &pod, "dummy0").failure();
}

#[test]
fn the_references_list() {
    for version in VERSIONS {
        lifecycle("nft", version, json!({}), "CNI-ADMIN");
    }
    lifecycle("legacy", "1.0.0", json!({}), "CNI-ADMIN");
}

#[test]
fn an_admin_chain_of_another_name() {
    for flavour in ["nft", "legacy"] {
        lifecycle(flavour, "1.0.0", json!({"iptablesAdminChainName": "CNI-foobar"}), "CNI-foobar");
    }
}

#[test]
fn an_older_version_is_refused() {
    let host = Host::new();
    let pod = host.pod();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1"] {
        let conf = json!({"cniVersion": version, "name": "test", "type": "firewall"});
        assert_eq!(host.plugin("firewall").add(conf, &pod, "eth0").code(), 1);
    }
    let supported = host.plugin("firewall").version().success()["supportedVersions"].clone();
    assert_eq!(supported, json!(VERSIONS));
}

/// Chains that an administrator made before the first pod, with rules in them, are not touched.
#[test]
fn the_admin_chain_is_the_administrators() {
    for flavour in ["nft", "legacy"] {
        let node = Node::new(flavour);
        node.internet();
        let net = node.net(1, json!({}));
        node.iptables("iptables -N CNI-ADMIN");
        node.iptables("iptables -A CNI-ADMIN -d 10.1.0.2/32 -p icmp -j DROP");
        let (one, two) = (node.host.pod(), node.host.pod());
        let result = node.add(&net, &one);
        node.add(&net, &two);
        assert_eq!(node.rules("iptables", "CNI-ADMIN"), ["-A CNI-ADMIN -d 10.1.0.2/32 -p icmp -j DROP"]);
        assert!(!one.pings(tests::Internet::V4), "{flavour}: it comes before what is allowed");
        node.del(&net, &one, &result);
        assert_eq!(node.rules("iptables", "CNI-ADMIN").len(), 1);
    }
}

/// The rules let a pod out where FORWARD drops, and the answers in; nobody else.
#[test]
fn pods_pass_where_forward_drops() {
    for flavour in ["nft", "legacy"] {
        let node = Node::new(flavour);
        let internet = node.internet();
        let net = node.net(1, json!({}));
        let (pod, bare) = (node.host.pod(), node.host.pod());
        let result = node.add(&net, &pod);
        node.host.plugin("bridge").add(&net.bridge, &bare, "eth0").success();
        for program in ["iptables", "ip6tables"] {
            node.iptables(&format!("{program} -P FORWARD DROP"));
        }
        let outside = [tests::Internet::V4, tests::Internet::V6].map(str::to_owned);
        assert!(reaches(&pod, &outside), "{flavour}");
        assert!(!reaches(&bare, &outside), "{flavour}: without the plugin");
        assert!(!reaches(&internet, &addresses(&result)), "{flavour}: nothing comes in unasked");
    }
}

/// F9: the reference needs ip6tables on a node that has no IPv6.
#[test]
fn a_node_without_ip6tables() {
    let host = Host::new();
    let programs = programs(&["iptables", "iptables-restore"], &["ip6tables", "ip6tables-restore"]);
    let path = programs.path().to_str().unwrap();
    let firewall = host.plugin("firewall").env("PATH", path);
    let mut v4 = conf("1.0.0", json!({}));
    v4["prevResult"]["ips"].as_array_mut().unwrap().truncate(1);
    let pod = host.pod();
    for theirs in host.references("firewall") {
        let error = theirs.env("PATH", path).add(&v4, &pod, "dummy0").failure();
        assert!(error["msg"].as_str().unwrap().contains("iptables protocol 1"), "the defect is there: {error}");
    }
    firewall.add(&v4, &pod, "dummy0").success();
    firewall.check(&v4, &pod, "dummy0").success();
    firewall.del(&v4, &pod, "dummy0").success();
    // With an address of the other family it is an error, and nothing of the first stays.
    let error = firewall.add(conf("1.0.0", json!({})), &pod, "dummy0").failure();
    assert!(error["msg"].as_str().unwrap().contains("ip6tables"), "{error}");
    assert_eq!(host.run("iptables -S CNI-FORWARD").lines().count(), 2);
}

/// F7: the reference's CHECK makes chains that are missing.
#[test]
fn check_names_what_is_missing_and_makes_nothing() {
    for flavour in ["nft", "legacy"] {
        let node = Node::new(flavour);
        let (firewall, pod) = (node.firewall(), node.host.pod());
        let conf = conf("1.0.0", json!({}));
        let nothing = node.host.state();
        firewall.check(&conf, &pod, "dummy0").failure();
        node.host.state().assert_same(&nothing);
        for (damage, word) in [
            ("-D FORWARD -m comment --comment \"CNI firewall plugin rules\" -j CNI-FORWARD", "-j CNI-FORWARD"),
            ("-D CNI-FORWARD -m comment --comment \"CNI firewall plugin admin overrides\" -j CNI-ADMIN", "CNI-ADMIN"),
            ("-D CNI-FORWARD -s 10.0.0.2/32 -j ACCEPT", "-s 10.0.0.2/32"),
            ("-D CNI-FORWARD -d 10.0.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "RELATED"),
            ("-A FORWARD -j KUBE-SERVICES", "kube-proxy"),
        ] {
            firewall.add(&conf, &pod, "dummy0").success();
            firewall.check(&conf, &pod, "dummy0").success();
            let chain = if damage.contains("KUBE") { "-N KUBE-SERVICES\n" } else { "" };
            node.restore("iptables", &format!("*filter\n{chain}{damage}\nCOMMIT\n"));
            let before = node.host.state();
            let error = firewall.check(&conf, &pod, "dummy0").failure();
            assert!(error["msg"].as_str().unwrap().contains(word), "{damage}: {error}");
            node.host.state().assert_same(&before);
            firewall.add(&conf, &pod, "dummy0").success();
            firewall.check(&conf, &pod, "dummy0").success();
        }
    }
}

/// What CHECK says of a policy's damage, with every backend.
#[test]
fn check_looks_at_the_policy() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour);
        let net = node.net(1, json!({"ingressPolicy": "isolated"}));
        let pod = node.host.pod();
        let result = node.add(&net, &pod);
        node.check(&net, &pod, &result).success();
        let port = result["interfaces"][1]["name"].as_str().unwrap();
        node.host.run(&format!("ip link set {port} type bridge_slave isolated off"));
        let error = node.check(&net, &pod, &result).failure();
        assert!(error["msg"].as_str().unwrap().contains("not isolated"), "{flavour}: {error}");
        node.host.run(&format!("ip link set {port} type bridge_slave isolated on"));
        node.check(&net, &pod, &result).success();
        if flavour == "nftables" {
            node.host.run("nft flush chain inet cni_firewall closed");
        } else {
            node.iptables("ip6tables -F CNI-ISOLATION-STAGE-2");
        }
        let error = node.check(&net, &pod, &result).failure();
        assert!(error["msg"].as_str().unwrap().contains("br1"), "{flavour}: {error}");
    }
}

/// The bridge plugin's CHECK does not mind that firewall has isolated its port.
#[test]
fn bridge_checks_a_port_that_firewall_isolated() {
    let node = Node::new("nft");
    let net = net(1, json!({"ingressPolicy": "isolated"}));
    let pod = node.host.pod();
    let result = node.add(&net, &pod);
    node.host.plugin("bridge").check(with_prev_result(&net.bridge, &result), &pod, "eth0").success();
}

/// F14: the reference takes the first interface for a bridge, whatever it is. F10: it makes rules before it looks.
#[test]
fn a_policy_without_a_bridge_is_refused_before_anything_is_made() {
    let host = Host::new();
    let pod = host.pod();
    let ptp = json!({"cniVersion": "1.0.0", "name": "net", "type": "ptp",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}});
    let result = host.plugin("ptp").add(&ptp, &pod, "eth0").success();
    let before = host.state();
    for policy in ["same-bridge", "isolated"] {
        let conf = conf("1.0.0", json!({"ingressPolicy": policy}));
        let error = host.plugin("firewall").add(with_prev_result(&conf, &result), &pod, "eth0").failure();
        assert_eq!(error["code"], 7);
        assert!(error["msg"].as_str().unwrap().contains(policy), "{error}");
        assert!(error["details"].as_str().unwrap().contains("veth"), "{error}");
        host.state().assert_same(&before);
    }
    let conf = conf("1.0.0", json!({}));
    host.plugin("firewall").add(with_prev_result(&conf, &result), &pod, "eth0").success();
}

/// F15: two addresses of a family, one set of rules for the bridge.
#[test]
fn rules_of_a_bridge_are_made_once() {
    let node = Node::new("nft");
    let mut net = node.net(1, json!({"ingressPolicy": "isolated"}));
    net.bridge["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.9.0.0/24"}]]);
    for _ in 0..2 {
        node.add(&net, &node.host.pod());
    }
    assert_eq!(node.rules("iptables", "CNI-ISOLATION-STAGE-1").len(), 4);
    assert_eq!(node.rules("iptables", "CNI-ISOLATION-STAGE-2").len(), 2);
    assert_eq!(node.rules("iptables", "CNI-FORWARD").len(), 1 + 3 * 4);
    // The family without addresses is left alone.
    assert!(!node.host.try_run("ip6tables-nft -S CNI-FORWARD").status.success());
}

/// Without `backend` a node without iptables gets its rules in nf_tables, and DEL finds them.
#[test]
fn a_node_without_iptables() {
    let host = Host::new();
    host.run("mount --bind /dev/null /usr/sbin/xtables-nft-multi");
    host.run("mount --bind /dev/null /usr/sbin/xtables-legacy-multi");
    let pod = host.pod();
    let conf = conf("1.1.0", json!({"backend": null}));
    host.plugin("firewall").status(&conf).success();
    host.plugin("firewall").add(&conf, &pod, "dummy0").success();
    host.plugin("firewall").check(&conf, &pod, "dummy0").success();
    assert!(host.run("nft list chain inet cni_firewall pods").contains("ip saddr 10.0.0.2 accept"));
    host.plugin("firewall").del(&conf, &pod, "dummy0").success();
    assert!(!host.run("nft list chain inet cni_firewall pods").contains("accept"));
    let error = host.plugin("firewall").status(with(&conf, json!({"backend": "iptables"}))).failure();
    assert_eq!((&error["code"], error["msg"].as_str().unwrap().contains("iptables")), (&json!(50), true), "{error}");
    let error = host.plugin("firewall").status(with(&conf, json!({"backend": "firewalld"}))).failure();
    assert_eq!(error["code"], 50);
}

/// The table as `nft` reads it.
#[test]
fn the_nftables_table_is_as_documented() {
    let node = Node::new("nftables");
    let net = node.net(1, json!({"ingressPolicy": "isolated"}));
    let pod = node.host.pod();
    node.add(&net, &pod);
    let listed = node.host.run("nft -n list table inet cni_firewall");
    for line in [
        "comment \"CNI firewall plugin\"",
        "type filter hook forward priority 0; policy accept;",
        "jump bridges",
        "jump admin",
        "ct state established,related accept",
        "jump pods",
        "iifname \"br1\" oifname != \"br1\" jump closed comment \"bridge: br1, ingressPolicy: isolated\"",
        "iifname \"br1\" oifname \"br1\" drop",
        "iifname != \"br1\" oifname \"br1\" ct state ! established,related ct status ! dnat drop",
        "oifname \"br1\" drop",
        "ip saddr 10.1.0.2 accept comment",
        "ip daddr 10.1.0.2 ct status dnat accept comment",
        "ip6 saddr fd00:1::2 accept comment",
        "ip6 daddr fd00:1::2 ct status dnat accept comment",
    ] {
        let listed = listed.replace("0x2,0x4", "established,related").replace("0x20", "dnat");
        assert!(listed.contains(line), "{line} is not in\n{listed}");
    }
    assert_eq!(node.host.state().section("iptables-save"), [""; 0], "nothing in iptables");
}
