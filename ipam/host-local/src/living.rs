//! Addresses that are in use: those of every network namespace of this machine that can be found.
//!
//! Read only when an address is about to be taken from a lease of an earlier boot, as the last objection to it. A
//! namespace is found by a process in it or by where it is mounted, as runtimes mount those of their pods. Processes
//! and mounts come and go meanwhile; anything else that keeps a namespace from being read means that an address in it
//! might be any address.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{FsWord, fstatfs};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

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
    Ok(mounts_in(&fs::read("/proc/self/mountinfo")?))
}

/// Those of a table in the form of `mountinfo`. Paths are bytes there, as everywhere.
fn mounts_in(table: &[u8]) -> Vec<PathBuf> {
    let mounts = table.split(|byte| *byte == b'\n').filter(|line| line.windows(8).any(|part| part == b" - nsfs "));
    let fields = mounts.map(|line| line.split(|byte| *byte == b' ').skip(3));
    // The root of the mount names the namespace, and the next field is the place.
    let places =
        fields.filter_map(|mut fields| fields.next().filter(|root| root.starts_with(b"net:[")).and(fields.next()));
    places.map(|place| OsStr::from_bytes(&unescaped(place)).into()).collect()
}

/// A field of `mountinfo` without the four escapes that it has.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'\\', b'0', b'1', b'1', after @ ..] => (b'\t', after),
            [b'\\', b'0', b'1', b'2', after @ ..] => (b'\n', after),
            [b'\\', b'0', b'4', b'0', after @ ..] => (b' ', after),
            [b'\\', b'1', b'3', b'4', after @ ..] => (b'\\', after),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_by_bytes() {
        let table = b"22 27 0:21 / /proc rw - proc proc rw\n\
            30 27 0:40 / /mnt/\xff\xfe rw - tmpfs none rw\n\
            69 42 0:4 net:[4026532388] /run/a\\040b\\011c\\012d\\134040\xff rw shared:2 - nsfs nsfs rw\n\
            70 42 0:4 mnt:[4026532389] /run/mnt rw - nsfs nsfs rw\n";
        assert_eq!(mounts_in(table), [PathBuf::from(OsStr::from_bytes(b"/run/a b\tc\nd\\040\xff"))]);
    }
}
