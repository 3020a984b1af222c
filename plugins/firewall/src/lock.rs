//! One ADD, DEL or GC of this plugin at a time. Rules that pods share are looked for and made if they are missing, and a
//! pod's rules are found and replaced: two that do so at once would make them twice, as the reference does.
//!
//! The lock is a file of root's own: one that anybody can open, anybody could hold.

use std::path::Path;
use std::time::Duration;

use hostnet::lock::Lock;

const FILE: &str = "/run/cni/firewall.lock";

/// What an operation takes is milliseconds: whoever waits as long waits for one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the lock, held until it is dropped. A node where there can be none gets its rules without: they matter more.
pub fn take() -> Option<Lock> {
    let lock = Lock::take(Path::new(FILE), PATIENCE);
    lock.inspect_err(|error| libcni::log::warn(format_args!("firewall: {error}; going on without"))).ok()
}
