//! What every main plugin does to the pod's interface once IPAM has answered: [`configure`] on ADD, [`check`] on CHECK.
//!
//! As the reference does it (its ConfigureIface and ValidateExpected…), with its defects mended: mtu and advmss of a route are
//! programmed, a route of scope link does not inherit the gateway, host bits in a destination do not matter, a
//! route that is there already is fine, and /32 addresses and routes in other tables pass CHECK.

use std::net::IpAddr;
use std::time::Duration;

use libcni::types::{Cidr, IpConfig, Route as ResultRoute};

use crate::error::{Error, Result};
use crate::link::Link;
use crate::netlink::Netlink;
use crate::route::{Filter, Route, SCOPE_LINK};
use crate::{addr, link, route, sysctl};

/// Longest wait for duplicate address detection; it takes one to three seconds.
const DAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How an interface is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether to ask the neighbours if they have an IPv6 address, and to wait for the silence that means no. Not
    /// needed where IPAM has just given it to this pod alone.
    pub dad: bool,
}

/// Gives `link` its addresses and routes, and sets it up. `interface` is its index in the result. Addresses that name no
/// interface are not this one's; one that names another is a mistake of whoever made the result, as for the reference.
///
/// # Errors
/// An address of another interface, before anything is done. What could not be done; what was done before that stays.
pub fn configure(
    pod: &mut Netlink,
    link: &Link,
    interface: usize,
    ips: &[IpConfig],
    routes: &[ResultRoute],
    options: Options,
) -> Result<()> {
    configure_addresses(pod, link, interface, ips, options)?;
    configure_routes(pod, link, interface, ips, routes)
}

/// The first half of [`configure`], for a plugin that has routes of its own between the two: addresses, and up.
///
/// # Errors
/// As there.
pub fn configure_addresses(
    pod: &mut Netlink,
    link: &Link,
    interface: usize,
    ips: &[IpConfig],
    options: Options,
) -> Result<()> {
    let is_anothers = |ip: &&IpConfig| ip.interface.is_some_and(|index| usize::try_from(index) != Ok(interface));
    if let Some(ip) = ips.iter().find(is_anothers) {
        let doing = format!("failed to add IP addr {} to {:?}", ip.address, link.name);
        return Err(Error::other(doing, "invalid interface index"));
    }
    let ips = own(interface, ips);
    let _step = libcni::log::step("addresses");
    let v6 = ips.iter().any(|ip| !ip.address.is_ipv4());
    if v6 {
        enable_ipv6(pod, &link.name)?;
    }
    for ip in &ips {
        addr::add(pod, link.index, &ip.address, !options.dad)?;
    }
    if !link.up {
        link::set_up(pod, link.index)?;
    }
    if v6 && options.dad {
        addr::wait_dad(pod, link.index, DAD_TIMEOUT)?;
    }
    Ok(())
}

/// The second half: the routes of the result, by the gateways of the pod's addresses.
///
/// # Errors
/// As there.
pub fn configure_routes(
    pod: &mut Netlink,
    link: &Link,
    interface: usize,
    ips: &[IpConfig],
    routes: &[ResultRoute],
) -> Result<()> {
    let _step = libcni::log::step("routes");
    let gateways = Gateways::of(&own(interface, ips));
    for wanted in routes {
        route::add(pod, &programmed(wanted, &gateways, link.index))?;
    }
    Ok(())
}

/// The addresses that are this interface's.
fn own(interface: usize, ips: &[IpConfig]) -> Vec<&IpConfig> {
    let ours = |ip: &&IpConfig| ip.interface.is_some_and(|index| usize::try_from(index) == Ok(interface));
    ips.iter().filter(ours).collect()
}

/// Before the first IPv6 address: the runtime may have switched IPv6 off, and the kernel forgets the addresses of a link
/// that goes down.
fn enable_ipv6(pod: &Netlink, ifname: &str) -> Result<()> {
    // One visit for all of them.
    pod.in_netns(|| {
        for name in ["lo", ifname] {
            let key = format!("net/ipv6/conf/{name}/disable_ipv6");
            match sysctl::set(pod, &key, "0") {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {} // whether there is IPv6 at all, the next step says
            }
        }
        sysctl::set(pod, &format!("net/ipv6/conf/{ifname}/keep_addr_on_down"), "1")
    })?
}

