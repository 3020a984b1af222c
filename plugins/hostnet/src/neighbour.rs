//! Neighbours of a link, as ARP and neighbour discovery have found them: whether an address that does not answer is there
//! at all.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Result;
use crate::netlink::Netlink;

/// Whether a neighbour has said that it has this address. `None` where nobody was asked yet.
///
/// # Errors
/// The kernel's refusal, or a list that never held still.
pub fn answers(nl: &mut Netlink, link: u32, address: IpAddr) -> Result<Option<bool>> {
    let mut request = NeighbourMessage::default();
    request.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let answers = nl.socket.dump(RouteNetlinkMessage::GetNeighbour(request));
    let answers = answers.map_err(|failure| failure.doing(format!("list neighbours in {}", nl.netns())))?;
    Ok(answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) if is_of(message, link, address) => {
            Some(!matches!(message.header.state, NeighbourState::Incomplete | NeighbourState::Failed))
        }
        _ => None,
    }))
}

fn is_of(message: &NeighbourMessage, link: u32, address: IpAddr) -> bool {
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    message.header.ifindex == link && destination == Some(address)
}
