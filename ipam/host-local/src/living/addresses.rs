//! The addresses of a network namespace, as the kernel lists them by netlink. `/proc/net/fib_trie` has them too, among all
//! routes, of which a router has hundreds of thousands: to read those takes seconds, in which everybody waits for the lock.
//!
//! One request and its answer: the messages are put together and taken apart here, as rtnetlink(7) and linux/rtnetlink.h
//! have them. Numbers are in the order of the machine.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// More than the kernel puts into one answer.
const BUFFER: usize = 1 << 16;
/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER: usize = 16;
/// `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// How often a listing is begun anew that was disturbed by a change.
const TRIES: usize = 20;

/// Those of the namespace of this thread.
///
/// # Errors
/// The kernel refuses, or changes disturb the listing again and again: there may be others.
pub(super) fn here() -> io::Result<Vec<IpAddr>> {
    for _ in 0..TRIES {
        if let Some(found) = list()? {
            return Ok(found);
        }
    }
    Err(Errno::INTR.into())
}

/// `None`: something was changed meanwhile.
fn list() -> io::Result<Option<Vec<IpAddr>>> {
    // The protocol that has no number is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut found = Vec::new();
    let mut undisturbed = true;
    let mut buffer = vec![0; BUFFER];
    loop {
        let (length, whole) = recv(&socket, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
        let mut rest = buffer.get(..length).filter(|_| whole == length && length > 0).ok_or(Errno::BADMSG)?;
        while !rest.is_empty() {
            let message = Message::first(rest).ok_or(Errno::BADMSG)?;
            undisturbed &= message.flags & NLM_F_DUMP_INTR == 0;
            match message.kind {
                RTM_NEWADDR => found.extend(addresses(message.body.get(IFADDRMSG..).ok_or(Errno::BADMSG)?)),
                // With a number that is 0, or what went wrong.
                NLMSG_DONE if message.body.iter().all(|byte| *byte == 0) => return Ok(undisturbed.then_some(found)),
                // An error, or more than there was room for.
                _ => return Err(Errno::BADMSG.into()),
            }
            rest = message.rest;
        }
    }
}

/// RTM_GETADDR for every family.
fn request() -> [u8; HEADER + IFADDRMSG] {
    let mut bytes = [0; HEADER + IFADDRMSG];
    let length = u32::try_from(bytes.len()).unwrap_or_default();
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    let fields = length.to_ne_bytes().into_iter().chain(RTM_GETADDR.to_ne_bytes()).chain(flags.to_ne_bytes());
    bytes.iter_mut().zip(fields).for_each(|(byte, value)| *byte = value);
    bytes
}

#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
    /// What follows it.
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let rest = bytes.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some(Self { kind: number(bytes, 4)?, flags: number(bytes, 6)?, body: bytes.get(HEADER..length)?, rest })
    }
}

/// The addresses among the attributes: an interface's own, and that of the other end where there is one, which is in use
/// as well.
fn addresses(attributes: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut rest = attributes;
    while let (Some(length), Some(kind)) = (number(rest, 0), number(rest, 2)) {
        let length = usize::from(length);
        if [IFA_ADDRESS, IFA_LOCAL].contains(&kind) {
            found.extend(rest.get(4..length).and_then(address));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The 16-bit number at a place.
fn number(bytes: &[u8], place: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(place..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_no_message() {
        let mut bytes = request().to_vec();
        let whole = Message { kind: RTM_GETADDR, flags: 0x301, body: &[0; IFADDRMSG], rest: &[] };
        assert_eq!(Message::first(&bytes), Some(whole));
        (0..bytes.len()).for_each(|length| assert_eq!(Message::first(&bytes[..length]), None, "{length}"));
        // Of no length: it would be read for ever.
        bytes[..4].fill(0);
        assert_eq!(Message::first(&bytes), None);
    }

    #[test]
    fn attributes_of_every_length() {
        let attribute = |length: u16, kind: u16, body: &[u8]| {
            [&length.to_ne_bytes(), &kind.to_ne_bytes(), body].into_iter().flatten().copied().collect::<Vec<u8>>()
        };
        let (label, own) = (attribute(5, 3, b"l\0\0\0"), attribute(8, IFA_LOCAL, &[10, 1, 2, 3]));
        let (none, other) = (attribute(0, 9, &[]), attribute(20, IFA_ADDRESS, &[0xfd; 16]));
        let bytes = [label, own, none, other, attribute(9, IFA_LOCAL, b"cut")].concat();
        assert_eq!(addresses(&bytes), [IpAddr::from([10, 1, 2, 3]), IpAddr::from([0xfd; 16])]);
        (0..bytes.len()).for_each(|length| assert!(addresses(&bytes[..length]).len() <= 2));
    }
}
