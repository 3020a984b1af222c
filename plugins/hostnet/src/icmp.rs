//! Echo requests (ping), without a program: to ask whether packets pass, and what became of those that do not.
//!
//! A raw socket, which root has everywhere; the datagram socket for ICMP is closed in a new namespace
//! (`net.ipv4.ping_group_range`), for root as well. Requests carry a token of their own, so that an answer, an error of a
//! router and the request itself on another link ([`crate::capture`]) are known whatever address translation made of them.
//!
//! Numbers: RFC 792 and RFC 4443.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{Ipv4Ttl, Ipv6Ttl};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto, setsockopt, socket,
};

use crate::error::{Error, Result};
use crate::netlink::Netlink;

/// `ICMP_ECHO`, `ICMP_ECHOREPLY`, `ICMPV6_ECHO_REQUEST`, `ICMPV6_ECHO_REPLY`.
const ECHO_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// Type, code, checksum, identifier and sequence number.
const HEADER_LEN: usize = 8;
/// Without options.
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;

/// What the data of a request begin with; it also says to whoever looks at packets who sent them.
const NAME: &[u8; 8] = b"podwire ";

/// Eight bytes after the name that no other request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token([u8; 16]);

impl Token {
    fn new() -> Self {
        let mut bytes = [0; 16];
        let (name, number) = bytes.split_at_mut(NAME.len());
        name.copy_from_slice(NAME);
        // The standard library's hash keys come from the kernel's generator.
        number.copy_from_slice(&RandomState::new().build_hasher().finish().to_ne_bytes());
        Self(bytes)
    }

    /// Whether it stands in these bytes.
    pub fn is_in(&self, packet: &[u8]) -> bool {
        packet.windows(self.0.len()).any(|bytes| bytes == self.0)
    }
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The echo.
    Reply,
    /// An error about the request: its ICMP type and code, and who sent it.
    Error {
        /// Who did not pass the request on.
        from: IpAddr,
        /// `ICMP_DEST_UNREACH`…
        kind: u8,
        /// What it means depends on the type.
        code: u8,
    },
}

/// A destination that is asked, from one namespace.
#[derive(Debug)]
pub struct Echo {
    socket: OwnedFd,
    to: IpAddr,
    token: Token,
}

impl Echo {
    /// Prepares to ask `to` from the namespace of `nl`.
    ///
    /// # Errors
    /// No socket: not root, or no such IP version.
    pub fn open(nl: &Netlink, to: IpAddr) -> Result<Self> {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = nl.in_netns(|| socket(family, SockType::Raw, flags, protocol))?;
        let socket =
            socket.map_err(|errno| Error::os(format!("open an ICMP socket in {}", nl.netns()), errno as i32))?;
        Ok(Self { socket, to, token: Token::new() })
    }

    /// How many routers a request passes, at most: with 2, the node and no other.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_hop_limit(&self, limit: u8) -> Result<()> {
        let limit = i32::from(limit);
        let set = match self.to {
            IpAddr::V4(_) => setsockopt(&self.socket, Ipv4Ttl, &limit),
            IpAddr::V6(_) => setsockopt(&self.socket, Ipv6Ttl, &limit),
        };
        set.map_err(|errno| Error::os("set the hop limit", errno as i32))
    }

    /// What its requests, and the answers to them, carry.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Sends a request as an IP packet of `size` bytes, or of the smallest that holds the token. Up to the path's MTU it
    /// may not be fragmented: that is the kernel's default, unless `ip_no_pmtu_disc` says otherwise.
    ///
    /// # Errors
    /// The kernel's refusal: no route, no permission.
    pub fn send(&self, sequence: u16, size: usize) -> Result<()> {
        let packet = request(self.to.is_ipv4(), sequence, size, self.token);
        let to = SockaddrStorage::from(SocketAddr::new(self.to, 0));
        match sendto(self.socket.as_raw_fd(), &packet, &to, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::os(format!("send {} bytes to {}", packet.len(), self.to), errno as i32)),
        }
    }

    /// Waits for an answer; `None` where none came within the time.
    ///
    /// # Errors
    /// The socket failed.
    pub fn wait(&self, within: Duration) -> Result<Option<Answer>> {
        let end = Instant::now() + within;
        let doing = || format!("wait for the answer of {}", self.to);
        let mut buffer = vec![0; 1 << 16];
        loop {
            match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((len, from)) => {
                    let packet = buffer.get(..len).unwrap_or_default();
                    let answer = from.and_then(|from| self.read(packet, address(&from)?));
                    if answer.is_some() {
                        return Ok(answer);
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                        // A signal: whoever counts them sees to it.
                        Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(None),
                        Ok(_) => {}
                        Err(errno) => return Err(Error::os(doing(), errno as i32)),
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(Error::os(doing(), errno as i32)),
            }
        }
    }

    fn read(&self, packet: &[u8], from: IpAddr) -> Option<Answer> {
        if !self.token.is_in(packet) {
            return None;
        }
        // Of IPv4, the header comes along.
        let header = if self.to.is_ipv4() { usize::from(packet.first()? & 0x0f) * 4 } else { 0 };
        let (kind, code) = (*packet.get(header)?, *packet.get(header + 1)?);
        match (self.to, kind) {
            (IpAddr::V4(_), REPLY_V4) | (IpAddr::V6(_), REPLY_V6) => Some(Answer::Reply),
            // Our own, where the destination is this namespace.
            (IpAddr::V4(_), ECHO_V4) | (IpAddr::V6(_), ECHO_V6) => None,
            _ => Some(Answer::Error { from, kind, code }),
        }
    }
}

fn address(from: &SockaddrStorage) -> Option<IpAddr> {
    match (from.as_sockaddr_in(), from.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (_, Some(v6)) => Some(v6.ip().into()),
        _ => None,
    }
}

/// An echo request. Of ICMPv6, the kernel computes the checksum.
fn request(ipv4: bool, sequence: u16, size: usize, token: Token) -> Vec<u8> {
    let ip_header = if ipv4 { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN };
    let mut packet = vec![if ipv4 { ECHO_V4 } else { ECHO_V6 }, 0, 0, 0];
    let identifier = std::process::id().to_ne_bytes();
    packet.extend(identifier.get(..2).unwrap_or_default());
    packet.extend(sequence.to_be_bytes());
    packet.extend(token.0);
    packet.resize(size.saturating_sub(ip_header).max(HEADER_LEN + token.0.len()), 0);
    if ipv4 {
        let sum = checksum(&packet).to_be_bytes();
        packet.splice(2..4, sum);
    }
    packet
}

/// Of RFC 1071, over bytes whose own checksum is zero.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u16::from_be_bytes([*high, *low]),
        [high] => u16::from_be_bytes([*high, 0]),
        _ => 0,
    });
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071, section 3.
    #[test]
    fn checksums() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0x01]), !0x0100);
    }

    #[test]
    fn requests_have_the_size_that_is_asked_for() {
        let token = Token::new();
        for (ipv4, header) in [(true, 20), (false, 40)] {
            let packet = request(ipv4, 1, 1500, token);
            assert_eq!(packet.len() + header, 1500);
            assert!(token.is_in(&packet) && !Token::new().is_in(&packet));
            assert_eq!(request(ipv4, 1, 0, token).len(), 24);
        }
        // A packet with its checksum sums up to nothing.
        assert_eq!(checksum(&request(true, 7, 101, token)), 0);
    }
}
