//! Which leases are of an earlier boot: their pods are gone with the kernel that they ran under.
//!
//! An address that is taken from a living pod breaks two pods, one that is held for a dead one costs an address. So
//! a lease is of an earlier boot only if that is proved, and everything else holds. Clocks prove little: without a
//! battery they start in 1970 or at the last shutdown, after a restored snapshot they are behind by days, and NTP
//! puts them right minutes later, in one step, while leases are written all the time. `btime` of `/proc/stat` is
//! computed from the present clock and takes every step along. Hence, in this order:
//!
//! 1. **The stamp**, an extended attribute of the lease's file ([`crate::stamp`]), names a boot in which the lease was
//!    there: ours are stamped as they are written, those of the reference when we first see them. A boot is named by
//!    the kernel's random `boot_id`, which no clock has a part in. Another boot in the stamp: the lease is older than
//!    this boot. This one, and it was written by us: it is not. This also holds for a snapshot that is restored and
//!    for a machine that slept, whose kernel and whose pods go on. Stamp and content appear with one `link(2)`, and go
//!    with the file, so a lease that the reference makes for the same address does not inherit one.
//! 2. **Time**, for what has no stamp, or only that we have seen it in this boot. The lease was written, by the
//!    file's modification time, a margin before the earliest moment that this boot can have begun at, which is a time
//!    that the clock has not been behind since: see [`start`]. Where that moment is unknown, the lease holds. One more
//!    reboot settles it: by then all have stamps.
//! 3. **The living** have the last word ([`crate::living`]): an address that a network namespace of this kernel has,
//!    is in use, whatever 1 and 2 say. This is for pods that are brought back without an ADD (CRIU), and for clocks that
//!    went astray in a way that 2 cannot see.
//!
//! `boot_id` is one kernel's. A directory on a file system that several kernels may share (NFS, 9p, FUSE) has leases
//! of nodes that live under another id, so nothing is judged there ([`Boot::of`]); the same where there is no id.
//!
//! Where the container is the node (kind, systemd-nspawn), a restart of it is a boot if the container has a `boot_id`
//! of its own, and is none if it sees the kernel's; the leases hold then, as with the reference. A directory must not
//! be shared by two such nodes of one kernel that have ids of their own, nor by plugins of one node of which some see
//! the container's id and some the kernel's: between their leases, 3 alone stands.
//!
//! A container that comes back after a reboot keeps its address, if it was not needed meanwhile: the lease is
//! renewed, which is to say that it gets the stamp and the time of this boot.

use std::cell::OnceCell;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::fstatfs;

use crate::stamp::{self, Stamp};

mod start;

pub(crate) use start::since_boot;

/// How much older than this boot a lease without a stamp must be: for file systems that keep whole seconds, and for
/// clocks that are put right by some seconds while the machine boots.
const MARGIN: Duration = Duration::from_secs(60);

/// Seconds since 1970 that say no time: what is not set, and the last of 32 bits.
const BEYOND: [u64; 2] = [0, 0x7fff_ffff];

/// File systems that one kernel has to itself, by their magic numbers (linux/magic.h, and those of zfs and xfs).
const LOCAL: [u64; 9] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xf2f5_2010, // f2fs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
];

/// The name of a boot: `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootId(String);

impl BootId {
    /// That of the present boot. `None`: no `/proc`, or nothing there that is a name.
    #[must_use]
    pub fn current() -> Option<Self> {
        // Enough for the name, which the kernel gives in one piece, and no more is looked for.
        let mut text = [0; 64];
        let length = File::open("/proc/sys/kernel/random/boot_id").ok()?.read(&mut text).ok()?;
        Self::parse(str::from_utf8(text.get(..length)?).ok()?.trim())
    }

    /// A name in the form of a UUID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_uuid = text.len() == 36 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        is_uuid.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which boot a lease is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It was made or renewed in this boot.
    ThisBoot,
    /// It is of a boot before this one: the pod's namespace is no more.
    EarlierBoot,
    /// Nothing proves either; it holds.
    Unknown,
}

