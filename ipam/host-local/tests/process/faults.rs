//! Killed processes, remains of earlier ones, many at once, and disks that take nothing.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::node::{Node, OURS, add, call, check, del, outcome, reference, start};

#[test]
fn fifty_at_once() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24", "2001:db8::/64"]);
    let started: Vec<_> = (0..50).map(|n| start(OURS, "ADD", &format!("c{n}"), &conf, &[])).collect();
    let outcomes: Vec<_> = started.into_iter().map(|child| outcome(child.wait_with_output().unwrap())).collect();
    let given: BTreeSet<String> = outcomes.iter().flat_map(|outcome| outcome.addresses()).collect();
    assert_eq!(given.len(), 100);
    // Under one lock for all sets, so the sets keep step.
    for outcome in &outcomes {
        let [v4, v6] = &outcome.addresses()[..] else { panic!("{outcome:?}") };
        let v4: u32 = v4.rsplit('.').next().unwrap().parse().unwrap();
        let v6 = u32::from_str_radix(v6.rsplit(':').next().unwrap(), 16).unwrap();
        assert_eq!(v4, v6);
    }
    assert!(node.sealed());
}

#[test]
fn the_same_container_at_once() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    let started: Vec<_> = (0..10).map(|_| start(OURS, "ADD", "a", &conf, &[])).collect();
    for child in started {
        assert_eq!(outcome(child.wait_with_output().unwrap()).addresses(), ["10.1.2.2"]);
    }
    assert_eq!(node.addresses().len(), 1);
}

/// A killed reference leaves an empty file, and the address is lost: no DEL and no GC of it matches.
#[test]
fn an_empty_lease_is_free() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/30"]);
    node.write("10.1.2.2", "");
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.2"]);
    assert_eq!(node.read("10.1.2.2"), "a\r\neth0");
    // And behind a complete index.
    del("a", &conf).succeeded();
    node.write("10.1.2.2", "");
    assert_eq!(add("b", &conf).addresses(), ["10.1.2.2"]);
}

#[test]
fn a_draft_left_behind_is_removed() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    // Killed between linking and unlinking: the draft is the lease. It must not be written to.
    node.write("10.1.2.2", "dead\r\neth0");
    fs::hard_link(node.leases().join("10.1.2.2"), node.leases().join(".lease")).unwrap();
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.3"]);
    assert_eq!(node.read("10.1.2.2"), "dead\r\neth0");
    assert!(!node.files().contains(".lease"));
    node.write(".lease", "");
    del("dead", &conf).succeeded();
    assert!(!node.files().contains(".lease"));
    assert_eq!(node.addresses().len(), 1);
}

/// Killed at any moment, by SIGKILL, between others that are not killed.
#[test]
fn killed_at_random() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24", "2001:db8::/64"]);
    let started = Instant::now();
    add("first", &conf).succeeded();
    let whole = started.elapsed();
    let mut random: u32 = std::process::id();
    for n in 0..300 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let id = format!("c{}", n % 40);
        let verb = if random >> 30 == 0 { "DEL" } else { "ADD" };
        let mut child = start(OURS, verb, &id, &conf, &[]);
        std::thread::sleep(whole.mul_f64(f64::from(random >> 8 & 0xff) / 255.0));
        child.kill().unwrap();
        child.wait().unwrap();
        if n % 10 == 0 {
            // Whoever comes next has both addresses, alone, and the remains are gone.
            let addresses = add(&id, &conf).addresses();
            addresses.iter().for_each(|address| assert_eq!(node.read(address), format!("{id}\r\neth0")));
            assert!(node.sealed() && !node.files().contains(".lease"));
        }
        for address in node.addresses() {
            assert!(!node.read(&address.to_string()).is_empty(), "{address} is empty");
        }
    }
    assert_eq!(add("first", &conf).addresses(), ["10.1.2.2", "2001:db8::2"]);
    for n in 0..40 {
        del(&format!("c{n}"), &conf).succeeded();
    }
    assert_eq!(node.addresses().len(), 2, "nothing leaks: {:?}", node.addresses());
}

#[test]
fn killed_together_with_the_reference() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    let theirs = reference();
    for n in 0..60u64 {
        let mut children: Vec<_> = [OURS.as_ref(), theirs.as_path()]
            .iter()
            .enumerate()
            .map(|(side, program)| start(program, "ADD", &format!("c{}-{side}", n % 20), &conf, &[]))
            .collect();
        std::thread::sleep(Duration::from_micros(n * 137 % 6000));
        for child in &mut children {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
    add("last", &conf).succeeded();
    for n in 0..40 {
        del(&format!("c{}-{}", n / 2, n % 2), &conf).succeeded();
    }
    del("last", &conf).succeeded();
    assert!(node.addresses().is_empty(), "{:?}", node.files());
}

#[test]
fn a_lock_that_is_held_is_waited_for() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    add("a", &conf).succeeded();
    let lock = fs::File::open(node.leases().join("lock")).unwrap();
    lock.lock().unwrap();
    let mut child = start(OURS, "ADD", "b", &conf, &[]);
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    lock.unlock().unwrap();
    assert_eq!(outcome(child.wait_with_output().unwrap()).addresses(), ["10.1.2.3"]);
}

