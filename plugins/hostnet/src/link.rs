//! Network interfaces, of whatever kind: looked up, changed, removed, waited for.

mod read;

use std::time::{Duration, Instant};

use libcni::plugin::dry_run;
use libcni::types::names::IFNAME_MAX;
use libcni::types::{Interface, Mac};
use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_route::RouteNetlinkMessage;
pub use netlink_packet_route::link::State as OperState;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage,
};

use crate::bridge::Port;
use crate::error::{Error, Result};
use crate::netlink::raw;
use crate::netlink::{Event, Netlink};

/// `IFLA_ALT_IFNAME` of linux/if_link.h.
const IFLA_ALT_IFNAME: u16 = 53;
/// `IFLA_INET_CONF` of linux/if_link.h and `IPV4_DEVCONF_ARP_NOTIFY` of linux/ip.h.
const IFLA_INET_CONF: u16 = 1;
const ARP_NOTIFY: u16 = 22;
/// `RTNLGRP_LINK` of linux/rtnetlink.h.
const RTNLGRP_LINK: u32 = 1;

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace, from 1.
    pub index: u32,
    /// Its name, 1 to 15 bytes.
    pub name: String,
    /// `veth`, `bridge`, …; `None` for hardware and `lo`.
    pub kind: Option<String>,
    /// Its hardware address, where it is of 6 bytes.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// RFC 2863 operational state. Kinds without a carrier of their own stay `Unknown`.
    pub oper: OperState,
    /// Whether packets pass: up, and `oper` is `Up` or `Unknown` (`IFF_RUNNING`).
    pub running: bool,
    /// Whether there is a carrier (`IFF_LOWER_UP`); known sooner than `running`.
    pub carrier: bool,
    /// Whether it was set promiscuous (`IFF_PROMISC`).
    pub promisc: bool,
    /// Whether it was set to receive all multicast (`IFF_ALLMULTI`).
    pub allmulti: bool,
    /// Length of its transmit queue, in packets.
    pub txqlen: u32,
    /// The index of the bridge or VRF that it is a port of.
    pub master: Option<u32>,
    /// `IFLA_LINK`: the other end of a veth or the parent of a VLAN, by index in that link's namespace.
    pub parent: Option<u32>,
    /// The id, in this namespace, of the namespace of `parent`; `None` where it is the same.
    pub parent_netns: Option<i32>,
    /// The alias (`ip link set alias`).
    pub alias: Option<String>,
    /// Whether it listens to router advertisements (`accept_ra` is not 0); `None` without IPv6.
    pub accept_ra: Option<bool>,
    /// Of a bridge: whether it filters by VLAN; `None` where the kernel cannot.
    pub vlan_filtering: Option<bool>,
    /// Of a port of a bridge: its settings.
    pub port: Option<Port>,
}

impl Link {
    /// Whether it is a bridge, a veth…
    pub fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// A link of the host as it stands in a result.
    pub fn interface(&self) -> Interface {
        let mac = self.mac.map(|mac| mac.to_string()).unwrap_or_default();
        Interface { name: self.name.clone(), mac, ..Interface::default() }
    }
}

/// The link of this name or alternative name.
///
/// # Errors
/// The kernel's refusal.
pub fn get(nl: &mut Netlink, name: &str) -> Result<Option<Link>> {
    let mut request = LinkMessage::default();
    request.attributes.push(if name.len() > IFNAME_MAX {
        LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, [name.as_bytes(), &[0]].concat()))
    } else {
        LinkAttribute::IfName(name.to_owned())
    });
    get_one(nl, request, || format!("get link {name:?}"))
}

/// The link of this index.
///
/// # Errors
/// The kernel's refusal.
pub fn get_by_index(nl: &mut Netlink, index: u32) -> Result<Option<Link>> {
    get_one(nl, message(index), || format!("get link number {index}"))
}

fn get_one(nl: &mut Netlink, mut request: LinkMessage, doing: impl FnOnce() -> String) -> Result<Option<Link>> {
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answer = nl.socket.get(RouteNetlinkMessage::GetLink(request));
    let doing = || format!("{} in {}", doing(), nl.netns());
    match answer {
        Ok(answer) => match Link::read(&answer) {
            Some(link) => Ok(Some(link)),
            None => Err(Error::other(doing(), "the kernel answered with something else")),
        },
        Err(failure) if failure.errno() == Some(libc::ENODEV) => Ok(None),
        Err(failure) => Err(failure.doing(doing())),
    }
}

