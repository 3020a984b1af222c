//! The addresses of a link.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use libcni::types::Cidr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{Error, Result};
use crate::link;
use crate::netlink::{Event, Netlink};

/// `RTNLGRP_IPV6_IFADDR` of linux/rtnetlink.h.
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's own address and the length of the prefix.
    pub cidr: Cidr,
    /// As in `rtnetlink(7)`: 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// Whether duplicate address detection still runs: the address cannot be used yet.
    pub tentative: bool,
    /// Whether another node has the address.
    pub dad_failed: bool,
}

/// The addresses of a link, of both families.
///
/// # Errors
/// The kernel's refusal, or a list that never held still.
pub fn list(nl: &mut Netlink, index: u32) -> Result<Vec<Address>> {
    let mut addresses = dump(nl, index)?;
    // Kernels without strict checking (before 4.20) answer with those of all links.
    addresses.retain(|(link, _)| *link == index);
    Ok(addresses.into_iter().map(|(_, address)| address).collect())
}

/// The addresses of all links but one, of both families. No link has the index 0.
///
/// # Errors
/// As [`list`].
pub fn list_of_others(nl: &mut Netlink, index: u32) -> Result<Vec<Address>> {
    let mut addresses = dump(nl, 0)?;
    addresses.retain(|(link, _)| *link != index);
    Ok(addresses.into_iter().map(|(_, address)| address).collect())
}

/// The addresses of all links, each with the index of its link, of both families.
///
/// # Errors
/// As [`list`].
pub fn list_all(nl: &mut Netlink) -> Result<Vec<(u32, Address)>> {
    dump(nl, 0)
}

/// Addresses with the index of their link; those of all links where `index` is 0.
fn dump(nl: &mut Netlink, index: u32) -> Result<Vec<(u32, Address)>> {
    let mut request = AddressMessage::default();
    request.header.index = index;
    let answers = nl.socket.dump(RouteNetlinkMessage::GetAddress(request));
    let answers = answers.map_err(|failure| failure.doing(format!("list addresses in {}", nl.netns())))?;
    let address = |answer: &RouteNetlinkMessage| match answer {
        RouteNetlinkMessage::NewAddress(message) => Some((message.header.index, read(message)?)),
        _ => None,
    };
    Ok(answers.iter().filter_map(address).collect())
}

fn read(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the other end's.
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => address = Some(*addr),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    Some(Address {
        cidr: Cidr::new(local.or(address)?, message.header.prefix_len)?,
        scope: message.header.scope.into(),
        tentative: flags.contains(AddressFlags::Tentative),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
    })
}

/// Adds an address. `nodad`: an IPv6 address is used at once, without asking the neighbours whether they have it;
/// that is for addresses that are known to be nobody else's. An IPv4 address gets its broadcast address.
///
/// # Errors
/// The link has it already ([`Error::is_exists`]); the kernel's refusal.
pub fn add(nl: &mut Netlink, index: u32, cidr: &Cidr, nodad: bool) -> Result<()> {
    let request = message(index, cidr, nodad);
    let result = nl.socket.request(RouteNetlinkMessage::NewAddress(request), NLM_F_CREATE | NLM_F_EXCL);
    result.map_err(|failure| failure.doing(format!("add address {cidr} to link {}", link::describe(nl, index))))
}

/// Removes an address. Whether there was one.
///
/// # Errors
/// The kernel's refusal.
pub fn remove(nl: &mut Netlink, index: u32, cidr: &Cidr) -> Result<bool> {
    let request = message(index, cidr, false);
    match nl.socket.request(RouteNetlinkMessage::DelAddress(request), 0) {
        Ok(()) => Ok(true),
        Err(failure) if failure.errno() == Some(libc::EADDRNOTAVAIL) => Ok(false),
        Err(failure) => Err(failure.doing(format!("remove address {cidr} from link {}", link::describe(nl, index)))),
    }
}

fn message(index: u32, cidr: &Cidr, nodad: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = cidr.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(cidr.addr()));
    message.attributes.push(AddressAttribute::Address(cidr.addr()));
    match cidr.last() {
        IpAddr::V4(last) => {
            message.header.family = AddressFamily::Inet;
            // A network of one or two addresses has no broadcast address (RFC 3021).
            if cidr.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(last));
            }
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags.set(AddressHeaderFlags::Nodad, nodad);
        }
    }
    message
}

/// Waits until no IPv6 address of the link is tentative, link-local ones included. The kernel says so by an event.
/// Without a carrier there are no neighbours to ask, detection does not begin and nothing is waited for:
/// the other end of a veth must be up already.
///
/// # Errors
/// An address is another node's; `timeout` is over.
pub fn wait_dad(nl: &mut Netlink, index: u32, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let doing = |nl: &mut Netlink| format!("wait for the IPv6 addresses of link {}", link::describe(nl, index));
    let mut events = None;
    loop {
        let addresses = list(nl, index)?;
        if let Some(failed) = addresses.iter().find(|address| address.dad_failed) {
            let what = format!("address {} is in DADFAILED state: another node has it", failed.cidr.addr());
            return Err(Error::other(doing(nl), what));
        }
        let Some(tentative) = addresses.iter().find(|address| address.tentative) else { return Ok(()) };
        if link::get_by_index(nl, index)?.is_none_or(|link| !link.carrier) {
            return Ok(());
        }
        // Listening begins before the second look, so that no event falls between the two.
        let Some(socket) = &mut events else {
            events = Some(nl.listen(RTNLGRP_IPV6_IFADDR)?);
            continue;
        };
        match socket.event::<RouteNetlinkMessage>(deadline) {
            Ok(Event::TimedOut) => {
                let what = format!("{} is still tentative after {timeout:?}", tentative.cidr.addr());
                return Err(Error::other(doing(nl), what));
            }
            Ok(Event::Messages(_) | Event::Lost) => {}
            Err(failure) => return Err(failure.doing(doing(nl))),
        }
    }
}
