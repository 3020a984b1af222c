//! The host's end: it has the gateways' addresses, and a route to each address of the pod.

use std::collections::BTreeSet;

use hostnet::link::Link;
use hostnet::route::{self, Filter, Route};
use hostnet::{Error, Netlink, addr, forwarding};
use libcni::types::Cidr;

use crate::lease::Ends;

/// `RT_SCOPE_HOST` of linux/rtnetlink.h, which the reference gives these routes.
const SCOPE_HOST: u8 = 254;

/// Gives the end its addresses and routes, and lets the node forward.
pub fn configure(host: &mut Netlink, end: &Link, ends: &[Ends]) -> Result<(), Error> {
    let _step = libcni::log::step("gateway");
    for gateway in gateways(ends) {
        addr::add(host, end.index, &gateway, true)?;
    }
    for ends in ends {
        route::add(host, &to_pod(end, ends))?;
    }
    for ipv4 in [true, false] {
        if ends.iter().any(|ends| ends.pod.is_ipv4() == ipv4) {
            forwarding::ensure(host, ipv4)?;
        }
    }
    Ok(())
}

/// Compares them.
pub fn check(host: &mut Netlink, end: &Link, ends: &[Ends]) -> Result<(), Error> {
    let doing = || format!("check the host's end {} of the pair", end.name);
    let present = addr::list(host, end.index)?;
    for gateway in gateways(ends) {
        if !present.iter().any(|address| address.cidr == gateway) {
            return Err(Error::other(doing(), format!("it lacks the gateway's address {gateway}")));
        }
    }
    let routes = route::list(host, &Filter { oif: Some(end.index), ..Filter::default() })?;
    for ends in ends {
        if !routes.iter().any(|route| route.satisfies(&to_pod(end, ends))) {
            return Err(Error::other(doing(), format!("there is no route to the pod's address {}", ends.pod.addr())));
        }
        if !forwarding::get(host, ends.pod.is_ipv4())? {
            return Err(Error::other(doing(), format!("the node does not forward for {}", ends.pod.addr())));
        }
    }
    Ok(())
}

/// Each gateway once: addresses of one subnet have the same.
fn gateways(ends: &[Ends]) -> BTreeSet<Cidr> {
    ends.iter().map(|ends| Cidr::host(ends.host)).collect()
}

fn to_pod(end: &Link, ends: &Ends) -> Route {
    let dst = Cidr::host(ends.pod.addr());
    Route { oif: Some(end.index), scope: Some(SCOPE_HOST), ..Route::to(dst) }
}
