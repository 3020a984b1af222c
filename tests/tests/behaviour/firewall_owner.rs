//! Whose the rules are: a DEL takes its own and nobody else's, with or without a result, and GC what is nobody's.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;

use crate::bridge_conf::with;
use crate::firewall_conf::{FLAVOURS, Net, Node, addresses, net, reaches};

/// The rules of pods, in whatever backend of a node.
fn pods(node: &Node) -> Vec<String> {
    if node.is_nftables() {
        let listed = node.host.run("nft list chain inet cni_firewall pods");
        return listed.lines().filter(|line| line.contains("accept")).map(|line| line.trim().to_owned()).collect();
    }
    let chains = ["iptables", "ip6tables"].map(|program| node.rules(program, "CNI-FORWARD"));
    chains.concat().into_iter().filter(|rule| rule.ends_with("ACCEPT")).collect()
}

/// Rules of one pod with an address of each family.
fn of_a_pod(node: &Node) -> usize {
    if node.is_nftables() { 4 } else { 6 }
}

fn conf(net: &Net, result: &Value) -> Value {
    with_prev_result(&net.firewall, result)
}

/// F1: runtimes DEL late and twice; by then the address is another pod's. The reference takes its rules.
#[test]
fn a_late_del_leaves_the_rules_of_the_pod_that_has_the_address_now() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour);
        node.internet();
        let net = node.net(1, json!({}));
        let (old, new) = (node.host.pod(), node.host.pod());
        let result = node.host.plugin("bridge").add(&net.bridge, &old, "eth0").success();
        node.firewall().add(conf(&net, &result), &old, "eth0").success();
        // The old pod's interface is gone, its rules are not yet; the new one has its address.
        node.firewall().add(conf(&net, &result), &new, "eth0").success();
        assert_eq!(pods(&node).len(), of_a_pod(&node), "{flavour}: the new owner's replace the old one's");
        let before = node.host.state();
        node.check(&net, &new, &result).success();
        let error = node.check(&net, &old, &result).failure();
        assert!(error["msg"].as_str().unwrap().contains("10.1.0.2"), "{flavour}: {error}");
        for _ in 0..2 {
            node.firewall().del(conf(&net, &result), &old, "eth0").success();
            node.host.state().assert_same(&before);
        }
        node.firewall().del(conf(&net, &result), &new, "eth0").success();
        assert_eq!(pods(&node), [""; 0], "{flavour}");
    }
}

/// F13: without a result, or with one that cannot be read, the reference leaves the rules.
#[test]
fn del_needs_neither_a_result_nor_a_valid_configuration() {
    for flavour in FLAVOURS {
        for broken in [
            json!({"prevResult": null}),
            json!({"prevResult": {"cniVersion": "1.0.0", "dns": {}}}),
            json!({"prevResult": "none"}),
            json!({"prevResult": null, "backend": "foo", "ingressPolicy": "bar", "iptablesAdminChainName": "a b"}),
            json!({"prevResult": null, "backend": 5}),
        ] {
            let node = Node::new(flavour);
            let net = node.net(1, json!({"ingressPolicy": "isolated"}));
            let (mut pod, bystander) = (node.host.pod(), node.host.pod());
            node.add(&net, &bystander);
            let before = pods(&node);
            node.add(&net, &pod);
            pod.destroy();
            for _ in 0..2 {
                node.firewall().env("CNI_NETNS", "").del(with(&net.firewall, broken.clone()), &pod, "eth0").success();
                assert_eq!(pods(&node), before, "{flavour} {broken}");
            }
        }
    }
}

/// F8: the configuration says another backend than at the ADD, or the node's iptables is another one now.
#[test]
fn del_finds_the_rules_in_every_backend() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour);
        let net = node.net(1, json!({}));
        let pod = node.host.pod();
        let result = node.add(&net, &pod);
        assert_eq!(pods(&node).len(), of_a_pod(&node));
        for backend in ["nftables", "iptables"] {
            let other = with(&conf(&net, &result), json!({ "backend": backend }));
            node.host.plugin("firewall").del(other, &pod, "eth0").success();
            assert_eq!(pods(&node), [""; 0], "{flavour} {backend}");
            node.firewall().add(conf(&net, &result), &pod, "eth0").success();
        }
    }
}

