//! The node as the probes see it: its way out, what it forwards, what there is before the first pod; and how it gets
//! back to that.

use std::fs::File;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hostnet::link::{self, Link};
use hostnet::route::{self, Filter, Route};
use hostnet::{Netlink, Result, addr, forwarding, sysctl};
use libcni::types::Cidr;

use super::record::Made;

/// How long somebody else may take to join the bridge that is to be taken away.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
/// What is switched for all links by forwarding, for the bridge by the first pod, and by the first host port.
const SWITCHED: [&str; 4] =
    ["ipv4/conf/*/forwarding", "ipv6/conf/*/forwarding", "ipv6/conf/*/accept_ra", "ipv4/conf/*/route_localnet"];
/// `RTPROT_RA` of linux/rtnetlink.h: learned from a router advertisement.
const FROM_ADVERTISEMENT: u8 = 9;
/// `RT_SCOPE_UNIVERSE`.
const UNIVERSE: u8 = 0;

/// How packets of one IP version leave the node.
#[derive(Clone, Debug)]
pub struct Way {
    pub link: Link,
    /// The node's address on the link.
    pub address: Option<IpAddr>,
    /// The next hop; none on a link without neighbours.
    pub gateway: Option<IpAddr>,
    /// The route is a router advertisement's, and goes when the node begins to forward.
    pub is_advertised: bool,
}

impl Way {
    /// The default route with the lowest metric; `None` where there is no default route.
    pub fn get(nl: &mut Netlink, ipv4: bool) -> Result<Option<Self>> {
        let filter = Filter { dst: Some(everything(ipv4)), table: Some(route::TABLE_MAIN), ..Filter::default() };
        let mut routes = route::list(nl, &filter)?;
        routes.sort_by_key(|route| route.priority.unwrap_or_default());
        let Some(route) = routes.into_iter().find(|route| route.oif.is_some()) else { return Ok(None) };
        let Some(link) = route.oif.map(|index| link::get_by_index(nl, index)).transpose()?.flatten() else {
            return Ok(None);
        };
        let addresses = addr::list(nl, link.index)?;
        let own = addresses.iter().filter(|address| address.scope == UNIVERSE && address.cidr.is_ipv4() == ipv4);
        let address = route.src.or_else(|| own.map(|address| address.cidr.addr()).next());
        let is_advertised = route.protocol == Some(FROM_ADVERTISEMENT);
        Ok(Some(Self { link, address, gateway: route.gw, is_advertised }))
    }
}

/// `0.0.0.0/0` or `::/0`.
fn everything(ipv4: bool) -> Cidr {
    let unspecified: IpAddr = if ipv4 { [0; 4].into() } else { [0_u16; 8].into() };
    Cidr::default_of(unspecified)
}

/// A route in words.
pub fn words(route: &Route, dev: &str) -> String {
    match route.gw {
        Some(gateway) => format!("route {} via {gateway} dev {dev}", route.dst),
        None => format!("route {} dev {dev}", route.dst),
    }
}

/// What there was before the first pod.
#[derive(Debug)]
pub struct Before {
    pub links: Vec<Link>,
    /// Whether the node forwarded IPv4, IPv6.
    pub forwarding: [bool; 2],
}

impl Before {
    pub fn look(nl: &mut Netlink) -> Result<Self> {
        Ok(Self { links: link::list(nl)?, forwarding: [forwarding::get(nl, true)?, forwarding::get(nl, false)?] })
    }

    /// Whether there was a link of this name.
    pub fn has(&self, name: &str) -> bool {
        self.links.iter().any(|link| link.name == name)
    }

    /// The names of the links that have come since.
    pub fn new_links(&self, nl: &mut Netlink) -> Result<Vec<String>> {
        let links = link::list(nl)?.into_iter().filter(|link| self.links.iter().all(|old| old.index != link.index));
        Ok(links.map(|link| link.name).collect())
    }
}

/// The sysctls that a pod may switch, at one moment. In the order in which they are to be written: those of all links
/// change each link's.
pub struct Sysctls(Vec<(String, String)>);

impl Sysctls {
    pub fn look(nl: &mut Netlink) -> Result<Self> {
        let links = link::list(nl)?;
        let names = ["all", "default"].into_iter().chain(links.iter().map(|link| link.name.as_str()));
        let of_link = |name| SWITCHED.map(|key| format!("net/{}", key.replace('*', name)));
        let mut sysctls = Vec::new();
        // To switch IPv4 forwarding switches the last as well.
        for key in names.flat_map(of_link).chain(["net/ipv4/conf/all/accept_redirects".to_owned()]) {
            if let Some(value) = sysctl::get(nl, &key)? {
                sysctls.push((key, value));
            }
        }
        Ok(Self(sysctls))
    }
}

/// What one ADD has switched.
#[derive(Debug)]
pub struct Switched {
    /// Of all keys there were: the value before it and the value directly after it.
    sysctls: Vec<(String, String, String)>,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct SetBack {
    /// `key = value`.
    pub done: Vec<String>,
    /// The key, and why it was left.
    pub left: Vec<String>,
}

impl Switched {
    /// Asked directly after the ADD; `before` directly before it.
    pub fn since(before: Sysctls, nl: &Netlink) -> Result<Self> {
        let mut sysctls = Vec::new();
        for (key, value) in before.0 {
            if let Some(after) = sysctl::get(nl, &key)? {
                sysctls.push((key, value, after));
            }
        }
        Ok(Self { sysctls })
    }

