//! UDP flows that the node goes on sending to where a port led before: to nobody, or to a pod that is gone. They are forgotten,
//! so that their next packet is looked at anew. Only flows to the port, on an address of this node: what the node forwards
//! to the same port of others is not ours.

use std::collections::HashSet;
use std::net::IpAddr;

use hostnet::conntrack::{Conntrack, Filter, Flow};
use hostnet::ports::{Mapping, Ports, Protocol};
use hostnet::{Error, Netlink, addr};

/// After ADD: the flows to these ports that do not go to this pod.
///
/// # Errors
/// The kernel's refusal.
pub fn forget_others(host: &mut Netlink, mappings: &[Mapping], pods: &[IpAddr]) -> Result<(), Error> {
    let _step = libcni::log::step("conntrack");
    pods.iter().try_for_each(|pod| forget(host, mappings, pod.is_ipv4(), None, &|flow| flow.answers_from != *pod))
}

/// After DEL: the flows to these ports that go to this pod, or to any where the pod's addresses are not known: the packet
/// that follows makes a new one.
///
/// # Errors
/// The kernel's refusal.
pub fn forget_own(host: &mut Netlink, mappings: &[Mapping], pods: &[IpAddr]) -> Result<(), Error> {
    let _step = libcni::log::step("conntrack");
    for ipv4 in [true, false] {
        let own: HashSet<IpAddr> = pods.iter().filter(|pod| pod.is_ipv4() == ipv4).copied().collect();
        if own.is_empty() && !pods.is_empty() {
            continue;
        }
        // One look, however many addresses there are; the kernel can be asked for one.
        let only = own.iter().next().copied().filter(|_| own.len() == 1);
        forget(host, mappings, ipv4, only, &|flow| pods.is_empty() || own.contains(&flow.answers_from))?;
    }
    Ok(())
}

/// The flows of one IP version that are to the node, to one of these ports, and `is_stale`; `only` those that this address
/// answers.
fn forget(
    host: &mut Netlink,
    mappings: &[Mapping],
    ipv4: bool,
    only: Option<IpAddr>,
    is_stale: &dyn Fn(&Flow) -> bool,
) -> Result<(), Error> {
    let udp: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp).collect();
    let [first, rest @ ..] = udp.as_slice() else { return Ok(()) };
    let one_port = rest.iter().all(|mapping| mapping.host_port == first.host_port);
    let ports = Ports::of(udp.iter().copied());
    let mut conntrack = Conntrack::open()?;
    let mut locals = None;
    let port = one_port.then(|| first.host_port.get());
    for flow in conntrack.list(&Filter { ipv4, protocol: Protocol::Udp, port, answers_from: only })? {
        if !is_stale(&flow) || !ports.on(flow.port).iter().any(|mapping| is_to(&flow, mapping)) {
            continue;
        }
        let locals = match &mut locals {
            Some(locals) => locals,
            unknown => unknown.insert(addresses(host)?),
        };
        if flow.to.is_loopback() || locals.contains(&flow.to) {
            conntrack.remove(&flow)?;
        }
    }
    Ok(())
}

/// Whether the mapping, which is on the flow's port, is on its address.
fn is_to(flow: &Flow, mapping: &Mapping) -> bool {
    mapping.host_ip.is_none_or(|ip| ip.is_ipv4() == flow.to.is_ipv4() && (ip.is_unspecified() || ip == flow.to))
}

/// The node's own addresses.
fn addresses(host: &mut Netlink) -> Result<HashSet<IpAddr>, Error> {
    // No link has the index 0.
    Ok(addr::list_of_others(host, 0)?.iter().map(|address| address.cidr.addr()).collect())
}
