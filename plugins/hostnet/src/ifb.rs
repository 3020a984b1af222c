//! Intermediate functional blocks: links that packets are sent through only to wait there. A queue works on what leaves
//! a link; what comes in from a pod is sent out of an ifb, queues there, and goes on where it came in.

use libcni::types::NetworkName;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use sha2::{Digest, Sha512};

use crate::error::{Error, Result};
use crate::link::{self, Link};
use crate::mark;
use crate::netlink::Netlink;
use crate::owner::Owner;

/// The kind of such a link.
pub const KIND: &str = "ifb";
/// What all names begin with, the reference's and ours.
pub const PREFIX: &str = "bwp";

/// Names for the ifb of an attachment, 15 bytes each. The first is the reference's, which does not know of interfaces:
/// whichever of a container's on one network is shaped first has it. The second is the attachment's own.
pub fn names(owner: &Owner) -> [String; 2] {
    let Owner { network, container, ifname } = owner;
    [format!("{network}{container}"), format!("{network} {container} {ifname}")].map(|text| {
        let hash = Sha512::digest(text.as_bytes());
        let digits: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}{digits}")
    })
}

/// Creates an ifb, and sets it up. `network` is that of the attachment it is for ([`mark`]).
///
/// # Errors
/// The name is taken ([`Error::is_exists`]); the kernel has no ifb, or refuses the MTU.
pub fn create(nl: &mut Netlink, name: &str, mtu: u32, network: Option<&NetworkName>) -> Result<Link> {
    let mut request = LinkMessage::default();
    request.header.flags = LinkFlags::Up;
    request.header.change_mask = LinkFlags::Up;
    request.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
    ];
    let mark = network.map(|network| mark::address(network, name));
    request.attributes.extend(mark.map(|mac| LinkAttribute::Address(mac.bytes().to_vec())));
    let doing = || format!("create ifb {name} of mtu {mtu}");
    let result = nl.socket.request(RouteNetlinkMessage::NewLink(request), NLM_F_CREATE | NLM_F_EXCL);
    result.map_err(|failure| failure.doing(doing()))?;
    match link::get(nl, name) {
        Ok(Some(ifb)) => Ok(ifb),
        other => {
            // Nobody else knows of it yet: it cannot stay.
            link::remove(nl, name)?;
            Err(other.err().unwrap_or_else(|| Error::os(doing(), libc::ENODEV)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_is_the_references() {
        let owner = |network: &str, container: &str| Owner {
            network: network.parse().unwrap(),
            container: container.parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        };
        let [first, second] = names(&owner("spec2net", "ctr1"));
        assert_eq!(first, "bwp4a087b41196a");
        assert_eq!((second.len(), second == first), (15, false));
        assert_eq!(names(&owner("cni-plugin-bandwidth-test", "dummy"))[0], "bwpa8eda89404b7");
    }
}
