//! Routes.

use std::fmt;
use std::net::IpAddr;

use libcni::types::Cidr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Result;
use crate::link;
use crate::netlink::Netlink;

/// The main table.
pub const TABLE_MAIN: u32 = 254;
/// `RT_SCOPE_UNIVERSE`, `RT_SCOPE_LINK` and `RT_SCOPE_NOWHERE` of linux/rtnetlink.h.
const SCOPE_UNIVERSE: u8 = 0;
/// Destinations on the link itself.
pub const SCOPE_LINK: u8 = 253;
const SCOPE_NOWHERE: u8 = 255;

/// A unicast route. What is `None` is left to the kernel when a route is added, and not compared when one
/// is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; host bits are ignored.
    pub dst: Cidr,
    /// Next hop; `None` where the destination is on the link. One of IPv6 may serve an IPv4 destination.
    pub gw: Option<IpAddr>,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// Index of the link.
    pub oif: Option<u32>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// Advertised TCP segment size in bytes.
    pub advmss: Option<u32>,
    /// Metric; lower wins. 0 is the kernel's default (0 for IPv4, 1024 for IPv6).
    pub priority: Option<u32>,
    /// Table; `None` and 0 are the main one.
    pub table: Option<u32>,
    /// Scope of an IPv4 route: 0 universe, 200 site, 253 link, 254 host. `None` is link without a next hop and universe
    /// with one, as `ip route` has it.
    pub scope: Option<u8>,
    /// Who made it, as in linux/rtnetlink.h; `None` is boot (3), as the reference's are.
    pub protocol: Option<u8>,
}

/// Which routes to list. What is `None` does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// The table; 254 is the main one.
    pub table: Option<u32>,
    /// The index of the link.
    pub oif: Option<u32>,
    /// The destination, exactly.
    pub dst: Option<Cidr>,
}

impl Route {
    /// A route to `dst` of which nothing else is said.
    pub fn to(dst: Cidr) -> Self {
        Self {
            dst: dst.network(),
            gw: None,
            src: None,
            oif: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
            protocol: None,
        }
    }

    /// Whether this route, as the kernel has it, is what `wanted` asks for.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        fn same<T: PartialEq>(wanted: Option<T>, have: Option<T>) -> bool {
            wanted.is_none() || wanted == have
        }
        self.dst.network() == wanted.dst.network()
            && self.gw == wanted.gw
            && self.table() == wanted.table()
            && same(wanted.oif, self.oif)
            && same(wanted.src, self.src)
            && same(wanted.mtu, self.mtu)
            && same(wanted.advmss, self.advmss)
            && same(wanted.priority.filter(|priority| *priority > 0), self.priority)
            && (!self.dst.is_ipv4() || same(wanted.scope, self.scope))
    }

    /// The table, spelled out.
    pub fn table(&self) -> u32 {
        self.table.filter(|table| *table > 0).unwrap_or(TABLE_MAIN)
    }

    /// In the words of `ip route`, with the link by this name.
    fn words(&self, dev: Option<&str>) -> String {
        let mut words = if self.dst.is_default() { "default".to_owned() } else { self.dst.to_string() };
        let mut word = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.push_str(&format!(" {name} {value}"));
            }
        };
        word("via", self.gw.map(|gw| gw.to_string()));
        word("dev", dev.map(str::to_owned).or_else(|| self.oif.map(|index| format!("number {index}"))));
        word("table", self.table.map(|table| table.to_string()));
        word("scope", self.scope.map(|scope| scope.to_string()));
        word("src", self.src.map(|src| src.to_string()));
        word("metric", self.priority.map(|priority| priority.to_string()));
        word("mtu", self.mtu.map(|mtu| mtu.to_string()));
        word("advmss", self.advmss.map(|advmss| advmss.to_string()));
        words
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let dst = self.dst.network();
        message.header.address_family = family(&dst);
        message.header.destination_prefix_length = dst.prefix_len();
        if !dst.is_default() {
            message.attributes.push(RouteAttribute::Destination(dst.addr().into()));
        }
        match u8::try_from(self.table()) {
            Ok(table) => message.header.table = table,
            Err(_) => message.attributes.push(RouteAttribute::Table(self.table())),
        }
        message.attributes.extend(self.gw.map(|gw| match gw {
            IpAddr::V6(gw) if dst.is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(gw)),
            gw => RouteAttribute::Gateway(gw.into()),
        }));
        message.attributes.extend(self.src.map(|src| RouteAttribute::PrefSource(src.into())));
        message.attributes.extend(self.oif.map(RouteAttribute::Oif));
        message.attributes.extend(self.priority.filter(|priority| *priority > 0).map(RouteAttribute::Priority));
        let metrics: Vec<_> =
            [self.mtu.map(RouteMetric::Mtu), self.advmss.map(RouteMetric::Advmss)].into_iter().flatten().collect();
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        message
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words(None))
    }
}

