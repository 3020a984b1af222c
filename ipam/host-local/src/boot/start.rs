//! The earliest moment, by the clock, that this boot can have begun at: before it, nothing of this boot was written.
//!
//! That is the lowest value the clock can have had since, and every step of the clock must be counted. What is known:
//!
//! - The present clock less the time since the boot. A clock that was put back since is lower now, and so is this.
//! - What the clock showed when the kernel started, by files that it made then. A clock that was put forward since was
//!   lower then. This is no surmise: on a machine that goes on from a snapshot, the first value is a day late, and this
//!   one is right.
//! - When `/proc` was mounted, in the first second of the boot, if it is not one of a container; and when the namespaces
//!   of the pods that live were mounted. A clock that was put back *and* forward again left no trace in the others; a pod
//!   that got its address in between has a namespace of that time.
//!
//! The lowest of all counts. In a time namespace the first one is of a clock of its own, and where no file of the kernel's
//! start is to be seen, as in most containers, the second is missing: nothing is known then. The times of `/sys` are no
//! such file: whoever lists extended attributes there sets them to the present.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FsWord, StatxFlags, statfs, statx};
use rustix::time::{ClockId, clock_gettime};

use crate::living;
use crate::mounts::{self, Mount};

/// Where securityfs is mounted, by systemd and others, if the kernel has it.
const SECURITY: &str = "/sys/kernel/security";
/// `SECURITYFS_MAGIC` of linux/magic.h.
const SECURITYFS: FsWord = 0x7363_6673;
/// The time namespace that a machine starts with (`PROC_TIME_INIT_INO` of linux/proc_fs.h).
const FIRST_TIME_NAMESPACE: &str = "time:[4026531834]";

/// That moment. `None`: nothing can be said.
pub(super) fn earliest() -> Option<SystemTime> {
    // Kernels before 5.6 have no time namespaces.
    if fs::read_link("/proc/self/ns/time").is_ok_and(|namespace| namespace != Path::new(FIRST_TIME_NAMESPACE)) {
        return None;
    }
    let computed = SystemTime::now().checked_sub(since_boot()?)?;
    let kernel = devices_made().into_iter().chain(security_made()).min()?;
    let namespaces = living::namespace_mounts().ok()?.into_iter().filter_map(|mount| oldest_time(&mount));
    let others = namespaces.chain(oldest_time(Path::new("/proc")));
    Some(others.fold(computed.min(kernel), SystemTime::min))
}

/// When the kernel made the root of its device nodes. There is one such file system however often it is mounted, and
/// this is a time that nobody can set. Kernels before 5.18 do not keep it.
fn devices_made() -> Option<SystemTime> {
    mounts::of_type("devtmpfs").ok()?.iter().filter(|mount| mount.root == b"/").find_map(made)
}

/// When the root of a mount was made. `None`: that is not known, or something else is mounted over it.
fn made(mount: &Mount) -> Option<SystemTime> {
    let root = statx(CWD, &mount.place, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    let is_it = format!("{}:{}", root.stx_dev_major, root.stx_dev_minor) == mount.device;
    let known = StatxFlags::from_bits_retain(root.stx_mask).contains(StatxFlags::BTIME);
    if is_it && known { time(root.stx_btime.tv_sec) } else { None }
}

/// When the kernel made a file of securityfs that it never changes.
fn security_made() -> Option<SystemTime> {
    let is_there = statfs(SECURITY).is_ok_and(|kind| kind.f_type == SECURITYFS);
    is_there.then(|| oldest_time(&Path::new(SECURITY).join("lsm")))?
}

/// The time since the boot, sleep included; no container can have it faked but by a time namespace.
pub(crate) fn since_boot() -> Option<Duration> {
    let time = clock_gettime(ClockId::Boottime);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

/// The lowest of an inode's times.
fn oldest_time(path: &Path) -> Option<SystemTime> {
    let meta = fs::metadata(path).ok()?;
    time(meta.mtime().min(meta.ctime()).min(meta.atime()))
}

/// A moment in seconds since 1970, which may be one before it.
fn time(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}
