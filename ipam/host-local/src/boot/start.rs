//! The earliest moment, by the clock, that this boot can have begun at: before it, nothing of this boot was written.
//!
//! That is the lowest value the clock can have had since, and every step of the clock must be counted. What is known:
//!
//! - The present clock less the time since the boot. A clock that was put back since is lower now, and so is this.
//! - When the kernel's own file systems were mounted, in the first second of a boot, by the clock of that second:
//!   `/sys` and `/proc` (times of their roots, which nobody has a reason to set), and `/dev` (when it came to be). A clock that was
//!   put forward since was lower then. This is no surmise: on a machine that goes on from a snapshot, the first value
//!   is a day late, and this one is right.
//! - When the namespaces of the pods that live were mounted. A clock that was put back *and* forward again left no
//!   trace in the other two; a pod that got its address in between has a namespace of that time.
//!
//! The lowest of all counts. In a time namespace the first one is of a clock of its own, and without `/sys` the second
//! is missing: nothing is known then.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::living;

/// `SYSFS_MAGIC` of linux/magic.h.
const SYSFS: rustix::fs::FsWord = 0x6265_6572;
/// The time namespace that a machine starts with (`PROC_TIME_INIT_INO` of linux/proc_fs.h).
const FIRST_TIME_NAMESPACE: &str = "time:[4026531834]";

/// That moment. `None`: nothing can be said.
pub(super) fn earliest() -> Option<SystemTime> {
    // Kernels before 5.6 have no time namespaces.
    if fs::read_link("/proc/self/ns/time").is_ok_and(|namespace| namespace != Path::new(FIRST_TIME_NAMESPACE)) {
        return None;
    }
    let computed = SystemTime::now().checked_sub(since_boot()?)?;
    let is_sysfs = rustix::fs::statfs("/sys").is_ok_and(|kind| kind.f_type == SYSFS);
    let sys = if is_sysfs { oldest_time(Path::new("/sys")) } else { None }?;
    let devices = fs::metadata("/dev").and_then(|dev| dev.created()).ok();
    let namespaces = living::namespace_mounts().ok()?.into_iter().filter_map(|mount| oldest_time(&mount));
    let others = namespaces.chain(devices).chain(oldest_time(Path::new("/proc")));
    Some(others.fold(computed.min(sys), SystemTime::min))
}

/// The time since the boot, sleep included; no container can have it faked but by a time namespace.
pub(crate) fn since_boot() -> Option<Duration> {
    let time = clock_gettime(ClockId::Boottime);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

/// The lowest of an inode's times.
fn oldest_time(path: &Path) -> Option<SystemTime> {
    let meta = fs::metadata(path).ok()?;
    let seconds = meta.mtime().min(meta.ctime()).min(meta.atime());
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}
