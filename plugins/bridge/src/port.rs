//! The veth pair between pod and bridge: its host end is a port of the bridge.

use std::ops::RangeInclusive;

use hostnet::bridge::{Port, add_vlans, remove_vlans, vlans};
use hostnet::link::{self, Link};
use hostnet::veth::{self, Veth, VethConf};
use hostnet::{Error, Netlink, Owner, Undo, spoof_check, sysctl};
use libcni::plugin::Request;
use libcni::types::{IpConfig, Mac, Success};

use crate::conf::Conf;

/// Place of the pod's interface in a result: after the bridge and the host's end.
pub const POD: usize = 2;

/// The VLAN a tagged port speaks untagged where the configuration names none, as in the reference.
pub const NATIVE_VLAN: u16 = 1;

/// Makes the pair and attaches it to the bridge, which is as it is then in what is returned.
pub fn attach(
    host: &mut Netlink,
    pod: &mut Netlink,
    bridge: Link,
    req: &Request<Conf>,
    owner: &Owner,
    undo: &mut Undo<'_>,
) -> Result<(Link, Veth), Error> {
    let conf = req.conf();
    let wanted = VethConf {
        pod_name: req.ifname().as_str(),
        host_names: veth::host_names(owner),
        mac: conf.mac,
        mtu: conf.mtu,
        master: Some(bridge.index),
        network: Some(&owner.network),
    };
    let veth = veth::create(host, pod, &wanted)?;
    veth::undo_create(&veth, undo);
    // Joining may have changed the address of a bridge that somebody else made.
    let bridge = link::get_by_index(host, bridge.index)?.unwrap_or(bridge);

    let port = Port { hairpin: conf.hairpin, isolated: conf.isolated };
    if port != Port::default() {
        hostnet::bridge::set_port(host, veth.host.index, &port)?;
    }
    set_vlans(host, conf, veth.host.index, conf.trunk.as_deref().unwrap_or_default())?;
    if conf.mac_spoof_check {
        let of = owner.clone();
        undo.push("remove the spoof check", move || spoof_check::remove(&of));
        spoof_check::add(owner, &veth.host.name, mac_of(&veth.pod)?)?;
    }
    link::set_port_alias(host, &veth.host, &owner.alias())?;
    link::set_up(host, veth.host.index)?;
    Ok((bridge, veth))
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
    let mut pod = veth.pod.interface();
    pod.sandbox = req.netns()?.display().to_string();
    Ok(Success { interfaces: vec![bridge.interface(), veth.host.interface(), pod], ..Success::default() })
}

fn mac_of(link: &Link) -> Result<Mac, Error> {
    link.mac.ok_or_else(|| Error::other(format!("look at {}", link.name), "it has no MAC address"))
}

/// How the pod's interface treats its IPv6 addresses, where it is given one: it tests them for duplicates only if the
/// configuration asks for it. It is a courtesy: a kernel without IPv6, or with /proc/sys read-only, still gets a working pod.
pub fn prepare_ipv6(pod: &mut Netlink, conf: &Conf, end: &Link, ips: &[IpConfig]) {
    if ips.iter().all(|ip| ip.address.is_ipv4()) {
        return;
    }
    let detect = conf.duplicate_address_detection;
    let set = |name: &str, value: &str| sysctl::set(pod, &format!("net/ipv6/conf/{}/{name}", end.name), value);
    let _ = pod.in_netns(|| {
        let _ = set("accept_dad", if detect { "1" } else { "0" });
        if detect {
            let _ = set("enhanced_dad", "1");
        }
    });
}
