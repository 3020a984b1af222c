//! [`libcni::lock`] for the kernel objects that pods share, and for an attachment: the wait is a step of the log, and the error
//! is of this crate.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::owner::Owner;

/// A place in it for each attachment.
const ATTACHMENTS: &str = "/run/cni/attachments.lock";

/// How long an ADD waits for another one of the same attachment, which a runtime should not start.
const SAME_ATTACHMENT: Duration = Duration::from_secs(10);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _held: libcni::lock::Lock,
}

impl Lock {
    /// Takes the lock on the file at `path`, which is made if need be, within `patience`.
    ///
    /// # Errors
    /// The file cannot be made, or somebody holds the lock all that time.
    pub fn take(path: &Path, patience: Duration) -> Result<Self> {
        let _step = libcni::log::step("lock");
        let held = libcni::lock::Lock::alone(path, patience);
        held.map(|held| Self { _held: held }).map_err(|error| Error::io(format!("lock {}", path.display()), &error))
    }

    /// The attachment is this ADD's alone while it is held. `None` where there can be no lock, as for a plugin that may not
    /// write to `/run`.
    ///
    /// # Errors
    /// Another ADD of the same attachment holds it for 10 s.
    pub fn of(owner: &Owner) -> Result<Option<Self>> {
        let _step = libcni::log::step("lock");
        match libcni::lock::Lock::place(Path::new(ATTACHMENTS), owner.place(), SAME_ATTACHMENT) {
            Ok(held) => Ok(Some(Self { _held: held })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(Error::io(format!("have the attachment {:?} alone, another ADD is at it", owner.alias()), &error))
            }
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/lock");
        let patience = Duration::from_millis(20);
        let held = Lock::take(&path, patience).unwrap();
        assert!(Lock::take(&path, patience).unwrap_err().to_string().contains("somebody holds it"));
        drop(held);
        Lock::take(&path, patience).unwrap();
    }
}
