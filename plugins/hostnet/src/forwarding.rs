//! Whether a node passes on the packets of others. It is asked by netlink (`RTM_GETNETCONF`), and only what has to be
//! changed is looked up in `/proc/sys`: the kernel finds a node's own file there among those of every network namespace
//! that has ever looked, one after the other, so that on a node with 400 pods it takes longer than to make the pair.

use netlink_packet_route::AddressFamily;

use crate::error::Result;
use crate::netlink::Netlink;
use crate::netlink::raw::{self, Raw};
use crate::sysctl;

/// `RTM_NEWNETCONF` and `RTM_GETNETCONF` of linux/rtnetlink.h.
const NEWNETCONF: u16 = 80;
const GETNETCONF: u16 = 82;
/// `NETCONFA_IFINDEX`, `NETCONFA_FORWARDING` and `NETCONFA_IFINDEX_ALL` of linux/netconf.h.
const IFINDEX: u16 = 1;
const FORWARDING: u16 = 2;
const IFINDEX_ALL: i32 = -1;
/// `struct netconfmsg` with its padding.
const HEADER: usize = 4;

/// Lets the node forward packets of a family, as a gateway must. It is never taken back: others may rely on it.
///
/// # Errors
/// The key cannot be written, or the kernel does not have the family.
pub fn ensure(nl: &mut Netlink, ipv4: bool) -> Result<()> {
    if ask(nl, ipv4) == Some(true) { Ok(()) } else { sysctl::set(nl, key(ipv4), "1") }
}

/// Whether the node forwards packets of a family.
///
/// # Errors
/// The key cannot be read.
pub fn get(nl: &mut Netlink, ipv4: bool) -> Result<bool> {
    match ask(nl, ipv4) {
        Some(on) => Ok(on),
        None => Ok(sysctl::get(nl, key(ipv4))?.is_some_and(|value| value != "0")),
    }
}

fn key(ipv4: bool) -> &'static str {
    if ipv4 { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" }
}

/// What the kernel says; `None` where it says nothing, as without the family.
fn ask(nl: &mut Netlink, ipv4: bool) -> Option<bool> {
    let family: u8 = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 }.into();
    let payload = [&[family, 0, 0, 0][..], &raw::number(IFINDEX, IFINDEX_ALL.to_ne_bytes())].concat();
    let answer: Raw =
        nl.socket.get(Raw { kind: GETNETCONF, payload }).ok().filter(|raw: &Raw| raw.kind == NEWNETCONF)?;
    let forwarding = raw::find(answer.payload.get(HEADER..)?, FORWARDING)?;
    Some(forwarding.iter().any(|byte| *byte != 0))
}