/// All links.
///
/// # Errors
/// The kernel's refusal, or a list that never held still.
pub fn list(nl: &mut Netlink) -> Result<Vec<Link>> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answers = nl.socket.dump(RouteNetlinkMessage::GetLink(request));
    let answers = answers.map_err(|failure| failure.doing(format!("list links in {}", nl.netns())))?;
    Ok(answers.iter().filter_map(Link::read).collect())
}

/// Sets a link up.
///
/// # Errors
/// The kernel's refusal.
pub fn set_up(nl: &mut Netlink, index: u32) -> Result<()> {
    set_flag(nl, index, LinkFlags::Up, true, "set up")
}

/// Lets a link announce its IPv4 addresses when it comes up (`arp_notify`). It must be down still: of one message the
/// kernel reads this last. Without a look into `/proc/sys`, which may be read-only, and where a namespace that has once
/// been looked up makes every other's files dearer.
///
/// # Errors
/// The kernel's refusal.
pub fn set_arp_notify(nl: &mut Netlink, index: u32) -> Result<()> {
    let conf = DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, raw::number(ARP_NOTIFY, 1u32.to_ne_bytes()).to_vec());
    let spec = AfSpecUnspec::Inet(vec![AfSpecInet::Other(conf)]);
    set(nl, index, LinkAttribute::AfSpecUnspec(vec![spec]), "set arp_notify of")
}

/// Sets a link down.
///
/// # Errors
/// The kernel's refusal.
pub fn set_down(nl: &mut Netlink, index: u32) -> Result<()> {
    set_flag(nl, index, LinkFlags::Up, false, "set down")
}

/// Makes a link promiscuous, or no longer so.
///
/// # Errors
/// The kernel's refusal.
pub fn set_promisc(nl: &mut Netlink, index: u32, on: bool) -> Result<()> {
    set_flag(nl, index, LinkFlags::Promisc, on, "set promiscuity of")
}

/// Makes a link receive all multicast, or no longer so.
///
/// # Errors
/// The kernel's refusal.
pub fn set_allmulti(nl: &mut Netlink, index: u32, on: bool) -> Result<()> {
    set_flag(nl, index, LinkFlags::Allmulti, on, "set allmulti of")
}

fn set_flag(nl: &mut Netlink, index: u32, flag: LinkFlags, on: bool, doing: &str) -> Result<()> {
    let mut request = message(index);
    request.header.flags = if on { flag } else { LinkFlags::empty() };
    request.header.change_mask = flag;
    change(nl, index, request, doing)
}

/// Gives a link a hardware address.
///
/// # Errors
/// The kernel's refusal.
pub fn set_mac(nl: &mut Netlink, index: u32, mac: Mac) -> Result<()> {
    set(nl, index, LinkAttribute::Address(mac.bytes().to_vec()), &format!("set the address {mac} of"))
}

/// Gives a link an MTU, in bytes.
///
/// # Errors
/// The kernel's refusal.
pub fn set_mtu(nl: &mut Netlink, index: u32, mtu: u32) -> Result<()> {
    set(nl, index, LinkAttribute::Mtu(mtu), &format!("set the mtu {mtu} of"))
}

/// Gives a link's transmit queue a length, in packets; 0 is a length.
///
/// # Errors
/// The kernel's refusal.
pub fn set_txqlen(nl: &mut Netlink, index: u32, length: u32) -> Result<()> {
    set(nl, index, LinkAttribute::TxQueueLen(length), &format!("set the transmit queue length {length} of"))
}

/// Gives a link an alias: a text for people, of at most 254 bytes (`IFALIASZ` of linux/if.h less a NUL of the message's
/// and one of the kernel's).
///
/// # Errors
/// The kernel's refusal.
pub fn set_alias(nl: &mut Netlink, index: u32, alias: &str) -> Result<()> {
    set(nl, index, LinkAttribute::IfAlias(alias.to_owned()), "set the alias of")
}

/// Makes a link a port of the bridge or VRF `master`; `None` takes it out.
///
/// # Errors
/// The kernel's refusal.
pub fn set_master(nl: &mut Netlink, index: u32, master: Option<u32>) -> Result<()> {
    set(nl, index, LinkAttribute::Controller(master.unwrap_or(0)), "set the master of")
}

