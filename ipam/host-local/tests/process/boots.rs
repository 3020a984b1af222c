//! Leases of an earlier boot, and every way in which one of this boot could be taken for one.
//!
//! All but the living are files here: no other test on this machine has 10.213.47.0/24 in a namespace.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use serde_json::{Value, json};

use crate::machine::{Machine, date, long_ago};
use crate::node::{Node, call, call_with, references};

/// Five addresses, .2 to .6.
const FIVE: &str = "10.213.47.0/29";
const ALL_FIVE: [&str; 5] = ["10.213.47.2", "10.213.47.3", "10.213.47.4", "10.213.47.5", "10.213.47.6"];

fn five() -> (Node, Value, Machine) {
    let node = Node::new();
    let conf = node.subnets(&[FIVE]);
    (node, conf, Machine::new())
}

/// The complaint of ten years: a node that is rebooted often enough can start no more pods.
#[test]
fn they_give_way_when_the_range_is_used_up() {
    let (node, conf, mut machine) = five();
    assert_eq!(machine.fill("a", &conf), ALL_FIVE);
    assert_eq!(machine.call("STATUS", "", &conf).error().0, 50);
    for boot in ["b", "c", "d"] {
        machine.reboot();
        machine.call("STATUS", "", &conf).succeeded();
        assert_eq!(machine.fill(boot, &conf), ALL_FIVE, "each once");
        let full = machine.add("more", &conf);
        assert!(full.error().1.contains("(5 of 5 addresses are taken)"), "{full:?}");
        assert_eq!(machine.call("STATUS", "", &conf).error().0, 50);
        assert_eq!(node.read("10.213.47.3"), format!("{boot}1\r\neth0"));
    }
}

#[test]
fn they_stay_while_there_is_room() {
    let (node, conf, mut machine) = five();
    machine.add("a", &conf).succeeded();
    machine.reboot();
    assert_eq!(machine.add("b", &conf).addresses(), ["10.213.47.3"]);
    assert_eq!(node.read("10.213.47.2"), "a\r\neth0");
    machine.call("CHECK", "a", &conf).succeeded();
    // DEL, which the runtime makes up for after the reboot.
    machine.call("DEL", "a", &conf).succeeded();
    assert_eq!(node.addresses().len(), 1);
}

#[test]
fn a_container_that_returns_has_its_old_address_and_keeps_it() {
    let (_node, conf, mut machine) = five();
    machine.fill("a", &conf);
    machine.reboot();
    assert_eq!(machine.add("a2", &conf).addresses(), ["10.213.47.4"]);
    // It lives now, and gives way to nobody.
    assert_eq!(machine.fill("b", &conf), ["10.213.47.2", "10.213.47.3", "10.213.47.5", "10.213.47.6"]);
    machine.call("CHECK", "a2", &conf).succeeded();
    assert!(!machine.ask("c", "10.213.47.4", &conf).ok);
}

#[test]
fn one_gives_way_to_who_asks_for_its_address() {
    let (node, conf, mut machine) = five();
    machine.add("a", &conf).succeeded();
    machine.reboot();
    machine.add("b", &conf).succeeded();
    let refused = machine.ask("c", "10.213.47.3", &conf);
    assert!(refused.error().1.contains("not available"), "{refused:?}");
    assert_eq!(machine.ask("c", "10.213.47.2", &conf).addresses(), ["10.213.47.2"]);
    assert_eq!(node.read("10.213.47.2"), "c\r\neth0");
}

#[test]
fn gc_frees_those_that_no_one_claims() {
    let (node, mut conf, mut machine) = five();
    ["a", "b"].iter().for_each(|id| machine.add(id, &conf).succeeded());
    machine.reboot();
    machine.call("GC", "", &conf).succeeded();
    assert_eq!(node.addresses().len(), 2, "without a list nothing is freed");
    conf["cni.dev/valid-attachments"] = json!([{ "containerID": "b", "ifname": "eth0" }]);
    machine.call("GC", "", &conf).succeeded();
    assert_eq!(node.addresses(), ["10.213.47.3".parse().unwrap()].into(), "what the runtime knows stays");
}

