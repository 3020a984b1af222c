//! A lease: the file `<address>`, in which the reference and we write who has the address.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use libcni::regular_file;
use libcni::types::{ContainerId, IfName};

use crate::owners::remove_if_there;

/// Longest lease that is read, in bytes.
const LENGTH_MAX: u64 = 4096;

/// The content of a lease, and its address.
pub type Lease = (String, IpAddr);

/// A container and one of its interfaces: whom a lease belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    id: String,
    key: String,
}

impl Owner {
    /// The owner of an attachment.
    pub fn new(container: &ContainerId, ifname: &IfName) -> Self {
        Self { id: container.to_string(), key: format!("{container}\r\n{ifname}") }
    }

    /// The container: the content of leases of before 2018.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The content of a lease.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// The content of a lease without white space around it, which the reference ignores too.
pub fn read(path: &Path) -> io::Result<String> {
    let mut content = Vec::new();
    regular_file::open(path, OpenOptions::new().read(true))?.take(LENGTH_MAX).read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).trim().to_owned())
}

/// The content of a lease that has no white space around it, as no plugin writes any. `None`: somebody else wrote the
/// file, or it cannot be read.
pub fn read_as_written(path: &Path) -> Option<String> {
    let content = read(path).ok()?;
    fs::symlink_metadata(path).is_ok_and(|meta| meta.len() == content.len() as u64).then_some(content)
}

/// Whose a lease with this content is: the container and its interface, or, in one of before 2018, the container alone.
/// `None`: it is in neither form, and nobody can say.
pub fn holder(content: &str) -> Option<(ContainerId, Option<IfName>)> {
    match content.split_once("\r\n") {
        Some((container, ifname)) => Some((container.parse().ok()?, Some(ifname.parse().ok()?))),
        None => Some((content.parse().ok()?, None)),
    }
}

/// The address that a file is named by, if the name is how the address is written.
pub fn address_of(name: &str) -> Option<IpAddr> {
    name.parse::<IpAddr>().ok().filter(|addr| addr.to_string() == name)
}

/// Removes an address file without any content: what the reference leaves when it is killed between creating
/// and writing it. It belongs to nobody, and nobody else would ever remove it.
pub fn remove_if_empty(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0) {
        let _ = remove_if_there(path);
    }
}

/// A lease's content for a message.
pub fn printable(content: &str) -> String {
    content.split("\r\n").collect::<Vec<_>>().join(" ")
}
