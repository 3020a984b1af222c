//! Addresses that are in use: those of every network namespace of this machine that can be found.
//!
//! Read only when an address is about to be taken from a lease of an earlier boot, as the last objection to it. A
//! namespace is found by a process in it or by where it is mounted, as runtimes mount those of their pods. Processes
//! and mounts come and go meanwhile; anything else that keeps a namespace from being read means that an address in it
//! might be any address.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{FsWord, fstatfs};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::mounts;

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS: FsWord = 0x6e73_6673;

/// Addresses of all namespaces. `None`: one of them cannot be read.
#[must_use]
pub fn addresses() -> Option<HashSet<IpAddr>> {
    let mut found = HashSet::new();
    of_processes(&mut found).ok()?;
    // A thread of its own, which need not find its way back.
    let mounted = thread::Builder::new().spawn(of_mounts).ok()?;
    found.extend(mounted.join().ok()?.ok()?);
    Some(found)
}

fn of_processes(found: &mut HashSet<IpAddr>) -> io::Result<()> {
    let mut seen = HashSet::new();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let process = process.path();
        // Who may not know the namespace (that is for who may trace the process) can read its addresses all the same.
        let namespace = fs::read_link(process.join("ns/net")).ok();
        if namespace.as_ref().is_some_and(|namespace| seen.contains(namespace)) {
            continue;
        }
        match read(&process.join("net"), found) {
            // Not before: another process may be in the namespace of one that ended meanwhile.
            Ok(()) => seen.extend(namespace),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn of_mounts() -> io::Result<HashSet<IpAddr>> {
    let mut found = HashSet::new();
    for mount in namespace_mounts()? {
        let namespace = match File::open(mount) {
            Err(error) if is_gone(&error) => continue,
            namespace => namespace?,
        };
        // Else it was unmounted, and this is the file that was under it.
        if fstatfs(&namespace)?.f_type == NSFS {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            read(Path::new("/proc/thread-self/net"), &mut found)?;
        }
    }
    Ok(found)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// Where network namespaces are mounted, as this process sees it.
pub(crate) fn namespace_mounts() -> io::Result<Vec<PathBuf>> {
    let namespaces = mounts::of_type("nsfs")?.into_iter().filter(|mount| mount.root.starts_with(b"net:["));
    Ok(namespaces.map(|mount| mount.place).collect())
}

/// Adds what `/proc/…/net` lists.
fn read(net: &Path, found: &mut HashSet<IpAddr>) -> io::Result<()> {
    // Before the other, which is always there: what it lacks is IPv6, and not the process.
    let of_ipv6 = match fs::read_to_string(net.join("if_inet6")) {
        Err(error) if is_gone(&error) => String::new(),
        text => text?,
    };
    for line in of_ipv6.lines() {
        let digits = line.split(' ').next().unwrap_or_default();
        found.extend(u128::from_str_radix(digits, 16).map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))));
    }
    let mut prefix = "";
    for line in fs::read_to_string(net.join("fib_trie"))?.lines() {
        match line.trim_start().split_once(' ') {
            Some(("|--", address)) => prefix = address,
            Some(("/32", "host LOCAL")) => found.extend(prefix.parse::<IpAddr>()),
            _ => {}
        }
    }
    Ok(())
}
