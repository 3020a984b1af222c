//! The other direction of `takeover.rs`: our pods, and the binaries are swapped for the reference's. Where its own
//! defect stands in the way, that defect is what is asserted.

use crate::takeover_conf::{Life, Node, Suite, ways};

use Suite::{Ours, Theirs};

fn in_every_way(chain: &'static str) {
    for way in ways() {
        they_go_on(&Node::new(chain, way), &format!("{chain}, {way:?}"));
    }
}

/// What the reference's CHECK says of every pod of two IP versions, its own too.
fn check_defect(node: &Node) -> Option<&'static str> {
    let is_ptp = node.list()["plugins"][0]["type"] == "ptp";
    match node.way.newer {
        true => None,
        // Its ptp does not find a route without a next hop again.
        false if is_ptp => Some("Expected Route"),
        // Its portmap looks for the rules of one address in the tables of both IP versions.
        false if node.has("portmap") => Some("could not check ipv4 dnat"),
        false => None,
    }
}

/// Why its DEL fails: its masquerade in nftables beside iptables 1.8.9.
fn del_defect(node: &Node) -> Option<&'static str> {
    (node.way.backend == "nftables" && node.has("firewall")).then_some("iptables")
}

/// What its DEL leaves of a pod of ours.
fn left_by_del(node: &Node, life: &Life, addresses: &[String]) -> Vec<String> {
    let mut words = Vec::new();
    // The third rule, which says whose the three are and lets in what was sent to the pod by the node itself.
    if node.has("firewall") {
        words.extend(addresses.iter().map(|address| format!("-d {address}/")));
    }
    // The second name of the backup.
    if node.has("tuning") {
        words.push(format!("tuning: networks/swapped/{}_eth0.json", node.id_of(life)));
    }
    words
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
    let addresses: Vec<Vec<String>> = lives.iter().map(Life::addresses).collect();
    let deleted = node.call(Theirs, "del", &lives[1]);
    let expected = left_by_del(node, &lives[1], &addresses[1]);
    if let Some(words) = del_defect(node) {
        assert!(deleted.status == Some(1) && deleted.stderr.contains(words), "{what}: {deleted}");
    } else {
        deleted.success();
    }
    let _ = (&mut lives, expected, one);
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
