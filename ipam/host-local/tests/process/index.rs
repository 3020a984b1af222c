//! The index must never lie: whatever happens behind its back is seen by the next call.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

/// Makes the directory look as if the index had just been completed, and says what its change time is then.
fn forge_seal(node: &Node) -> [u8; 16] {
    let dir = fs::File::open(node.leases()).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30);
    dir.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    let meta = dir.metadata().unwrap();
    [meta.ctime(), meta.ctime_nsec()].map(i64::to_le_bytes).concat().try_into().unwrap()
}

/// The index with the change time put right, and `damage` done.
fn forge(node: &Node, damage: impl FnOnce(&mut Vec<u8>)) {
    let index = node.leases().join(".owners");
    let mut content = fs::read(&index).unwrap();
    content[112..128].copy_from_slice(&forge_seal(node));
    damage(&mut content);
    fs::write(&index, content).unwrap();
}

#[test]
fn a_lost_or_damaged_index_is_made_anew() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    add("a", &conf).succeeded();
    // That the forgery works: without its entries the table is believed, and `a` seems to own nothing.
    forge(&node, |content| content[128..].fill(0));
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.3"]);
    for damage in [
        |content: &mut Vec<u8>| content.clear(),
        |content: &mut Vec<u8>| *content = b"nonsense".to_vec(),
        |content: &mut Vec<u8>| content.truncate(content.len() - 1),
        |content: &mut Vec<u8>| content.fill(0),
        // Another boot, and the pages lost.
        |content: &mut Vec<u8>| {
            content[22..58].fill(b'0');
            content[128..].fill(0);
        },
        // Another change time.
        |content: &mut Vec<u8>| {
            content[120] ^= 1;
            content[128..].fill(0);
        },
    ] {
        forge(&node, damage);
        assert_eq!(add("a", &conf).addresses(), ["10.1.2.2"]);
    }
    fs::remove_file(node.leases().join(".owners")).unwrap();
    forge_seal(&node);
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.2"]);
}

/// The backup's index says nothing of what came after it, and its modification time comes along.
#[test]
fn a_backup_that_is_copied_back_is_read_anew() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    add("a", &conf).succeeded();
    let backup = node.data_dir().join("backup");
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        let status = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
        assert!(status.success());
    };
    copy(&node.leases(), &backup);
    add("b", &conf).succeeded();
    copy(&backup, &node.leases());
    assert!(node.sealed(), "as far as the modification time says");
    del("b", &conf).succeeded();
    assert_eq!(node.addresses(), ["10.1.2.2".parse().unwrap()].into());
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
