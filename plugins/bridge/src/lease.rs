//! What the IPAM plugin gave, completed by what bridge knows: which interface has the addresses, and where
//! the gateway is.

use std::net::IpAddr;

use libcni::types::{Cidr, Route, Success};

use crate::conf::Conf;
use crate::port;

/// Takes the lease over into the result: addresses on the pod's interface, gateways, the default routes.
pub fn complete(conf: &Conf, lease: Success, result: &mut Success) {
    result.ips = lease.ips;
    result.routes = lease.routes;
    result.dns = lease.dns;
    for ip in &mut result.ips {
        ip.interface = i64::try_from(port::POD).ok();
        if conf.gateway && ip.gateway.is_none() {
            ip.gateway = Some(first_address(&ip.address));
        }
    }
    if conf.default_gateway {
        for ipv4 in [true, false] {
            add_default_route(result, ipv4);
        }
    }
}

/// A default route by the first gateway of the family, unless there is one: a route without a next hop of its
/// own gets the same gateway (the reference adds a second one, which the kernel then refuses: its defect 3).
fn add_default_route(result: &mut Success, ipv4: bool) {
    let gateway = result.ips.iter().find(|ip| ip.address.is_ipv4() == ipv4).and_then(|ip| ip.gateway);
    let Some(gateway) = gateway else { return };
    let dst = Cidr::default_of(gateway);
    if !result.routes.iter().any(|route| route.dst == dst && route.table.is_none()) {
        result.routes.push(Route::new(dst, Some(gateway)));
    }
}

/// The address a gateway has where IPAM names none: the first of the subnet.
fn first_address(subnet: &Cidr) -> IpAddr {
    match subnet.network().addr() {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_add(1).into()),
    }
}

/// The gateways with the prefix of their subnet, as they stand on the bridge.
pub fn gateways(result: &Success) -> Vec<Cidr> {
    let gateway = |ip: &libcni::types::IpConfig| Cidr::new(ip.gateway?, ip.address.prefix_len());
    result.ips.iter().filter_map(gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_addresses() {
        for (subnet, first) in [("10.1.2.7/24", "10.1.2.1"), ("fd00::7/64", "fd00::1"), ("10.1.0.0/16", "10.1.0.1")] {
            assert_eq!(first_address(&subnet.parse().unwrap()).to_string(), first);
        }
    }
}