/// The reference's own leases have no stamp. They get one when they are seen, and hold until the next boot.
#[test]
fn those_of_the_reference_hold_until_the_boot_after_they_were_seen() {
    for theirs in references() {
        let (node, conf, mut machine) = five();
        for n in 0..3 {
            call(&theirs, "ADD", &format!("theirs{n}"), &conf).succeeded();
        }
        assert_eq!(machine.fill("a", &conf).len(), 2);
        machine.reboot();
        assert_eq!(machine.fill("b", &conf).len(), 5, "{}", theirs.display());
        // Never seen in the boot in which they were made: nothing proves it.
        let (unseen, conf, mut machine) = five();
        call(&theirs, "ADD", "theirs", &conf).succeeded();
        machine.reboot();
        assert_eq!(machine.fill("a", &conf).len(), 4);
        machine.reboot();
        assert_eq!(machine.fill("b", &conf).len(), 5);
        drop((node, unseen));
    }
}

/// A node that the reference has left without an address, on the day that its binaries are exchanged.
#[test]
fn those_of_the_reference_from_long_ago_give_way_at_once() {
    for theirs in references() {
        let (node, conf, machine) = five();
        (0..5).for_each(|n| call(&theirs, "ADD", &format!("theirs{n}"), &conf).succeeded());
        assert_eq!(machine.call("STATUS", "", &conf).error().0, 50, "they are of now");
        date(&node, long_ago());
        machine.call("STATUS", "", &conf).succeeded();
        assert_eq!(machine.add("theirs3", &conf).addresses(), ["10.213.47.5"], "it returns");
        assert_eq!(machine.fill("a", &conf).len(), 4);
        call(&theirs, "CHECK", "a0", &conf).succeeded();
        call(&theirs, "CHECK", "theirs3", &conf).succeeded();
    }
}

#[test]
fn an_address_that_the_reference_gave_anew_does_not_inherit_the_stamp() {
    for theirs in references() {
        let (_node, conf, mut machine) = five();
        machine.fill("a", &conf);
        machine.reboot();
        call(&theirs, "DEL", "a0", &conf).succeeded();
        call_with(&theirs, "ADD", "new", &conf, &[("CNI_ARGS", "IP=10.213.47.2")]).succeeded();
        assert_eq!(machine.fill("b", &conf).len(), 4);
        call(&theirs, "CHECK", "new", &conf).succeeded();
    }
}

#[test]
fn those_of_before_2018() {
    let (node, conf, mut machine) = five();
    node.write("10.213.47.4", "old");
    assert!(machine.add("old", &conf).error().1.contains("duplicate allocation"));
    machine.reboot();
    assert_eq!(machine.add("old", &conf).addresses(), ["10.213.47.4"]);
    assert_eq!(node.read("10.213.47.4"), "old\r\neth0");
}

/// A snapshot that is restored, a machine that slept, a clock that was wrong: the boot is the same, the pods live.
#[test]
fn ours_of_this_boot_hold_whatever_the_clock_says() {
    let (node, conf, mut machine) = five();
    machine.fill("a", &conf);
    date(&node, long_ago());
    assert_eq!(machine.add("b", &conf).error().0, 999);
    // And the other way round: made under a clock that was ahead.
    date(&node, SystemTime::now() + Duration::from_secs(400 * 86_400));
    machine.reboot();
    assert_eq!(machine.fill("b", &conf).len(), 5);
}

