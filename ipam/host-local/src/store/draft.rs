//! A lease on its way to its name.
//!
//! It is written to `.lease` and then linked to its name: the name appears with its content or not at all, and
//! `link(2)` refuses a name that is taken. In the place of a lease of an earlier boot it is renamed. A process killed
//! on the way leaves `.lease`, or, if it was the reference, an empty `<address>`. Under the lock both can only be such
//! remains, and since both have changed the directory behind the index, the next call reads everything and removes
//! them. (If it is the reference's DEL that comes next, it removes `.lease` if the owner is the same; nothing else of it
//! touches the file.)
//!
//! Where the file system knows no second names, the lease is written under its own, which is as exclusive; killed on the
//! way, we leave there what the reference leaves.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{PROBES, Store, StoreError};
use crate::lease::Owner;
use crate::owners::remove_if_there;
use crate::stamp::{self, Stamp};

/// The name of a lease that is being written.
pub(super) const DRAFT: &str = ".lease";

impl Store {
    /// Reserves the first free one of the candidates. `None`: all are taken.
    ///
    /// # Errors
    /// The lease cannot be written; nothing is reserved.
    pub fn reserve(
        &mut self,
        mut candidates: impl Iterator<Item = IpAddr>,
        owner: &Owner,
    ) -> Result<Option<IpAddr>, StoreError> {
        let draft = self.write_draft(owner.key())?;
        let mut outcome = self.link_first(&draft, owner.key(), candidates.by_ref().take(PROBES));
        if matches!(outcome, Ok(None)) {
            // Where so many in a row are taken, asking for each would take as long as there are leases.
            outcome = self.taken().and_then(|taken| {
                self.link_first(&draft, owner.key(), candidates.filter(|candidate| !taken.contains(candidate)))
            });
        }
        let removed = remove_if_there(&draft).map_err(StoreError::io("remove", &draft));
        if let Ok(Some(addr)) = outcome {
            self.update(|owners, dir| owners.insert(dir, owner.key(), addr));
            if removed.is_err() {
                let _ = self.release(addr, owner.key());
            }
        }
        if removed.is_err() {
            // Once more; else the next call removes it, as the directory is not sealed then.
            let _ = remove_if_there(&draft);
            self.owners = None;
        }
        let reserved = outcome?;
        removed.map(|()| reserved)
    }

    pub(super) fn write_draft(&mut self, content: &str) -> Result<PathBuf, StoreError> {
        let path = self.dir.join(DRAFT);
        self.changed = true;
        let written = match self.write_new(&path, content) {
            // Never truncated: it may be linked to a lease already.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                remove_if_there(&path).and_then(|()| self.write_new(&path, content))
            }
            written => written,
        };
        written.map_err(StoreError::io("write", &path))?;
        Ok(path)
    }

    /// Writes a file that was not there, whole or not at all, with the stamp of a lease.
    fn write_new(&self, path: &Path, content: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if let Err(error) = file.write_all(content.as_bytes()) {
            let _ = remove_if_there(path);
            return Err(error);
        }
        if let Some(boot) = self.boot.id() {
            // Without it, the lease is judged by its time.
            let _ = stamp::set(path, &Stamp::made(boot));
        }
        Ok(())
    }

    fn link_first(
        &self,
        draft: &Path,
        content: &str,
        candidates: impl Iterator<Item = IpAddr>,
    ) -> Result<Option<IpAddr>, StoreError> {
        for candidate in candidates {
            let path = self.dir.join(candidate.to_string());
            let made = match fs::hard_link(draft, &path) {
                Err(error) if has_no_links(&error) => self.write_new(&path, content),
                linked => linked,
            };
            match made {
                Ok(()) => return Ok(Some(candidate)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::io("write", &path)(error)),
            }
        }
        Ok(None)
    }
}

/// Whether a file system refuses every second name: exFAT, and some that a machine shares with its guest.
fn has_no_links(error: &io::Error) -> bool {
    const REFUSALS: [Errno; 3] = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS];
    Errno::from_io_error(error).is_some_and(|errno| REFUSALS.contains(&errno))
}
