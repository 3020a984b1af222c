//! The system calls that count, as they stand in the registers of a process that is about to make one (x86_64).

use std::fmt;
use std::fs;

use nix::libc::{self, user_regs_struct};
use nix::unistd::Pid;

use super::memory;

/// Headers of netlink messages: `struct nlmsghdr` of linux/netlink.h.
const HEADER: usize = 16;
/// `NFNL_MSG_BATCH_BEGIN` of linux/netfilter/nfnetlink.h.
const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_DELETE` of linux/netfilter/nfnetlink_conntrack.h.
const CONNTRACK_DELETE: u16 = 1 << 8 | 2;
/// `IPT_SO_SET_REPLACE` and `IPT_SO_SET_ADD_COUNTERS` of linux/netfilter_ipv4/ip_tables.h.
const XTABLES_SET: [u64; 2] = [64, 65];

/// To whom it goes is not seen; to firewalld, for one.
const MESSAGE: &str = "message";

/// A system call that changes something, or that asks for what may not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A datagram to the kernel.
    Request {
        /// Its message, or the messages of a batch.
        what: String,
        /// Whether it asks for a change.
        changes: bool,
    },
    /// Something is done to a file.
    File {
        /// The system call.
        call: &'static str,
        /// The file.
        path: String,
        /// Whether it is another file then.
        changes: bool,
    },
    /// A process, a namespace, a socket, a pipe; a message to another process.
    Other(&'static str),
}

impl Operation {
    /// Whether something is different when it has been done.
    pub fn changes(&self) -> bool {
        match self {
            Self::Request { changes, .. } | Self::File { changes, .. } => *changes,
            Self::Other(call) => *call == MESSAGE,
        }
    }

    /// The one that a process is about to do; `None` for all the rest. `protocol` says of a descriptor which netlink
    /// it speaks.
    pub(super) fn of(pid: Pid, regs: &user_regs_struct, protocol: impl Fn(u64) -> Option<i32>) -> Option<Self> {
        let path = |address: u64| memory::read_text(pid, address);
        let file = |call, path, changes| Some(Self::File { call, path, changes });
        let open = |address: u64, flags: u64| {
            let flags = i32::try_from(flags & 0x7fff_ffff).unwrap_or_default();
            let changes = flags & (libc::O_CREAT | libc::O_TRUNC) != 0 && path(address) != "/dev/null";
            file("open", path(address), changes)
        };
        match i64::try_from(regs.orig_rax).ok()? {
            libc::SYS_sendto | libc::SYS_sendmsg => {
                let Some(protocol) = protocol(regs.rdi) else { return Some(Self::Other(MESSAGE)) };
                let (what, changes) = describe(protocol, &datagram(pid, regs));
                Some(Self::Request { what, changes })
            }
            libc::SYS_open => open(regs.rdi, regs.rsi),
            libc::SYS_openat => open(regs.rsi, regs.rdx),
            libc::SYS_write | libc::SYS_pwrite64 => {
                let path = fs::read_link(format!("/proc/{pid}/fd/{}", regs.rdi)).ok()?.display().to_string();
                if path.starts_with('/') && !path.starts_with("/dev/") { file("write", path, true) } else { None }
            }
            libc::SYS_mkdir => file("mkdir", path(regs.rdi), true),
            libc::SYS_mkdirat => file("mkdir", path(regs.rsi), true),
            libc::SYS_unlink | libc::SYS_rmdir => file("unlink", path(regs.rdi), true),
            libc::SYS_unlinkat => file("unlink", path(regs.rsi), true),
            libc::SYS_link => file("link", path(regs.rsi), true),
            libc::SYS_linkat => file("link", path(regs.r10), true),
            libc::SYS_symlink => file("symlink", path(regs.rsi), true),
            libc::SYS_rename => file("rename", path(regs.rsi), true),
            libc::SYS_renameat | libc::SYS_renameat2 => file("rename", path(regs.r10), true),
            libc::SYS_ftruncate | libc::SYS_utimensat | libc::SYS_fchmod | libc::SYS_flock => {
                let call = match i64::try_from(regs.orig_rax).ok()? {
                    libc::SYS_ftruncate => "ftruncate",
                    libc::SYS_utimensat => "utimensat",
                    libc::SYS_fchmod => "fchmod",
                    _ => "flock",
                };
                let path = fs::read_link(format!("/proc/{pid}/fd/{}", regs.rdi)).unwrap_or_default();
                file(call, path.display().to_string(), call != "flock")
            }
            libc::SYS_setsockopt if XTABLES_SET.contains(&regs.rdx) && [0, 41].contains(&regs.rsi) => {
                Some(Self::Request { what: "IPT_SO_SET".to_owned(), changes: true })
            }
            libc::SYS_socket if i32::try_from(regs.rdi) == Ok(libc::AF_NETLINK) => Some(Self::Other("socket")),
            libc::SYS_setns => Some(Self::Other("setns")),
            libc::SYS_unshare => Some(Self::Other("unshare")),
            libc::SYS_clone | libc::SYS_clone3 | libc::SYS_fork | libc::SYS_vfork => Some(Self::Other("clone")),
            libc::SYS_execve => Some(Self::Other("execve")),
            libc::SYS_pipe | libc::SYS_pipe2 => Some(Self::Other("pipe")),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { what, .. } => f.write_str(what),
            Self::File { call, path, .. } => write!(f, "{call} {path}"),
            Self::Other(call) => f.write_str(call),
        }
    }
}

/// What is being sent.
pub(super) fn datagram(pid: Pid, regs: &user_regs_struct) -> Vec<u8> {
    let (address, length) = match i64::try_from(regs.orig_rax) {
        // `struct msghdr`: the pieces are at 16, the first of them is enough.
        Ok(libc::SYS_sendmsg) => {
            let piece = memory::read_u64(pid, regs.rsi + 16);
            (memory::read_u64(pid, piece), memory::read_u64(pid, piece + 8))
        }
        _ => (regs.rsi, regs.rdx),
    };
    memory::read(pid, address, usize::try_from(length).unwrap_or_default())
}

/// Message type and sequence number of each message of a datagram.
pub(super) fn messages(datagram: &[u8]) -> Vec<(u16, u32)> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        found.push((kind, sequence));
        let length = usize::try_from(length).unwrap_or_default().max(HEADER).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    found
}

fn describe(protocol: i32, datagram: &[u8]) -> (String, bool) {
    let messages = messages(datagram);
    let Some((first, _)) = messages.first() else { return ("nothing".to_owned(), false) };
    if protocol == libc::NETLINK_ROUTE {
        const OBJECTS: [&str; 8] = ["LINK", "ADDR", "ROUTE", "NEIGH", "RULE", "QDISC", "TCLASS", "TFILTER"];
        const VERBS: [&str; 4] = ["NEW", "DEL", "GET", "SET"];
        let number = usize::from(first.saturating_sub(libc::RTM_NEWLINK));
        let verb = VERBS[number % 4];
        let object = OBJECTS.get(number / 4).copied().unwrap_or("?");
        return (format!("RTM_{verb}{object}"), verb != "GET");
    }
    if *first == BATCH_BEGIN {
        let kinds: Vec<String> = messages.iter().skip(1).map(|(kind, _)| format!("{:#x}", kind & 0xff)).collect();
        return (format!("nf_tables batch {}", kinds.join(" ")), true);
    }
    (format!("netfilter message {first:#x}"), *first == CONNTRACK_DELETE)
}
