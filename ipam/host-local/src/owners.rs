//! The index from owners to addresses, in the file `.owners` beside the leases.
//!
//! A lease's file is named by its address, and its owner stands inside: to find what an owner holds, the
//! reference reads every file there is. This table spares that. It is a hint and a proof, in that order:
//!
//! **What it says is verified.** An entry is used only after the lease's file has been read and names the owner.
//! So a wrong entry costs a read, never an address.
//!
//! **What it does not say is true**, while the table is *sealed*. This is what needs an argument, because the
//! reference and people with `rm` change the directory and know nothing of the table:
//!
//! 1. Whoever creates, links, renames or removes a file makes the kernel set the directory's modification time
//!    to the present.
//! 2. A process of ours that has made its changes and has written all of them into the table sets the directory's
//!    modification time to `SEAL`, a moment in 2004. The kernel sets it to that value never again: no clock is
//!    there, however coarse its ticks or the file system's timestamps. (This is why it is not a time that was
//!    read back, which a change in the same tick would leave as it is.)
//! 3. All of it happens under the lock that the reference takes too. So between the first change and the seal
//!    there is no change but ours. A process killed before the seal leaves the kernel's time behind.
//! 4. Hence: modification time equal to `SEAL` means that no file came or went since the table was complete.
//!    Contents do not change after the lock is released: leases are written once, by both suites.
//! 5. A power failure may keep the directory and lose the table's pages, or the other way round. So the table
//!    names the boot it was written in, and after a reboot it is not believed.
//! 6. A copy or a restored backup may bring the modification time along. So the table also has the directory's
//!    *change* time of the moment after the seal. Nobody can set that one, the kernel does so at every change of
//!    the directory and of its other times; a copy has its own, and so has a directory that was copied over.
//!
//! A table that is not believed is made anew: one reading of all leases, which also finds what killed processes
//! left ([`crate::store`]). If it cannot be written (read-only or full disk) the directory stays unsealed, and
//! each call reads everything, as the reference always does. What is left is a person who copies a lease into
//! the directory by hand, without the lock, in the microseconds between (2) and the change before it; that lease
//! is seen with the next change by the reference or the next boot.
//!
//! Layout: a header of 128 bytes with the boot and the change time, then buckets of 170 slots: a fingerprint of
//! the lease's content (8 bytes) and its address (16 bytes; IPv4 as mapped IPv6). A free slot is all zeros.
//! The reference reads the file when it looks for leases, as it reads every file, and finds no owner in it.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use libcni::regular_file;

use crate::boot::BootId;
use crate::lease::Lease;

/// The table's name in the directory.
pub const NAME: &str = ".owners";
/// The directory's modification time when the table is complete: 2^30 seconds, 10 January 2004.
const SEAL: Duration = Duration::from_secs(1 << 30);
const HEADER: usize = 128;
/// The part of the header that names the boot; the change time follows: seconds and nanoseconds, 8 bytes each.
const BOOT: usize = 112;
const SLOT: usize = 24;
const SLOTS: usize = 170;
const BUCKET: usize = SLOT * SLOTS;
/// Mean number of slots in use after a table has been made; the next growth is far then.
const LOAD: usize = 24;
/// Buckets of the largest table: far more than a node has addresses, 32 MB.
const BUCKETS_MAX: usize = 1 << 13;

/// An open table that is complete.
#[derive(Debug)]
pub struct Owners {
    file: File,
    buckets: usize,
    boot: [u8; BOOT],
    /// The bucket that was read last. The lock is held, so it stays what the file has.
    read: Option<Bucket>,
}