    /// Sets back what that ADD has switched and nobody has changed since. Not while there are links that were not there:
    /// they may be pods of others, who need it by now.
    pub fn set_back(&self, nl: &mut Netlink, before: &Before) -> Result<SetBack> {
        let mut set_back = SetBack::default();
        let is_switched = |(_, before, after): &&(String, String, String)| before != after;
        if self.sysctls.iter().find(is_switched).is_none() {
            return Ok(set_back);
        }
        let new = before.new_links(nl)?;
        if !new.is_empty() {
            let why = format!("there are new links that may need it ({})", new.join(" "));
            let all = self.sysctls.iter().filter(is_switched).filter(|(key, ..)| key.contains("/all/"));
            set_back.left.extend(all.map(|(key, ..)| format!("{key}: {why}")));
            return Ok(set_back);
        }
        // To write the one of all links changes those of each: so first what each is to be in the end.
        let mut wanted = Vec::new();
        for (key, before, after) in &self.sysctls {
            let Some(now) = sysctl::get(nl, key)? else { continue };
            let is_ours = before != after && now == *after;
            if before != after && !is_ours && now != *before {
                set_back.left.push(format!("{key}: somebody has made it {now} since"));
            }
            wanted.push((key, if is_ours { before.clone() } else { now }));
        }
        for (key, value) in wanted {
            if sysctl::get(nl, key)?.is_some_and(|now| now != value) {
                sysctl::set(nl, key, &value)?;
                set_back.done.push(format!("{key} = {value}"));
            }
        }
        Ok(set_back)
    }
}

/// The boot and the network namespace we are in: what a link's number is of.
fn place() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/thread-self/ns/net").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// The bridge of that name that the ADD has just made, with the gateway's interface.
pub fn made(nl: &mut Netlink, name: &str, gateway_link: Option<&str>) -> Result<Option<Made>> {
    let Some((bridge, place)) = link::get(nl, name)?.filter(|link| link.is_kind("bridge")).zip(place()) else {
        return Ok(None);
    };
    let gateway = gateway_link.filter(|link| *link != name).map(|link| link::get(nl, link)).transpose()?.flatten();
    let gateway_link = gateway.map(|link| link.index);
    let addresses = addresses(nl, bridge.index, gateway_link)?;
    Ok(Some(Made { place, bridge: bridge.index, gateway_link, addresses }))
}

/// Without those that the kernel gives each link.
fn addresses(nl: &mut Netlink, bridge: u32, gateway_link: Option<u32>) -> Result<Vec<String>> {
    let mut all = addr::list(nl, bridge)?;
    if let Some(index) = gateway_link {
        all.extend(addr::list(nl, index)?);
    }
    let is_kernels = |addr: IpAddr| matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
    let others = all.into_iter().map(|address| address.cidr).filter(|cidr| !is_kernels(cidr.addr()));
    Ok(others.map(|cidr| cidr.to_string()).collect())
}

/// Takes the bridge away that an ADD has made, with the gateway's interface in a VLAN of its own, if nobody uses it.
/// Else says why it stays; `None`: it is gone.
///
/// While it is at work no pod joins: the bridge plugin holds the same lock on the network namespace, shared.
pub fn remove_unused_bridge(nl: &mut Netlink, name: &str, made: Option<&Made>) -> Result<Option<String>> {
    let namespace = "/proc/thread-self/ns/net";
    let doing = || format!("lock {namespace}");
    let file = File::open(namespace).map_err(|error| hostnet::Error::io(doing(), &error))?;
    let end = Instant::now() + LOCK_WITHIN;
    while file.try_lock().is_err() {
        if Instant::now() > end {
            return Ok(Some(format!("{name}: pods are being added")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let Some(bridge) = link::get(nl, name)? else { return Ok(None) };
    let Some(made) = made else {
        return Ok(Some(format!("{name}: it is not known whether the temporary pod or somebody else has made it")));
    };
    if made.bridge != bridge.index || !bridge.is_kind("bridge") || place().as_ref() != Some(&made.place) {
        return Ok(Some(format!("{name}: somebody else has made it")));
    }
    let links = link::list(nl)?;
    let gateway = made.gateway_link.and_then(|index| links.iter().find(|link| link.index == index));
    let of_gateway = gateway.and_then(|link| link.parent);
    let is_other = |link: &&Link| Some(link.index) != of_gateway && Some(link.index) != made.gateway_link;
    let uses = |link: &&Link| {
        let is_on = |index: u32| link.parent == Some(index) && link.parent_netns.is_none();
        link.master == Some(bridge.index) || is_on(bridge.index) || made.gateway_link.is_some_and(is_on)
    };
    if let Some(user) = links.iter().filter(is_other).find(uses) {
        return Ok(Some(format!("{name}: {} uses it", user.name)));
    }
    let present = addresses(nl, bridge.index, gateway.map(|link| link.index))?;
    if let Some(other) = present.iter().find(|address| !made.addresses.contains(address)) {
        return Ok(Some(format!("{name}: somebody else has given it the address {other}")));
    }
    if let Some(gateway) = gateway {
        link::remove_by_index(nl, gateway.index)?;
    }
    link::remove_by_index(nl, bridge.index)?;
    Ok(None)
}
