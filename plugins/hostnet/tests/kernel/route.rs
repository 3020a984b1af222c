//! Routes, read back by the rtnetlink crate and `ip -j`.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use hostnet::route::{self, Filter, Route, TABLE_MAIN};
use hostnet::{Netlink, addr, link};
use libcni::types::Cidr;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteMetric};

use crate::lab::{json, run, with_pod};

/// `eth0` with 10.1.2.2/24 and 2001:db8::2/64, up.
fn eth0(pod: &mut Netlink) -> u32 {
    run(pod, "ip link add eth0 type veth peer name eth1");
    run(pod, "ip link set eth1 up");
    let index = link::get(pod, "eth0").unwrap().unwrap().index;
    for cidr in ["10.1.2.2/24", "2001:db8::2/64"] {
        addr::add(pod, index, &cidr.parse().unwrap(), true).unwrap();
    }
    link::set_up(pod, index).unwrap();
    index
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// The routes as the rtnetlink crate reads them.
fn oracle(nl: &Netlink, v6: bool) -> Vec<RouteMessage> {
    nl.in_netns(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let builder = rtnetlink::RouteMessageBuilder::<IpAddr>::new();
            let mut message = builder.build();
            message.header.address_family =
                if v6 { netlink_packet_route::AddressFamily::Inet6 } else { netlink_packet_route::AddressFamily::Inet };
            handle.route().get(message).execute().try_collect().await.unwrap()
        })
    })
    .unwrap()
}

#[test]
fn everything_that_is_asked_for_is_programmed() {
    with_pod(|_, pod| {
        let index = eth0(pod);
        let oif = Some(index);
        for (dst, gw, src) in
            [("10.9.0.0/16", "10.1.2.1", "10.1.2.2"), ("2001:db8:9::/48", "2001:db8::1", "2001:db8::2")]
        {
            let wanted = Route {
                gw: ip(gw),
                src: ip(src),
                oif,
                mtu: Some(1400),
                advmss: Some(1340),
                priority: Some(77),
                table: Some(5000),
                scope: Some(0),
                protocol: Some(4),
                ..Route::to(cidr(dst))
            };
            route::add(pod, &wanted).unwrap();
            let found = oracle(pod, dst.contains(':'));
            let found: Vec<_> =
                found.iter().filter(|route| route.attributes.contains(&RouteAttribute::Table(5000))).collect();
            let [found] = found.as_slice() else { panic!("{found:?}") };
            let attributes = &found.attributes;
            for expected in [
                RouteAttribute::Destination(cidr(dst).addr().into()),
                RouteAttribute::Gateway(ip(gw).unwrap().into()),
                RouteAttribute::PrefSource(ip(src).unwrap().into()),
                RouteAttribute::Oif(index),
                RouteAttribute::Priority(77),
            ] {
                assert!(attributes.contains(&expected), "{expected:?} in {attributes:?}");
            }
            let metrics = attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Metrics(metrics) => Some(metrics),
                _ => None,
            });
            let metrics = metrics.unwrap();
            assert!(metrics.contains(&RouteMetric::Mtu(1400)) && metrics.contains(&RouteMetric::Advmss(1340)));
            assert_eq!(u8::from(found.header.protocol), 4);

            let filter = Filter { table: Some(5000), oif, dst: Some(wanted.dst) };
            assert_eq!(route::list(pod, &filter).unwrap(), std::slice::from_ref(&wanted));
            let error = route::add(
                pod,
                &Route {
                    gw: ip("192.0.2.1").filter(|_| wanted.dst.is_ipv4()).or(ip("2001:db8:ffff::1")),
                    ..wanted.clone()
                },
            );
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains(&format!("add route {dst} via ")) && error.contains("dev eth0 table 5000"),
                "{error}"
            );
            assert!(route::remove(pod, &wanted).unwrap() && !route::remove(pod, &wanted).unwrap());
            assert_eq!(route::list(pod, &filter).unwrap(), []);
        }
        assert_eq!(route::list(pod, &Filter { table: Some(4999), ..Filter::default() }).unwrap(), []);
    });
}