/// The present boot, as judge of the leases of one directory.
#[derive(Debug)]
pub struct Boot {
    id: Option<BootId>,
    /// Whether no other kernel writes the directory.
    exclusive: OnceCell<bool>,
    /// The earliest moment that the boot can have begun at, if anything can be said of it.
    start: OnceCell<Option<SystemTime>>,
}

impl Boot {
    /// The present one. What judging needs more is read when something is judged.
    #[must_use]
    pub fn current() -> Self {
        Self { id: BootId::current(), exclusive: OnceCell::new(), start: OnceCell::new() }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> Option<&BootId> {
        self.id.as_ref()
    }

    /// Which boot the lease at `path` in the directory is of, as far as its file says; the living are not asked.
    #[must_use]
    pub fn age(&self, directory: &File, path: &Path) -> Age {
        let Some(id) = &self.id else { return Age::Unknown };
        match stamp::get(path) {
            Err(_) => Age::Unknown,
            Ok(Some(Stamp { boot, .. })) if boot != *id => self.earlier_if(|| true, directory),
            Ok(Some(Stamp { made: true, .. })) => Age::ThisBoot,
            Ok(_) => self.earlier_if(|| self.is_before_start(path), directory),
        }
    }

    fn earlier_if(&self, proof: impl FnOnce() -> bool, directory: &File) -> Age {
        let exclusive = || fstatfs(directory).is_ok_and(|kind| u64::try_from(kind.f_type).is_ok_and(is_local));
        if *self.exclusive.get_or_init(exclusive) && proof() { Age::EarlierBoot } else { Age::Unknown }
    }

    fn is_before_start(&self, path: &Path) -> bool {
        let Some(start) = *self.start.get_or_init(start::earliest) else { return false };
        let written = fs::symlink_metadata(path).and_then(|lease| lease.modified());
        written.is_ok_and(|written| is_before(written, start))
    }
}

/// Whether what was written then was written before the boot. A file system with 32 bits for a time has only so much to
/// say of 2038 and later: it stays at the last second, or begins anew in 1901.
fn is_before(written: SystemTime, start: SystemTime) -> bool {
    let is_told = written.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| !BEYOND.contains(&since.as_secs()));
    is_told && written.checked_add(MARGIN).is_some_and(|written| written < start)
}

/// The magic number as the kernel's `long` has it.
fn is_local(magic: u64) -> bool {
    LOCAL.contains(&(magic & 0xffff_ffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(since_1970: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970)
    }

    /// A clock of 2040, and leases of that year, on a file system that ends in 2038.
    #[test]
    fn times_that_a_file_system_cannot_store_prove_nothing() {
        let start = second(70 * 365 * 86_400);
        assert!(is_before(second(0x7fff_fffe), start) && is_before(second(0x8000_0000), start));
        assert!(!is_before(second(0x7fff_ffff), start) && !is_before(second(0), start));
        assert!(!is_before(SystemTime::UNIX_EPOCH - Duration::from_secs(0x8000_0000), start));
        assert!(!is_before(start - MARGIN, start) && is_before(start - MARGIN - Duration::from_secs(1), start));
        // The end of what can be computed.
        assert!(!is_before(second(i64::MAX.unsigned_abs()), start));
    }

    /// The numbers are those of linux/magic.h: file systems that the next machine may have mounted too.
    #[test]
    fn nothing_is_judged_where_several_machines_may_write() {
        let shared: [(&str, u64); 12] = [
            ("nfs", 0x6969),
            ("9p", 0x0102_1997),
            ("fuse: virtiofs, s3fs, glusterfs, sshfs", 0x6573_5546),
            ("ceph", 0x00c3_6400),
            ("cifs", 0xff53_4d42),
            ("smb2", 0xfe53_4d42),
            ("afs", 0x5346_414f),
            ("coda", 0x7375_7245),
            ("gfs2", 0x0116_1970),
            ("ocfs2", 0x7461_636f),
            ("vboxsf", 0x786f_4256),
            ("lustre", 0x0bd0_0bd0),
        ];
        for (name, magic) in shared {
            assert!(!is_local(magic), "{name}");
        }
        assert!(is_local(0xef53), "ext4");
        // As a signed 32-bit number becomes one of 64 bits: btrfs.
        assert!(is_local(0xffff_ffff_9123_683e));
    }
}
