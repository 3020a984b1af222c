//! A node in the middle of a takeover: pods of both suites beside each other, ports and containers that change hands, and
//! a backend that changes with the binaries.

use serde_json::json;

use crate::bridge_conf::with;
use crate::takeover_conf::{Life, NETWORK, Node, Suite, Way, at_once, list, ways};

use Suite::{Ours, Theirs};

#[track_caller]
fn assert_all_well(node: &Node, lives: &[&Life], what: &str) {
    for life in lives {
        node.call(Ours, "check", life).success();
        node.assert_works(life, what);
    }
}

/// The DEL of one by the suite that did not make it does nothing to its neighbours.
fn neighbours(node: &Node, what: &str) {
    let lives: Vec<Life> = (0..4).map(|number| node.life(number)).collect();
    let [first, second, third, fourth] = &lives[..] else { unreachable!() };
    for (suite, life) in [(Theirs, first), (Ours, second), (Theirs, third), (Ours, fourth)] {
        node.add(suite, life);
    }
    assert_all_well(node, &[first, second, third, fourth], what);
    node.call(Theirs, "del", second).success();
    assert_all_well(node, &[first, third, fourth], what);
    node.call(Ours, "del", first).success();
    assert_all_well(node, &[third, fourth], what);

    // The same container once more, by the other suite, and back.
    for (remover, adder) in [(Ours, Theirs), (Theirs, Ours)] {
        node.call(remover, "del", fourth).success();
        node.add(adder, fourth);
        assert_all_well(node, &[third, fourth], what);
    }

    if node.has("portmap") {
        // A new pod of ours has the port of one of theirs whose DEL comes late.
        let mut third = lives.into_iter().nth(2).unwrap();
        third.server = None;
        let heir = node.life_at(4, third.port);
        node.add(Ours, &heir);
        node.assert_works(&heir, &format!("{what}: the newest has the port"));
        for _ in 0..2 {
            node.call(Ours, "del", &third).success();
            assert_all_well(node, &[&heir], what);
        }
        // And theirs the port of ours: by the reference's rule the first has it (P11), until it is gone.
        let last = node.life_at(5, heir.port);
        node.add(Theirs, &last);
        node.assert_works(&heir, what);
        node.call(Ours, "del", &heir).success();
        assert_all_well(node, &[&last], what);
    }
}

fn in_every_way(chain: &'static str) {
    at_once(&ways(), |way| {
        let node = Node::new(chain, way);
        // Not where its DEL is broken anyway (`takeover_back.rs`).
        if node.del_defect().is_none() {
            neighbours(&node, &format!("{chain}, {way:?}"));
        }
    });
}

#[test]
fn kubernetes_pods_of_both() {
    in_every_way("kubernetes");
}

#[test]
fn podman_pods_of_both() {
    in_every_way("podman");
}

#[test]
fn ptp_pods_of_both() {
    in_every_way("ptp");
}

#[test]
fn pods_of_both_with_a_policy() {
    in_every_way("policy");
}

/// The configuration, or the node's iptables, is another one with the new binaries: what the reference made with the old one
/// is found by its owner.
fn backend_changes(chain: &'static str) {
    at_once(&ways(), |from| {
        let to = |backend, legacy| Way { backend, legacy, ..from };
        for now in [to("nftables", false), to("iptables", false), to("iptables", true)] {
            if now != from {
                backend_changes_to(chain, from, now);
            }
        }
    });
}

fn backend_changes_to(chain: &'static str, from: Way, now: Way) {
    let what = format!("{chain}, {from:?} to {} legacy {}", now.backend, now.legacy);
    let mut node = Node::new(chain, from);
    let (first, new) = (node.life(0), node.life(1));
    node.add(Theirs, &first);
    node.change(chain, now);
    node.add(Ours, &new);
    node.assert_works(&first, &what);
    assert_all_well(&node, &[&new], &what);
    let before = node.facts();

    let mut lives: Vec<Life> = (2..5).map(|number| node.life(number)).collect();
    node.change(chain, from);
    for life in &lives {
        node.add(Theirs, life);
    }
    node.change(chain, now);
    // As it is, without the namespace, without the cache.
    lives[1].die();
    node.wait_for_ends(4);
    node.forget(&lives[2]);
    for _ in 0..2 {
        for life in &lives {
            node.call(Ours, "del", life).success();
        }
    }
    node.facts().assert_same(&before, &what);
    node.assert_works(&first, &what);
    assert_all_well(&node, &[&new], &what);
    node.call(Ours, "del", &first).success();
    assert_all_well(&node, &[&new], &what);
}

#[test]
fn the_backend_of_kubernetes_pods_changes() {
    backend_changes("kubernetes");
}

#[test]
fn the_backend_of_podman_pods_changes() {
    backend_changes("podman");
}

#[test]
fn the_backend_of_ptp_pods_changes() {
    backend_changes("ptp");
}

/// The policy of a bridge is another with the new binaries: every reference's rules of the old one go, whatever their comments.
#[test]
fn the_policy_of_the_references_bridge_changes() {
    for way in ways().into_iter().filter(|way| way.backend == "iptables") {
        let node = Node::new("policy", way);
        let (old, new) = (node.life(0), node.life(1));
        node.add(Theirs, &old);
        let mut open = list("policy", way, way.backend);
        open["plugins"][1] = json!({"type": "firewall", "ingressPolicy": "open"});
        node.configure(&open);
        node.add(Ours, &new);
        let rules = node.facts().lines_with("cni0");
        let of_policy: Vec<_> = rules.iter().filter(|rule| rule.contains("ISOLATION")).collect();
        assert!(of_policy.is_empty(), "{way:?}: {of_policy:#?}");
        assert_all_well(&node, &[&old, &new], "open");
        for life in [&old, &new] {
            node.call(Ours, "del", life).success();
        }
    }
}

/// GC of one network by us is nothing to the reference's pods of another.
#[test]
fn gc_leaves_the_references_other_network() {
    for way in ways() {
        let node = Node::new("kubernetes", way);
        let theirs = node.life(0);
        node.add(Theirs, &theirs);
        let before = node.facts();
        let other = with(&node.list(), json!({"name": format!("{NETWORK}-2")}));
        let plugins = other["plugins"].as_array().unwrap();
        for plugin in plugins {
            let keys = json!({"cniVersion": "1.1.0", "name": other["name"], "cni.dev/valid-attachments": []});
            let ours = node.host.plugin(plugin["type"].as_str().unwrap());
            ours.gc(with(plugin, keys)).success();
        }
        node.facts().assert_same(&before, &format!("{way:?}"));
        assert_all_well(&node, &[&theirs], "after GC of another network");
    }
}
