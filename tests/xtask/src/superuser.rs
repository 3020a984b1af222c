//! Root, or what is root enough: an ordinary user is root in a user namespace of their own.

use std::fs;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// The capabilities without which there are no network namespaces: CAP_NET_ADMIN and CAP_SYS_ADMIN.
const NEEDED: u64 = 1 << 12 | 1 << 21;

/// How the process came to its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// It had them.
    Root,
    /// It is root in a user namespace that it made for itself.
    UserNamespace,
}

/// Makes this process able to make network namespaces. To be called while it has one thread.
pub fn obtain() -> Result<Rights, String> {
    if capabilities()? & NEEDED == NEEDED {
        return Ok(Rights::Root);
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(refused)?;
    write("setgroups", "deny")?;
    write("uid_map", &format!("0 {user} 1"))?;
    write("gid_map", &format!("0 {group} 1"))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(refused)?;
    Ok(Rights::UserNamespace)
}

fn write(file: &str, text: &str) -> Result<(), String> {
    let path = format!("/proc/self/{file}");
    fs::write(&path, text).map_err(|e| format!("{path}: {e}; {WAYS_OUT}"))
}

fn refused(error: Errno) -> String {
    format!("this user may not make network namespaces here ({error}); {WAYS_OUT}")
}

const WAYS_OUT: &str = "run it as root, or allow user namespaces \
    (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)";

/// The effective capabilities of this process, a bit each.
fn capabilities() -> Result<u64, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("read /proc/self/status: {e}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).ok_or("/proc/self/status has no CapEff")?;
    u64::from_str_radix(line.trim(), 16).map_err(|e| format!("CapEff {line}: {e}"))
}
