//! CHECK: whether the attachment is still what ADD made, as `prevResult` and the configuration say.
//!
//! The bridge's own MAC is not compared. The reference compares it and leaves it to follow the ports, so that
//! one pod's ADD makes another pod's CHECK fail (its defect 2), and nothing of the pod depends on it.

use std::ops::RangeInclusive;

use hostnet::bridge::{Port, vlans};
use hostnet::link::{self, Link};
use hostnet::{Netlink, Owner, addr, endpoint, masquerade, spoof_check};
use libcni::Error;
use libcni::plugin::Request;
use libcni::types::{Interface, IpConfig, Success};

use crate::conf::Conf;
use crate::gateway::port_of;
use crate::lease;
use crate::port::NATIVE_VLAN;

/// Compares everything but the lease, which is the IPAM plugin's to judge.
pub fn attachment(req: &Request<Conf>) -> Result<(), Error> {
    let conf = req.conf();
    let mut result = req.prev_result()?.ok_or_else(|| Error::internal("Required prevResult missing"))?;
    let (mut host, mut pod) = Netlink::pair(req.netns()?)?;
    let (index, listed) = listed_in_pod(req, &result)?;
    result.ips.retain(|ip| is_of(ip, index));
    let bridge = bridge(&mut host, conf, &result)?;
    let in_pod = in_pod(&mut pod, req, &listed)?;
    let port = port(&mut host, req, &bridge, &in_pod, &result)?;
    endpoint::check(&mut pod, req.ifname().as_str(), &result.ips, &result.routes)?;
    if conf.gateway && req.ipam().is_some() {
        gateway(&mut host, conf, &bridge, &result)?;
    }
    let owner = Owner::of(req);
    if conf.masquerade && req.ipam().is_some() {
        masquerade::check(&owner, conf.masquerade_backend, &lease::addresses(&result))?;
    }
    if conf.mac_spoof_check
        && let Some(mac) = in_pod.mac
    {
        spoof_check::check(&owner, &port.name, mac)?;
    }
    Ok(())
}

/// Addresses of other interfaces are those of plugins chained after us.
fn is_of(ip: &IpConfig, interface: usize) -> bool {
    ip.interface.is_none_or(|index| usize::try_from(index) == Ok(interface))
}

/// The pod's interface in `prevResult`, with its place there.
fn listed_in_pod(req: &Request<Conf>, result: &Success) -> Result<(usize, Interface), Error> {
    let ifname = req.ifname().as_str();
    let netns = req.netns()?.display().to_string();
    let mut named = result.interfaces.iter().enumerate().filter(|(_, listed)| listed.name == ifname).peekable();
    if named.peek().is_none() {
        return Err(Error::internal(format!("CNI created interface in container {ifname} not found in prevResult")));
    }
    let mut elsewhere = String::new();
    for (index, listed) in named {
        if listed.sandbox == netns {
            return Ok((index, listed.clone()));
        }
        elsewhere.clone_from(&listed.sandbox);
    }
    Err(Error::internal(format!("Sandbox in prevResult {elsewhere} doesn't match configured netns: {netns}")))
}

fn bridge(host: &mut Netlink, conf: &Conf, result: &Success) -> Result<Link, Error> {
    let name = conf.bridge.as_str();
    if !result.interfaces.iter().any(|listed| listed.name == name && listed.sandbox.is_empty()) {
        return Err(Error::internal(format!(
            "CNI created bridge {name} in host namespace was not found in prevResult"
        )));
    }
    let link = link::get(host, name)?.ok_or_else(|| Error::internal(format!("Interface name {name} not found")))?;
    if !link.is_kind("bridge") {
        return Err(Error::internal(format!("Interface {name} does not have link type of bridge")));
    }
    if !link.up {
        return Err(Error::internal(format!("Bridge interface {name} is down")));
    }
    // A bridge that somebody else made promiscuous serves the pod as well.
    if conf.promiscuous && !link.promisc {
        let msg = format!("Bridge interface {name} configured Promisc Mode true doesn't match current state: false");
        return Err(Error::internal(msg));
    }
    Ok(link)
}