/// Renames a link, which must be down (before Linux 6.2).
///
/// # Errors
/// The kernel's refusal; the name is taken ([`Error::is_exists`]).
pub fn rename(nl: &mut Netlink, index: u32, name: &str) -> Result<()> {
    set(nl, index, LinkAttribute::IfName(name.to_owned()), &format!("rename to {name:?} the"))
}

/// Gives a port of a bridge, which is down still, its alias ([`set_alias`]), and in the same message the word that it
/// gets no IPv6 address when it comes up: the bridge has one, and for one more the kernel looks through the routes of
/// all ports. A link without IPv6 (`accept_ra` is `None`: the kernel has none, or the MTU is below 1280) is not told,
/// because there the kernel refuses the word.
///
/// # Errors
/// The kernel's refusal.
pub fn set_port_alias(nl: &mut Netlink, link: &Link, alias: &str) -> Result<()> {
    let mut request = message(link.index);
    request.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    if link.accept_ra.is_some() {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        request.attributes.push(LinkAttribute::AfSpecUnspec(vec![inet6]));
    }
    change(nl, link.index, request, "set the alias of")
}

fn set(nl: &mut Netlink, index: u32, attribute: LinkAttribute, doing: &str) -> Result<()> {
    let mut request = message(index);
    request.attributes.push(attribute);
    change(nl, index, request, doing)
}

fn change(nl: &mut Netlink, index: u32, request: LinkMessage, doing: &str) -> Result<()> {
    if dry_run::is_on() {
        let doing = format!("{doing} link {}", describe(nl, index));
        dry_run::notes(|| doing);
        return Ok(());
    }
    let result = nl.socket.request(RouteNetlinkMessage::SetLink(request), 0);
    result.map_err(|failure| failure.doing(format!("{doing} link {}", describe(nl, index))))
}

/// Removes the link of this name. Whether there was one.
///
/// # Errors
/// The kernel's refusal.
pub fn remove(nl: &mut Netlink, name: &str) -> Result<bool> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    remove_one(nl, request, name)
}

/// Removes the link of this index. Whether there was one.
///
/// # Errors
/// The kernel's refusal.
pub fn remove_by_index(nl: &mut Netlink, index: u32) -> Result<bool> {
    remove_one(nl, message(index), &format!("number {index}"))
}

fn remove_one(nl: &mut Netlink, request: LinkMessage, name: &str) -> Result<bool> {
    if dry_run::is_on() {
        let found = get_one(nl, request, || format!("get link {name}"))?;
        return Ok(found.is_some_and(|link| {
            let whose = link.alias.map(|alias| format!(" ({alias})")).unwrap_or_default();
            dry_run::notes(|| format!("remove link {} in {}{whose}", link.name, nl.netns()))
        }));
    }
    let result = nl.socket.request(RouteNetlinkMessage::DelLink(request), 0);
    match result.map_err(|failure| failure.doing(format!("remove link {name} in {}", nl.netns()))) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until packets pass through a link, and returns it as it is then. The kernel says so by an event a
/// moment after both ends of a veth are up.
///
/// # Errors
/// The link is gone, or `timeout` is over; the error names the state it is in.
pub fn wait_up(nl: &mut Netlink, index: u32, timeout: Duration) -> Result<Link> {
    let deadline = Instant::now() + timeout;
    let mut events = None;
    loop {
        let link = get_by_index(nl, index)?;
        let link = link.ok_or_else(|| Error::os(format!("wait for link number {index}"), libc::ENODEV))?;
        if link.up && link.running {
            return Ok(link);
        }
        // Listening begins before the second look, so that no event falls between the two.
        let Some(socket) = &mut events else {
            events = Some(nl.listen(RTNLGRP_LINK)?);
            continue;
        };
        let doing = || format!("wait for link {} to come up", link.name);
        match socket.event::<RouteNetlinkMessage>(deadline).map_err(|failure| failure.doing(doing()))? {
            Event::TimedOut => {
                return Err(Error::other(doing(), format!("its state is still {:?} after {timeout:?}", link.oper)));
            }
            Event::Messages(_) | Event::Lost => {}
        }
    }
}

/// A request about the link of this index.
pub(crate) fn message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// The name of a link for an error, where it can be had.
pub(crate) fn describe(nl: &mut Netlink, index: u32) -> String {
    match get_by_index(nl, index) {
        Ok(Some(link)) => format!("{} in {}", link.name, nl.netns()),
        _ => format!("number {index} in {}", nl.netns()),
    }
}
