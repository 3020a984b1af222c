//! `cnitool doctor` while somebody else changes the node: what is theirs stays.

use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cnitool_doctor::{DUAL, Node, network};
use crate::cnitool_doctor_killed::{signal, start, start_with, wait_for_pod};

/// A doctor that waits for an answer of a silent internet: its first pod is there.
fn start_and_wait(node: &Node) -> Child {
    node.internet.run("ip link set eth0 down");
    wait(node, start(node), &node.host.store())
}

fn wait(node: &Node, mut doctor: Child, cache: &Path) -> Child {
    wait_for_pod(node, &mut doctor);
    while remembered(cache) == 0 {
        assert!(doctor.try_wait().unwrap().is_none(), "it made no pod");
        sleep(Duration::from_millis(2));
    }
    sleep(Duration::from_millis(100));
    doctor
}

fn remembered(cache: &Path) -> usize {
    std::fs::read_dir(cache.join("results")).map_or(0, Iterator::count)
}

/// Ends it; what it said.
fn interrupt(doctor: Child) -> String {
    signal(&doctor, Signal::SIGTERM);
    let output = doctor.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Its ADD switched IPv4 forwarding on; somebody else that of IPv6.
#[test]
fn a_sysctl_of_somebody_else() {
    let node = Node::new(&network("nftables", &DUAL[..1]));
    let doctor = start_and_wait(&node);
    assert_eq!(node.host.sysctl("net/ipv4/ip_forward"), "1");
    node.host.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    let said = interrupt(doctor);
    assert_eq!(node.host.sysctl("net/ipv4/ip_forward"), "0", "{said}");
    assert_eq!(node.host.sysctl("net/ipv6/conf/all/forwarding"), "1", "{said}");
    assert_eq!(node.host.sysctl("net/ipv6/conf/uplink/forwarding"), "1", "{said}");
    assert!(said.contains("set-back") && said.contains("net/ipv4/conf/all/forwarding = 0"), "{said}");
    assert!(!said.contains("ipv6/conf"), "{said}");
}

/// A link that may need what was switched on.
#[test]
fn a_link_of_somebody_else() {
    let node = Node::new(&network("nftables", &DUAL[..1]));
    let doctor = start_and_wait(&node);
    node.host.run("ip link add theirs type bridge");
    let said = interrupt(doctor);
    assert_eq!(node.host.sysctl("net/ipv4/ip_forward"), "1", "{said}");
    assert!(said.contains("this stays") && said.contains("theirs"), "{said}");
}

/// Somebody puts a bridge of his own in the place of the one that its ADD made.
fn replace_bridge(node: &Node) -> Value {
    node.host.run("ip link del cni0");
    node.host.run("ip link add cni0 type bridge");
    index(node)
}

fn index(node: &Node) -> Value {
    node.host.link("cni0").expect("cni0 is gone")["ifindex"].clone()
}

#[test]
fn a_bridge_of_somebody_else() {
    let node = Node::new(&network("nftables", &DUAL[..1]));
    let doctor = start_and_wait(&node);
    let theirs = replace_bridge(&node);
    let said = interrupt(doctor);
    assert_eq!(index(&node), theirs, "{said}");
    assert!(said.contains("this stays") && said.contains("cni0: somebody else has made it"), "{said}");
}

/// The bridge that its ADD made.
#[test]
fn a_bridge_that_somebody_uses() {
    for (lines, why) in [
        (["ip link add theirs type veth peer name theirs1", "ip link set theirs master cni0"], "cni0: theirs uses it"),
        (
            ["ip address add 192.0.2.1/24 dev cni0", "ip link set cni0 up"],
            "cni0: somebody else has given it the address 192.0.2.1/24",
        ),
    ] {
        let node = Node::new(&network("nftables", &DUAL[..1]));
        let doctor = start_and_wait(&node);
        let bridge = index(&node);
        for line in lines {
            node.host.run(line);
        }
        let said = interrupt(doctor);
        assert_eq!(index(&node), bridge, "{said}");
        assert!(said.contains("this stays") && said.contains(why), "{said}");
    }
}

/// The doctor is killed, and what it noted is a bridge that is gone.
#[test]
fn a_bridge_of_somebody_else_after_a_kill() {
    let node = Node::new(&network("nftables", &DUAL[..1]));
    let mut doctor = start_and_wait(&node);
    signal(&doctor, Signal::SIGKILL);
    doctor.wait().unwrap();
    let theirs = replace_bridge(&node);
    let report = node.report();
    let (verdict, said) = report.of("leftovers");
    assert!(verdict == "warn" && said.contains("cni0: somebody else has made it"), "{verdict}: {said}");
    assert_eq!(index(&node), theirs, "{:#}", report.0);
}

/// Two nodes here, each with a /run of its own; a node and a container that sees the node's cache elsewhere.
#[test]
fn another_doctor_with_the_same_cache() {
    let cache = tempfile::tempdir().unwrap();
    let arguments = ["--cache-dir", cache.path().to_str().unwrap()];
    let nodes = [(), ()].map(|()| Node::new(&network("nftables", &DUAL[..1])));
    nodes[0].internet.run("ip link set eth0 down");
    let doctor = wait(&nodes[0], start_with(&nodes[0], &arguments), cache.path());
    let outcome = nodes[1].run(&arguments);
    assert_eq!(outcome.status, Some(2), "{outcome}");
    let busy = format!("it holds {}", cache.path().display());
    assert!(outcome.stderr.contains("another cnitool doctor") && outcome.stderr.contains(&busy), "{outcome}");
    assert_ne!(remembered(cache.path()), 0, "its pods are taken away");
    interrupt(doctor);
    nodes[1].run(&arguments);
    assert_eq!(remembered(cache.path()), 0);
}