/// Whoever is asked every few seconds must not wait a minute.
#[test]
fn status_does_not_wait_for_long() {
    let node = Node::new();
    let mut conf = node.subnets(&["10.1.2.0/24"]);
    conf["cniVersion"] = "1.1.0".into();
    add("a", &conf).succeeded();
    let lock = fs::File::open(node.leases().join("lock")).unwrap();
    lock.lock().unwrap();
    let started = Instant::now();
    let outcome = call(OURS, "STATUS", "", &conf);
    let (code, msg) = outcome.error();
    assert!(code == 50 && msg.ends_with("has been locked by another process for 1 s"), "{code} {msg}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Runs ADD on a small file system of its own: `prepare` is a shell script with `$DIR`, `$ADD` and `$OURS`.
fn on_tmpfs(options: &str, prepare: &str) -> (String, String) {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24", "2001:db8::/64"]);
    let script = format!(
        "mount -t tmpfs -o {options} none \"$DIR\" || exit 77\n\
         add() {{ printf %s \"$CONF\" | CNI_CONTAINERID=$1 CNI_COMMAND=${{2:-ADD}} \"$OURS\"; }}\n\
         {prepare}\nls -A \"$DIR/net\" >&2"
    );
    // Without root a user namespace gives the right to mount.
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script]);
    command.env("DIR", node.data_dir()).env("OURS", OURS).env("CONF", conf.to_string());
    command.envs([("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/nonexistent/netns"), ("CNI_PATH", "/nonexistent")]);
    let output = command.output().unwrap();
    assert_ne!(output.status.code(), Some(77), "{output:?}");
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_read_only_directory_reserves_nothing() {
    let (stdout, files) = on_tmpfs("size=1m", "add a >/dev/null; mount -o remount,ro \"$DIR\"; add b; add b DEL");
    let error: serde_json::Value = serde_json::from_str(&stdout).expect(&stdout);
    let msg = error["msg"].as_str().unwrap();
    assert_eq!(error["code"], 5);
    assert!(msg.contains("/net/.lease: Read-only file system (os error 30)"), "{msg}");
    assert_eq!(files, ".owners\n10.1.2.2\n2001:db8::2\nlast_reserved_ip.0\nlast_reserved_ip.1\nlock\n");
}

#[test]
fn a_full_disk_reserves_nothing() {
    // Room for no file; for the first set's draft, not for its lease; for the first set, not for the second.
    for free in 0..3 {
        let fill = format!(
            "add a >/dev/null; i=0; while touch \"$DIR/blocker$i\" 2>/dev/null; do i=$((i+1)); done\n\
             j=0; while [ $j -lt {free} ]; do j=$((j+1)); rm \"$DIR/blocker$((i-j))\"; done; add b; true"
        );
        let (stdout, files) = on_tmpfs("nr_inodes=20", &fill);
        let error: serde_json::Value = serde_json::from_str(&stdout).expect(&stdout);
        let msg = error["msg"].as_str().unwrap();
        assert_eq!(error["code"], 5, "{free}: {error}");
        assert!(msg.contains("/net/") && msg.ends_with(": No space left on device (os error 28)"), "{free}: {msg}");
        assert_eq!(files, ".owners\n10.1.2.2\n2001:db8::2\nlast_reserved_ip.0\nlast_reserved_ip.1\nlock\n", "{free}");
    }
}

/// No room for content, though there is for names: a lease without its owner must not appear.
#[test]
fn a_disk_without_a_block_reserves_nothing() {
    let fill = "add a >/dev/null; cat /dev/zero >\"$DIR/blocker\" 2>/dev/null; add b; true";
    let (stdout, files) = on_tmpfs("size=64k", fill);
    let error: serde_json::Value = serde_json::from_str(&stdout).expect(&stdout);
    assert!(error["msg"].as_str().unwrap().contains("No space left on device (os error 28)"), "{error}");
    assert_eq!(files, ".owners\n10.1.2.2\n2001:db8::2\nlast_reserved_ip.0\nlast_reserved_ip.1\nlock\n");
}

#[test]
fn a_directory_that_cannot_be_made() {
    let node = Node::new();
    let mut conf = node.subnets(&["10.1.2.0/24"]);
    fs::write(node.data_dir().join("file"), "").unwrap();
    conf["ipam"]["dataDir"] = json!(node.data_dir().join("file"));
    let refused = add("a", &conf);
    assert!(refused.error().0 == 5 && refused.error().1.contains("/file/net: Not a directory"), "{refused:?}");
    assert!(!check("a", &conf).ok);
}
