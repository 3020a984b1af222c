//! Bridges, and the settings of their ports.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::RangeInclusive;

use libcni::types::Mac;
use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind, LinkAttribute,
    LinkExtentMask, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{Error, Result};
use crate::link::{self, Link};
use crate::netlink::Netlink;
use crate::veth::refuse_router_advertisements;

/// `IFLA_PROTINFO`, `IFLA_BRPORT_MODE` (hairpin) and `IFLA_BRPORT_ISOLATED` (Linux 4.18) of linux/if_link.h.
const IFLA_PROTINFO: u16 = 12;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

/// Ranges in one message: 8 bytes each, in an attribute that cannot be longer than 65535.
const RANGES: usize = 1000;

/// What a bridge shall be.
#[derive(Clone, Debug)]
pub struct BridgeConf<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MTU in bytes where it is created; `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// Whether it filters by VLAN.
    pub vlan_filtering: bool,
}

/// Settings of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Whether frames may leave by the port they came in by.
    pub hairpin: bool,
    /// Whether frames pass only to ports that are not isolated.
    pub isolated: bool,
}

/// A VLAN of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Its number, 1 to 4094.
    pub vid: u16,
    /// Whether untagged frames that come in belong to it.
    pub pvid: bool,
    /// Whether frames leave untagged.
    pub untagged: bool,
}

/// Makes sure that there is a bridge of this name, up, and says whether it was created here. An existing one keeps its
/// MTU and address.
///
/// A new one gets an explicit address: one that has none takes the lowest of its ports', so that it changes
/// when pods come and go, and is all zero when the last has left (the reference's defect).
///
/// # Errors
/// `"X" already exists but is not a bridge`; VLAN filtering is wanted and an existing bridge does not do it, or
/// the kernel cannot; the kernel's refusal.
pub fn ensure(nl: &mut Netlink, conf: &BridgeConf<'_>) -> Result<(Link, bool)> {
    let _step = libcni::log::step("bridge");
    let doing = || format!("create bridge {:?}", conf.name);
    let present = link::get(nl, conf.name)?;
    let created = present.is_none() && create(nl, conf)?;
    let mut bridge = match present {
        Some(bridge) => bridge,
        None => link::get(nl, conf.name)?.ok_or_else(|| Error::os(doing(), libc::ENODEV))?,
    };
    if !bridge.is_kind("bridge") {
        return Err(Error::other(doing(), format!("{:?} already exists but is not a bridge", conf.name)));
    }
    let ready = make_ready(nl, conf, &mut bridge, created);
    if ready.is_err() && created {
        link::remove_by_index(nl, bridge.index)?;
    }
    Ok((ready?, created))
}

/// What a bridge needs, whoever made it: the filter, an address, no ear for router advertisements, to be up.
fn make_ready(nl: &mut Netlink, conf: &BridgeConf<'_>, bridge: &mut Link, created: bool) -> Result<Link> {
    let doing = || format!("create bridge {:?}", conf.name);
    if conf.vlan_filtering && bridge.vlan_filtering != Some(true) {
        if created {
            return Err(no_filtering(conf));
        }
        return Err(Error::other(doing(), format!("{:?} already exists and does not filter by VLAN", conf.name)));
    }
    // Left so by the reference when the last port went; such a bridge cannot be a gateway.
    let no_mac = bridge.mac.is_none_or(|mac| mac.bytes() == [0; 6]);
    if bridge.up && !no_mac && bridge.accept_ra != Some(true) {
        return Ok(bridge.clone());
    }
    if no_mac {
        link::set_mac(nl, bridge.index, random_mac())?;
    }
    refuse_router_advertisements(nl, bridge);
    if !bridge.up {
        link::set_up(nl, bridge.index)?;
    }
    link::get_by_index(nl, bridge.index)?.ok_or_else(|| Error::os(doing(), libc::ENODEV))
}

/// Whether the bridge was created; not where another ADD was faster.
fn create(nl: &mut Netlink, conf: &BridgeConf<'_>) -> Result<bool> {
    let result = nl.socket.request(RouteNetlinkMessage::NewLink(new_bridge(conf)), NLM_F_CREATE | NLM_F_EXCL);
    let doing = || match conf.mtu {
        Some(mtu) => format!("create bridge {:?} with mtu {mtu}", conf.name),
        None => format!("create bridge {:?}", conf.name),
    };
    match result.map_err(|failure| failure.doing(doing())) {
        Ok(()) => Ok(true),
        Err(error) if error.is_exists() => Ok(false),
        // A kernel that cannot refuses the wish with this and no word; or, by its version, passes it over.
        Err(error)
            if conf.vlan_filtering && error.errno() == Some(libc::EOPNOTSUPP) && error.kernel_text().is_none() =>
        {
            Err(no_filtering(conf))
        }
        Err(error) => Err(error),
    }
}

fn no_filtering(conf: &BridgeConf<'_>) -> Error {
    let what = "the kernel has no VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)";
    Error::other(format!("create bridge {:?}", conf.name), what)
}

fn new_bridge(conf: &BridgeConf<'_>) -> LinkMessage {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(conf.name.to_owned()));
    request.attributes.push(LinkAttribute::Address(random_mac().bytes().to_vec()));
    request.attributes.extend(conf.mtu.map(LinkAttribute::Mtu));
    let mut info = vec![LinkInfo::Kind(InfoKind::Bridge)];
    if conf.vlan_filtering {
        info.push(LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])));
    }
    request.attributes.push(LinkAttribute::LinkInfo(info));
    request
}

/// A locally administered unicast address. The standard library's hash keys come from the kernel's generator.
fn random_mac() -> Mac {
    let [a, b, c, d, e, f, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    Mac::new([a & 0xfc | 0x02, b, c, d, e, f])
}

/// Sets a port's hairpin mode and isolation.
///
/// # Errors
/// The kernel's refusal: the link is no port of a bridge.
pub fn set_port(nl: &mut Netlink, index: u32, port: &Port) -> Result<()> {
    let mut request = message(index);
    request.attributes.push(port_attribute(port));
    send(nl, index, RouteNetlinkMessage::SetLink(request), "set the bridge port options of")
}

/// The typed crate has no bridge port attributes here. `IFLA_PROTINFO` without the nested flag would be read as a port state.
fn port_attribute(port: &Port) -> LinkAttribute {
    let mut nested = Vec::with_capacity(16);
    for (kind, on) in [(IFLA_BRPORT_MODE, port.hairpin), (IFLA_BRPORT_ISOLATED, port.isolated)] {
        nested.extend(5u16.to_ne_bytes());
        nested.extend(kind.to_ne_bytes());
        nested.extend([u8::from(on), 0, 0, 0]);
    }
    LinkAttribute::Other(DefaultNla::new(IFLA_PROTINFO | NLA_F_NESTED, nested))
}

/// The VLANs of a port, in order.
///
/// # Errors
/// The kernel's refusal, or a list that never held still.
pub fn vlans(nl: &mut Netlink, index: u32) -> Result<Vec<Vlan>> {
    // The kernel cannot be asked about one port here (that came with RTM_GETVLAN in Linux 5.6).
    let mut request = message(0);
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
    let answers = nl.socket.dump(RouteNetlinkMessage::GetLink(request));
    let answers = answers.map_err(|failure| failure.doing(format!("list bridge VLANs in {}", nl.netns())))?;
    let port = answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) if link.header.index == index => Some(link),
        _ => None,
    });
    Ok(port.map(read_vlans).unwrap_or_default())
}

fn read_vlans(link: &LinkMessage) -> Vec<Vlan> {
    let mut vlans = Vec::new();
    let mut begin = None;
    for attribute in &link.attributes {
        let LinkAttribute::AfSpecBridge(specs) = attribute else { continue };
        for spec in specs {
            let AfSpecBridge::VlanInfo(info) = spec else { continue };
            if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
                begin = Some(info.vid);
                continue;
            }
            vlans.extend((begin.take().unwrap_or(info.vid)..=info.vid).map(|vid| Vlan {
                vid,
                pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
                untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
            }));
        }
    }
    vlans
}

/// Adds VLANs to a port: whole ranges, so that a trunk of 4094 is one message and not as many. Only a single VLAN can
/// be the `pvid`.
///
/// # Errors
/// The kernel's refusal; a range as `pvid`.
pub fn add_vlans(
    nl: &mut Netlink,
    index: u32,
    ranges: &[RangeInclusive<u16>],
    pvid: bool,
    untagged: bool,
) -> Result<()> {
    let mut flags = BridgeVlanInfoFlags::empty();
    flags.set(BridgeVlanInfoFlags::Pvid, pvid);
    flags.set(BridgeVlanInfoFlags::Untagged, untagged);
    for request in vlan_messages(index, ranges, flags) {
        send(nl, index, RouteNetlinkMessage::SetLink(request), &format!("add VLANs {} to", words(ranges)))?;
    }
    Ok(())
}

/// Removes VLANs from a port. Those that it does not have are passed over.
///
/// # Errors
/// The kernel's refusal.
pub fn remove_vlans(nl: &mut Netlink, index: u32, ranges: &[RangeInclusive<u16>]) -> Result<()> {
    for request in vlan_messages(index, ranges, BridgeVlanInfoFlags::empty()) {
        send(nl, index, RouteNetlinkMessage::DelLink(request), &format!("remove VLANs {} from", words(ranges)))?;
    }
    Ok(())
}

fn vlan_messages(index: u32, ranges: &[RangeInclusive<u16>], flags: BridgeVlanInfoFlags) -> Vec<LinkMessage> {
    let with_ranges = |ranges: &[RangeInclusive<u16>]| {
        let mut specs = vec![AfSpecBridge::Flags(BridgeFlag::Controller)];
        for range in ranges {
            let (first, last) = (*range.start(), *range.end());
            if first == last {
                specs.push(AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid: first }));
                continue;
            }
            let begin = flags | BridgeVlanInfoFlags::RangeBegin;
            let end = flags | BridgeVlanInfoFlags::RangeEnd;
            specs.push(AfSpecBridge::VlanInfo(BridgeVlanInfo { flags: begin, vid: first }));
            specs.push(AfSpecBridge::VlanInfo(BridgeVlanInfo { flags: end, vid: last }));
        }
        let mut request = message(index);
        request.attributes.push(LinkAttribute::AfSpecBridge(specs));
        request
    };
    ranges.chunks(RANGES).map(with_ranges).collect()
}

fn words(ranges: &[RangeInclusive<u16>]) -> String {
    let one = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(",")
}

fn message(index: u32) -> LinkMessage {
    let mut message = link::message(index);
    message.header.interface_family = AddressFamily::Bridge;
    message
}

fn send(nl: &mut Netlink, index: u32, request: RouteNetlinkMessage, doing: &str) -> Result<()> {
    let result = nl.socket.request(request, 0);
    result.map_err(|failure| failure.doing(format!("{doing} link {}", link::describe(nl, index))))
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod tests;
