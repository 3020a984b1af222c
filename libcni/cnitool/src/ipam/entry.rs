//! What an entry of a runtime's cache says of an attachment, beside whose it is.

use std::net::IpAddr;

use hostnet::link::Link;
use libcni::runtime::Cached;
use libcni::types::Mac;
use libcni::{Success, Version};

use super::node::Space;

/// The addresses that an entry's ADD got.
pub fn addresses(entry: &Cached) -> Vec<IpAddr> {
    result(entry).ips.iter().map(|ip| ip.address.addr()).collect()
}

fn result(entry: &Cached) -> Success {
    Success::from_value(entry.result.clone(), Version::V0_1_0).map(|(_, result)| result).unwrap_or_default()
}

/// Whether the path that an entry remembers may be handed to DEL: it leads to the namespace that was attached. An entry
/// that does not say which one that was vouches for none: its interface must be in there.
pub fn leads_home(entry: &Cached) -> bool {
    let space = || Space::at(entry.attachment.netns.as_deref()?).ok();
    let is_home = || space().is_some_and(|space| is_in(entry, &space.links, &space.addresses));
    !entry.leads_elsewhere() && (entry.netns_id.is_some() || is_home())
}

/// Whether an entry's interface is among these, with what ADD gave it: an address, or, where it gave none, its own.
pub fn is_in(entry: &Cached, links: &[Link], there: &[(IpAddr, String)]) -> bool {
    let (name, addresses) = (entry.attachment.ifname.as_str(), addresses(entry));
    if !addresses.is_empty() {
        return addresses.iter().any(|address| there.iter().any(|(one, ifname)| one == address && ifname == name));
    }
    let interfaces = result(entry).interfaces;
    let mut macs = interfaces.iter().filter(|one| one.name == name && !one.sandbox.is_empty()).map(|one| &one.mac);
    let link = links.iter().find(|link| link.name == name);
    link.is_some_and(|link| macs.any(|mac| mac.parse().is_ok_and(|mac: Mac| link.mac == Some(mac))))
}
