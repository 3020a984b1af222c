//! Killed before every single system call, one after the other: whatever stands on disk then, the next calls
//! find their addresses, alone, and nothing leaks.

use std::process::Child;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::node::{Node, OURS, add, del, feed, spawn};

/// Runs a call up to a system call, counted from the reading of stdin, and kills it there. `false`: it was over.
fn kill_at(step: usize, verb: &str, id: &str, conf: &Value) -> bool {
    let mut child = spawn(OURS, verb, id, &[]);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    // Nothing has happened yet when it waits for its stdin. (The name is its own once the new program is in place.)
    while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains("(host-local) S") {
        std::thread::yield_now();
    }
    ptrace::attach(pid).expect("tracing a child");
    assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(_, Signal::SIGSTOP)));
    feed(&mut child, conf);
    // Two stops a call: before it and after it.
    for _ in 0..2 * step {
        if !next_stop(pid) {
            return false;
        }
    }
    end(child);
    true
}

fn next_stop(pid: Pid) -> bool {
    ptrace::syscall(pid, None).unwrap();
    match waitpid(pid, None).unwrap() {
        WaitStatus::Stopped(..) => true,
        WaitStatus::Exited(_, 0) => false,
        other => panic!("{other:?}"),
    }
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Kills `verb` of container `x` at every step, in a directory as `prepare` leaves it.
fn at_every_step(verb: &str, prepare: impl Fn(&Node, &Value)) {
    for step in 1.. {
        assert!(step < 1000, "it never ends");
        let node = Node::new();
        let conf = node.subnets(&["10.1.2.0/29", "2001:db8::/64"]);
        add("before", &conf).succeeded();
        prepare(&node, &conf);
        let killed = kill_at(step, verb, "x", &conf);
        // At most the empty file that was there before is empty.
        let empty = node.addresses().into_iter().filter(|address| node.read(&address.to_string()).is_empty());
        assert!(empty.map(|address| address.to_string()).all(|address| address == "10.1.2.5"), "step {step}");

        let after = add("after", &conf).addresses();
        assert!(!node.files().contains(".lease") && node.sealed(), "step {step}");
        let x = add("x", &conf).addresses();
        assert!(x.iter().all(|address| !after.contains(address)), "step {step}");
        x.iter().for_each(|address| assert_eq!(node.read(address), "x\r\neth0", "step {step}"));
        for id in ["x", "after", "before", "foreign"] {
            del(id, &conf).succeeded();
        }
        assert!(node.addresses().is_empty(), "step {step}: {:?}", node.files());
        if !killed {
            assert!(step > 20, "only {step} steps: nothing was tested");
            return;
        }
    }
}

fn nothing(_: &Node, _: &Value) {}

/// What the reference leaves: a lease of its own, and one that it was killed over.
fn the_reference_was_there(node: &Node, _: &Value) {
    node.write("10.1.2.6", "foreign\r\neth0");
    node.write("10.1.2.5", "");
}

#[test]
fn add_with_an_index() {
    at_every_step("ADD", nothing);
}

#[test]
fn add_that_makes_the_index() {
    at_every_step("ADD", the_reference_was_there);
}

#[test]
fn del_with_an_index() {
    at_every_step("DEL", |_, conf| add("x", conf).succeeded());
}

#[test]
fn del_that_makes_the_index() {
    at_every_step("DEL", |node, conf| {
        add("x", conf).succeeded();
        the_reference_was_there(node, conf);
    });
}
