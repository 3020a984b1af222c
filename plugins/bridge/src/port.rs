//! The veth pair between pod and bridge: its host end is a port of the bridge.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use hostnet::bridge::{Port, add_vlans, remove_vlans, vlans};
use hostnet::link::{self, Link};
use hostnet::veth::{self, Veth, VethConf};
use hostnet::{Error, Netlink, Netns, Owner, Undo, addr, spoof_check, sysctl};
use libcni::plugin::Request;
use libcni::types::{IfName, Interface, Mac, Success};

use crate::bridge;
use crate::conf::Conf;

/// Place of the pod's interface in a result: after the bridge and the host's end.
pub const POD: usize = 2;

/// How long a port may take to come up; the reference gives it as much.
const UP_WITHIN: Duration = Duration::from_millis(2550);

/// The VLAN a tagged port speaks untagged where the configuration names none, as in the reference.
pub const NATIVE_VLAN: u16 = 1;

/// Makes the pair and attaches it to the bridge, which is made if it is not there.
pub fn attach(
    host: &mut Netlink,
    pod: &mut Netlink,
    req: &Request<Conf>,
    owner: &Owner,
    undo: &mut Undo<'_>,
) -> Result<(Link, Veth), Error> {
    let conf = req.conf();
    let joining = bridge::joining()?;
    let bridge = bridge::ensure(host, conf, undo)?;
    let wanted = VethConf {
        pod_name: req.ifname().as_str(),
        host_names: veth::host_names(owner),
        mac: conf.mac,
        mtu: conf.mtu,
        master: Some(bridge.index),
    };
    let veth = veth::create(host, pod, &wanted)?;
    undo_pair(&veth, undo);
    // Joining may have changed the address of a bridge that somebody else made.
    let bridge = link::get_by_index(host, bridge.index)?.unwrap_or(bridge);

    hostnet::bridge::set_port(host, veth.host.index, &Port { hairpin: conf.hairpin, isolated: conf.isolated })?;
    set_vlans(host, conf, veth.host.index, conf.trunk.as_deref().unwrap_or_default())?;
    drop(joining);
    if conf.mac_spoof_check {
        let of = owner.clone();
        undo.push("remove the spoof check", move || spoof_check::remove(&of));
        spoof_check::add(owner, &veth.host.name, mac_of(&veth.pod)?)?;
    }
    link::set_alias(host, veth.host.index, &owner.alias())?;
    link::set_up(host, veth.host.index)?;
    Ok((bridge, veth))
}

/// The pair goes if the ADD fails.
pub fn undo_pair(veth: &Veth, undo: &mut Undo<'_>) {
    let name = veth.host.name.clone();
    undo.push("remove the veth pair", move || link::remove(&mut Netlink::open()?, &name).map(drop));
}

/// A port's VLANs: its own untagged, those of the trunk tagged. Also for the gateway's port.
pub fn set_vlans(host: &mut Netlink, conf: &Conf, index: u32, trunk: &[RangeInclusive<u16>]) -> Result<(), Error> {
    if !conf.has_port_vlans() {
        return Ok(());
    }
    if !conf.preserve_default_vlan {
        let default: Vec<_> = vlans(host, index)?.iter().map(|vlan| vlan.vid..=vlan.vid).collect();
        remove_vlans(host, index, &default)?;
    }
    add_vlans(host, index, trunk, false, false)?;
    // The last, so that it is untagged also where the trunk lists it (the reference's defect 14).
    let own = conf.vlan.unwrap_or(NATIVE_VLAN);
    add_vlans(host, index, &[own..=own], true, true)
}

/// The interfaces of the result, in the reference's order: bridge, host's end, pod's end.
pub fn result(req: &Request<Conf>, bridge: &Link, veth: &Veth) -> Result<Success, libcni::Error> {
    let mut pod = interface(&veth.pod);
    pod.sandbox = req.netns()?.display().to_string();
    Ok(Success { interfaces: vec![interface(bridge), interface(&veth.host), pod], ..Success::default() })
}

/// A link of the host as it stands in a result.
pub fn interface(link: &Link) -> Interface {
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    Interface { name: link.name.clone(), mac, ..Interface::default() }
}

fn mac_of(link: &Link) -> Result<Mac, Error> {
    link.mac.ok_or_else(|| Error::other(format!("look at {}", link.name), "it has no MAC address"))
}

/// How the pod's interface treats its addresses: it announces them when it comes up, and tests them for
/// duplicates only if the configuration asks for it. All of it is a courtesy: a kernel without IPv6, or with
/// /proc/sys read-only, still gets a working pod.
pub fn prepare_addresses(pod: &mut Netlink, req: &Request<Conf>) {
    let ifname = req.ifname();
    let detect = if req.conf().duplicate_address_detection { "1" } else { "0" };
    if req.conf().duplicate_address_detection {
        let _ = sysctl::set(pod, &format!("net/ipv6/conf/{ifname}/enhanced_dad"), "1");
    }
    let _ = sysctl::set(pod, &format!("net/ipv6/conf/{ifname}/accept_dad"), detect);
    let _ = sysctl::set(pod, &format!("net/ipv4/conf/{ifname}/arp_notify"), "1");
}

/// Waits until the port has a carrier and counts as up. On a bridge with STP, which listens for half a minute, that is
/// before it forwards.
pub fn wait_up(host: &mut Netlink, port: &Link) -> Result<(), Error> {
    link::wait_up(host, port.index, UP_WITHIN).map(drop)
}

/// The pod's namespace on DEL; `None` where it is unknown or gone.
///
/// # Errors
/// The path is something else than a namespace: then it is not to be guessed what was meant.
pub fn open_pod(req: &Request<Conf>) -> Result<Option<Netlink>, Error> {
    let Some(path) = req.netns_if_any() else { return Ok(None) };
    Netns::get(path)?.map(Netlink::open_in).transpose()
}

/// Removes the pair, by its end in the pod. Gone already is fine.
pub fn remove(pod: Option<&mut Netlink>, owner: &Owner) -> Result<(), Error> {
    match pod {
        Some(pod) => link::remove(pod, owner.ifname.as_str()).map(drop),
        None => remove_host_end(owner),
    }
}

/// A namespace whose path is gone may live on, held by a process: then the pair is there as well, and answers for an
/// address that somebody else is about to get. The host's end is found by its name, and known by its alias: another
/// pod's may have the same name.
fn remove_host_end(owner: &Owner) -> Result<(), Error> {
    let mut host = Netlink::open()?;
    for name in veth::host_names(owner) {
        let found = link::get(&mut host, &name)?;
        if found.is_some_and(|end| end.is_kind("veth") && end.alias == Some(owner.alias())) {
            link::remove(&mut host, &name)?;
        }
    }
    Ok(())
}

/// The addresses of the pod's other interfaces: with iptables, the masquerade rules of a container's interfaces on
/// one network share a chain. None where the pod is gone.
pub fn addresses_of_others(pod: Option<&mut Netlink>, ifname: &IfName) -> Result<Vec<IpAddr>, Error> {
    let Some(pod) = pod else { return Ok(Vec::new()) };
    let own = link::get(pod, ifname.as_str())?.map_or(0, |link| link.index);
    let others = addr::list_of_others(pod, own)?;
    Ok(others.iter().map(|address| address.cidr.addr()).collect())
}
