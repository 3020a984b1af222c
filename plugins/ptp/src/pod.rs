//! The pod's end. Nobody is on its link but the node: everything, the pod's own subnet too, is reached by the gateway.

use hostnet::link::Link;
use hostnet::route::{self, Filter, Route, SCOPE_LINK};
use hostnet::{Error, Netlink, endpoint};
use libcni::types::{Cidr, Success};

use crate::lease::Ends;
use crate::pair;

/// `RTPROT_KERNEL` of linux/rtnetlink.h: the routes that an address brings with it.
const BY_KERNEL: u8 = 2;

/// Gives the end its addresses, sets it up, and adds the ways to the gateways before the routes that need them.
pub fn configure(pod: &mut Netlink, link: &Link, ends: &[Ends], result: &Success) -> Result<(), Error> {
    // Nobody else is on the link to have the addresses: there is no need to ask.
    let no_dad = endpoint::Options { dad: false };
    endpoint::configure_addresses(pod, link, pair::POD, &result.ips, no_dad)?;
    for ends in ends {
        // The kernel's route to the subnet says that it is on the link. /32 and /128 bring none.
        let on_link = Route { oif: Some(link.index), protocol: Some(BY_KERNEL), ..Route::to(ends.pod) };
        if !ends.pod.is_host() {
            route::remove(pod, &on_link)?;
        }
    }
    for route in routes(link, ends) {
        route::add(pod, &route)?;
    }
    endpoint::configure_routes(pod, link, pair::POD, &result.ips, &result.routes)
}

/// Compares the ways to the gateways; addresses and the other routes are compared as in every plugin.
pub fn check(pod: &mut Netlink, link: &Link, ends: &[Ends]) -> Result<(), Error> {
    let present = route::list(pod, &Filter { oif: Some(link.index), ..Filter::default() })?;
    match routes(link, ends).into_iter().find(|wanted| !present.iter().any(|route| route.satisfies(wanted))) {
        Some(missing) => {
            Err(Error::other(format!("check the routes of {}", link.name), format!("there is no route {missing}")))
        }
        None => Ok(()),
    }
}

/// A route to each gateway on the link, and one to each subnet by it: once, also where two addresses share them.
fn routes(link: &Link, ends: &[Ends]) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let mut add = |route: Route| {
        if !routes.iter().any(|present| present.dst == route.dst) {
            routes.push(route);
        }
    };
    for Ends { pod, host } in ends {
        let from_pod = |dst: Cidr| Route { src: Some(pod.addr()), oif: Some(link.index), ..Route::to(dst) };
        add(Route { scope: Some(SCOPE_LINK), ..from_pod(Cidr::host(*host)) });
        if !pod.is_host() {
            add(Route { gw: Some(*host), ..from_pod(pod.network()) });
        }
    }
    routes.sort_by_key(|route| route.gw.is_some());
    routes
}
