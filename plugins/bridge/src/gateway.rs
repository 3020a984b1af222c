//! The gateway's addresses, on the bridge or, with `vlan`, on an interface in the pods' VLAN: one end of a
//! veth pair of its own whose other end is a port of the bridge like a pod's.

use hostnet::bridge::Port;
use hostnet::link::{self, Link};
use hostnet::veth::{self, VethConf};
use hostnet::{Error, Netlink, Undo, addr, bridge, forwarding, sysctl};
use libcni::types::{Cidr, Success};

use crate::conf::Conf;
use crate::{lease, port};

/// Gives the gateway's addresses to the node, and lets it forward. Adds the gateway's interface to the result
/// where that is not the bridge. `own` is the port of this ADD's pod.
pub fn ensure(
    host: &mut Netlink,
    conf: &Conf,
    bridge: &Link,
    own: &Link,
    result: &mut Success,
    undo: &mut Undo<'_>,
) -> Result<(), Error> {
    let _step = libcni::log::step("gateway");
    if !conf.gateway {
        return Ok(());
    }
    let gateways = lease::gateways(result);
    let vlan = vlan_interface(host, conf, bridge, own, undo)?;
    if let Some(vlan) = &vlan {
        result.interfaces.push(vlan.interface());
    }
    ensure_addresses(host, vlan.as_ref().unwrap_or(bridge), &gateways, conf.force_address)?;
    for ipv4 in [true, false] {
        if gateways.iter().any(|gateway| gateway.is_ipv4() == ipv4) {
            forwarding::ensure(host, ipv4)?;
        }
    }
    Ok(())
}

/// `<bridge>.<vlan>`, up; `None` where the bridge itself is the gateway.
fn vlan_interface(
    host: &mut Netlink,
    conf: &Conf,
    bridge: &Link,
    own: &Link,
    undo: &mut Undo<'_>,
) -> Result<Option<Link>, Error> {
    let (Some(name), Some(vlan)) = (conf.vlan_gateway(), conf.vlan) else { return Ok(None) };
    let found = match link::get(host, &name)? {
        Some(found) => found,
        None => match create(host, conf, bridge, &name) {
            // Another ADD was faster.
            Err(error) if error.is_exists() => link::get(host, &name)?.ok_or(error)?,
            created => {
                let (name, bridge, own) = (name, bridge.index, own.index);
                undo.push("remove the gateway's interface", move || remove_if_unused(&name, vlan, bridge, own));
                created?
            }
        },
    };
    // Set up is the last that is done to it. Down, it is another ADD's at work, or of one that was killed.
    if !found.up {
        finish(host, conf, &found)?;
    }
    Ok(Some(found))
}

fn create(host: &mut Netlink, conf: &Conf, bridge: &Link, name: &str) -> Result<Link, Error> {
    // The bridge is in the result already: with one port more it may not take another address.
    pin_mac(host, bridge)?;
    let mut here = Netlink::open()?;
    let wanted = VethConf {
        pod_name: name,
        host_names: veth::names(&[conf.bridge.as_str(), name]),
        mac: None,
        mtu: Some(bridge.mtu),
        master: Some(bridge.index),
    };
    veth::create(host, &mut here, &wanted).map(|pair| pair.pod)
}

/// Puts the gateway's port into the VLAN, and sets both ends up.
fn finish(host: &mut Netlink, conf: &Conf, link: &Link) -> Result<(), Error> {
    let _ = sysctl::set(host, &format!("net/ipv6/conf/{}/accept_ra", link.name), "0");
    if let Some(port) = port_of(link) {
        bridge::set_port(host, port, &Port { hairpin: false, isolated: false })?;
        // The pods' trunk is theirs alone.
        port::set_vlans(host, conf, port, &[])?;
        link::set_up(host, port)?;
    }
    link::set_up(host, link.index)
}

/// The other end of `<bridge>.<vlan>`, by index; `None` where an operator made it as something else than a veth pair.
pub fn port_of(link: &Link) -> Option<u32> {
    link.parent.filter(|_| link.is_kind("veth") && link.parent_netns.is_none())
}

/// Takes the interface back unless the VLAN has other pods by now.
fn remove_if_unused(name: &str, vlan: u16, bridge: u32, own: u32) -> Result<(), Error> {
    let _alone = crate::bridge::alone()?;
    let mut host = Netlink::open()?;
    let Some(link) = link::get(&mut host, name)? else { return Ok(()) };
    let ports = link::list(&mut host)?.into_iter().filter(|port| port.master == Some(bridge)).map(|port| port.index);
    for port in ports.filter(|port| *port != own && link.parent != Some(*port)) {
        if bridge::vlans(&mut host, port)?.iter().any(|other| other.vid == vlan) {
            return Ok(());
        }
    }
    link::remove_by_index(&mut host, link.index).map(drop)
}

/// All conflicts are found before the first change.
fn ensure_addresses(host: &mut Netlink, link: &Link, gateways: &[Cidr], force: bool) -> Result<(), Error> {
    let present: Vec<Cidr> = addr::list(host, link.index)?.iter().map(|address| address.cidr).collect();
    let missing: Vec<&Cidr> = gateways.iter().filter(|gateway| !present.contains(gateway)).collect();
    for gateway in &missing {
        let in_the_way = |old: &&Cidr| !gateways.contains(old) && conflicts(old, gateway);
        for old in present.iter().filter(in_the_way) {
            if !force {
                let why = format!("{:?} already has an IP address different from {gateway}: {old}", link.name);
                return Err(Error::other("failed to set bridge addr", why));
            }
            addr::remove(host, link.index, old)?;
        }
    }
    for gateway in &missing {
        match addr::add(host, link.index, gateway, true) {
            Err(error) if error.is_exists() => {}
            added => added?,
        }
    }
    if missing.is_empty() { Ok(()) } else { pin_mac(host, link) }
}

/// A bridge takes the lowest MAC of its ports until it is given one. Ours are given one at birth; one that
/// somebody else made gets to keep what it has, or the pods' neighbour tables go stale with every new pod.
fn pin_mac(host: &mut Netlink, link: &Link) -> Result<(), Error> {
    match link::get_by_index(host, link.index)?.and_then(|now| now.mac) {
        Some(mac) => link::set_mac(host, link.index, mac),
        None => Ok(()),
    }
}

/// An IPv4 address leaves no room for another; IPv6 addresses only those of one subnet for each other.
fn conflicts(old: &Cidr, gateway: &Cidr) -> bool {
    old.is_ipv4() == gateway.is_ipv4() && (gateway.is_ipv4() || old.overlaps(gateway))
}