impl Owners {
    /// Opens the table of a locked directory if it is sealed. `None`: it must be made anew.
    pub fn get(dir: &Path, dir_file: &File, boot: &BootId) -> Option<Self> {
        let dir_meta = dir_file.metadata().ok()?;
        if dir_meta.modified().ok()? != SystemTime::UNIX_EPOCH + SEAL {
            return None;
        }
        let path = dir.join(NAME);
        let file = regular_file::open(&path, OpenOptions::new().read(true).write(true))
            .or_else(|_| regular_file::open(&path, OpenOptions::new().read(true)))
            .ok()?;
        let body = usize::try_from(file.metadata().ok()?.len()).ok()?.checked_sub(HEADER)?;
        let owners = Self { file, buckets: body / BUCKET, boot: beginning(boot), read: None };
        let mut written = [0; HEADER];
        owners.file.read_exact_at(&mut written, 0).ok()?;
        let whole = owners.buckets > 0 && owners.buckets * BUCKET == body;
        (whole && owners.header(&dir_meta) == written).then_some(owners)
    }

    /// Makes the table of a locked directory. It is to be sealed afterwards.
    pub fn create(dir: &Path, leases: &[Lease], boot: &BootId) -> io::Result<Self> {
        let slots: Vec<Slot> = leases.iter().map(|(content, addr)| Slot::new(content, *addr)).collect();
        Self::with_slots(dir, &slots, beginning(boot))
    }

    fn with_slots(dir: &Path, slots: &[Slot], boot: [u8; BOOT]) -> io::Result<Self> {
        let mut buckets = slots.len().div_ceil(LOAD).next_power_of_two().min(BUCKETS_MAX);
        while buckets <= BUCKETS_MAX {
            if let Some(body) = fill(slots, buckets) {
                return Self::write(dir, buckets, &body, boot);
            }
            buckets *= 2;
        }
        Err(io::Error::other("too many leases of one owner"))
    }

    /// The old file goes first: from then on, until the seal, nothing believes the table.
    fn write(dir: &Path, buckets: usize, body: &[u8], boot: [u8; BOOT]) -> io::Result<Self> {
        let path = dir.join(NAME);
        remove_if_there(&path)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all_at(body, HEADER as u64)?;
        Ok(Self { file, buckets, boot, read: None })
    }

    /// Declares the table complete. On failure the directory stays unsealed, which is safe.
    pub fn seal(&self, dir_file: &File) -> io::Result<()> {
        dir_file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + SEAL))?;
        self.file.write_all_at(&self.header(&dir_file.metadata()?), 0)
    }

    /// What a table of this boot begins with, if it was sealed when the directory was last changed.
    fn header(&self, dir: &fs::Metadata) -> Vec<u8> {
        [self.boot.as_slice(), &dir.ctime().to_le_bytes(), &dir.ctime_nsec().to_le_bytes()].concat()
    }

    /// Addresses whose lease may have this content; among them are all that have it.
    pub fn get_addresses(&mut self, content: &str) -> io::Result<Vec<IpAddr>> {
        let print = fingerprint(content);
        let slots = self.bucket(print)?.bytes.chunks_exact(SLOT).map(Slot::read);
        Ok(slots.filter(|slot| slot.print == print).map(Slot::address).collect())
    }

    /// Enters a lease. Where its bucket is full the table is made anew, larger.
    pub fn insert(&mut self, dir: &Path, content: &str, addr: IpAddr) -> io::Result<()> {
        let slot = Slot::new(content, addr);
        if self.replace(slot.print, Slot::default(), slot)? {
            return Ok(());
        }
        let mut body = vec![0; self.buckets * BUCKET];
        self.file.read_exact_at(&mut body, HEADER as u64)?;
        let mut slots: Vec<Slot> = body.chunks_exact(SLOT).map(Slot::read).filter(|slot| slot.print != 0).collect();
        slots.push(slot);
        *self = Self::with_slots(dir, &slots, self.boot)?;
        Ok(())
    }

    /// Strikes a lease out; one that is not there is fine.
    pub fn remove(&mut self, content: &str, addr: IpAddr) -> io::Result<()> {
        let slot = Slot::new(content, addr);
        self.replace(slot.print, slot, Slot::default()).map(|_| ())
    }

    /// Replaces a slot in the bucket of a fingerprint. `false`: there is none like it.
    fn replace(&mut self, print: u64, old: Slot, new: Slot) -> io::Result<bool> {
        let bucket = self.bucket(print)?;
        let Some(index) = bucket.bytes.chunks_exact(SLOT).position(|slot| Slot::read(slot) == old) else {
            return Ok(false);
        };
        let (offset, bytes) = (bucket.offset + (index * SLOT) as u64, new.bytes());
        bucket.bytes.iter_mut().skip(index * SLOT).zip(bytes).for_each(|(byte, value)| *byte = value);
        self.file.write_all_at(&bytes, offset)?;
        Ok(true)
    }

    /// The bucket of a fingerprint.
    fn bucket(&mut self, print: u64) -> io::Result<&mut Bucket> {
        let offset = (HEADER + bucket_of(print, self.buckets) * BUCKET) as u64;
        let bucket = match self.read.take().filter(|bucket| bucket.offset == offset) {
            Some(bucket) => bucket,
            None => {
                let mut bytes = vec![0; BUCKET];
                self.file.read_exact_at(&mut bytes, offset)?;
                Bucket { offset, bytes }
            }
        };
        Ok(self.read.insert(bucket))
    }
}

