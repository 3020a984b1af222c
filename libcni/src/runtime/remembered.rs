//! What is known of an attachment that is remembered: whether its namespace is gone for certain, and what an entry
//! that cannot be read may have been about.
//!
//! The path of a namespace does not identify it: after a reboot `/proc/1234/ns/net` is somebody else's, and a name in
//! `/run/netns` can be given again. So our entries say which namespace was meant, by the boot and the inode; those of
//! the reference do not, and of them only a path that leads to no namespace is certain.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cache::Cached;
use crate::plugin;
use crate::types::{Code, ContainerId, Error, IfName, NetworkName};

/// Which namespace a path led to. A number of an inode is given again within a boot, so that two equal ones need not
/// be one namespace; two different ones are two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetnsId {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Of the namespace's file.
    pub device: u64,
    /// Of the namespace's file.
    pub inode: u64,
}

impl NetnsId {
    /// The namespace that a path leads to. `None` where it leads to none, or cannot be asked.
    pub fn of(path: &Path) -> Option<Self> {
        let (file, own) = (fs::metadata(path).ok()?, fs::metadata("/proc/self/ns/net").ok()?);
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        // Namespaces are files of one file system (nsfs), of all kinds.
        (file.dev() == own.dev()).then(|| Self { boot_id, device: file.dev(), inode: file.ino() })
    }
}

impl Cached {
    /// Why the namespace that was attached is certainly gone. `None`: it may live.
    pub fn netns_is_gone(&self) -> Option<String> {
        let path = self.attachment.netns.as_deref()?;
        let shown = path.display();
        match fs::metadata(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Some(format!("its namespace {shown} is gone"));
            }
            Err(_) => return None,
            Ok(_) => {}
        }
        // Without /proc nothing can be compared.
        NetnsId::of(Path::new("/proc/self/ns/net"))?;
        match (NetnsId::of(path), &self.netns_id) {
            (None, _) => Some(format!("{shown} is no namespace any more")),
            (Some(now), Some(then)) if now.boot_id != then.boot_id => {
                Some("its namespace was of an earlier boot".to_owned())
            }
            (Some(now), Some(then)) if now != *then => Some(format!("{shown} is another namespace now")),
            _ => None,
        }
    }

    /// Whether the path that is remembered leads, for certain, not to the namespace that was attached. It must not be
    /// handed to DEL then, which would remove links of somebody else. Plugins refuse the namespace they are in, so that
    /// it was another too.
    pub fn leads_elsewhere(&self) -> bool {
        let own = NetnsId::of(Path::new("/proc/self/ns/net"));
        let is_own = |path: &Path| own.is_some() && NetnsId::of(path) == own;
        self.netns_is_gone().is_some() || self.attachment.netns.as_deref().is_some_and(is_own)
    }
}

/// A file among the results that is no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Unreadable {
    /// What GC says of it.
    pub(super) fn error(&self) -> Error {
        let (file, why) = (self.file.display(), &self.why);
        let msg = format!("cannot read the cached result {file}: {why}; the attachments it may be of are kept");
        Error::new(Code::DECODING_FAILURE, msg).with_details("remove the file if its container is gone")
    }

    /// The attachments to a network that the file may be about. Its name is `NETWORK-CONTAINER-INTERFACE`, and each of
    /// the three may have a `-` in it; without the content one cannot tell which it is.
    pub fn candidates(&self, network: &NetworkName) -> Vec<plugin::Attachment> {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let Some(rest) = name.strip_prefix(network.as_str()).and_then(|rest| rest.strip_prefix('-')) else {
            return Vec::new();
        };
        let pair = |(at, _): (usize, &str)| {
            let (container, ifname) = (rest.get(..at)?, rest.get(at + 1..)?);
            let (container, ifname): (ContainerId, IfName) = (container.parse().ok()?, ifname.parse().ok()?);
            Some(plugin::Attachment { container_id: container.to_string(), ifname: ifname.to_string() })
        };
        rest.match_indices('-').filter_map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_may_be_about() {
        let file = Unreadable { file: "/x/net-a-b-eth0".into(), why: String::new() };
        let candidates = |network: &str| {
            let found = file.candidates(&network.parse().unwrap());
            found.iter().map(|one| format!("{} {}", one.container_id, one.ifname)).collect::<Vec<_>>()
        };
        assert_eq!(candidates("net"), ["a b-eth0", "a-b eth0"]);
        assert_eq!(candidates("net-a"), ["b eth0"]);
        assert_eq!(candidates("ne"), [""; 0]);
        assert_eq!(candidates("net-a-b-eth0"), [""; 0]);
    }

    #[test]
    fn namespaces_and_other_files() {
        assert_eq!(NetnsId::of(Path::new("/proc/self/ns/net")), NetnsId::of(Path::new("/proc/thread-self/ns/net")));
        assert_eq!(NetnsId::of(Path::new("/proc/self/status")), None);
        assert_eq!(NetnsId::of(Path::new("/nowhere")), None);
    }
}
