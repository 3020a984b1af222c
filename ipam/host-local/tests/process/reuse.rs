//! How long an address rests: round robin over the whole range, whoever writes in between, and the cooldown.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::node::{Node, OURS, add, call, call_with, del, references};

/// Two ranges of a set: .2 to .6 and .10 to .14.
fn two_ranges(node: &Node) -> Value {
    node.conf(json!({ "ranges": [[{ "subnet": "10.213.47.0/29" }, { "subnet": "10.213.47.8/29" }]] }))
}

const ALL: [u8; 10] = [2, 3, 4, 5, 6, 10, 11, 12, 13, 14];

fn last_byte(address: &str) -> u8 {
    address.rsplit('.').next().unwrap().parse().unwrap()
}

/// A pod after the other: no address comes again before all have been given, over the border of the ranges and round
/// again, whichever suite makes the call.
#[test]
fn every_address_is_given_before_one_comes_again() {
    for theirs in references() {
        let suites = [Path::new(OURS), &theirs];
        for pattern in [[0, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1]] {
            let node = Node::new();
            let conf = two_ranges(&node);
            for round in 0..3 {
                let mut given = Vec::new();
                for n in 0..ALL.len() {
                    let program = suites[pattern[n % 3]];
                    let id = format!("c{round}-{n}");
                    given.push(last_byte(&call(program, "ADD", &id, &conf).addresses()[0]));
                    call(suites[pattern[(n + 1) % 3]], "DEL", &id, &conf).succeeded();
                }
                assert_eq!(given, ALL, "{pattern:?}, round {round}");
            }
        }
    }
}

/// The reference begins at the front again, and gives the address that was freed last.
#[test]
fn a_lost_last_reserved_ip_costs_no_rest() {
    let node = Node::new();
    let conf = two_ranges(&node);
    let given: Vec<u8> = (0..4).map(|n| last_byte(&add(&format!("c{n}"), &conf).addresses()[0])).collect();
    assert_eq!(given, [2, 3, 4, 5]);
    for lost in ["", "nonsense", "192.0.2.1"] {
        del("c0", &conf).succeeded();
        let last = node.leases().join("last_reserved_ip.0");
        if lost.is_empty() {
            fs::remove_file(&last).unwrap();
        } else {
            fs::write(&last, lost).unwrap();
        }
        let next = last_byte(&add("next", &conf).addresses()[0]);
        assert_eq!(next, 6, "{lost:?}");
        del("next", &conf).succeeded();
        call_with(OURS, "ADD", "c0", &conf, &[("CNI_ARGS", "IP=10.213.47.2")]).succeeded();
        // What was given last is what was written last.
        assert_eq!(node.read("last_reserved_ip.0"), "10.213.47.2");
        for n in 1..4 {
            // A new file, as after a DEL and an ADD, so that .5 is the newest again.
            let address = format!("10.213.47.{}", n + 2);
            fs::remove_file(node.leases().join(&address)).unwrap();
            node.write(&address, &format!("c{n}\r\neth0"));
        }
    }
}

fn cooling(node: &Node, seconds: u64) -> Value {
    node.conf(json!({ "subnet": "10.213.47.0/29", "cooldownSeconds": seconds }))
}

/// .2 to .5 are taken, .6 is free, and the next in turn is .2.
fn nearly_full(node: &Node, conf: &Value) {
    (0..4).for_each(|n| add(&format!("c{n}"), conf).succeeded());
    node.write("last_reserved_ip.0", "10.213.47.6");
}

#[test]
fn a_freed_address_rests_while_another_is_free() {
    for (seconds, expected) in [(0, "10.213.47.2"), (3600, "10.213.47.6")] {
        let node = Node::new();
        let conf = cooling(&node, seconds);
        nearly_full(&node, &conf);
        del("c0", &conf).succeeded();
        assert_eq!(add("next", &conf).addresses(), [expected], "{seconds}");
    }
}

#[test]
fn when_all_that_is_free_rests_the_one_that_rested_longest_is_given() {
    let node = Node::new();
    let conf = cooling(&node, 3600);
    nearly_full(&node, &conf);
    add("c4", &conf).succeeded();
    for id in ["c3", "c1"] {
        del(id, &conf).succeeded();
        std::thread::sleep(std::time::Duration::from_millis(1100)); // seconds are what is recorded
    }
    Machine::new().call("STATUS", "", &conf).succeeded();
    assert_eq!(add("x", &conf).addresses(), ["10.213.47.5"]);
    assert_eq!(add("y", &conf).addresses(), ["10.213.47.3"]);
    assert!(add("z", &conf).error().1.contains("(5 of 5 addresses are taken)"));
}

#[test]
fn who_had_it_may_have_it_again() {
    let node = Node::new();
    let conf = cooling(&node, 3600);
    nearly_full(&node, &conf);
    del("c0", &conf).succeeded();
    assert_eq!(add("c0", &conf).addresses(), ["10.213.47.2"]);
    // And whoever asks for it: that is a decision of its own.
    del("c0", &conf).succeeded();
    let asked = call_with(OURS, "ADD", "x", &conf, &[("CNI_ARGS", "IP=10.213.47.2")]);
    assert_eq!(asked.addresses(), ["10.213.47.2"]);
}

#[test]
fn the_rest_holds_over_gc_and_not_over_a_reboot() {
    let node = Node::new();
    let conf = cooling(&node, 3600);
    let mut machine = Machine::new();
    (0..4).for_each(|n| machine.add(&format!("c{n}"), &conf).succeeded());
    let mut gc = conf.clone();
    gc["cni.dev/valid-attachments"] = json!([{ "containerID": "c3", "ifname": "eth0" }]);
    machine.call("GC", "", &gc).succeeded();
    node.write("last_reserved_ip.0", "10.213.47.6");
    assert_eq!(machine.add("x", &conf).addresses(), ["10.213.47.6"]);
    machine.reboot();
    node.write("last_reserved_ip.0", "10.213.47.6");
    assert_eq!(machine.add("y", &conf).addresses(), ["10.213.47.2"]);
}

/// The file of the cooldown is nothing to the reference, and its DEL is nothing to the file.
#[test]
fn the_reference_passes_the_cooldown() {
    for theirs in references() {
        let node = Node::new();
        let conf = cooling(&node, 3600);
        nearly_full(&node, &conf);
        del("c0", &conf).succeeded();
        assert!(node.files().contains(".released"));
        call(&theirs, "CHECK", "c1", &conf).succeeded();
        assert_eq!(call(&theirs, "ADD", "x", &conf).addresses(), ["10.213.47.2"]);
        call(&theirs, "DEL", "c1", &conf).succeeded();
        assert!(node.files().contains(".released"));
        assert_eq!(add("y", &conf).addresses(), ["10.213.47.3"]);
    }
}

#[test]
fn a_cooldown_that_is_none() {
    for bad in [json!(-1), json!("30s"), json!(1.5), json!(86_401), json!([30])] {
        let node = Node::new();
        let conf = node.conf(json!({ "subnet": "10.213.47.0/29", "cooldownSeconds": bad }));
        let refused = add("a", &conf);
        let (code, msg) = refused.error();
        assert!(code == 7 && msg.contains(&format!("invalid cooldownSeconds: {bad}")), "{refused:?}");
        assert_eq!(refused.json["details"], "ipam.cooldownSeconds");
        assert!(!node.leases().exists());
        // What was given under a good one comes back.
        node.write("10.213.47.2", "a\r\neth0");
        del("a", &conf).succeeded();
        assert!(node.addresses().is_empty());
    }
}
