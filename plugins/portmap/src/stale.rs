//! UDP flows that the node goes on sending to where a port led before: to nobody, or to a pod that is gone. They are forgotten,
//! so that their next packet is looked at anew. Only flows to the port, on an address of this node: what the node forwards
//! to the same port of others is not ours.

use std::collections::HashSet;
use std::net::IpAddr;

use hostnet::conntrack::{Conntrack, Filter, Flow};
use hostnet::ports::{Mapping, Protocol};
use hostnet::{Error, Netlink, addr};

/// After ADD: the flows to these ports that do not go to this pod.
///
/// # Errors
/// The kernel's refusal.
pub fn forget_others(host: &mut Netlink, mappings: &[Mapping], pods: &[IpAddr]) -> Result<(), Error> {
    let _step = libcni::log::step("conntrack");
    forget(host, mappings, pods, None)
}

/// After DEL: the flows to these ports that go to this pod, or to any where the pod's addresses are not known: the packet
/// that follows makes a new one.
///
/// # Errors
/// The kernel's refusal.
pub fn forget_own(host: &mut Netlink, mappings: &[Mapping], pods: &[IpAddr]) -> Result<(), Error> {
    let _step = libcni::log::step("conntrack");
    if pods.is_empty() {
        return forget(host, mappings, &[IpAddr::from([0; 4]), IpAddr::from([0; 16])], None);
    }
    pods.iter().try_for_each(|pod| forget(host, mappings, &[*pod], Some(*pod)))
}

/// One look for each IP version among `pods`.
fn forget(host: &mut Netlink, mappings: &[Mapping], pods: &[IpAddr], only: Option<IpAddr>) -> Result<(), Error> {
    let udp: Vec<&Mapping> = mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp).collect();
    let [first, rest @ ..] = udp.as_slice() else { return Ok(()) };
    let one_port = rest.iter().all(|mapping| mapping.host_port == first.host_port);
    let mut conntrack = Conntrack::open()?;
    let mut locals = None;
    for pod in pods {
        let filter = Filter {
            ipv4: pod.is_ipv4(),
            protocol: Protocol::Udp,
            port: one_port.then(|| first.host_port.get()),
            answers_from: only,
        };
        for flow in conntrack.list(&filter)? {
            let right_already = only.is_none() && flow.answers_from == *pod;
            if right_already || !udp.iter().any(|mapping| is_to(&flow, mapping)) {
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
    }
    Ok(())
}

fn is_to(flow: &Flow, mapping: &Mapping) -> bool {
    let on =
        mapping.host_ip.is_none_or(|ip| ip.is_ipv4() == flow.to.is_ipv4() && (ip.is_unspecified() || ip == flow.to));
    flow.port == mapping.host_port.get() && on
}

/// The node's own addresses.
fn addresses(host: &mut Netlink) -> Result<HashSet<IpAddr>, Error> {
    // No link has the index 0.
    Ok(addr::list_of_others(host, 0)?.iter().map(|address| address.cidr.addr()).collect())
}
