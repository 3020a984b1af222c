//! How a lease of an earlier boot is taken: which files are no leases, what cannot be taken, and what a killed process
//! leaves. Which leases are of an earlier boot is in `boots`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Timespec, Timestamps, utimensat};
use serde_json::Value;

use crate::machine::{Machine, date, long_ago};
use crate::node::{Node, OURS, call, call_with, references, start};

/// Five addresses, .2 to .6.
const FIVE: &str = "10.213.47.0/29";

fn five() -> (Node, Value, Machine) {
    let node = Node::new();
    let conf = node.subnets(&[FIVE]);
    (node, conf, Machine::new())
}

/// `echo reserved > 10.213.47.3`: a printer has the address, and no lease in the form that a plugin writes.
#[test]
fn what_a_human_reserved_is_not_taken() {
    let (node, conf, mut machine) = five();
    let by_hand = ["reserved\n", "the printer, ask Ada\n", "reserved", "printer\neth0", "printer\r\neth0\n"];
    for (n, content) in by_hand.iter().enumerate() {
        node.write(&format!("10.213.47.{}", n + 2), content);
    }
    date(&node, long_ago());
    for boot in 0..3 {
        assert_eq!(machine.add("a", &conf).error().0, 999, "boot {boot}");
        assert_eq!(machine.call("STATUS", "", &conf).error().0, 50, "boot {boot}");
        for (n, content) in by_hand.iter().enumerate() {
            let address = format!("10.213.47.{}", n + 2);
            assert!(!machine.ask("a", &address, &conf).ok, "boot {boot}: {content:?}");
            assert_eq!(node.read(&address), *content);
        }
        machine.reboot();
    }
}