/// The route in the words of `ip route`, with the name of its link.
pub(crate) fn describe(nl: &mut Netlink, route: &Route) -> String {
    let link = route.oif.and_then(|index| link::get_by_index(nl, index).ok().flatten());
    route.words(link.as_ref().map(|link| link.name.as_str()))
}

/// Adds a route. The very same route being there already is fine (the reference fails with `file exists` when the
/// default route comes both from `isDefaultGateway` and from IPAM).
///
/// # Errors
/// The kernel's refusal.
pub fn add(nl: &mut Netlink, route: &Route) -> Result<()> {
    match program(nl, route, NLM_F_CREATE, "add") {
        Err(error) if error.is_exists() => {
            let filter = Filter { table: Some(route.table()), oif: route.oif, dst: Some(route.dst) };
            let equal = list(nl, &filter)?.iter().any(|present| present.satisfies(route));
            if equal { Ok(()) } else { Err(error) }
        }
        result => result,
    }
}

/// Adds a route in the place of the one that has the same destination, table and metric, if there is one.
///
/// # Errors
/// The kernel's refusal.
pub fn replace(nl: &mut Netlink, route: &Route) -> Result<()> {
    program(nl, route, NLM_F_CREATE | NLM_F_REPLACE, "replace")
}

fn program(nl: &mut Netlink, route: &Route, flags: u16, doing: &str) -> Result<()> {
    let mut message = route.message();
    // A next hop is looked for among routes of a narrower scope: one that is on the link must say so.
    let scope =
        route.scope.unwrap_or(if route.gw.is_none() && route.dst.is_ipv4() { SCOPE_LINK } else { SCOPE_UNIVERSE });
    message.header.scope = RouteScope::from(scope);
    message.header.kind = RouteType::Unicast;
    message.header.protocol = route.protocol.map_or(RouteProtocol::Boot, RouteProtocol::from);
    let result = nl.socket.request(RouteNetlinkMessage::NewRoute(message), flags);
    result.map_err(|failure| failure.doing(format!("{doing} route {} in {}", describe(nl, route), nl.netns())))
}

/// Removes a route that is as `route` says. Whether there was one.
///
/// # Errors
/// The kernel's refusal.
pub fn remove(nl: &mut Netlink, route: &Route) -> Result<bool> {
    let mut message = route.message();
    message.header.scope = RouteScope::from(route.scope.unwrap_or(SCOPE_NOWHERE)); // any
    message.header.protocol = route.protocol.map_or(RouteProtocol::Unspec, RouteProtocol::from);
    let result = nl.socket.request(RouteNetlinkMessage::DelRoute(message), 0);
    match result.map_err(|failure| failure.doing(format!("remove route {} in {}", describe(nl, route), nl.netns()))) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The index of the link by which this node sends packets to `addr`; `None` where it has no route.
///
/// # Errors
/// The kernel's refusal.
pub fn link_towards(nl: &mut Netlink, addr: IpAddr) -> Result<Option<u32>> {
    let mut request = RouteMessage::default();
    let dst = Cidr::host(addr);
    request.header.address_family = family(&dst);
    request.header.destination_prefix_length = dst.prefix_len();
    request.attributes.push(RouteAttribute::Destination(addr.into()));
    match nl.socket.get(RouteNetlinkMessage::GetRoute(request)) {
        Ok(RouteNetlinkMessage::NewRoute(answer)) => {
            Ok(answer.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            }))
        }
        Ok(_) => Ok(None),
        Err(failure) if matches!(failure.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => Ok(None),
        Err(failure) => Err(failure.doing(format!("look up the route to {addr} in {}", nl.netns()))),
    }
}

