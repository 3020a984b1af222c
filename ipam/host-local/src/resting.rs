//! Addresses that were freed a moment ago, in the file `.released` beside the leases; only with `cooldownSeconds`.
//!
//! Others still send to an address when its pod is gone: connections that nobody closed, name servers' answers, clients
//! that retry. Round robin gives an address the longest rest there is, but none when the range is nearly full. With a
//! cooldown, an address that was freed less than that time ago is given to another owner only if nothing else is free,
//! and of those the one that has rested longest. It never makes an ADD fail: a pod that starts with such an address is
//! better than one that does not start.
//!
//! Times are those since the boot, which no step of the clock changes; after a reboot nothing has to rest. A record is
//! appended, and when there are [`RECORDS_MAX`] those that still count are written anew, the newest half at most: the
//! file has 64 kB at the most. An address whose record was dropped for that reason rests by round robin alone. What
//! cannot be read or written is no rest: this is a courtesy.
//!
//! The reference's DEL writes no record. It reads the file, as it reads every file, and finds no owner in it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use libcni::regular_file;

use crate::boot::{BootId, since_boot};
use crate::owners::{Slot, remove_if_there};

/// The file's name in the directory.
pub const NAME: &str = ".released";
/// Most records of the file.
const RECORDS_MAX: usize = 2048;
/// An owner and an address as in the index, and the time in seconds since the boot, 8 bytes.
const RECORD: usize = Slot::SIZE + 8;
const HEADER: usize = 64;

/// Addresses that rest, and how long it has been that they were freed.
#[derive(Debug, Default)]
pub struct Resting(HashMap<IpAddr, Duration>);

impl Resting {
    /// Those of a locked directory that another owner than this one freed less than `cooldown` ago.
    #[must_use]
    pub fn get(dir: &Path, boot: &BootId, cooldown: Duration, owner: &str) -> Self {
        let Some(now) = since_boot() else { return Self::default() };
        let mut resting = HashMap::new();
        // The last record of an address counts.
        for record in read(dir, boot) {
            let age = now.checked_sub(record.time).filter(|age| *age < cooldown);
            match age.filter(|_| !record.slot.is_of(owner)) {
                Some(age) => resting.insert(record.slot.address(), age),
                None => resting.remove(&record.slot.address()),
            };
        }
        Self(resting)
    }

    /// Whether an address rests.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains_key(&addr)
    }

    /// All, those first that have rested longest.
    #[must_use]
    pub fn longest_first(&self) -> Vec<IpAddr> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
        all.into_iter().map(|(addr, _)| *addr).collect()
    }
}

/// Notes that an owner has freed an address now.
///
/// # Errors
/// The file cannot be written.
pub fn note(dir: &Path, boot: &BootId, cooldown: Duration, owner: &str, addr: IpAddr) -> io::Result<()> {
    let now = since_boot().ok_or_else(|| io::Error::other("the time is unknown"))?;
    let record = Record { slot: Slot::new(owner, addr), time: now };
    let path = dir.join(NAME);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = regular_file::open(&path, &mut options)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let records = length.saturating_sub(HEADER) / RECORD;
    if is_of(&file, boot) && records < RECORDS_MAX {
        return file.write_all_at(&record.bytes(), (HEADER + records * RECORD) as u64);
    }
    let mut kept = read(dir, boot);
    kept.retain(|record| now.checked_sub(record.time).is_some_and(|age| age < cooldown));
    kept.drain(..kept.len().saturating_sub(RECORDS_MAX / 2));
    kept.push(record);
    remove_if_there(&path)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let body: Vec<u8> = kept.iter().flat_map(Record::bytes).collect();
    file.write_all_at(&[header(boot).as_slice(), &body].concat(), 0)
}

#[derive(Clone, Copy, Debug)]
struct Record {
    slot: Slot,
    time: Duration,
}

impl Record {
    fn bytes(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        let pieces = self.slot.bytes().into_iter().chain(self.time.as_secs().to_le_bytes());
        bytes.iter_mut().zip(pieces).for_each(|(byte, piece)| *byte = piece);
        bytes
    }

    fn read(bytes: &[u8]) -> Self {
        let seconds = bytes.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self { slot: Slot::read(bytes.get(..Slot::SIZE).unwrap_or_default()), time: Duration::from_secs(seconds) }
    }
}

/// The records of this boot, the oldest first.
fn read(dir: &Path, boot: &BootId) -> Vec<Record> {
    let Ok(file) = regular_file::open(&dir.join(NAME), OpenOptions::new().read(true)) else { return Vec::new() };
    if !is_of(&file, boot) {
        return Vec::new();
    }
    let mut body = vec![0; RECORDS_MAX * RECORD];
    let mut length = 0;
    while let Some(rest) = body.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, (HEADER + length) as u64) {
            Ok(0) | Err(_) => break,
            Ok(more) => length += more,
        }
    }
    body.get(..length).unwrap_or_default().chunks_exact(RECORD).map(Record::read).collect()
}

fn is_of(file: &File, boot: &BootId) -> bool {
    let mut written = [0; HEADER];
    file.read_exact_at(&mut written, 0).is_ok() && written == header(boot)
}

fn header(boot: &BootId) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let text = format!("podwire released 1\nboot {boot}\n");
    header.iter_mut().zip(text.bytes()).for_each(|(byte, value)| *byte = value);
    header
}

#[cfg(test)]
mod tests;
