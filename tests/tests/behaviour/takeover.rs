//! The binaries of a live node are swapped, whole chains of plugins through a runtime's cache: pods of the reference are
//! CHECKed, DELeted and collected by us, and go on working. `takeover_back.rs` has the other direction.

use crate::bridge_conf::links;
use crate::takeover_conf::{CHAINS, Known, Life, Node, Suite, Way, at_once, ways};

use Suite::{Ours, Theirs};

fn in_every_way(chain: &'static str, story: fn(&Node, &str)) {
    assert!(CHAINS.contains(&chain));
    at_once(&ways(), |way| story(&Node::new(chain, way), &format!("{chain}, {way:?}")));
}

/// What of a pod that the reference made, of which the runtime knows nothing more, our GC leaves: what does not say whose
/// it is. The READMEs of the plugins say so.
fn left_by_gc(node: &Node, known: &Known, ifb: &[String]) -> Vec<String> {
    let Way { backend, .. } = node.way;
    let mut words = Vec::new();
    if node.has("portmap") && backend == "nftables" {
        words.push(known.id.clone());
    }
    if node.has("firewall") {
        words.extend(known.addresses.iter().cloned());
    }
    if node.has("tuning") {
        words.push(format!("tuning: {}_eth0.json", known.id));
    }
    words.extend(ifb.iter().cloned());
    words
}

/// Five pods of the reference; ours takes over.
fn we_go_on(node: &Node, what: &str) {
    let mut lives: Vec<Life> = (0..5).map(|number| node.life(number)).collect();
    node.add(Theirs, &lives[0]);
    let one = (node.facts(), links(&node.host, "ifb"));
    node.add(Theirs, &lives[1]);
    let two = (node.facts(), links(&node.host, "ifb"));
    for life in &lives[2..] {
        node.add(Theirs, life);
    }
    let all = node.facts();
    for life in &lives {
        node.call(Ours, "check", life).success();
    }
    node.facts().assert_same(&all, &format!("{what}: CHECK changed something"));

    // One as it is, one whose namespace is gone, and one of a runtime that lost its cache.
    lives[3].die();
    node.wait_for_ends(4);
    node.forget(&lives[4]);
    for _ in 0..2 {
        for life in &lives[2..] {
            node.call(Ours, "del", life).success();
        }
        node.facts().assert_same(&two.0, &format!("{what}: DEL"));
    }

    // And one of which nobody knows any more.
    let known = node.known(&lives[1]);
    let ifb: Vec<String> = two.1.iter().filter(|ifb| !one.1.contains(*ifb)).cloned().collect();
    node.forget(&lives[1]);
    lives[1].die();
    node.wait_for_ends(1);
    for _ in 0..2 {
        node.gc(&[&lives[0]]);
        node.facts().assert_only(&one.0, &left_by_gc(node, &known, &ifb), &format!("{what}: GC"));
    }
    node.call(Ours, "check", &lives[0]).success();
    node.assert_works(&lives[0], what);

    // A new pod of ours beside it, and the last of theirs goes.
    let new = node.life(5);
    node.add(Ours, &new);
    node.call(Ours, "check", &new).success();
    node.assert_works(&new, what);
    node.call(Ours, "del", &lives[0]).success();
    node.call(Ours, "check", &new).success();
    node.assert_works(&new, what);
    node.call(Ours, "del", &new).success();
    assert_eq!(node.ends(), [""; 0], "{what}");
}

#[test]
fn kubernetes_pods_of_the_reference() {
    in_every_way("kubernetes", we_go_on);
}

#[test]
fn podman_pods_of_the_reference() {
    in_every_way("podman", we_go_on);
}

#[test]
fn ptp_pods_of_the_reference() {
    in_every_way("ptp", we_go_on);
}

#[test]
fn pods_of_the_reference_with_a_policy() {
    in_every_way("policy", we_go_on);
}
