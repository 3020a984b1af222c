//! Locks that processes of one node share: flock(2) on a file, or for many of a kind fcntl(2) on its places. The kernel takes
//! them back from whoever dies, and no child inherits them.
//!
//! One of them is this library's own: [`GC`].

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

use crate::regular_file;

/// Every ADD of a plugin of this library shares this lock. Who finds out for itself which containers live, and tells the
/// plugins that the others are gone, takes it alone ([`Lock::alone`]): a container whose ADD is at work shows nowhere yet.
///
/// Between the plugins of a chain nobody holds it. By then the link that the first has made says whose it is, or the lease
/// is of an address that is in a namespace.
pub const GC: &str = "/run/cni/gc.lock";

/// `F_WRLCK` and `SEEK_SET` as `struct flock` has them.
#[expect(clippy::cast_possible_truncation, reason = "they are 1 and 0")]
const WRITE: i16 = libc::F_WRLCK as i16;
const BEGINNING: i16 = 0;

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

    /// Takes the lock on one place of the file at `path`, which may have nothing there: one file does for a lock for each of
    /// many things, of which none has to be tidied away.
    ///
    /// # Errors
    /// As [`Lock::alone`].
    pub fn place(path: &Path, place: u64, patience: Duration) -> io::Result<Self> {
        // Half of the numbers are places of a file.
        let l_start = i64::try_from(place >> 1).unwrap_or_default();
        let wanted = libc::flock { l_type: WRITE, l_whence: BEGINNING, l_start, l_len: 1, l_pid: 0 };
        // Of the open file, not of the process: the other kind is lost when the process closes the file elsewhere.
        Self::take(path, patience, |file| match fcntl(file, FcntlArg::F_OFD_SETLK(&wanted)) {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(TryLockError::WouldBlock),
            Err(errno) => Err(TryLockError::Error(errno.into())),
        })
    }

    fn take(path: &Path, patience: Duration, attempt: impl Fn(&File) -> Result<(), TryLockError>) -> io::Result<Self> {
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

    #[test]
    fn places_are_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::place(&path, u64::MAX, SHORT).unwrap();
        assert!(is_held(Lock::place(&path, u64::MAX, SHORT)));
        Lock::place(&path, 7, SHORT).unwrap();
        assert!(is_held(Lock::place(&path, u64::MAX, SHORT)), "closed elsewhere, it is held still");
        drop(held);
        Lock::place(&path, u64::MAX, SHORT).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
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
