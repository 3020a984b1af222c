//! host-local's leases as they are on the disk. They are read without its lock: each appears and goes as a whole, and a
//! tool that looks must not make an ADD wait, nor write anything.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use host_local::boot::{Age, Boot};
use host_local::lease;
use libcni::types::NetworkName;

/// One lease.
pub struct Lease {
    pub network: String,
    pub address: IpAddr,
    pub file: PathBuf,
    pub holder: Holder,
    pub written: Option<SystemTime>,
    /// Certainly of an earlier boot, as host-local knows it.
    pub before_boot: bool,
}

/// Whose a lease is.
pub enum Holder {
    /// Leases of before 2018 name no interface.
    Attachment {
        container: String,
        ifname: Option<String>,
    },
    /// Nobody's: whoever made it was killed.
    Empty,
    Unreadable(String),
}

/// The leases below these directories, each `ROOT/NETWORK/ADDRESS`, by network and address, and what could not be read.
pub fn read(roots: &BTreeSet<PathBuf>) -> (Vec<Lease>, Vec<String>) {
    let (mut leases, mut failed) = (Vec::new(), Vec::new());
    let boot = Boot::current();
    for root in roots {
        for directory in entries(root, &mut failed) {
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_directory = fs::symlink_metadata(&directory).is_ok_and(|meta| meta.is_dir());
            if is_directory && name.parse::<NetworkName>().is_ok() {
                let opened = File::open(&directory).ok();
                for file in entries(&directory, &mut failed) {
                    leases.extend(read_one(&name, file, &boot, opened.as_ref()));
                }
            }
        }
    }
    leases.sort_by(|one, other| {
        (&one.network, one.address, &one.file).cmp(&(&other.network, other.address, &other.file))
    });
    (leases, failed)
}

/// The paths in a directory; none if it is not there.
fn entries(dir: &Path, failed: &mut Vec<String>) -> Vec<PathBuf> {
    match fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()) {
        Ok(paths) => paths,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                failed.push(format!("cannot read {}: {error}", dir.display()));
            }
            Vec::new()
        }
    }
}

fn read_one(network: &str, file: PathBuf, boot: &Boot, directory: Option<&File>) -> Option<Lease> {
    let address = lease::address_of(file.file_name()?.to_str()?)?;
    let metadata = fs::symlink_metadata(&file);
    let holder = match &metadata {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Holder::Unreadable(error.to_string()),
        Ok(metadata) if !metadata.is_file() => Holder::Unreadable("it is no regular file".to_owned()),
        Ok(_) => match lease::read(&file) {
            Ok(content) => holder_in(&content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Holder::Unreadable(error.to_string()),
        },
    };
    let written = metadata.ok().and_then(|metadata| metadata.modified().ok());
    // Not of what is no lease: a link might lead to one. And what names no interface may be a reservation by hand, which
    // host-local leaves to whoever made it.
    let is_lease = matches!(holder, Holder::Attachment { ifname: Some(_), .. });
    let before_boot = is_lease && directory.is_some_and(|directory| boot.age(directory, &file) == Age::EarlierBoot);
    Some(Lease { network: network.to_owned(), address, file, holder, written, before_boot })
}

/// As host-local itself reads it.
fn holder_in(content: &str) -> Holder {
    match lease::holder(content) {
        Some((container, ifname)) => {
            Holder::Attachment { container: container.to_string(), ifname: ifname.map(|ifname| ifname.to_string()) }
        }
        None if content.is_empty() => Holder::Empty,
        None => Holder::Unreadable("its content is in no form that leases have".to_owned()),
    }
}