/// The unicast routes that match the filter, of both families where it names no destination. A route with
/// several next hops is as many routes here.
///
/// # Errors
/// The kernel's refusal, or a list that never held still.
pub fn list(nl: &mut Netlink, filter: &Filter) -> Result<Vec<Route>> {
    let families = match &filter.dst {
        Some(dst) => vec![family(dst)],
        None => vec![AddressFamily::Inet, AddressFamily::Inet6],
    };
    let mut routes = Vec::new();
    for family in families {
        routes.extend(dump(nl, filter, family)?.iter().flat_map(read));
    }
    // Kernels without strict checking (before 4.20) answer with all routes; none filters by destination.
    routes.retain(|route| {
        filter.table.is_none_or(|table| route.table() == table)
            && filter.oif.is_none_or(|oif| route.oif == Some(oif))
            && filter.dst.is_none_or(|dst| route.dst == dst.network())
    });
    Ok(routes)
}

fn dump(nl: &mut Netlink, filter: &Filter, family: AddressFamily) -> Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.attributes.extend(filter.table.map(RouteAttribute::Table));
    request.attributes.extend(filter.oif.map(RouteAttribute::Oif));
    let answers = nl.socket.dump(RouteNetlinkMessage::GetRoute(request));
    match answers.map_err(|failure| failure.doing(format!("list routes in {}", nl.netns()))) {
        Ok(answers) => Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                // Without IPv6 in the kernel its routes are answered by the others.
                RouteNetlinkMessage::NewRoute(route) if route.header.address_family == family => Some(route),
                _ => None,
            })
            .collect()),
        // A table, or a link, that is not there has no routes.
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return Vec::new();
    }
    let Some(mut route) = skeleton(header) else { return Vec::new() };
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => {
                match addr_of(addr).and_then(|addr| Cidr::new(addr, header.destination_prefix_length)) {
                    Some(dst) => route.dst = dst,
                    None => return Vec::new(),
                }
            }
            RouteAttribute::PrefSource(addr) => route.src = addr_of(addr),
            RouteAttribute::Oif(index) => route.oif = Some(*index),
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
            RouteAttribute::Table(table) => route.table = Some(*table),
            RouteAttribute::Metrics(metrics) => read_metrics(&mut route, metrics),
            RouteAttribute::MultiPath(next_hops) => hops.extend(next_hops),
            other => route.gw = gateway(other).or(route.gw),
        }
    }
    if hops.is_empty() {
        return vec![route];
    }
    let with_hop = |hop: &&netlink_packet_route::route::RouteNextHop| Route {
        gw: hop.attributes.iter().find_map(gateway),
        oif: Some(hop.interface_index),
        ..route.clone()
    };
    hops.iter().map(with_hop).collect()
}

fn skeleton(header: &RouteHeader) -> Option<Route> {
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some(Route {
        table: Some(header.table.into()),
        scope: Some(header.scope.into()),
        protocol: Some(header.protocol.into()),
        ..Route::to(Cidr::default_of(unspecified))
    })
}

fn read_metrics(route: &mut Route, metrics: &[RouteMetric]) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
            RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
            _ => {}
        }
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(addr) => addr_of(addr),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    }
}

fn addr_of(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

fn family(cidr: &Cidr) -> AddressFamily {
    if cidr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
