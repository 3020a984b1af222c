//! One ADD, DEL or GC of this plugin at a time. Rules that pods share are looked for and made if they are missing, and a
//! pod's rules are found and replaced: two that do so at once would make them twice, as the reference does.
//!
//! The lock is a file of root's own: one that anybody can open, anybody could hold.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const DIRECTORY: &str = "/run/cni";
const FILE: &str = "firewall.lock";

/// Held until it is dropped, or the process ends.
pub struct Lock(Option<File>);

impl Lock {
    /// Waits for the lock. A node where there can be none gets its rules without: they matter more.
    pub fn take() -> Self {
        let file = open().and_then(|file| file.lock().map(|()| file));
        Self(file.map_err(|error| eprintln!("lock {DIRECTORY}/{FILE}: {error}")).ok())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

fn open() -> io::Result<File> {
    fs::create_dir_all(DIRECTORY)?;
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(Path::new(DIRECTORY).join(FILE))
}
