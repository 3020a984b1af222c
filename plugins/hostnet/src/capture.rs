//! Packets on the links of a namespace, as they pass: the proof of which link a pod's packet leaves by, and with which
//! address. A packet socket for every link, which sees what arrives before any rule does, and what leaves after all of
//! them (packet(7)); it is cooked, so what it shows begins with the IP header on every kind of link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket};

use crate::error::{Error, Result};
use crate::icmp::Token;
use crate::netlink::Netlink;

/// `PACKET_OUTGOING` of linux/if_packet.h.
const OUTGOING: u8 = 4;

/// Bytes that the kernel keeps for us: a busy node sends much beside what we look for.
const BUFFER: usize = 16 << 20;

/// How much of a packet is looked at: the token stands near its beginning.
const LOOK: usize = 256;

/// A packet that passed a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The link's index.
    pub link: u32,
    /// Whether it left by the link, or came in by it.
    pub outgoing: bool,
    /// Who it is from, as it stands in the packet.
    pub source: IpAddr,
    /// Who it is for.
    pub destination: IpAddr,
}

/// What passes from now on.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

impl Capture {
    /// Begins to look at the links of the namespace of `nl`.
    ///
    /// # Errors
    /// No socket: not root, or a kernel without packet sockets.
    pub fn open(nl: &Netlink) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made = nl.in_netns(|| socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll))?;
        let socket =
            made.map_err(|errno| Error::os(format!("open a packet socket in {}", nl.netns()), errno as i32))?;
        // Without it the usual buffer has to do.
        let _ = setsockopt(&socket, RcvBufForce, &BUFFER);
        Ok(Self { socket })
    }

    /// The packets with this token that passed since the last time, in order. Others are forgotten.
    ///
    /// # Errors
    /// The socket failed.
    pub fn take(&self, token: Token) -> Result<Vec<Seen>> {
        let mut found = Vec::new();
        let mut buffer = [0; LOOK];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((len, from)) => {
                    let packet = buffer.get(..len).unwrap_or_default();
                    found.extend(from.filter(|_| token.is_in(packet)).and_then(|from| read(packet, &from)));
                }
                Err(Errno::EAGAIN) => return Ok(found),
                // Packets were lost, or a link went down: what is there is still there.
                Err(Errno::EINTR | Errno::ENOBUFS | Errno::ENETDOWN) => {}
                Err(errno) => return Err(Error::os("look at packets", errno as i32)),
            }
        }
    }
}

fn read(packet: &[u8], from: &LinkAddr) -> Option<Seen> {
    let (source, destination): (IpAddr, IpAddr) = match packet.first()? >> 4 {
        4 => {
            let at = |offset: usize| packet.get(offset..offset + 4)?.first_chunk::<4>().copied();
            (Ipv4Addr::from(at(12)?).into(), Ipv4Addr::from(at(16)?).into())
        }
        6 => {
            let at = |offset: usize| packet.get(offset..offset + 16)?.first_chunk::<16>().copied();
            (Ipv6Addr::from(at(8)?).into(), Ipv6Addr::from(at(24)?).into())
        }
        _ => return None,
    };
    let link = u32::try_from(from.ifindex()).ok()?;
    Some(Seen { link, outgoing: from.pkttype() == OUTGOING, source, destination })
}
