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
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{FsWord, fstatfs};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::mounts;

mod addresses;

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS: FsWord = 0x6e73_6673;

/// Addresses of all namespaces. `None`: one of them cannot be read.
#[must_use]
pub fn addresses() -> Option<HashSet<IpAddr>> {
    // A thread of its own, which need not find its way back.
    let search = || {
        let mut search = Search::default();
        search.processes()?;
        search.mounts()?;
        io::Result::Ok(search.found)
    };
    thread::Builder::new().spawn(search).ok()?.join().ok()?.ok()
}

#[derive(Default)]
struct Search {
    found: HashSet<IpAddr>,
    /// Namespaces that were read, by the numbers of their inodes.
    seen: HashSet<u64>,
}

impl Search {
    fn processes(&mut self) -> io::Result<()> {
        for process in fs::read_dir("/proc")? {
            let process = process?;
            if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let process = process.path();
            let read = match File::open(process.join("ns/net")).and_then(|namespace| self.enter(&namespace)) {
                // Who may not enter the namespace (that is for who may trace the process) can read its files all the same.
                Err(error) if !is_gone(&error) => self.files(&process.join("net")),
                read => read,
            };
            if let Err(error) = read
                && !is_gone(&error)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    fn mounts(&mut self) -> io::Result<()> {
        for mount in namespace_mounts()? {
            let namespace = match File::open(mount) {
                Err(error) if is_gone(&error) => continue,
                namespace => namespace?,
            };
            // Else it was unmounted, and this is the file that was under it.
            if fstatfs(&namespace)?.f_type == NSFS {
                self.enter(&namespace)?;
            }
        }
        Ok(())
    }

    /// Adds what the kernel lists in a namespace, in which the thread is then.
    fn enter(&mut self, namespace: &File) -> io::Result<()> {
        let inode = namespace.metadata()?.ino();
        if !self.seen.contains(&inode) {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            self.found.extend(addresses::here()?);
            self.seen.insert(inode);
        }
        Ok(())
    }

    /// Adds what `/proc/…/net` lists.
    fn files(&mut self, net: &Path) -> io::Result<()> {
        // Before the other, which is always there: what it lacks is IPv6, and not the process.
        let of_ipv6 = match fs::read_to_string(net.join("if_inet6")) {
            Err(error) if is_gone(&error) => String::new(),
            text => text?,
        };
        for line in of_ipv6.lines() {
            let digits = line.split(' ').next().unwrap_or_default();
            self.found.extend(u128::from_str_radix(digits, 16).map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))));
        }
        let mut prefix = "";
        for line in fs::read_to_string(net.join("fib_trie"))?.lines() {
            match line.trim_start().split_once(' ') {
                Some(("|--", address)) => prefix = address,
                Some(("/32", "host LOCAL")) => self.found.extend(prefix.parse::<IpAddr>()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// Where network namespaces are mounted, as this process sees it.
pub(crate) fn namespace_mounts() -> io::Result<Vec<PathBuf>> {
    let namespaces = mounts::of_type("nsfs")?.into_iter().filter(|mount| mount.root.starts_with(b"net:["));
    Ok(namespaces.map(|mount| mount.place).collect())
}