/// The clock began a month behind, without a battery, and NTP has put it right since; the reference gave addresses
/// before. By the present clock, and by the `btime` that is computed from it, they are older than the boot.
#[test]
fn a_clock_that_was_put_forward() {
    let (node, conf, mut machine) = five();
    (0..5).for_each(|n| call(references().remove(0), "ADD", &format!("theirs{n}"), &conf).succeeded());
    date(&node, long_ago() + Duration::from_secs(3600));
    // When /proc was mounted, the clock showed this.
    machine.twist("touch -d '1970-01-02 00:00:00' /proc");
    let program = machine.inside("unshare -pf --mount-proc");
    assert_eq!(call(&program, "ADD", "b", &conf).error().0, 999);
    // Less than the margin before it, as file systems round and young clocks waver.
    date(&node, long_ago() - Duration::from_secs(30));
    assert_eq!(call(&program, "ADD", "b", &conf).error().0, 999);
    date(&node, long_ago() - Duration::from_secs(3600));
    call(&program, "ADD", "b", &conf).succeeded();
}

/// The clock was put back, the reference gave an address, and the clock was put right: the pod's namespace remembers.
#[test]
fn a_clock_that_was_put_back_and_forward() {
    let (node, conf, mut machine) = five();
    (0..5).for_each(|n| call(references().remove(0), "ADD", &format!("theirs{n}"), &conf).succeeded());
    date(&node, long_ago());
    // Times of a namespace cannot be set; a table of mounts that shows another file in its place can be.
    let (table, namespace) = (machine.directory().join("mountinfo"), machine.directory().join("name space"));
    fs::write(&namespace, "").unwrap();
    let place = namespace.display().to_string().replace(' ', "\\040");
    let line = format!("69 42 0:4 net:[4026532388] {place} rw shared:2 - nsfs nsfs rw");
    let (table, namespace) = (table.display(), namespace.display());
    let twist = |time| {
        format!(
            "touch -d '{time}' '{namespace}'
            {{ grep ' - devtmpfs ' /proc/self/mountinfo; printf '%s\\n' '{line}'; }} >{table}
            mount --bind {table} /proc/$$/mountinfo"
        )
    };
    machine.twist(&twist("1970-01-01 20:00:00"));
    assert_eq!(machine.add("b", &conf).error().0, 999);
    machine.twist(&twist("1970-01-03 00:00:00"));
    machine.add("b", &conf).succeeded();
}

/// There the time since the boot is somebody's choice.
#[test]
fn in_a_time_namespace_time_proves_nothing() {
    let (node, conf, machine) = five();
    (0..5).for_each(|n| call(references().remove(0), "ADD", &format!("theirs{n}"), &conf).succeeded());
    date(&node, long_ago());
    assert_eq!(call(machine.inside("unshare -T --fork"), "ADD", "b", &conf).error().0, 999);
    machine.add("b", &conf).succeeded();
}

/// Without what the proof needs there is no proof, and an ADD works as ever.
#[test]
fn where_the_boot_is_unknown_they_hold() {
    let (node, conf, mut machine) = five();
    machine.fill("a", &conf);
    machine.reboot();
    for twist in ["mount --bind /dev/null /proc/sys/kernel/random/boot_id", "mount -t tmpfs none /proc"] {
        machine.twist(twist);
        assert_eq!(machine.add("b", &conf).error().0, 999, "{twist}");
        assert_eq!(machine.add("a1", &conf).addresses(), ["10.213.47.3"]);
    }
    // The boot is known, and time is not.
    let (theirs, conf, mut machine) = five();
    (0..5).for_each(|n| call(references().remove(0), "ADD", &format!("theirs{n}"), &conf).succeeded());
    date(&theirs, long_ago());
    let table = machine.directory().join("mountinfo");
    let table = table.display();
    machine.twist(&format!(
        "mount -t tmpfs none /sys\ngrep -v ' - devtmpfs ' /proc/self/mountinfo >{table}\nmount --bind {table} /proc/$$/mountinfo"
    ));
    assert_eq!(machine.add("b", &conf).error().0, 999);
    machine.twist("mount -t tmpfs none /sys");
    machine.add("b", &conf).succeeded();
    drop(node);
}

