//! A sysctl of the configuration: its key in either spelling, and its value.
//!
//! As in sysctl(8), the separator that comes first decides: after a dot the other dots separate too and a slash stands for
//! a dot within a name; after a slash dots are literal. So an interface called `eth0.100` can be named in both spellings.
//! `IFNAME` stands for the pod's interface. Only keys below `net` belong to the pod's namespace; all others are the
//! node's, and are refused.

use hostnet::{Netlink, Netns, Undo, sysctl};
use libcni::types::IfName;
use libcni::{Code, Error};

/// Stands for the name of the pod's interface.
const IFNAME: &str = "IFNAME";

/// One sysctl and the value that it shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The key as it is written, which is what the allowlist speaks of.
    pub key: String,
    /// The path below `/proc/sys`, with `IFNAME` in it.
    path: String,
    value: String,
}

impl Sysctl {
    /// # Errors
    /// The key is not one of a network namespace.
    pub fn new(key: &str, value: &str) -> Result<Self, Error> {
        let path = path(key);
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !path.starts_with("net/") || !path.split('/').all(plain) {
            let msg = format!("invalid net sysctl key: {key:?}");
            return Err(Error::new(Code::INVALID_CONFIG, msg).with_details("only keys below net are the pod's own"));
        }
        Ok(Self { key: key.to_owned(), path, value: value.to_owned() })
    }

    /// The same for one sysctl, in whatever spelling.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Sets it in the pod.
    ///
    /// # Errors
    /// The kernel's refusal; there is no such key.
    pub fn set<'a>(&self, pod: &Netlink, ifname: &IfName, undo: &mut Undo<'a>) -> Result<(), Error> {
        let _step = libcni::log::step("sysctls");
        let path = self.path_for(ifname);
        // What can only be written (`net/ipv4/route/flush`) has no value to go back to.
        let before = sysctl::get(pod, &path).ok().flatten();
        sysctl::set(pod, &path, &self.value)?;
        let netns = pod.netns().path().to_owned();
        if let Some(before) = before {
            undo.push(format!("set {path} back to {before:?}"), move || {
                sysctl::set(&Netlink::open_in(Netns::open(&netns)?)?, &path, &before)
            });
        }
        Ok(())
    }

    /// Compares it with the pod's. The kernel prints lists with tabs, whatever they were written with.
    ///
    /// # Errors
    /// Another value, or no such key.
    pub fn check(&self, pod: &Netlink, ifname: &IfName) -> Result<(), Error> {
        let path = self.path_for(ifname);
        let present = sysctl::get(pod, &path)?.ok_or_else(|| Error::internal(format!("there is no sysctl {path}")))?;
        if present.split_whitespace().eq(self.value.split_whitespace()) {
            return Ok(());
        }
        let msg = format!("Tuning configured value of {path} is {:?}, current value is {present:?}", self.value);
        Err(Error::internal(msg))
    }

    fn path_for(&self, ifname: &IfName) -> String {
        self.path.replacen(IFNAME, ifname.as_str(), 1)
    }
}

/// The path of a key, whichever way it is written.
pub fn path(key: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes().get(at) == Some(&b'.') => key.chars().map(swap).collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators() {
        let ifname: IfName = "eth0.100".parse().unwrap();
        for (key, expected) in [
            ("net.ipv4.conf.all.log_martians", "net/ipv4/conf/all/log_martians"),
            ("net/ipv4/conf/all/log_martians", "net/ipv4/conf/all/log_martians"),
            ("net.ipv4.conf.eth0/100.arp_notify", "net/ipv4/conf/eth0.100/arp_notify"),
            ("net/ipv4/conf/eth0.100/arp_notify", "net/ipv4/conf/eth0.100/arp_notify"),
            ("net.ipv4.conf.IFNAME.arp_notify", "net/ipv4/conf/eth0.100/arp_notify"),
            ("net/ipv4/conf/IFNAME/arp_notify", "net/ipv4/conf/eth0.100/arp_notify"),
        ] {
            assert_eq!(Sysctl::new(key, "1").unwrap().path_for(&ifname), expected);
        }
    }

    #[test]
    fn nothing_but_the_namespaces_own() {
        for key in [
            "kernel.hostname",
            "kernel/hostname",
            "vm.swappiness",
            "fs.file-max",
            "net",
            "net.",
            "net/",
            "",
            ".",
            "/",
            "network.x",
            "/net/ipv4/ip_forward",
            "/proc/sys/net/ipv4/ip_forward",
            ".net.ipv4.ip_forward",
            "net/../kernel/hostname",
            "net.//.kernel.hostname",
            "net/./x",
            "net..x",
            "net.ipv4.",
            "net/ipv4/\0",
            "IFNAME.x",
            "../net/x",
            "net/x/../../kernel/x",
        ] {
            let error = Sysctl::new(key, "1").unwrap_err();
            assert_eq!(
                (error.code(), error.msg()),
                (Code::INVALID_CONFIG, format!("invalid net sysctl key: {key:?}").as_str())
            );
        }
    }
}
