//! The corner with `unsafe`: system calls that neither the standard library nor nix offers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Command, id};

use nix::sys::{prctl, signal::Signal};

/// `NS_GET_NSTYPE` of linux/nsfs.h, `_IO(0xb7, 0x3)`: which kind of namespace a descriptor is (Linux 4.11).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// The `CLONE_NEW…` flag of the namespace that `fd` refers to; `ENOTTY` where it is no namespace.
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    #[expect(unsafe_code, reason = "nix has no wrapper for this ioctl")]
    // SAFETY: the descriptor is open for as long as it is borrowed, and the request takes no argument: the kernel
    // neither reads nor writes our memory.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

/// Has the kernel kill the program as soon as this thread is no more.
pub(crate) fn end_with_us(command: &mut Command) {
    let us = id();
    let in_child = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // What ends before that call sends no signal.
        if parent_id() == us { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
    };
    #[expect(unsafe_code, reason = "the standard library cannot know what is done between fork and exec")]
    // SAFETY: between fork and exec there are two system calls, prctl and getppid; nothing is allocated and no lock taken.
    unsafe {
        command.pre_exec(in_child)
    };
}
