//! The files of one network, and the lock that both suites take.
//!
//! | file | content |
//! |---|---|
//! | `<address>` | a lease: `<container>` CR LF `<interface>`; leases of before 2018 have only the container |
//! | `last_reserved_ip.<N>` | the address that range set N gave out last |
//! | `lock` | flock(2) is held on it for the whole of each call |
//! | `.owners` | the index, see [`crate::owners`]; the reference does not know it |
//! | `.released` | what was freed a moment ago, see [`crate::resting`]; only with a cooldown |
//! | `.lease` | a lease that is being written; exists only under the lock |
//!
//! How a lease is written: [`draft`].
//!
//! Nothing is synced to disk, as in the reference: after a power failure no container of before is running, and
//! an address file that lost its content is found empty and removed.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libcni::Error;
use libcni::plugin::{Attachment, dry_run};
use libcni::regular_file;

use crate::boot::Boot;
use crate::lease::{self, Lease, Owner};
use crate::lock;
use crate::owners::{Owners, remove_if_there};
use crate::resting::{self, Resting};

mod draft;
mod error;
mod reclaim;

use draft::DRAFT;
pub use error::StoreError;
pub use reclaim::Entry;

/// Candidates that are tried one by one before the directory is listed.
const PROBES: usize = 32;

/// Longest `last_reserved_ip.<N>` that is read, in bytes.
const LAST_MAX: u64 = 64;

/// The locked directory of one network.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    dir_file: File,
    boot: Boot,
    /// The index while it is complete.
    owners: Option<Owners>,
    /// All leases, if they had to be read and no index could be written.
    leases: Option<Vec<Lease>>,
    /// Addresses that are in use, once that was asked. `None`: it is not known.
    living: OnceCell<Option<HashSet<IpAddr>>>,
    read_only: bool,
    changed: bool,
    /// How long an address that is freed is to rest.
    cooldown: Option<Duration>,
    /// Dropped last, after the directory is sealed.
    _lock: File,
}

/// A complete index is declared complete when the work is done, whether it succeeded or not.
impl Drop for Store {
    fn drop(&mut self) {
        if let Some(owners) = self.owners.as_ref().filter(|_| self.changed) {
            // Unsealed is safe, only slower.
            let _ = owners.seal(&self.dir_file);
        }
    }
}

