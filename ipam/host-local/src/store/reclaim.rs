//! Leases of earlier boots: told apart, taken when an address is needed, and renewed when their container is back.

use std::fs::{self, File, FileTimes};
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use super::{Store, StoreError};
use crate::boot::Age;
use crate::lease::{self, Owner};
use crate::living;
use crate::owners::remove_if_there;
use crate::stamp::{self, Stamp};

/// A lease, for tools that show what there is.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// The container that has it.
    pub container: String,
    /// The container's interface; leases of before 2018 name none.
    pub ifname: Option<String>,
    /// When it was made or renewed, by the clock of that moment, which may have been wrong.
    pub written: SystemTime,
    /// Which boot it is of. An [`Age::EarlierBoot`] address is given to the next who needs it, unless the lease names no
    /// interface, or it turns out that a living namespace has it ([`crate::living`], which is not asked here).
    pub age: Age,
}

impl Store {
    /// Every lease, in the order of the addresses; files without content and what cannot be read are left out.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn leases(&mut self) -> Result<Vec<Entry>, StoreError> {
        let mut leases = self.scan()?;
        leases.sort_by_key(|(_, address)| *address);
        let entry = |(content, address): (String, IpAddr)| {
            let path = self.dir.join(address.to_string());
            let (container, ifname) = match content.split_once("\r\n") {
                Some((container, ifname)) => (container.to_owned(), Some(ifname.to_owned())),
                None => (content, None),
            };
            let written = fs::symlink_metadata(&path).and_then(|meta| meta.modified()).ok()?;
            Some(Entry { address, container, ifname, written, age: self.boot.age(&self.dir_file, &path) })
        };
        Ok(leases.into_iter().filter_map(entry).collect())
    }

    /// The next of the candidates whose lease is of an earlier boot, while no living namespace has the address, and what
    /// the lease says. A file in no form that plugins write is somebody's reservation (`echo reserved > 10.1.2.3`). So
    /// may be one that names no interface, but for the container of that name, if it is `owner`.
    fn next_reclaimable(
        &self,
        candidates: &mut impl Iterator<Item = IpAddr>,
        owner: Option<&Owner>,
    ) -> Option<(IpAddr, String)> {
        candidates.find_map(|addr| {
            let path = self.dir.join(addr.to_string());
            if self.boot.age(&self.dir_file, &path) != Age::EarlierBoot {
                return None;
            }
            let content = lease::read_as_written(&path)?;
            let may_be_taken = match lease::holder(&content)? {
                (_, Some(_)) => true,
                (_, None) => owner.is_some_and(|owner| owner.id() == content),
            };
            (may_be_taken && !self.is_living(addr)).then_some((addr, content))
        })
    }

    /// Whether a namespace has the address, or might.
    fn is_living(&self, addr: IpAddr) -> bool {
        self.living.get_or_init(living::addresses).as_ref().is_none_or(|living| living.contains(&addr))
    }

    /// Whether one of the candidates has a lease of an earlier boot that anybody may take.
    pub fn has_reclaimable(&self, mut candidates: impl Iterator<Item = IpAddr>) -> bool {
        self.next_reclaimable(&mut candidates, None).is_some()
    }

    /// Gives the first of the candidates whose lease is of an earlier boot to this owner. `None`: there is none.
    ///
    /// The new lease is renamed over the old one, so that the address has one of them at every moment.
    ///
    /// # Errors
    /// No lease can be written. One that cannot be replaced is passed over.
    pub fn reclaim(
        &mut self,
        mut candidates: impl Iterator<Item = IpAddr>,
        owner: &Owner,
    ) -> Result<Option<IpAddr>, StoreError> {
        while let Some((addr, content)) = self.next_reclaimable(&mut candidates, Some(owner)) {
            let draft = self.write_draft(owner.key())?;
            let path = self.dir.join(addr.to_string());
            let Err(error) = fs::rename(&draft, &path) else {
                self.update(|owners, dir| {
                    owners.remove(&content, addr)?;
                    owners.insert(dir, owner.key(), addr)
                });
                return Ok(Some(addr));
            };
            libcni::log::note(|| format!("the lease {}, of an earlier boot, cannot be taken: {error}", path.display()));
            if remove_if_there(&draft).is_err() {
                // The next call removes it, as the directory is not sealed then.
                self.owners = None;
            }
        }
        Ok(None)
    }

    /// Makes a lease one of this boot, if it is not yet: its container is back. Whoever judges by time must see a
    /// present one where there are no stamps, and nobody one of another boot.
    ///
    /// # Errors
    /// The file cannot be changed: it would be taken from the container.
    pub fn renew(&mut self, addr: IpAddr) -> Result<(), StoreError> {
        let path = self.dir.join(addr.to_string());
        let made = self.boot.id().map(Stamp::made);
        if made.is_some() && stamp::get(&path).is_ok_and(|stamp| stamp == made) {
            return Ok(());
        }
        let now = FileTimes::new().set_modified(SystemTime::now());
        let touched = File::options().write(true).open(&path).and_then(|lease| lease.set_times(now));
        touched.map_err(StoreError::io("renew", &path))?;
        if made.is_some_and(|made| stamp::set(&path, &made).is_ok()) {
            return Ok(());
        }
        // A stamp of another boot would outrank the time, and give the address away.
        match stamp::get(&path) {
            Ok(None) => Ok(()),
            Ok(Some(stamp)) if self.boot.id() == Some(&stamp.boot) => Ok(()),
            _ => stamp::remove(&path).map_err(|error| StoreError::io("renew", &path)(error.into())),
        }
    }

    /// Gives a lease that has no stamp one that says that it was there in this boot.
    pub(super) fn note_seen(&self, path: &Path) {
        let Some(boot) = self.boot.id() else { return };
        if matches!(stamp::get(path), Ok(None)) {
            let _ = stamp::set(path, &Stamp::seen(boot));
        }
    }

    /// The newest lease of these addresses: what was given last, where no file says so.
    pub fn newest(&self, is_candidate: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let leases = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let dated = leases.filter_map(|entry| {
            let addr = entry.file_name().to_str().and_then(lease::address_of).filter(|addr| is_candidate(*addr))?;
            Some((entry.metadata().and_then(|meta| meta.modified()).ok()?, addr))
        });
        dated.max().map(|(_, addr)| addr)
    }
}
