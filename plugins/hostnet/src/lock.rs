//! A lock that processes of one node share: flock(2) on a file, which the kernel takes back from whoever dies.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use libcni::regular_file;

use crate::error::{Error, Result};

/// Between two tries. There is no flock with a time limit.
const RETRY: Duration = Duration::from_millis(2);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock on the file at `path`, which is made if need be, within `patience`.
    ///
    /// # Errors
    /// The file cannot be made, or somebody holds the lock all that time.
    pub fn take(path: &Path, patience: Duration) -> Result<Self> {
        let _step = libcni::log::step("lock");
        let doing = || format!("lock {}", path.display());
        if let Some(directory) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.map_err(|error| Error::io(format!("create {}", directory.display()), &error))?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = regular_file::open(path, &mut options);
        let file = file.map_err(|error| Error::io(doing(), &error))?;
        let end = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::other(doing(), format!("somebody holds it for {} s", patience.as_secs())));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(doing(), &error)),
            }
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