/// The next hops that routes without one inherit: the first of each family.
#[derive(Clone, Copy, Default)]
struct Gateways {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Gateways {
    fn of(ips: &[&IpConfig]) -> Self {
        let first = |v4: bool| ips.iter().filter_map(|ip| ip.gateway).find(|gateway| gateway.is_ipv4() == v4);
        Self { v4: first(true), v6: first(false) }
    }

    fn toward(self, dst: &Cidr) -> Option<IpAddr> {
        if dst.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// The route that is programmed for a route of the result.
fn programmed(wanted: &ResultRoute, gateways: &Gateways, oif: u32) -> Route {
    let on_link = wanted.scope.is_some_and(|scope| scope >= SCOPE_LINK);
    let inherited = if on_link { None } else { gateways.toward(&wanted.dst) };
    Route {
        gw: wanted.gw.or(inherited),
        oif: Some(oif),
        mtu: wanted.mtu,
        advmss: wanted.advmss,
        priority: wanted.priority,
        table: wanted.table,
        scope: wanted.scope,
        ..Route::to(wanted.dst)
    }
}

/// Whether `ifname` has these addresses and routes. Nothing is changed.
///
/// Accepts what the reference's ADD left: routes without the mtu and advmss that it does not program, and default
/// routes by any next hop and link, which chained plugins move.
///
/// # Errors
/// What is missing, and what is there instead.
pub fn check(pod: &mut Netlink, ifname: &str, ips: &[IpConfig], routes: &[ResultRoute]) -> Result<()> {
    let link = link::get(pod, ifname)?;
    let link =
        link.ok_or_else(|| Error::os(format!("Cannot find container link {ifname} in {}", pod.netns()), libc::ENODEV))?;
    let on_link = route::list(pod, &Filter { oif: Some(link.index), ..Filter::default() })?;
    check_addresses(pod, &link, ips, &on_link)?;
    let gateways = Gateways::of(&ips.iter().collect::<Vec<_>>());
    for wanted in routes {
        let expected = programmed(wanted, &gateways, link.index);
        let found = if expected.dst.is_default() {
            let table = wanted.table.map(|_| expected.table());
            !route::list(pod, &Filter { table, oif: None, dst: Some(expected.dst) })?.is_empty()
        } else {
            on_link.iter().any(|present| stands_for(present, &expected, wanted.table.is_none()))
        };
        if !found {
            let what = format!("Expected Route {{{}}} not found in routing table", route::describe(pod, &expected));
            return Err(Error::other(
                what,
                listing("its routes there", on_link.iter().filter(|present| present.dst == expected.dst)),
            ));
        }
    }
    Ok(())
}

/// Whether a route of the link is the expected one. `anywhere`: no table was asked for, and a chained plugin (sbr, vrf)
/// may have moved it out of the main one.
fn stands_for(present: &Route, expected: &Route, anywhere: bool) -> bool {
    let mut expected = expected.clone();
    if anywhere {
        expected.table = present.table;
    }
    if present.mtu.is_none() && present.advmss.is_none() {
        (expected.mtu, expected.advmss) = (None, None);
    }
    present.satisfies(&expected)
}

fn check_addresses(pod: &mut Netlink, link: &Link, ips: &[IpConfig], on_link: &[Route]) -> Result<()> {
    let present = addr::list(pod, link.index)?;
    for ip in ips {
        if !present.iter().any(|address| address.cidr == ip.address) {
            let what = format!("Failed to match addr {} on interface {}", ip.address, link.name);
            return Err(Error::other(what, listing("it has", present.iter().map(|address| address.cidr))));
        }
        // A host address brings no route of its own.
        let Some(gateway) = ip.gateway.filter(|_| !ip.address.is_host()) else { continue };
        let subnet = ip.address.network();
        if !on_link.iter().any(|route| route.dst == subnet) {
            let what = format!("Failed to find Gateway {gateway} for interface {}", link.name);
            return Err(Error::other(what, format!("there is no route to its subnet {subnet}")));
        }
    }
    Ok(())
}

fn listing<T: ToString>(what: &str, items: impl Iterator<Item = T>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    format!("{what}: {}", if items.is_empty() { "none".to_owned() } else { items.join(", ") })
}