/// The same, where all that user space mounted is young: `/proc` and `/dev` are a container's, and somebody has listed the
/// attributes of `/sys`, which sets its times. By what can be computed the boot was a second ago.
#[test]
fn a_clock_that_was_put_forward_is_told_by_what_the_kernel_made_first() {
    let (node, conf, mut machine) = five();
    (0..5).for_each(|n| call(references().remove(0), "ADD", &format!("theirs{n}"), &conf).succeeded());
    date(&node, SystemTime::now() - Duration::from_secs(80));
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: i64 = uptime.split('.').next().unwrap().parse().unwrap();
    assert!(uptime > 30, "this machine is too young for the test");
    // A directory of sysfs that is as young as its network namespace; and a time namespace, which the plugin must not see.
    let sys = "mount -t sysfs none /sys\nmount --bind /sys/devices/virtual/net/lo /sys";
    machine.twist(&format!("{sys}\nmount -t tmpfs none /dev\nmount -t tmpfs none /proc/$$/ns"));
    let program = machine.inside(&format!("unshare -n -T --boottime {} -pf --mount-proc", 1 - uptime));
    assert_eq!(call(&program, "ADD", "b", &conf).error().0, 999);
    date(&node, long_ago());
    call(&program, "ADD", "b", &conf).succeeded();
}

/// No file of this process's mount namespace is the test's own: a file system here is the plugin's too.
fn with_file_system(node: &Node, kind: &str) {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("none"), node.data_dir(), Some(kind), MsFlags::empty(), none).unwrap();
}

/// Without extended attributes a lease that is renewed has a present time instead.
#[test]
fn without_stamps_a_container_that_returned_keeps_its_address() {
    let (node, conf, machine) = five();
    with_file_system(&node, "ramfs");
    assert_eq!(machine.fill("a", &conf).len(), 5);
    assert_eq!(machine.add("b", &conf).error().0, 999);
    date(&node, long_ago());
    assert_eq!(machine.add("a1", &conf).addresses(), ["10.213.47.3"]);
    assert_eq!(machine.fill("b", &conf).len(), 4, "the others are old by their time");
    machine.call("CHECK", "a1", &conf).succeeded();
}

/// The name of the attribute, as it is on every node.
const STAMP: &str = "user.podwire.boot";

/// The old stamp says that it is of an earlier boot, and cannot be replaced: no room for two at once.
#[test]
fn a_stamp_that_cannot_be_renewed_does_not_give_the_address_away() {
    let (node, conf, mut machine) = five();
    with_file_system(&node, "tmpfs");
    machine.fill("a", &conf);
    machine.reboot();
    mount(Some("none"), node.data_dir(), Some("tmpfs"), MsFlags::MS_REMOUNT, Some("nr_inodes=64")).unwrap();
    let crowd: Vec<PathBuf> = (0..64).map(|n| node.data_dir().join(format!("crowd{n}"))).collect();
    let made = crowd.iter().take_while(|path| fs::write(path, "").is_ok()).count();
    assert!(made < crowd.len());
    let mut attributes = 0;
    while lsetxattr(&crowd[0], format!("user.{attributes}"), b"x", XattrFlags::empty()).is_ok() {
        attributes += 1;
    }
    assert_eq!(machine.add("a1", &conf).addresses(), ["10.213.47.3"]);
    crowd.iter().take(made).for_each(|path| fs::remove_file(path).unwrap());
    assert!(!machine.ask("b", "10.213.47.3", &conf).ok);
    assert_eq!(machine.fill("b", &conf).len(), 4);
    machine.call("CHECK", "a1", &conf).succeeded();
}

/// Of a build that says more, or more than is read.
#[test]
fn a_stamp_that_cannot_be_read_holds() {
    let (node, conf, machine) = five();
    machine.fill("a", &conf);
    date(&node, long_ago());
    let stamps = [b"lost 00000000-0000-4000-8000-000000000009".to_vec(), vec![b'x'; 200], vec![0xff], Vec::new()];
    for (address, stamp) in ALL_FIVE.iter().zip(&stamps) {
        lsetxattr(node.leases().join(address), STAMP, stamp, XattrFlags::empty()).unwrap();
    }
    assert_eq!(machine.add("b", &conf).error().0, 999);
    // Nor is it replaced by one that says less.
    fs::remove_file(node.leases().join(".owners")).unwrap();
    assert_eq!(machine.add("b", &conf).error().0, 999);
    for (address, stamp) in ALL_FIVE.iter().zip(&stamps) {
        let mut value = [0; 256];
        let length = lgetxattr(node.leases().join(address), STAMP, &mut value).unwrap();
        assert_eq!(&value[..length], stamp);
    }
}