/// A bucket of the file.
#[derive(Debug)]
struct Bucket {
    offset: u64,
    bytes: Vec<u8>,
}

/// Removes a file; one that is gone already is fine.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The beginning of a header.
fn beginning(boot: &BootId) -> [u8; BOOT] {
    let mut header = [0; BOOT];
    let text = format!("podwire owners 1\nboot {boot}\n");
    header.iter_mut().zip(text.bytes()).for_each(|(byte, value)| *byte = value);
    header
}

/// An owner, as a fingerprint, and an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Never 0 in a slot in use.
    print: u64,
    addr: u128,
}

impl Slot {
    /// Bytes that it takes.
    pub(crate) const SIZE: usize = SLOT;

    pub(crate) fn new(content: &str, addr: IpAddr) -> Self {
        let addr = match addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self { print: fingerprint(content), addr: addr.to_bits() }
    }

    /// Reads [`SLOT`] bytes.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let print = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self { print, addr: bytes.last_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes)) }
    }

    pub(crate) fn bytes(self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        let pieces = self.print.to_le_bytes().into_iter().chain(self.addr.to_le_bytes());
        bytes.iter_mut().zip(pieces).for_each(|(byte, piece)| *byte = piece);
        bytes
    }

    /// Whether it is of this owner, or of one with the same fingerprint.
    pub(crate) fn is_of(self, content: &str) -> bool {
        self.print == fingerprint(content)
    }

    pub(crate) fn address(self) -> IpAddr {
        IpAddr::from(Ipv6Addr::from_bits(self.addr)).to_canonical()
    }
}

/// The buckets with all slots in them; `None` where one overflows.
fn fill(slots: &[Slot], buckets: usize) -> Option<Vec<u8>> {
    let mut body = vec![0; buckets * BUCKET];
    for slot in slots {
        let bucket = body.chunks_exact_mut(BUCKET).nth(bucket_of(slot.print, buckets))?;
        let free = bucket.chunks_exact_mut(SLOT).find(|bytes| Slot::read(bytes).print == 0)?;
        free.copy_from_slice(&slot.bytes());
    }
    Some(body)
}

/// `buckets` is a power of two.
fn bucket_of(print: u64, buckets: usize) -> usize {
    // The high half is what FNV mixes best.
    usize::try_from(print >> 32).unwrap_or_default() & (buckets - 1)
}

/// FNV-1a, 64 bits: the same in every build, as what two builds of one boot both read must be.
fn fingerprint(content: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    content.bytes().fold(0xcbf2_9ce4_8422_2325, step).max(1)
}

#[cfg(test)]
mod tests;
