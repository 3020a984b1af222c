//! CHECK: whether the attachment is still what ADD made, as `prevResult` and the configuration say.
//!
//! The bridge's own MAC is not compared. The reference compares it and leaves it to follow the ports, so that
//! one pod's ADD makes another pod's CHECK fail (its defect 2), and nothing of the pod depends on it.

use std::ops::RangeInclusive;

use hostnet::bridge::{Port, vlans};
use hostnet::link::{self, Link};
use hostnet::prev_result::Listed;
use hostnet::{Netlink, Owner, addr, endpoint, spoof_check};
use libcni::Error;
use libcni::plugin::Request;
use libcni::types::Success;

use crate::conf::Conf;
use crate::gateway::port_of;
use crate::lease;
use crate::port::NATIVE_VLAN;

/// Compares everything but the lease, which is the IPAM plugin's to judge.
pub fn attachment(req: &Request<Conf>) -> Result<(), Error> {
    let conf = req.conf();
    let listed = Listed::of(req)?;
    let result = &listed.result;
    let (mut host, mut pod) = Netlink::pair(req.netns()?)?;
    let bridge = bridge(&mut host, conf, result)?;
    let in_pod = listed.pod_end(&mut pod, conf.disable_container_interface)?;
    let port = port(&mut host, conf, &bridge, &in_pod, &listed)?;
    endpoint::check(&mut pod, req.ifname().as_str(), &result.ips, &result.routes)?;
    let owner = Owner::of(req);
    if req.ipam().is_some() {
        gateway(&mut host, conf, &bridge, result)?;
        conf.egress.check(&owner, &result.ips)?;
    }
    if conf.mac_spoof_check
        && let Some(mac) = in_pod.mac
    {
        spoof_check::check(&owner, &port.name, mac)?;
    }
    Ok(())
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

/// The host's end, found from the pod's: a port of the bridge, and the one `prevResult` names.
fn port(host: &mut Netlink, conf: &Conf, bridge: &Link, in_pod: &Link, listed: &Listed) -> Result<Link, Error> {
    let missing = |error: Error| error.context(format!("CNI veth created for bridge {} was not found", bridge.name));
    let port = listed.host_end(host, in_pod).map_err(missing)?;
    if port.master != Some(bridge.index) {
        return Err(missing(Error::internal(format!("{} is no port of it", port.name))));
    }
    let wanted = Port { hairpin: conf.hairpin, isolated: conf.isolated };
    // A port that is isolated beyond what is configured is the firewall plugin's (`ingressPolicy: isolated`).
    if port.port.is_some_and(|found| found.hairpin != wanted.hairpin || (wanted.isolated && !found.isolated)) {
        return Err(Error::internal(format!("Bridge port {} is {:?}, configured is {wanted:?}", port.name, port.port)));
    }
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
    if !conf.gateway {
        return Ok(());
    }
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
