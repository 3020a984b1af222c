//! Files below `/proc/sys`. Keys are separated by slashes, so that the dots of an interface name are literal:
//! `net/ipv4/conf/eth0.100/arp_notify`.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use libcni::plugin::dry_run;

use crate::error::{Error, Result};
use crate::netlink::Netlink;

/// The value of a key in the namespace of `nl`, without the final newline; `None` where the key does not exist.
///
/// # Errors
/// The key is not a key, or cannot be read.
pub fn get(nl: &Netlink, key: &str) -> Result<Option<String>> {
    let doing = || format!("read sysctl {key} in {}", nl.netns());
    let path = path(key).ok_or_else(|| Error::other(doing(), "not a key"))?;
    match nl.in_netns(|| fs::read_to_string(path))? {
        Ok(value) => Ok(Some(value.trim_end_matches('\n').to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(doing(), &error)),
    }
}

/// Makes the value of a key `value`. Nothing is written where it is that already: a write has effects beside the value
/// (`forwarding` flushes routes), and `/proc/sys` may be read-only.
///
/// # Errors
/// The key does not exist ([`Error::is_not_found`]), is not a key, or cannot be written.
pub fn set(nl: &Netlink, key: &str, value: &str) -> Result<()> {
    let doing = || format!("set sysctl {key} to {value:?} in {}", nl.netns());
    let path = path(key).ok_or_else(|| Error::other(doing(), "not a key"))?;
    if dry_run::notes(doing) {
        return Ok(());
    }
    nl.in_netns(|| make(&path, value))?.map_err(|error| Error::io(doing(), &error))
}

/// The file is looked up once: below `net` that takes the longer the more network namespaces there are.
fn make(path: &Path, value: &str) -> io::Result<()> {
    let is_same = |present: &[u8]| present.trim_ascii_end() == value.as_bytes();
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(mut file) => {
            let mut present = [0; 256];
            // A key that has no value yet cannot be read.
            let size = file.read(&mut present).unwrap_or_default();
            if present.get(..size).is_some_and(is_same) {
                return Ok(());
            }
            // The kernel takes a value in one piece, at the beginning.
            file.write_all_at(value.as_bytes(), 0)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        // It can only be read, or only be written.
        Err(_) if fs::read(path).is_ok_and(|present| is_same(&present)) => Ok(()),
        Err(_) => fs::write(path, value),
    }
}

/// The file of a key. `None` for a key that would lead out of `/proc/sys`: `..`, `.`, an empty part.
fn path(key: &str) -> Option<PathBuf> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    key.split('/').all(plain).then(|| ["/proc/sys", key].iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_below_proc_sys() {
        assert_eq!(
            path("net/ipv4/conf/eth0.100/arp_notify"),
            Some("/proc/sys/net/ipv4/conf/eth0.100/arp_notify".into())
        );
        for bad in ["", "/", "/etc/passwd", "net/../../../etc/passwd", "..", "net/./x", "net//x", "net/x/", "net/\0"] {
            assert_eq!(path(bad), None, "{bad:?}");
        }
    }
}
