//! [`libcni::lock`] for the kernel objects that pods share: the wait is a step of the log, and the error is of this crate.

use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

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
