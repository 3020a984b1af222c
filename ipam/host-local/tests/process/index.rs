//! The index must never lie: whatever happens behind its back is seen by the next call.

use std::fs;

use crate::node::{Node, OURS, add, call_with, check, del};

#[test]
fn it_is_kept_by_add_and_del() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.0.0/16"]);
    // More than a bucket holds, so that the table grows several times.
    for n in 0..600 {
        add(&format!("c{n}"), &conf).succeeded();
        assert!(node.sealed(), "{n}");
    }
    for n in 0..600 {
        check(&format!("c{n}"), &conf).succeeded();
        let address = add(&format!("c{n}"), &conf).addresses();
        assert_eq!(node.read(&address[0]), format!("c{n}\r\neth0"));
    }
    for n in 0..600 {
        del(&format!("c{n}"), &conf).succeeded();
        assert!(node.sealed(), "{n}");
    }
    assert!(node.addresses().is_empty());
}

#[test]
fn a_lease_that_appears_is_seen() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    for n in 0..20 {
        add("a", &conf).succeeded();
        // At once, in the same tick of the kernel's clock.
        node.write(&format!("10.1.2.{}", 100 + n), &format!("foreign{n}\r\neth0"));
        assert_eq!(add(&format!("foreign{n}"), &conf).addresses(), [format!("10.1.2.{}", 100 + n)]);
        del("a", &conf).succeeded();
    }
}

#[test]
fn a_lease_that_disappears_is_seen() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    add("a", &conf).succeeded();
    fs::remove_file(node.leases().join("10.1.2.2")).unwrap();
    assert!(!check("a", &conf).ok);
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.3"]);
}

#[test]
fn an_address_that_changed_hands_is_not_freed() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    add("a", &conf).succeeded();
    // In place: nothing tells the index, but every entry is verified.
    node.write("10.1.2.2", "b\r\neth0");
    assert!(node.sealed());
    del("a", &conf).succeeded();
    assert_eq!(node.read("10.1.2.2"), "b\r\neth0");
}

#[test]
fn a_lost_or_damaged_index_is_made_anew() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    let seal = || {
        let dir = fs::File::open(node.leases()).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30);
        dir.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    };
    add("a", &conf).succeeded();
    let index = node.leases().join(".owners");
    let good = fs::read(&index).unwrap();
    for damage in [&b""[..], b"nonsense", &good[..good.len() - 1], &[0; 4240], &good] {
        // Another file, sealed as if nothing had happened: a restored backup. The inode number gives it away,
        // even where the content is right; a file system that uses numbers again at once has the others.
        fs::rename(&index, node.leases().join("kept")).unwrap();
        fs::write(&index, damage).unwrap();
        seal();
        assert_eq!(add("a", &conf).addresses(), ["10.1.2.2"]);
        fs::remove_file(node.leases().join("kept")).unwrap();
    }
    // The table of another boot.
    let text = String::from_utf8_lossy(&good[..160]).into_owned();
    let boot = text.lines().nth(1).unwrap().to_owned();
    add("a", &conf).succeeded();
    let mut stale = fs::read(&index).unwrap();
    stale[17 + 5..17 + boot.len()].fill(b'0');
    stale[160..].fill(0);
    let file = fs::OpenOptions::new().write(true).open(&index).unwrap();
    std::io::Write::write_all(&mut &file, &stale).unwrap();
    seal();
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.2"], "not believed after a reboot");
}

#[test]
fn a_copied_directory_is_read_anew() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    add("a", &conf).succeeded();
    let copy = node.data_dir().join("copy");
    let status = std::process::Command::new("cp").arg("-a").arg(node.leases()).arg(&copy).status().unwrap();
    assert!(status.success());
    let mut conf = conf;
    conf["name"] = "copy".into();
    fs::write(copy.join("10.1.2.50"), "b\r\neth0").unwrap();
    assert_eq!(add("b", &conf).addresses(), ["10.1.2.50"]);
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.2"]);
}

#[test]
fn more_addresses_of_one_owner_than_a_bucket_holds() {
    let node = Node::new();
    for n in 2..250 {
        node.write(&format!("10.1.2.{n}"), "many\r\neth0");
    }
    let conf = node.subnets(&["10.1.2.0/24"]);
    assert_eq!(add("many", &conf).addresses(), ["10.1.2.2"]);
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.250"]);
    call_with(OURS, "DEL", "many", &conf, &[]).succeeded();
    assert_eq!(node.addresses(), ["10.1.2.250".parse().unwrap()].into());
}
