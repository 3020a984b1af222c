//! The memory of a process that is traced and stands still.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use nix::unistd::Pid;

/// Longer paths are cut.
const PATH_MAX: usize = 4096;

fn open(pid: Pid) -> File {
    let file = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
    file.unwrap_or_else(|e| panic!("open the memory of {pid}: {e}"))
}

/// Up to `length` bytes; fewer where the memory ends.
pub fn read(pid: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = open(pid).read_at(&mut bytes, address).unwrap_or_default();
    bytes.truncate(read);
    bytes
}

/// A text that ends with a NUL.
pub fn read_text(pid: Pid, address: u64) -> String {
    let bytes = read(pid, address, PATH_MAX);
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// A number of 8 bytes.
pub fn read_u64(pid: Pid, address: u64) -> u64 {
    read(pid, address, 8).first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Writes all of it.
pub fn write(pid: Pid, address: u64, bytes: &[u8]) {
    open(pid).write_all_at(bytes, address).unwrap_or_else(|e| panic!("write to the memory of {pid}: {e}"));
}
