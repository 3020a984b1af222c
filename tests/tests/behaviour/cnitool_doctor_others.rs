//! `cnitool doctor` while somebody else changes the node: what is theirs stays.

use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cnitool_doctor::{DUAL, Node, network};
use crate::cnitool_doctor_killed::{signal, start, wait_for_pod};

/// A doctor that waits for an answer of a silent internet: its first pod is there.
fn start_and_wait(node: &Node) -> Child {
    node.internet.run("ip link set eth0 down");
    let mut doctor = start(node);
    wait_for_pod(node, &mut doctor);
    while std::fs::read_dir(node.host.store().join("results")).map_or(0, Iterator::count) == 0 {
        assert!(doctor.try_wait().unwrap().is_none(), "it made no pod");
        sleep(Duration::from_millis(2));
    }
    sleep(Duration::from_millis(100));
    doctor
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
    assert!(said.contains("it stays") && said.contains("theirs"), "{said}");
}
