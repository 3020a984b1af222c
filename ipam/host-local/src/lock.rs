//! The lock: flock(2) on the file `lock` of the directory, which the reference takes too.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use libcni::regular_file;

use crate::store::StoreError;

/// How long a call waits for the lock. A call holds it for a millisecond or less, the reference with
/// thousands of leases for some hundred.
pub const WAIT: Duration = Duration::from_secs(60);

/// How long STATUS waits: kubelet asks every few seconds, and containerd answers nothing else meanwhile.
pub const STATUS_WAIT: Duration = Duration::from_secs(1);

/// Locks a directory until the file is closed. `None`: the directory was removed meanwhile.
///
/// # Errors
/// The lock's file cannot be made or locked, or `wait` is over.
pub fn take(dir: &Path, wait: Duration) -> Result<Option<File>, StoreError> {
    let _step = libcni::log::step("lock");
    let path = dir.join("lock");
    let gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let get = || regular_file::open(&path, OpenOptions::new().read(true));
    let create = || regular_file::open(&path, OpenOptions::new().read(true).append(true).create(true).mode(0o600));
    let lock = match get().or_else(|error| if gone(&error) { create() } else { Err(error) }) {
        Err(error) if gone(&error) => return Ok(None),
        opened => opened.map_err(StoreError::io("open", &path))?,
    };
    wait_for(&lock, &path, wait)?;
    // Who removes a network removes its directory; a lock on a removed file locks nobody out.
    let ours = lock.metadata().map_err(StoreError::io("read", &path))?.ino();
    let current = fs::symlink_metadata(&path).is_ok_and(|there| there.ino() == ours);
    Ok(current.then_some(lock))
}

/// Waits for the lock, in the queue of the kernel: whoever asks again and again may wait for ever.
fn wait_for(lock: &File, path: &Path, wait: Duration) -> Result<(), StoreError> {
    let failed = StoreError::io("lock", path);
    match lock.try_lock() {
        Ok(()) => return Ok(()),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // The same open file under a second number: what the thread locks is locked for us. If it is still waiting
    // when we give up, it ends with the process.
    let waiter = lock.try_clone().map_err(StoreError::io("lock", path))?;
    let (done, outcome) = mpsc::sync_channel(1);
    std::thread::spawn(move || done.send(waiter.lock()));
    match outcome.recv_timeout(wait) {
        Ok(locked) => locked.map_err(failed),
        Err(_) => Err(StoreError::Busy { path: path.to_owned(), waited: wait }),
    }
}
