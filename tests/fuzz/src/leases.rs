//! The files of host-local: leases, the index of their owners, and the `resolv.conf` that it is told to read.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use host_local::lease::{Owner, address_of};
use host_local::resolv_conf;
use host_local::store::Store;

fn owner() -> Owner {
    Owner::new(&"ctr1".parse().expect("a name"), &"eth0".parse().expect("a name"))
}

fn candidates() -> impl Iterator<Item = IpAddr> {
    (2..9).map(|last| IpAddr::V4(Ipv4Addr::new(10, 1, 2, last)))
}

/// A directory with these files, through a whole life of an attachment. Nobody else's address is given out, and ours
/// comes back.
fn live(directory: &Path, taken: &[IpAddr]) {
    let mut store = Store::open(directory, Duration::from_secs(5)).expect("the store");
    let got = store.reserve(candidates(), &owner()).expect("reserve");
    let got = got.expect("there are more candidates than files");
    assert!(!taken.contains(&got), "{got} was taken");
    store.set_last_reserved(0, got).expect("note it");
    assert_eq!(store.last_reserved(0), Some(got));
    assert!(store.held_by(owner().key()).expect("read").contains(&got));
    drop(store);
    let mut store = Store::open(directory, Duration::from_secs(5)).expect("the store again");
    assert!(store.held_by(owner().key()).expect("read").contains(&got), "the index lost it");
    store.release_owner(&owner()).expect("release");
    assert!(store.held_by(owner().key()).expect("read").is_empty());
}

fn directory() -> tempfile::TempDir {
    let place = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).expect("a directory")
}

/// The bytes as a lease, and as the last address given out.
pub fn lease(bytes: &[u8]) {
    let place = directory();
    fs::write(place.path().join("10.1.2.2"), bytes).expect("write");
    fs::write(place.path().join("last_reserved_ip.0"), bytes).expect("write");
    let text = String::from_utf8_lossy(bytes);
    if let Some(address) = address_of(&text) {
        assert_eq!(address.to_string(), text);
    }
    // An empty one is nobody's, and ours is ours.
    let content = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).trim().to_owned();
    let free = bytes.is_empty() || content == owner().key();
    let taken = if free { Vec::new() } else { vec![IpAddr::V4(Ipv4Addr::new(10, 1, 2, 2))] };
    live(place.path(), &taken);
}

/// The bytes written over the index of a directory that is sealed: what it says is verified, and what it hides is lost
/// for this boot at most, never given out.
pub fn owners(bytes: &[u8]) {
    let place = directory();
    let path = place.path().join("net");
    let mut store = Store::open(&path, Duration::from_secs(5)).expect("the store");
    let other = Owner::new(&"ctr2".parse().expect("a name"), &"eth0".parse().expect("a name"));
    let taken = store.reserve(candidates(), &other).expect("reserve").expect("free");
    // This is what makes the index.
    assert_eq!(store.held_by(other.key()).expect("read"), [taken]);
    drop(store);
    let index = path.join(".owners");
    let mut content = fs::read(&index).expect("the index");
    // The first two bytes say where; so the directory, and with it the seal, stays as it is.
    if let [high, low, rest @ ..] = bytes {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % content.len();
        for (byte, new) in content[at..].iter_mut().zip(rest) {
            *byte = *new;
        }
    }
    fs::write(&index, &content).expect("write");
    live(&path, &[taken]);
}

/// The file that `resolvConf` names.
pub fn resolv_conf(bytes: &[u8]) {
    let place = directory();
    let path = place.path().join("resolv.conf");
    fs::write(&path, bytes).expect("write");
    let Ok(dns) = resolv_conf::read(&path) else {
        assert!(bytes.len() > 1 << 20, "anything of that size can be read");
        return;
    };
    for word in dns.nameservers.iter().chain(&dns.search).chain(&dns.options).chain([&dns.domain]) {
        assert!(!word.contains(char::is_whitespace), "{word:?}");
    }
    let mut written = String::new();
    dns.nameservers.iter().for_each(|server| written.push_str(&format!("nameserver {server}\n")));
    for (key, words) in [("search", &dns.search), ("options", &dns.options)] {
        words.iter().for_each(|word| written.push_str(&format!("{key} {word}\n")));
    }
    if !dns.domain.is_empty() {
        written.push_str(&format!("domain {}\n", dns.domain));
    }
    fs::write(&path, written).expect("write");
    assert_eq!(resolv_conf::read(&path).expect("read"), dns, "prints as itself");
}
