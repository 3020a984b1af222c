//! The pods' addresses as sources of a zone of firewalld, and whose they are.
//!
//! firewalld knows no owners, so they are written down beside it: a file for each address, with the tag of the owner and
//! the zone. By that a DEL without a result finds its sources, a late one leaves those of the pod that has the address
//! now, and GC knows what is nobody's. A reboot forgets the files and the sources alike. A source without a file was made
//! by the reference, or is somebody's own. Whoever reads or writes the files holds the plugin's lock.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hostnet::{Error, Undo};
use libcni::plugin::dry_run;
use libcni::regular_file;
use libcni::types::Cidr;

use crate::firewalld::Firewalld;
use crate::pod::Pod;

const DIRECTORY: &str = "/run/cni/firewalld";

/// Longest file that is read, in bytes: the tag and the name of a zone.
const LENGTH_MAX: u64 = 4096;

/// A source that was written down.
struct Source {
    address: IpAddr,
    zone: String,
    /// Of the owner, as in the comments of rules.
    tag: String,
}

impl Source {
    fn path(address: IpAddr) -> PathBuf {
        Path::new(DIRECTORY).join(address.to_string())
    }

    /// `None` for a file that is none of ours.
    fn read(path: &Path) -> Option<Self> {
        let address = path.file_name()?.to_str()?.parse().ok()?;
        let text = String::from_utf8(regular_file::read(path, LENGTH_MAX).ok()?).ok()?;
        let (tag, zone) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { address, zone: zone.to_owned(), tag: tag.to_owned() })
    }

    fn all() -> Vec<Self> {
        let Ok(files) = fs::read_dir(DIRECTORY) else { return Vec::new() };
        let mut all: Vec<Self> = files.filter_map(|file| Self::read(&file.ok()?.path())).collect();
        all.sort_by_key(|source| source.address);
        all
    }

    /// In place of the owner before. Whole or not at all: what is half written has no end of line.
    fn write(&self) -> Result<(), Error> {
        let path = Self::path(self.address);
        let written = || {
            DirBuilder::new().recursive(true).mode(0o700).create(DIRECTORY)?;
            regular_file::open_directory(Path::new(DIRECTORY))?;
            let mut options = OpenOptions::new();
            let mut file = regular_file::open(&path, options.write(true).create(true).truncate(true).mode(0o600))?;
            file.write_all(format!("{} {}\n", self.tag, self.zone).as_bytes())
        };
        written().map_err(|error| Error::io(format!("write {}", path.display()), &error))
    }

    fn forget(address: IpAddr) -> Result<(), Error> {
        let path = Self::path(address);
        match fs::remove_file(&path) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(Error::io(format!("remove {}", path.display()), &error))
            }
            _ => Ok(()),
        }
    }
}

/// Adds the pod's addresses to a zone.
///
/// # Errors
/// firewalld does not run or refuses. Where nothing can be written the sources have no owner: they matter more.
pub fn add<'a>(pod: &'a Pod, zone: &'a str, undo: &mut Undo<'a>) -> Result<(), Error> {
    let _step = libcni::log::step("firewalld");
    let firewalld = Firewalld::connect()?;
    for address in pod.addresses.iter().copied() {
        let (remover, cidr) = (firewalld.clone(), Cidr::host(address));
        // First, so that the DEL of an ADD that was killed, which has no result, finds it.
        let before = Source::read(&Source::path(address));
        let source = Source { address, zone: zone.to_owned(), tag: pod.tag() };
        if let Err(error) = source.write() {
            libcni::log::warn(format_args!("firewall: {error}; going on without"));
        }
        undo.push(format!("forget the source {cidr}"), move || {
            before.map_or_else(|| Source::forget(address), |before| before.write())
        });
        // Also what is done after a deadline is undone.
        undo.push(format!("remove the source {cidr}"), move || remover.remove_source(zone, cidr));
        firewalld.add_source(zone, cidr)?;
    }
    Ok(())
}

/// Compares; changes nothing.
///
/// # Errors
/// An address is no source of the zone, or another pod's; firewalld does not run.
pub fn check(pod: &Pod, zone: &str) -> Result<(), Error> {
    let firewalld = Firewalld::connect()?;
    let wrong = |what: String| Err(Error::other("check the sources of firewalld", what));
    for address in pod.addresses.iter().copied() {
        let source = Cidr::host(address);
        if !firewalld.has_source(zone, source)? {
            return wrong(format!("failed to find the address {source} in {zone} zone"));
        }
        let (owner, tag) = (Source::read(&Source::path(address)), pod.tag());
        if let Some(owner) = owner.filter(|owner| owner.tag != tag) {
            return wrong(format!("the source {source} of zone {zone} belongs to {}, not to {tag}", owner.tag));
        }
    }
    Ok(())
}

/// Whether it is written down that the pod's addresses are its own sources: the reference writes nothing.
pub fn are_of(pod: &Pod) -> bool {
    let owner = |address: &IpAddr| Source::read(&Source::path(*address)).map(|source| source.tag);
    pod.addresses.iter().all(|address| owner(address) == Some(pod.tag()))
}

/// Removes the sources of the owners that `is_gone` says so of, by their tag, and those of these addresses in `zone` that
/// have no owner. A firewalld that does not run has forgotten them; if the configuration names it (`is_named`), it is an
/// error when the bus does not say so. All is tried.
pub fn remove(is_gone: &dyn Fn(&str) -> bool, zone: &str, addresses: &[IpAddr], is_named: bool) -> Vec<Error> {
    let _step = libcni::log::step("firewalld");
    let written = Source::all();
    let owned: HashSet<IpAddr> = written.iter().map(|source| source.address).collect();
    let mut doomed: Vec<(IpAddr, &str)> =
        addresses.iter().filter(|address| !owned.contains(address)).map(|address| (*address, zone)).collect();
    let gone = written.iter().filter(|source| is_gone(&source.tag));
    doomed.extend(gone.map(|source| (source.address, source.zone.as_str())));
    if doomed.is_empty() {
        return Vec::new();
    }
    let firewalld = if is_named || Firewalld::is_running() { Firewalld::connect().map(Some) } else { Ok(None) };
    let firewalld = match firewalld {
        Ok(firewalld) => firewalld,
        Err(error) => return vec![error],
    };
    let remove = |(address, zone): (IpAddr, &str)| {
        if dry_run::notes(|| format!("remove the source {} of zone {zone} of firewalld", Cidr::host(address))) {
            return Ok(());
        }
        firewalld.as_ref().map_or(Ok(()), |firewalld| firewalld.remove_source(zone, Cidr::host(address)))?;
        Source::forget(address)
    };
    doomed.into_iter().filter_map(|source| remove(source).err()).collect()
}
