//! A link as the kernel tells of it. The typed crate takes the whole message apart, with the tables of both IP versions: a
//! fifth of the instructions of an ADD went there, and what one link has that it cannot read made the list of all fail.

use libcni::types::Mac;
use netlink_packet_route::link::State as OperState;

use super::Link;
use crate::bridge::Port;
use crate::netlink::raw::{Raw, attributes, find};

/// `struct ifinfomsg` of linux/rtnetlink.h, before the attributes.
const HEADER: usize = 16;

/// Of linux/if_link.h, beside those that libc has: of a bridge, of a port of one, and of what IPv6 tells.
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_INET6_CONF: u16 = 2;
/// `AF_INET6`, as the type of an attribute.
const INET6: u16 = 10;
/// `DEVCONF_ACCEPT_RA` of linux/ipv6.h: its place among the values.
const ACCEPT_RA: usize = 3;

impl Link {
    /// `None` where the message is about something else.
    pub(super) fn read(message: &Raw) -> Option<Self> {
        let header: &[u8; HEADER] = message.payload.first_chunk().filter(|_| message.kind == libc::RTM_NEWLINK)?;
        let [_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let has = |flag: libc::c_int| flag.try_into().is_ok_and(|flag: u32| flags & flag != 0);
        let mut link = Self {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            name: String::new(),
            kind: None,
            mac: None,
            mtu: 0,
            up: has(libc::IFF_UP),
            oper: OperState::Unknown,
            running: has(libc::IFF_RUNNING),
            carrier: has(libc::IFF_LOWER_UP),
            promisc: has(libc::IFF_PROMISC),
            allmulti: has(libc::IFF_ALLMULTI),
            txqlen: 0,
            master: None,
            parent: None,
            parent_netns: None,
            alias: None,
            accept_ra: None,
            vlan_filtering: None,
            port: None,
        };
        for (kind, value) in attributes(message.payload.get(HEADER..).unwrap_or_default()) {
            match kind {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac::new),
                libc::IFLA_MTU => link.mtu = number(value).unwrap_or_default(),
                libc::IFLA_TXQLEN => link.txqlen = number(value).unwrap_or_default(),
                libc::IFLA_OPERSTATE => link.oper = value.first().map_or(OperState::Unknown, |state| (*state).into()),
                libc::IFLA_MASTER => link.master = number(value),
                libc::IFLA_LINK => link.parent = number(value),
                libc::IFLA_LINK_NETNSID => link.parent_netns = number(value).map(u32::cast_signed),
                libc::IFLA_IFALIAS => link.alias = Some(text(value)),
                // Of what IPv6 knows about the link, what would otherwise be read from a file of /proc/sys.
                libc::IFLA_AF_SPEC => link.accept_ra = accept_ra(value),
                libc::IFLA_LINKINFO => link.read_info(value),
                _ => {}
            }
        }
        Some(link)
    }

    fn read_info(&mut self, info: &[u8]) {
        self.kind = find(info, libc::IFLA_INFO_KIND).map(text);
        if self.is_kind("bridge") {
            let data = find(info, libc::IFLA_INFO_DATA).unwrap_or_default();
            self.vlan_filtering = find(data, IFLA_BR_VLAN_FILTERING).map(is_set);
        }
        if find(info, libc::IFLA_INFO_SLAVE_KIND).is_some_and(|kind| text(kind) == "bridge") {
            let data = find(info, libc::IFLA_INFO_SLAVE_DATA).unwrap_or_default();
            let on = |kind| find(data, kind).is_some_and(is_set);
            self.port = Some(Port { hairpin: on(IFLA_BRPORT_MODE), isolated: on(IFLA_BRPORT_ISOLATED) });
        }
    }
}

/// Without its NUL.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn is_set(value: &[u8]) -> bool {
    value.iter().any(|byte| *byte != 0)
}

fn accept_ra(specs: &[u8]) -> Option<bool> {
    let values = find(find(specs, INET6)?, IFLA_INET6_CONF)?;
    values.chunks_exact(4).nth(ACCEPT_RA).map(is_set)
}
