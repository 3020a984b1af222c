//! The other direction of `takeover.rs`: our pods, and the binaries are swapped for the reference's. Where its own
//! defect stands in the way, that defect is what is asserted.

use crate::takeover_conf::{Known, Life, NETWORK, Node, Suite, at_once, ways};

use Suite::{Ours, Theirs};

fn in_every_way(chain: &'static str) {
    at_once(&ways(), |way| they_go_on(&Node::new(chain, way), &format!("{chain}, {way:?}")));
}

/// What the CHECK of 1.1.1 says of every pod of two IP versions, its own too: its portmap looks for the rules of one
/// address in the tables of both.
fn check_defect(node: &Node) -> Option<&'static str> {
    (!node.way.newer && node.has("portmap")).then_some(" dnat: rule ")
}

/// What its DEL leaves of a pod of ours.
fn left_by_del(node: &Node, pod: &Known) -> Vec<String> {
    let mut words = Vec::new();
    // The third rule, which says whose the three are and lets in what was sent to the pod by the node itself.
    if node.has("firewall") {
        words.extend(pod.addresses.iter().map(|address| format!("-d {address}/")));
    }
    // The second name of the backup.
    if node.has("tuning") {
        words.push(format!("tuning: networks/{NETWORK}/{}_eth0.json", pod.id));
    }
    words
}

/// The same where the namespace is gone.
fn left_by_late_del(node: &Node, pod: &Known) -> Vec<String> {
    let mut words = left_by_del(node, pod);
    // Its defect 6: it learns from the link what was masqueraded.
    words.push(node.masquerade_of(pod));
    if node.has("tuning") {
        words.push(format!("tuning: {}_eth0.json", pod.id)); // T3
    }
    words
}

/// What pods share, and 1.1.1 makes once more with a comment of its own.
fn made_anew(node: &Node) -> Vec<String> {
    let is_made = !node.way.newer && node.has("firewall") && !node.has("portmap");
    is_made.then(|| "(ingressPolicy: same-bridge)".to_owned()).into_iter().collect()
}

/// Three pods of ours; the reference takes over, and we come back.
fn they_go_on(node: &Node, what: &str) {
    let mut lives: Vec<Life> = (0..3).map(|number| node.life(number)).collect();
    node.add(Ours, &lives[0]);
    let one = node.facts();
    node.add(Ours, &lives[1]);
    node.add(Ours, &lives[2]);
    for life in &lives {
        let checked = node.call(Theirs, "check", life);
        match check_defect(node) {
            None => drop(checked.success()),
            Some(words) => assert!(checked.stderr.contains(words), "{what}: {checked}"),
        }
    }
    let known: Vec<Known> = lives.iter().map(|life| node.known(life)).collect();
    lives[1].die();
    node.wait_for_ends(2);
    node.call(Theirs, "del", &lives[1]).success();
    let deleted = node.call(Theirs, "del", &lives[2]);
    if let Some(words) = node.del_defect() {
        assert!(deleted.status == Some(1) && deleted.stderr.contains(words), "{what}: {deleted}");
    } else {
        deleted.success();
        let words = [left_by_del(node, &known[2]), left_by_late_del(node, &known[1])].concat();
        node.facts().assert_only(&one, &words, &format!("{what}: DEL"));
    }
    node.assert_works(&lives[0], what);

    // Back again: what they left goes, though they have forgotten it. A pod of theirs is beside ours.
    let new = node.life(5);
    node.add(Theirs, &new);
    node.call(Ours, "del", &lives[2]).success();
    node.gc(&[&lives[0], &new]);
    for life in [&lives[0], &new] {
        node.call(Ours, "check", life).success();
        node.assert_works(life, what);
    }
    node.call(Ours, "del", &new).success();
    node.facts().assert_only(&one, &made_anew(node), what);
    if node.del_defect().is_none() {
        node.call(Theirs, "del", &lives[0]).success();
        assert_eq!(node.ends(), [""; 0], "{what}");
    }
}

#[test]
fn kubernetes_pods_of_ours() {
    in_every_way("kubernetes");
}

#[test]
fn podman_pods_of_ours() {
    in_every_way("podman");
}

#[test]
fn ptp_pods_of_ours() {
    in_every_way("ptp");
}

#[test]
fn pods_of_ours_with_a_policy() {
    in_every_way("policy");
}
