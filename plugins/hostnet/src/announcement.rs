//! Telling the neighbours of a link which hardware address has the addresses of a pod now.
//!
//! An address that another pod had is remembered by the node and by its neighbours with that pod's hardware address, as
//! reachable for half a minute and longer, and nothing that is sent there arrives. (`arp_notify` alone does not help: the
//! kernel then speaks as soon as the pod's end is up, and the bridge's port forwards some milliseconds later.) A
//! gratuitous ARP request and an unsolicited neighbour advertisement replace what they remember, at once and in the node
//! too, as the bridge is one of those who hear them.
//!
//! A packet socket for both would be the obvious way. It is not taken: the close of one waits for all processors, and
//! makes the ADD some milliseconds longer. So the kernel is asked to speak for IPv4, and a socket for ICMP does for IPv6.
//! Both are floods: each costs the bridge 2 to 5 us a port (measured: 0.8 to 1.9 ms for IPv4, 1.2 ms and more for IPv6, with 400 pods).
//! That there is a listener is nowhere said, so nobody waits for an answer, and a pod whose word is lost has a network
//! as soon as its neighbours ask.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::Duration;

use libc::{c_int, in6_addr, in6_pktinfo};
use libcni::types::{IpConfig, Mac};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendmsg, socket,
};

use crate::error::{Error, Result};
use crate::link::{self, Link};
use crate::netlink::Netlink;

/// Longest wait for IPv6 to be ready, where the host's end is up already.
const READY_WITHIN: Duration = Duration::from_millis(500);
/// All nodes of a link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// What is from the link itself, and no router has passed on (RFC 4861, 7.1.2).
const HOP_LIMIT: c_int = 255;
/// `ND_NEIGHBOR_ADVERT` of netinet/icmp6.h.
const ADVERTISEMENT: u8 = 136;
/// The flag "override": the receiver's entry is to be replaced.
const OVERRIDE: u8 = 0x20;
/// The option "target link-layer address", 8 bytes long.
const TARGET_ADDRESS: [u8; 2] = [2, 1];

/// Announces a pod's addresses. The link is up, and so is the other end of the pair; it has `arp_notify`, without which it is silent
/// about those of IPv4.
///
/// # Errors
/// The kernel's refusal, the first one: what it was about stays unsaid, and the others are announced all the same. It harms
/// nobody but those who remember another.
pub fn send(pod: &mut Netlink, link: &Link, ips: &[IpConfig]) -> Result<()> {
    let _step = libcni::log::step("announcement");
    let Some(mac) = link.mac else { return Ok(()) };
    let v6: Vec<Ipv6Addr> = ips.iter().filter_map(|ip| as_v6(ip.address.addr())).collect();
    let v4 = if v6.len() < ips.len() { announce_v4(pod, link.index, mac) } else { Ok(()) };
    let v6 = if v6.is_empty() { Ok(()) } else { announce_v6(pod, link, mac, &v6) };
    v4.and(v6)
}

/// By the address it has: nothing changes, but the kernel announces whatever is set.
fn announce_v4(pod: &mut Netlink, index: u32, mac: Mac) -> Result<()> {
    link::set_mac(pod, index, mac)
}

fn announce_v6(pod: &mut Netlink, link: &Link, mac: Mac, addrs: &[Ipv6Addr]) -> Result<()> {
    // The kernel tells the two ends of a veth one after the other. Before this one has heard of the carrier, it has no route
    // for multicast, and the word goes to the default gateway alone.
    link::wait_up(pod, link.index, READY_WITHIN)?;
    let advertise = |addr: &Ipv6Addr| advertise(link.index, *addr, mac);
    let sent = pod.in_netns(|| addrs.iter().map(advertise).fold(Ok(()), io::Result::and))?;
    sent.map_err(|error| Error::io(format!("announce the addresses of {}", link.name), &error))
}

fn as_v6(addr: IpAddr) -> Option<Ipv6Addr> {
    match addr {
        IpAddr::V4(_) => None,
        IpAddr::V6(addr) => Some(addr),
    }
}

/// Sends an advertisement (RFC 4861, 4.4) in the thread's namespace; the kernel writes the checksum.
fn advertise(index: u32, addr: Ipv6Addr, mac: Mac) -> io::Result<()> {
    let icmp = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)?;
    let head = [ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    let message = [&head[..], &addr.octets(), &TARGET_ADDRESS, &mac.bytes()].concat();
    let from = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: addr.octets() }, ipi6_ifindex: index };
    let control = [ControlMessage::Ipv6PacketInfo(&from), ControlMessage::Ipv6HopLimit(&HOP_LIMIT)];
    let to = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, index));
    sendmsg(icmp.as_raw_fd(), &[IoSlice::new(&message)], &control, MsgFlags::empty(), Some(&to))?;
    Ok(())
}