/// DESIGN.md, trap 8: the reference fails with "file exists".
#[test]
fn the_same_route_twice() {
    with_pod(|_, pod| {
        let oif = Some(eth0(pod));
        for (dst, gw) in [("0.0.0.0/0", "10.1.2.1"), ("::/0", "2001:db8::1"), ("10.9.0.0/16", "10.1.2.1")] {
            let wanted = Route { gw: ip(gw), oif, ..Route::to(cidr(dst)) };
            for _ in 0..3 {
                route::add(pod, &wanted).unwrap();
            }
            let filter = Filter { table: Some(TABLE_MAIN), oif, dst: Some(wanted.dst) };
            assert_eq!(route::list(pod, &filter).unwrap().len(), 1);
        }
        // The kernel says EEXIST although this one differs.
        let differs = Route { gw: ip("2001:db8::1"), oif, advmss: Some(1000), ..Route::to(cidr("::/0")) };
        let error = route::add(pod, &differs).unwrap_err();
        assert!(
            error.is_exists() && error.to_string().contains("add route default via 2001:db8::1 dev eth0"),
            "{error}"
        );
        route::replace(pod, &differs).unwrap();
        let seen = json(pod, "ip -6 -j route show default");
        assert_eq!(seen[0]["metrics"][0]["advmss"], 1000);
    });
}

#[test]
fn a_next_hop_behind_a_route_on_the_link() {
    with_pod(|_, pod| {
        let oif = Some(eth0(pod));
        route::add(pod, &Route { oif, ..Route::to(cidr("169.254.1.1/32")) }).unwrap();
        route::add(pod, &Route { oif, gw: ip("169.254.1.1"), ..Route::to(cidr("0.0.0.0/0")) }).unwrap();
        let seen = json(pod, "ip -d -j route show");
        let find = |dst: &str| seen.as_array().unwrap().iter().find(|route| route["dst"] == dst).unwrap().clone();
        assert_eq!((&find("169.254.1.1")["scope"], &find("169.254.1.1")["protocol"]), (&"link".into(), &"boot".into()));
        assert_eq!(find("default")["gateway"], "169.254.1.1");
        // Host bits do not matter (the reference: "invalid argument").
        route::add(pod, &Route { oif, ..Route::to(cidr("10.7.7.7/24")) }).unwrap();
        route::add(pod, &Route { dst: cidr("10.8.7.7/24"), oif, ..Route::to(cidr("0.0.0.0/0")) }).unwrap();
        assert!(run(pod, "ip route show").contains("10.7.7.0/24") && run(pod, "ip route show").contains("10.8.7.0/24"));
        // A next hop of the other family (RFC 8950).
        let mixed = Route { oif, gw: ip("2001:db8::1"), ..Route::to(cidr("10.6.0.0/16")) };
        route::add(pod, &mixed).unwrap();
        let seen = json(pod, "ip -j route show 10.6.0.0/16");
        assert_eq!(seen[0]["via"]["host"], "2001:db8::1");
        assert!(route::list(pod, &Filter { dst: Some(mixed.dst), ..Filter::default() }).unwrap()[0].satisfies(&mixed));
    });
}

#[test]
fn several_next_hops_are_several_routes() {
    with_pod(|_, pod| {
        let oif = Some(eth0(pod));
        run(pod, "ip route add 10.5.0.0/16 nexthop via 10.1.2.8 nexthop via 10.1.2.9");
        for gw in ["2001:db8::8", "2001:db8::9"] {
            route::add(pod, &Route { oif, gw: ip(gw), ..Route::to(cidr("2001:db8:5::/48")) }).unwrap();
        }
        for dst in ["10.5.0.0/16", "2001:db8:5::/48"] {
            let filter = Filter { dst: Some(cidr(dst)), ..Filter::default() };
            let mut gws: Vec<_> =
                route::list(pod, &filter).unwrap().iter().map(|route| route.gw.unwrap().to_string()).collect();
            gws.sort();
            assert!(gws.len() == 2 && gws[0].ends_with('8') && gws[1].ends_with('9'), "{gws:?}");
        }
    });
}

#[test]
fn filters_leave_the_rest_out() {
    with_pod(|_, pod| {
        let index = eth0(pod);
        let main = route::list(pod, &Filter { table: Some(TABLE_MAIN), ..Filter::default() }).unwrap();
        assert!(main.iter().all(|route| route.table == Some(TABLE_MAIN)));
        assert!(main.iter().any(|route| route.dst == cidr("10.1.2.0/24")), "{main:?}");
        assert!(main.iter().any(|route| route.dst == cidr("2001:db8::/64")), "{main:?}");
        let all = route::list(pod, &Filter::default()).unwrap();
        // The kernel still adds IPv6 routes of its own: the second list may have more of them, never fewer.
        assert!(main.iter().all(|route| all.contains(route)), "{main:?}\n{all:?}");
        let other = link::get(pod, "eth1").unwrap().unwrap().index;
        let on_other = route::list(pod, &Filter { oif: Some(other), ..Filter::default() }).unwrap();
        assert!(on_other.iter().all(|route| route.oif == Some(other)));
        assert!(!on_other.iter().any(|route| route.oif == Some(index)));
        assert_eq!(route::list(pod, &Filter { oif: Some(999), ..Filter::default() }).unwrap(), []);
    });
}
