//! Whether the next ADD would find what it needs: what is on the node is looked at, what the kernel and the programs can
//! is tried where it is gone soon.

use hostnet::veth::{self, VethConf};
use hostnet::{Error, Netlink, Owner, Result, bridge, ipam, link, spoof_check, trial};
use libcni::Code;
use libcni::plugin::Network;

use crate::bridge::wanted;
use crate::conf::Conf;
use crate::port;

pub fn status(network: &Network<Conf>) -> std::result::Result<(), libcni::Error> {
    look_at_bridge(network.conf())?;
    trial::run(network, |nl, owner| try_out(network, nl, owner))
}

/// Whether an ADD could use what has the bridge's name, if something has.
fn look_at_bridge(conf: &Conf) -> std::result::Result<(), libcni::Error> {
    let refuse = |msg: String| Err(libcni::Error::new(Code::NOT_AVAILABLE, msg));
    match link::get(&mut Netlink::open()?, conf.bridge.as_str())? {
        Some(found) if !found.is_kind("bridge") => {
            refuse(format!("{:?} already exists but is not a bridge", found.name))
        }
        Some(found) if conf.vlan_filtering() && found.vlan_filtering != Some(true) => {
            refuse(format!("{:?} already exists and does not filter by VLAN", found.name))
        }
        _ => Ok(()),
    }
}

/// Makes what ADD makes in the kernel, but for addresses and routes, which every kernel has. Both ends of the pair are in
/// the one namespace.
fn try_out(network: &Network<Conf>, nl: &mut Netlink, owner: &Owner) -> Result<()> {
    let conf = network.conf();
    let (bridge, _) = bridge::ensure(nl, &wanted(conf))?;
    let pair = VethConf {
        pod_name: owner.ifname.as_str(),
        host_names: veth::host_names(owner),
        mac: conf.mac,
        mtu: conf.mtu,
        master: Some(bridge.index),
    };
    let veth = veth::create(nl, &mut Netlink::open()?, &pair)?;
    port::set_vlans(nl, conf, veth.host.index, conf.trunk.as_deref().unwrap_or_default())?;
    if conf.mac_spoof_check {
        let mac = veth.pod.mac.ok_or_else(|| Error::other("look at the pair", "it has no MAC address"))?;
        spoof_check::add(owner, &veth.host.name, mac)?;
    }
    conf.egress.try_out(owner, &ipam::samples(network))
}
