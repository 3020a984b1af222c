//! Addresses that are in use: those of every network namespace of this machine that can be found.
//!
//! Read only when an address is about to be taken from a lease of an earlier boot, as the last objection to it. A
//! namespace is found by a process in it or by where it is mounted, as runtimes mount those of their pods.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Addresses of all namespaces.
#[must_use]
pub fn addresses() -> HashSet<IpAddr> {
    let mut seen = HashSet::new();
    let mut found = HashSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let Some(namespace) = is_process.then(|| fs::read_link(process.path().join("ns/net")).ok()).flatten() else {
            continue;
        };
        if seen.insert(namespace) {
            read(&process.path().join("net"), &mut found);
        }
    }
    // A thread of its own, which need not find its way back.
    let mounted = thread::spawn(|| {
        let mut found = HashSet::new();
        for mount in namespace_mounts() {
            let Ok(namespace) = File::open(mount) else { continue };
            if move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).is_ok() {
                read(Path::new("/proc/thread-self/net"), &mut found);
            }
        }
        found
    });
    found.extend(mounted.join().unwrap_or_default());
    found
}

/// Where network namespaces are mounted, as this process sees it.
pub(crate) fn namespace_mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter(|line| line.contains(" - nsfs "));
    let fields = mounts.map(|line| line.split(' ').skip(3));
    // The root of the mount names the namespace, and the next field is the place.
    let places =
        fields.filter_map(|mut fields| fields.next().filter(|root| root.starts_with("net:[")).and(fields.next()));
    places.map(|place| place.replace("\\040", " ").into()).collect()
}

/// Adds what `/proc/…/net` lists.
fn read(net: &Path, found: &mut HashSet<IpAddr>) {
    let mut prefix = "";
    for line in fs::read_to_string(net.join("fib_trie")).unwrap_or_default().lines() {
        match line.trim_start().split_once(' ') {
            Some(("|--", address)) => prefix = address,
            Some(("/32", "host LOCAL")) => found.extend(prefix.parse::<IpAddr>()),
            _ => {}
        }
    }
    for line in fs::read_to_string(net.join("if_inet6")).unwrap_or_default().lines() {
        let digits = line.split(' ').next().unwrap_or_default();
        found.extend(u128::from_str_radix(digits, 16).map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))));
    }
}
