//! Locks that processes of one node share: flock(2) on a file, which the kernel takes back from whoever dies, and which no
//! child inherits.
//!
//! One of them is this library's own: [`GC`].

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use crate::regular_file;

/// Every ADD of a plugin of this library shares this lock. Who finds out for itself which containers live, and tells the
/// plugins that the others are gone, takes it alone ([`Lock::alone`]): a container whose ADD is at work shows nowhere yet.
///
/// Between the plugins of a chain nobody holds it. By then the link that the first has made says whose it is, or the lease
/// is of an address that is in a namespace.
pub const GC: &str = "/run/cni/gc.lock";

/// Between two tries. There is no flock with a time limit.
const RETRY: Duration = Duration::from_millis(2);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock on the file at `path`, which is made if need be, when nobody else holds it, within `patience`.
    ///
    /// # Errors
    /// The file cannot be made; [`io::ErrorKind::WouldBlock`]: somebody holds the lock all that time.
    pub fn alone(path: &Path, patience: Duration) -> io::Result<Self> {
        Self::take(path, patience, File::try_lock)
    }

    /// The same beside others who share it: one more does not wait for who waits to have it alone.
    ///
    /// # Errors
    /// As [`Lock::alone`].
    pub fn shared(path: &Path, patience: Duration) -> io::Result<Self> {
        Self::take(path, patience, File::try_lock_shared)
    }

    fn take(path: &Path, patience: Duration, attempt: fn(&File) -> Result<(), TryLockError>) -> io::Result<Self> {
        let file = open(path)?;
        let mut end = None;
        loop {
            match attempt(&file) {
                Ok(()) => return Ok(Self { _file: file }),
                // No clock is read where nobody is in the way.
                Err(TryLockError::WouldBlock)
                    if Instant::now() < *end.get_or_insert_with(|| Instant::now() + patience) =>
                {
                    thread::sleep(RETRY);
                }
                Err(TryLockError::WouldBlock) => {
                    let why = format!("somebody holds it for {} s", patience.as_secs());
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

/// What is there is neither read nor written, so it may be no regular file; but a link leads elsewhere, and a pipe waits.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = options.custom_flags(flags.bits()).open(path);
    let opened = match (opened, path.parent()) {
        (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
            options.open(path)
        }
        (opened, _) => opened,
    };
    opened.map_err(regular_file::named)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    fn is_held(outcome: io::Result<Lock>) -> bool {
        outcome.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock && error.to_string().contains("somebody"))
    }

    #[test]
    fn one_alone_or_any_number_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/lock");
        let held = Lock::alone(&path, SHORT).unwrap();
        assert!(is_held(Lock::alone(&path, SHORT)) && is_held(Lock::shared(&path, SHORT)));
        drop(held);
        let held = [Lock::shared(&path, SHORT).unwrap(), Lock::shared(&path, SHORT).unwrap()];
        assert!(is_held(Lock::alone(&path, SHORT)));
        drop(held);
        Lock::alone(&path, SHORT).unwrap();
    }

    /// A delegate shares what its plugin shares, also while a GC waits: both would wait for each other.
    #[test]
    fn who_waits_keeps_nobody_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::shared(&path, SHORT).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| Lock::alone(&path, LONG));
            thread::sleep(SHORT);
            Lock::shared(&path, Duration::ZERO).unwrap();
            drop(held);
            waits.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_child_does_not_have_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::shared(&path, SHORT).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        drop(held);
        Lock::alone(&path, SHORT).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