fn in_pod(pod: &mut Netlink, req: &Request<Conf>, listed: &Interface) -> Result<Link, Error> {
    let name = req.ifname().as_str();
    let link = link::get(pod, name)?
        .ok_or_else(|| Error::internal(format!("Cannot find container link {name} in {}", listed.sandbox)))?;
    if !link.is_kind("veth") {
        return Err(Error::internal(format!("Error: Container interface {name} not of type veth")));
    }
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !listed.mac.is_empty() && !listed.mac.eq_ignore_ascii_case(&mac) {
        return Err(Error::internal(format!("Interface {name} Mac {} doesn't match container Mac: {mac}", listed.mac)));
    }
    if !link.up && !req.conf().disable_container_interface {
        return Err(Error::internal(format!("Container interface {name} is down")));
    }
    Ok(link)
}

/// The host's end, found from the pod's: a port of the bridge, and the one `prevResult` names.
fn port(
    host: &mut Netlink,
    req: &Request<Conf>,
    bridge: &Link,
    in_pod: &Link,
    result: &Success,
) -> Result<Link, Error> {
    let missing =
        |why: &str| Error::internal(format!("CNI veth created for bridge {} was not found: {why}", bridge.name));
    let index = in_pod.parent.ok_or_else(|| missing("the pod's end has no peer"))?;
    let port = link::get_by_index(host, index)?.ok_or_else(|| missing("its end on the host is gone"))?;
    if port.master != Some(bridge.index) {
        return Err(missing(&format!("{} is no port of it", port.name)));
    }
    if !port.up {
        return Err(missing(&format!("{} is down", port.name)));
    }
    let is_port = |listed: &&Interface| listed.sandbox.is_empty() && listed.name == port.name;
    let listed = result.interfaces.iter().find(is_port);
    let listed = listed.ok_or_else(|| missing(&format!("{} is not in prevResult", port.name)))?;
    let mac = port.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !listed.mac.is_empty() && !listed.mac.eq_ignore_ascii_case(&mac) {
        return Err(missing(&format!("Interface {} Mac doesn't match: {mac} not found", port.name)));
    }
    let wanted = Port { hairpin: req.conf().hairpin, isolated: req.conf().isolated };
    if port.port.is_some_and(|found| found != wanted) {
        return Err(Error::internal(format!("Bridge port {} is {:?}, configured is {wanted:?}", port.name, port.port)));
    }
    let conf = req.conf();
    if conf.has_port_vlans() {
        let trunk = conf.trunk.as_deref().unwrap_or_default();
        check_vlans(host, port.index, &port.name, conf.vlan.unwrap_or(NATIVE_VLAN), trunk)?;
    }
    Ok(port)
}

/// Every VLAN that ADD gave the port is still its own.
fn check_vlans(
    host: &mut Netlink,
    port: u32,
    name: &str,
    own: u16,
    trunk: &[RangeInclusive<u16>],
) -> Result<(), Error> {
    let found = vlans(host, port)?;
    let has = |vid: u16, own: bool| {
        let place = found.binary_search_by_key(&vid, |vlan| vlan.vid);
        place.ok().and_then(|place| found.get(place)).is_some_and(|vlan| vlan.pvid == own && vlan.untagged == own)
    };
    let trunk = trunk.iter().flat_map(Clone::clone).filter(|vid| *vid != own);
    match [(own, true)].into_iter().chain(trunk.map(|vid| (vid, false))).find(|(vid, own)| !has(*vid, *own)) {
        Some((vid, _)) => Err(Error::internal(format!("Bridge port {name} has lost VLAN {vid}"))),
        None => Ok(()),
    }
}

fn gateway(host: &mut Netlink, conf: &Conf, bridge: &Link, result: &Success) -> Result<(), Error> {
    let name = conf.vlan_gateway().unwrap_or_else(|| bridge.name.clone());
    let link = link::get(host, &name)?.ok_or_else(|| Error::internal(format!("Interface name {name} not found")))?;
    if !link.up {
        return Err(Error::internal(format!("Interface {name} is down")));
    }
    if let (Some(vlan), Some(port)) = (conf.vlan, port_of(&link)) {
        check_vlans(host, port, &format!("of {name}"), vlan, &[])?;
    }
    let present = addr::list(host, link.index)?;
    for gateway in lease::gateways(result) {
        if !present.iter().any(|address| address.cidr == gateway) {
            return Err(Error::internal(format!("Failed to match gateway addr {gateway} on interface {name}")));
        }
    }
    Ok(())
}