#[test]
fn gc_removes_what_is_nobodys_on_its_network_alone() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour);
        let at_1_1 = |number| {
            let mut net = node.net(number, json!({"cniVersion": "1.1.0"}));
            net.bridge["cniVersion"] = "1.1.0".into();
            net
        };
        let (ours, other) = (at_1_1(1), at_1_1(2));
        let (keep, lost, elsewhere) = (node.host.pod(), node.host.pod(), node.host.pod());
        node.add(&ours, &keep);
        node.add(&other, &elsewhere);
        let before = pods(&node);
        node.add(&ours, &lost);
        let all = node.host.state();
        node.firewall().gc(&ours.firewall).success();
        node.host.state().assert_same(&all);
        let valid = json!({"cni.dev/valid-attachments": [{"containerID": keep.id(), "ifname": "eth0"}]});
        for _ in 0..2 {
            node.firewall().gc(with(&ours.firewall, valid.clone())).success();
            assert_eq!(pods(&node), before, "{flavour}");
        }
        node.firewall().gc(with(&ours.firewall, json!({"cni.dev/valid-attachments": []}))).success();
        assert_eq!(pods(&node).len(), of_a_pod(&node), "{flavour}: an empty list is a list");
        assert!(pods(&node).iter().any(|rule| rule.contains("10.2.0.2")), "{flavour}");
    }
}

/// Two interfaces of one container: each has its own.
#[test]
fn interfaces_of_one_container_do_not_share() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour);
        let net = node.net(1, json!({}));
        let pod = node.host.pod();
        for ifname in ["eth0", "eth1"] {
            let mut bridge = net.bridge.clone();
            bridge["isDefaultGateway"] = false.into();
            bridge["isGateway"] = true.into();
            let result = node.host.plugin("bridge").add(&bridge, &pod, ifname).success();
            node.firewall().add(conf(&net, &result), &pod, ifname).success();
        }
        assert_eq!(pods(&node).len(), 2 * of_a_pod(&node));
        node.firewall().del(&net.firewall, &pod, "eth0").success();
        let left = pods(&node);
        assert_eq!(left.len(), of_a_pod(&node), "{flavour}");
        assert!(left.iter().all(|rule| rule.contains("10.1.0.3") || rule.contains("fd00:1::3")), "{flavour}: {left:?}");
    }
}

/// The rules that pods share stay when the last goes, and the next pod's work as the first's.
#[test]
fn the_last_pod_leaves_what_is_shared() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour);
        node.internet();
        let nets = [1, 2].map(|number| node.net(number, json!({"ingressPolicy": "same-bridge"})));
        for net in &nets {
            let pod = node.host.pod();
            let result = node.add(net, &pod);
            node.del(net, &pod, &result);
        }
        let before = node.host.state();
        let pods = nets.each_ref().map(|net| {
            let pod = node.host.pod();
            let result = node.add(net, &pod);
            (pod, result)
        });
        assert!(!reaches(&pods[0].0, &addresses(&pods[1].1)), "{flavour}");
        for (net, (pod, result)) in nets.iter().zip(&pods) {
            node.del(net, pod, result);
        }
        node.host.state().assert_same(&before);
    }
}

/// An ADD or a DEL killed anywhere: the next DEL cleans up, and the next ADD works.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[test]
fn killed_anywhere() {
    for flavour in ["nft", "nftables"] {
        let node = Node::new(flavour);
        let net = net(
            1,
            json!({"ingressPolicy": "isolated", "backend": if flavour == "nft" { "iptables" } else { flavour }}),
        );
        let pod = node.host.pod();
        let result = node.host.plugin("bridge").add(&net.bridge, &pod, "eth0").success();
        let conf = conf(&net, &result);
        let firewall = node.firewall();
        firewall.add(&conf, &pod, "eth0").success();
        firewall.del(&conf, &pod, "eth0").success();
        let clean = pods(&node);
        for verb in ["ADD", "DEL"] {
            for call in 0.. {
                if verb == "DEL" {
                    firewall.add(&conf, &pod, "eth0").success();
                }
                let killed = firewall.killed_at(call, verb, &conf, &pod, "eth0");
                firewall.del(&net.firewall, &pod, "eth0").success();
                assert_eq!(pods(&node), clean, "{flavour}: {verb} killed at call {call}");
                if !killed {
                    break;
                }
            }
        }
        firewall.add(&conf, &pod, "eth0").success();
        firewall.check(&conf, &pod, "eth0").success();
    }
}