/// `dataDir` in memory: nothing is there after a real reboot, and what is there is judged as elsewhere.
#[test]
fn in_memory() {
    let (node, conf, mut machine) = five();
    with_file_system(&node, "tmpfs");
    machine.fill("a", &conf);
    assert_eq!(machine.add("b", &conf).error().0, 999);
    machine.reboot();
    machine.add("b", &conf).succeeded();
}

/// A process or a mount that keeps a namespace with an address.
struct Living(Child);

impl Drop for Living {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// One mount in the machine that is not UTF-8 must not hide the namespaces that nothing but a mount keeps.
#[test]
fn a_living_namespace_is_found_beside_a_mount_of_any_name() {
    let (_node, conf, mut machine) = five();
    machine.add("a", &conf).succeeded();
    machine.reboot();
    let namespace = machine.directory().join("name space");
    fs::write(&namespace, "").unwrap();
    let place = format!("'{}'", namespace.display());
    let strange = machine.directory().display().to_string();
    machine.twist(&format!(
        "d={strange}/$(printf '\\377'); mkdir -p \"$d\"; mount -t tmpfs none \"$d\"
        unshare --net={place} ip address add 10.213.47.2/32 dev lo"
    ));
    assert!(!machine.ask("c", "10.213.47.2", &conf).ok);
    machine.twist("");
    machine.ask("c", "10.213.47.2", &conf).succeeded();
}

/// Where a namespace cannot be read, any address may be in it.
#[test]
fn what_cannot_be_read_is_living() {
    let (_node, conf, mut machine) = five();
    machine.fill("a", &conf);
    machine.reboot();
    let namespace = machine.directory().join("namespace");
    fs::write(&namespace, "").unwrap();
    let mounted = format!("unshare --net={} true", namespace.display());
    let denied = format!("exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin {}", crate::node::OURS);
    machine.twist(&format!("{mounted}\n{denied}"));
    assert_eq!(machine.add("b", &conf).error().0, 999);
    machine.twist(&mounted);
    machine.add("b", &conf).succeeded();
}

/// A pod that was brought back without an ADD (CRIU).
#[test]
fn an_address_that_a_living_namespace_has_is_not_given() {
    let node = Node::new();
    let conf = node.subnets(&["10.213.47.64/29", "2001:db8:5::/64"]);
    let mut machine = Machine::new();
    (0..5).for_each(|n| machine.add(&format!("a{n}"), &conf).succeeded());
    machine.reboot();
    let script = "ip address add 10.213.47.66/32 dev lo; echo; exec sleep 1000";
    let mut living = Command::new("unshare");
    living.args(["-n", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut living = Living(living.spawn().unwrap());
    let mut line = [0];
    std::io::Read::read_exact(living.0.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!(machine.add("b", &conf).addresses()[0], "10.213.47.67");
    assert!(!machine.ask("c", "10.213.47.66", &conf).ok);
    drop(living);

    // One that nothing but a mount keeps.
    let namespace: PathBuf = machine.directory().join("namespace");
    fs::write(&namespace, "").unwrap();
    let place = namespace.display();
    machine.twist(&format!(
        "unshare --net={place} ip address add 2001:db8:5::3/128 dev lo; nsenter --net={place} ip address add 10.213.47.66/32 dev lo"
    ));
    assert!(!machine.ask("c", "10.213.47.66", &conf).ok);
    let taken = machine.ask("c", "2001:db8:5::3", &conf);
    assert!(taken.error().1.contains("not available"), "{taken:?}");
    machine.twist("");
    assert_eq!(machine.ask("c", "10.213.47.66", &conf).addresses()[0], "10.213.47.66");
}