/// One that cannot be taken is no reason to leave the others.
#[test]
fn what_cannot_be_taken_is_passed_over() {
    let (node, conf, mut machine) = five();
    machine.fill("a", &conf);
    machine.reboot();
    let at = |name: &str| node.leases().join(name);
    fs::remove_file(at("10.213.47.2")).unwrap();
    fs::create_dir(at("10.213.47.2")).unwrap();
    fs::remove_file(at("10.213.47.3")).unwrap();
    symlink("/nonexistent", at("10.213.47.3")).unwrap();
    let old = Timespec { tv_sec: 86_400, tv_nsec: 0 };
    for name in ["10.213.47.2", "10.213.47.3"] {
        let times = Timestamps { last_access: old, last_modification: old };
        utimensat(rustix::fs::CWD, at(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    // No rename replaces what is mounted.
    let mounted = at("10.213.47.4").display().to_string();
    machine.twist(&format!("mount --bind {mounted} {mounted}"));
    machine.call("STATUS", "", &conf).succeeded();
    let log = machine.directory().join("log");
    let env = [("PODWIRE_LOG", log.to_str().unwrap())];
    assert_eq!(call_with(machine.plugin(), "ADD", "b", &conf, &env).addresses(), ["10.213.47.5"]);
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    let notes = line["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().contains("10.213.47.4")), "{line}");
    machine.add("c", &conf).succeeded();
    assert_eq!(machine.add("d", &conf).error().0, 999);
    assert!(at("10.213.47.2").is_dir() && at("10.213.47.3").is_symlink() && !node.files().contains(".lease"));
    assert_eq!(node.read("10.213.47.4"), "a2\r\neth0");
    machine.twist("");
    assert_eq!(machine.add("d", &conf).addresses(), ["10.213.47.4"]);
}

/// Killed before each call that changes a name: the address is the old owner's or the new one's, at every moment, and
/// nobody else's.
#[test]
fn killed_on_the_way() {
    for call in ["write", "pwrite64", "lsetxattr", "utimensat", "unlink,unlinkat", "link,linkat", "rename,renameat"] {
        for count in 1.. {
            let (node, conf, mut machine) = five();
            machine.fill("a", &conf);
            machine.reboot();
            let calls = call.split(',').map(|call| format!("?{call}")).collect::<Vec<_>>().join(",");
            let strace = format!("strace -qq -o /dev/null -e inject={calls}:signal=KILL:when={count}");
            machine.twist(&format!("exec {strace} {OURS}"));
            let outcome = start(machine.plugin(), "ADD", "x", &conf, &[]).wait_with_output().unwrap();
            let killed = !outcome.status.success();
            let holders = (2..7).map(|last| node.read(&format!("10.213.47.{last}")));
            let strangers = holders.filter(|holder| !holder.starts_with('a') && holder != "x\r\neth0");
            assert_eq!(strangers.collect::<Vec<_>>(), Vec::<String>::new(), "{call} {count}");
            machine.twist("");
            assert_eq!(machine.fill("b", &conf).len(), 5 - usize::from(node_has(&node, "x")), "{call} {count}");
            assert!(!node.files().contains(".lease") && node.sealed());
            if !killed {
                break;
            }
            assert!(count < 50, "it never ends");
        }
    }
}

fn node_has(node: &Node, id: &str) -> bool {
    node.addresses().iter().any(|address| node.read(&address.to_string()) == format!("{id}\r\neth0"))
}

/// Hundreds of thousands on a router, and others wait for the lock: it took seconds to read them. (Here the plugin may
/// enter the namespaces of all processes that it sees.)
#[test]
fn routes_are_not_read_for_addresses() {
    let (_node, conf, mut machine) = five();
    machine.add("a", &conf).succeeded();
    machine.reboot();
    let calls = machine.directory().join("calls");
    machine.twist(&format!("exec strace -f -qq -e trace=openat,open -o {} {}", calls.display(), OURS));
    let program = machine.inside("unshare -pf --mount-proc");
    call_with(&program, "ADD", "b", &conf, &[("CNI_ARGS", "IP=10.213.47.2")]).succeeded();
    let calls = fs::read_to_string(calls).unwrap();
    assert!(calls.contains("/ns/net\"") && !calls.contains("fib_trie"), "{calls}");
}

/// A container that has returned lives, also where the plugin is not told which boot this is: the stamp of the boot
/// before must not give its address away to those who are.
#[test]
fn a_container_that_returned_in_an_unknown_boot_keeps_its_address() {
    let (node, conf, mut machine) = five();
    machine.fill("a", &conf);
    date(&node, long_ago());
    machine.reboot();
    machine.twist("mount --bind /dev/null /proc/sys/kernel/random/boot_id");
    assert_eq!(machine.add("a1", &conf).addresses(), ["10.213.47.3"]);
    assert_eq!(machine.add("b", &conf).error().0, 999, "none is taken");
    machine.twist("");
    assert!(!machine.ask("b", "10.213.47.3", &conf).ok);
    assert_eq!(machine.fill("b", &conf).len(), 4);
    machine.call("CHECK", "a1", &conf).succeeded();
}

/// Before 1970, or where a clock of 2038 and later ends up in 32 bits.
#[test]
fn times_that_no_clock_had_prove_nothing() {
    for seconds in [0, -86_400, i64::from(i32::MIN)] {
        let (node, conf, machine) = five();
        (0..5).for_each(|n| call(references().remove(0), "ADD", &format!("theirs{n}"), &conf).succeeded());
        date(&node, SystemTime::UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()));
        assert_eq!(machine.add("b", &conf).error().0, 999, "{seconds}");
        date(&node, long_ago());
        machine.add("b", &conf).succeeded();
    }
}

/// Leases of the reference as years leave them: of every mode that its versions or a restored backup gave them, and with
/// a second name in a backup. The backup stays as it is.
#[test]
fn leases_of_the_reference_of_any_mode_and_with_second_names() {
    for theirs in references() {
        let (node, conf, machine) = five();
        (0..5).for_each(|n| call(&theirs, "ADD", &format!("theirs{n}"), &conf).succeeded());
        let backup = node.data_dir().join("backup");
        fs::create_dir(&backup).unwrap();
        for (n, mode) in [0o600, 0o644, 0o444, 0o666, 0].into_iter().enumerate() {
            let lease = node.leases().join(format!("10.213.47.{}", n + 2));
            fs::set_permissions(&lease, fs::Permissions::from_mode(mode)).unwrap();
            fs::hard_link(&lease, backup.join(lease.file_name().unwrap())).unwrap();
        }
        date(&node, long_ago());
        assert_eq!(machine.add("theirs1", &conf).addresses(), ["10.213.47.3"], "one is back");
        assert_eq!(machine.fill("b", &conf).len(), 4);
        for (n, holder) in ["b0", "theirs1", "b1", "b2", "b3"].into_iter().enumerate() {
            let name = format!("10.213.47.{}", n + 2);
            assert_eq!(node.read(&name), format!("{holder}\r\neth0"));
            assert_eq!(fs::read_to_string(backup.join(&name)).unwrap(), format!("theirs{n}\r\neth0"));
            call(&theirs, "CHECK", holder, &conf).succeeded();
            call(&theirs, "DEL", holder, &conf).succeeded();
        }
        assert!(node.addresses().is_empty());
    }
}

/// exFAT, some shares: they know no second names.
fn without_links(machine: &Machine, error: &str) -> PathBuf {
    let program = machine.directory().join("without-links");
    let strace = format!("strace -qq -o /dev/null -e inject=?link,?linkat:error={error}");
    fs::write(&program, format!("#!/bin/sh\nexec {strace} {OURS}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn where_there_are_no_links() {
    for error in ["EPERM", "EOPNOTSUPP", "ENOSYS"] {
        let (node, conf, machine) = five();
        let ours = without_links(&machine, error);
        node.write("10.213.47.3", "foreign\r\neth0");
        assert_eq!(call(&ours, "ADD", "a", &conf).addresses(), ["10.213.47.4"], "{error}");
        assert_eq!(call(&ours, "ADD", "b", &conf).addresses(), ["10.213.47.5"]);
        assert_eq!(call(&ours, "ADD", "a", &conf).addresses(), ["10.213.47.4"]);
        assert_eq!(node.read("10.213.47.5"), "b\r\neth0");
        let mode = fs::metadata(node.leases().join("10.213.47.5")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!node.files().contains(".lease") && node.sealed());
        // Made in this boot, as any other.
        date(&node, long_ago());
        assert!(!call_with(&ours, "ADD", "c", &conf, &[("CNI_ARGS", "IP=10.213.47.4")]).ok);
        references().iter().for_each(|theirs| call(theirs, "CHECK", "b", &conf).succeeded());
        ["a", "b", "foreign"].iter().for_each(|id| call(&ours, "DEL", id, &conf).succeeded());
        assert!(node.addresses().is_empty());
    }
}

/// Any other refusal is an error.
#[test]
fn a_link_that_fails_reserves_nothing() {
    let (node, conf, machine) = five();
    let refused = call(without_links(&machine, "EIO"), "ADD", "a", &conf);
    assert_eq!(refused.error().0, 5);
    assert!(node.addresses().is_empty() && !node.files().contains(".lease"), "{:?}", node.files());
}