impl Store {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// It cannot be made or written, or `wait` is over.
    pub fn open(dir: &Path, wait: Duration) -> Result<Self, StoreError> {
        loop {
            let dir_file = match regular_file::open_directory(dir) {
                Ok(dir_file) => dir_file,
                // What is there instead is for whoever makes directories to say.
                Err(_) => {
                    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StoreError::io("create", dir))?;
                    match regular_file::open_directory(dir) {
                        Err(error) if is_gone(&error) => continue,
                        opened => opened.map_err(StoreError::io("open", dir))?,
                    }
                }
            };
            if let Some(store) = Self::lock(dir, dir_file, wait)? {
                return Ok(store);
            }
        }
    }

    /// Locks the directory. `None`: there is none, so there are no leases.
    ///
    /// # Errors
    /// It cannot be read, or `wait` is over.
    pub fn open_existing(dir: &Path, wait: Duration) -> Result<Option<Self>, StoreError> {
        loop {
            let dir_file = match regular_file::open_directory(dir) {
                Ok(dir_file) => dir_file,
                Err(error) if is_gone(&error) => return Ok(None),
                // A link that leads nowhere.
                Err(_) if fs::metadata(dir).is_err_and(|error| is_gone(&error)) => return Ok(None),
                Err(error) => return Err(StoreError::io("open", dir)(error)),
            };
            if let Some(store) = Self::lock(dir, dir_file, wait)? {
                return Ok(Some(store));
            }
        }
    }

    /// The same, for looking only: no remains are removed, and no index is written.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// The same, where addresses are to rest after they have been freed.
    #[must_use]
    pub fn with_cooldown(mut self, cooldown: Option<Duration>) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// Addresses that are not to be given to this owner while others are free.
    #[must_use]
    pub fn resting(&self, owner: &Owner) -> Resting {
        let known = self.cooldown.zip(self.boot.id());
        known.map_or_else(Resting::default, |(cooldown, boot)| Resting::get(&self.dir, boot, cooldown, owner.key()))
    }

    /// `None`: the directory was removed meanwhile.
    fn lock(dir: &Path, dir_file: File, wait: Duration) -> Result<Option<Self>, StoreError> {
        let Some(lock) = lock::take(dir, wait)? else { return Ok(None) };
        let boot = Boot::current();
        let owners = boot.id().and_then(|boot| Owners::get(dir, &dir_file, boot));
        let dir = dir.to_owned();
        Ok(Some(Self {
            dir,
            dir_file,
            boot,
            owners,
            leases: None,
            living: OnceCell::new(),
            read_only: dry_run::is_on(),
            changed: false,
            cooldown: None,
            _lock: lock,
        }))
    }

    /// Addresses whose lease has exactly this content, in order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn held_by(&mut self, content: &str) -> Result<Vec<IpAddr>, StoreError> {
        let known = self.owners.as_mut().and_then(|owners| owners.get_addresses(content).ok());
        let hints = match known {
            Some(hints) => hints,
            None => {
                self.owners = None;
                let leases = match self.leases.take() {
                    Some(leases) => leases,
                    None => self.scan()?,
                };
                let hints = leases.iter().filter(|(lease, _)| lease == content).map(|(_, addr)| *addr).collect();
                self.leases = Some(leases).filter(|_| self.owners.is_none());
                hints
            }
        };
        let mut held = Vec::with_capacity(hints.len());
        for addr in hints {
            if self.holder(addr)?.as_deref() == Some(content) {
                held.push(addr);
            }
        }
        held.sort();
        held.dedup();
        Ok(held)
    }

    /// The content of an address's lease, without white space around it. `None`: the address is free.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn holder(&self, addr: IpAddr) -> Result<Option<String>, StoreError> {
        let path = self.dir.join(addr.to_string());
        match lease::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if is_gone(&error) => Ok(None),
            // The name is taken, and nobody's: no container is called so.
            Err(error) if regular_file::is_strange(&error) => Ok(Some(format!("nobody, but {error}"))),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// That an address is leased to the owner.
    ///
    /// # Errors
    /// It is free, or somebody else's.
    pub fn check_holder(&self, addr: IpAddr, owner: &Owner) -> Result<(), Error> {
        match self.holder(addr)? {
            Some(holder) if holder == owner.key() || holder == owner.id() => Ok(()),
            Some(holder) => Err(Error::internal(format!(
                "host-local: address {addr} of container {owner} is reserved for {}",
                lease::printable(&holder)
            ))),
            None => Err(Error::internal(format!("host-local: address {addr} of container {owner} is not reserved"))),
        }
    }

    /// Reads every lease, removes what killed processes left, and makes the index anew.
    fn scan(&mut self) -> Result<Vec<Lease>, StoreError> {
        let mut leases = Vec::new();
        let mut complete = true;
        for entry in fs::read_dir(&self.dir).map_err(StoreError::io("read", &self.dir))? {
            let entry = entry.map_err(StoreError::io("read", &self.dir))?;
            let name = entry.file_name();
            if name == DRAFT && !dry_run::notes(|| format!("remove {}", entry.path().display())) && !self.read_only {
                let _ = remove_if_there(&entry.path());
            }
            let Some(addr) = name.to_str().and_then(lease::address_of) else { continue };
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            match lease::read(&entry.path()) {
                Ok(content) if !content.is_empty() => {
                    if !self.read_only {
                        self.note_seen(&entry.path());
                    }
                    leases.push((content, addr));
                }
                Ok(_) if dry_run::notes(|| format!("remove the empty lease {}", entry.path().display())) => {}
                Ok(_) if self.read_only => {}
                Ok(_) => lease::remove_if_empty(&entry.path()),
                Err(error) if is_gone(&error) => {}
                // It stays taken. As the index would not have it, there is none.
                Err(_) => complete = false,
            }
        }
        if complete && !self.read_only {
            self.owners = self.boot.id().and_then(|boot| Owners::create(&self.dir, &leases, boot).ok());
            self.changed = true;
        }
        Ok(leases)
    }

    /// The first free one of the candidates, without reserving it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn get_free(&self, mut candidates: impl Iterator<Item = IpAddr>) -> Result<Option<IpAddr>, StoreError> {
        for candidate in candidates.by_ref().take(PROBES) {
            if self.holder(candidate)?.is_none() {
                return Ok(Some(candidate));
            }
        }
        let taken = self.taken()?;
        Ok(candidates.find(|candidate| !taken.contains(candidate)))
    }

    /// Every address that has a file.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn taken(&self) -> Result<HashSet<IpAddr>, StoreError> {
        let names = fs::read_dir(&self.dir).map_err(StoreError::io("read", &self.dir))?;
        let mut taken = HashSet::new();
        for entry in names {
            let name = entry.map_err(StoreError::io("read", &self.dir))?.file_name();
            taken.extend(name.to_str().and_then(lease::address_of));
        }
        Ok(taken)
    }

    /// Frees an address whose lease has this content; one that is free already is fine.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn release(&mut self, addr: IpAddr, content: &str) -> Result<(), StoreError> {
        let path = self.dir.join(addr.to_string());
        if dry_run::notes(|| format!("remove the lease {} of {}", path.display(), lease::printable(content))) {
            return Ok(());
        }
        self.changed = true;
        remove_if_there(&path).map_err(StoreError::io("remove", &path))?;
        self.update(|owners, _| owners.remove(content, addr));
        if let Some((cooldown, boot)) = self.cooldown.zip(self.boot.id()) {
            // It is free in any case.
            let _ = resting::note(&self.dir, boot, cooldown, content, addr);
        }
        Ok(())
    }

    /// Frees all that the owner holds. Leases of before 2018 name only the container, and are freed where there
    /// is no other; that is the reference's rule.
    ///
    /// # Errors
    /// Every file that cannot be removed; the others are.
    pub fn release_owner(&mut self, owner: &Owner) -> Result<(), Error> {
        let _step = libcni::log::step("release");
        let mut content = owner.key();
        let mut held = self.held_by(content)?;
        if held.is_empty() {
            content = owner.id();
            held = self.held_by(content)?;
        }
        let released = held.into_iter().map(|addr| self.release(addr, content).map_err(Error::from));
        Error::join(released.filter_map(Result::err).collect())
    }

    /// Frees every lease of an attachment that is not valid any more. One that does not say whose it is is kept.
    ///
    /// # Errors
    /// Every file that cannot be removed; the others are.
    pub fn release_all_but(&mut self, valid: &[Attachment]) -> Result<(), Error> {
        let _step = libcni::log::step("release");
        let keys = valid.iter().map(|valid| format!("{}\r\n{}", valid.container_id, valid.ifname));
        let valid: HashSet<String> = keys.chain(valid.iter().map(|valid| valid.container_id.clone())).collect();
        let leases = self.scan()?;
        let stale =
            leases.into_iter().filter(|(content, _)| !valid.contains(content) && lease::holder(content).is_some());
        let released = stale.map(|(content, addr)| self.release(addr, &content).map_err(Error::from));
        Error::join(released.filter_map(Result::err).collect())
    }

    /// Whether a lease could be written now.
    ///
    /// # Errors
    /// It could not.
    pub fn check_writable(&mut self) -> Result<(), StoreError> {
        let draft = self.write_draft("?")?;
        remove_if_there(&draft).map_err(StoreError::io("remove", &draft))
    }

    /// The address that a range set gave out last; what cannot be read is none, and allocation starts anew.
    pub fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let text = regular_file::read(&self.last_reserved_path(set), LAST_MAX).ok()?;
        str::from_utf8(&text).ok()?.parse().ok()
    }

    /// Notes the address that a range set gave out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_last_reserved(&mut self, set: usize, addr: IpAddr) -> Result<(), StoreError> {
        let path = self.last_reserved_path(set);
        let text = addr.to_string();
        self.changed = true;
        // Not truncated to nothing first: ext4 takes that as a sign to write to the disk at once.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let written = regular_file::open(&path, &mut options).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            let longer = file.metadata()?.len() > text.len() as u64;
            if longer { file.set_len(text.len() as u64) } else { Ok(()) }
        });
        written.map_err(StoreError::io("write", &path))
    }

    fn last_reserved_path(&self, set: usize) -> PathBuf {
        self.dir.join(format!("last_reserved_ip.{set}"))
    }

    /// The directory, for messages.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Brings the index up to date; where that fails there is none until the next scan.
    fn update(&mut self, change: impl FnOnce(&mut Owners, &Path) -> io::Result<()>) {
        self.leases = None;
        if let Some(mut owners) = self.owners.take() {
            self.owners = change(&mut owners, &self.dir).is_ok().then_some(owners);
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

#[cfg(test)]
mod tests;
