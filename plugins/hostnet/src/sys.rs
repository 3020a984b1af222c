//! The corner with `unsafe`: system calls that neither the standard library nor nix offers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
