//! The host's end of the pod's veth.

use hostnet::link::{self, Link};
use hostnet::{Netlink, Owner, veth};
use libcni::plugin::Request;
use libcni::types::IfName;
use libcni::{Error, Success};

use crate::conf::Conf;

/// The host's end, which the plugin before must have named.
///
/// # Errors
/// The pod's interface is not there or no veth, or its other end is not on the host or not in the result.
pub fn get(host: &mut Netlink, pod: &mut Netlink, ifname: &IfName, result: &Success) -> Result<Link, Error> {
    if result.interfaces.is_empty() {
        return Err(Error::internal("no interfaces provided in prevResult"));
    }
    let ifname = ifname.as_str();
    let inside = link::get(pod, ifname)?
        .ok_or_else(|| Error::internal(format!("could not look up {ifname:?}: Link not found in {}", pod.netns())))?;
    let Some(index) = inside.parent.filter(|_| inside.is_kind("veth")) else {
        let kind = inside.kind.as_deref().unwrap_or("no veth");
        let why = format!("interface {ifname:?} was not a veth interface, but {kind}");
        return Err(Error::internal(format!("container interface {ifname} has no veth peer: {why}")));
    };
    let end = veth::host_end(host, &inside)?
        .ok_or_else(|| Error::internal(format!("veth peer with index {index} of {ifname} is not in host ns")))?;
    if result.interfaces.iter().any(|listed| listed.sandbox.is_empty() && listed.name == end.name) {
        return Ok(end);
    }
    let why = format!("{} is not in prevResult", end.name);
    Err(Error::internal(format!("no veth peer of container interface found in host ns: {why}")))
}

/// The same on DEL: `None` where namespace or interface are gone, or it is no veth, or another attachment's.
///
/// # Errors
/// `CNI_NETNS` is something else than a namespace; the kernel's refusal.
pub fn find(host: &mut Netlink, req: &Request<Conf>) -> Result<Option<Link>, Error> {
    let Some(mut pod) = Netlink::open_if_any(req.netns_if_any())? else { return Ok(None) };
    match link::get(&mut pod, req.ifname().as_str())? {
        Some(inside) => {
            let end = veth::host_end(host, &inside)?;
            Ok(end.filter(|end| !veth::is_anothers(end, &Owner::of(req))))
        }
        None => Ok(None),
    }
}
