//! The datagrams below [`Socket`](super::Socket): one trait with two methods, so that a test can play the kernel
//! and feed what a real one sends only under a race (an interrupted dump, a lost acknowledgement).

use std::io;
use std::time::Duration;

use netlink_sys::Socket as RawSocket;
use nix::errno::Errno;
use nix::sys::socket::{
    setsockopt,
    sockopt::{ReceiveTimeout, SndBuf, SndBufForce},
};
use nix::sys::time::TimeVal;

/// The largest datagram. The kernel fills those of a dump up to what is read at a time, at most to 32 KiB, and an answer
/// about one object is of 8 KiB at most. (Larger are those about a link's virtual functions, which must be asked for.)
pub(super) const BUFFER: usize = 32 * 1024;

/// Datagrams to and from the kernel.
pub(super) trait Wire {
    /// Sends one datagram.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;

    /// Replaces what is in `buffer` by the next datagram, whole. `WouldBlock` when the time-out has passed.
    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()>;

    /// How long [`receive`](Self::receive) waits.
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()>;

    /// Joins a multicast group.
    fn join(&mut self, group: u32) -> io::Result<()>;
}

/// The kernel.
pub(super) struct Kernel(RawSocket);

impl Kernel {
    /// A socket of the calling thread's network namespace, and the port id the kernel gave it.
    pub(super) fn open(protocol: isize) -> io::Result<(Self, u32)> {
        let mut socket = RawSocket::new(protocol)?; // close-on-exec
        let port = socket.bind_auto()?.port_number();
        socket.set_cap_ack(true)?;
        // Kernels before 4.12 have no explanations, those before 4.20 no strict checking: we do without.
        optional(socket.set_ext_ack(true))?;
        optional(socket.set_netlink_get_strict_chk(true))?;
        Ok((Self(socket), port))
    }

    /// Room for a datagram of this size. One is not larger than the socket's send buffer (`net.core.wmem_default`, some
    /// 200 KiB), and a transaction of nf_tables is one datagram: five hundred rules are more. Beyond `net.core.wmem_max`
    /// it takes the node's `CAP_NET_ADMIN`.
    fn make_room(&self, size: usize) -> io::Result<()> {
        // The kernel doubles the number, which makes room for what it writes before the datagram.
        match setsockopt(&self.0, SndBufForce, &size) {
            Err(Errno::EPERM) => Ok(setsockopt(&self.0, SndBuf, &size)?),
            outcome => Ok(outcome?),
        }
    }
}

impl Wire for Kernel {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let sent = match retry(|| self.0.send(datagram, 0)) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.make_room(datagram.len())?;
                retry(|| self.0.send(datagram, 0))?
            }
            sent => sent?,
        };
        if sent == datagram.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            buffer.clear();
            buffer.reserve(BUFFER);
            let room = buffer.capacity();
            // With this flag the size is that of the datagram, also where it was cut.
            let (size, sender) = retry(|| self.0.recv_from(buffer, libc::MSG_TRUNC))?;
            if size > room {
                return Err(io::Error::other(format!("an answer of {size} bytes, where {room} are the most")));
            }
            // Any process may send to our port; only the kernel is port 0.
            if sender.port_number() == 0 {
                return Ok(());
            }
        }
    }

    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        // A time-out of zero means for ever.
        let micros = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX).max(1);
        let seconds = micros / 1_000_000;
        Ok(setsockopt(&self.0, ReceiveTimeout, &TimeVal::new(seconds, micros % 1_000_000))?)
    }

    fn join(&mut self, group: u32) -> io::Result<()> {
        self.0.add_membership(group)
    }
}

fn optional(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        result => result,
    }
}

/// Repeats a system call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
