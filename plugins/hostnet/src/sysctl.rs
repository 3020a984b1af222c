//! Files below `/proc/sys`. Keys are separated by slashes, so that the dots of an interface name are literal:
//! `net/ipv4/conf/eth0.100/arp_notify`.

use std::fs;
use std::io;
use std::path::PathBuf;

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
    let written = nl.in_netns(|| match fs::read_to_string(&path) {
        Ok(present) if present.trim_end_matches('\n') == value => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        _ => fs::write(&path, value),
    })?;
    written.map_err(|error| Error::io(doing(), &error))
}

/// Lets the node forward packets of a family, as a gateway must. It is never taken back: others may rely on it.
///
/// # Errors
/// The key cannot be written, or the kernel does not have the family.
pub fn enable_forwarding(nl: &Netlink, ipv4: bool) -> Result<()> {
    set(nl, forwarding(ipv4), "1")
}

/// Whether the node forwards packets of a family.
///
/// # Errors
/// The key cannot be read.
pub fn is_forwarding(nl: &Netlink, ipv4: bool) -> Result<bool> {
    Ok(get(nl, forwarding(ipv4))?.is_some_and(|value| value != "0"))
}

fn forwarding(ipv4: bool) -> &'static str {
    if ipv4 { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" }
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
