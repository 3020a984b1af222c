//! The pod's interface as main plugins configure and check it.
//!
//! Of the reference's checklist, "no interfaces to configure" is not here: `configure` is told which interface, not a list.

use std::time::{Duration, Instant};

use hostnet::endpoint::{self, Options};
use hostnet::veth::{self, VethConf};
use hostnet::{Netlink, link, sysctl};
use libcni::types::{IpConfig, Route};

use crate::lab::{json, run, with_pod};

/// `eth0` in the pod, whose other end is up on the host.
fn eth0(host: &mut Netlink, pod: &mut Netlink) {
    let host_names = vec!["v".to_owned()];
    let conf = VethConf { pod_name: "eth0", host_names, mac: None, mtu: None, master: None };
    let veth = veth::create(host, pod, &conf).unwrap();
    link::set_up(host, veth.host.index).unwrap();
}

fn ip(interface: Option<i64>, address: &str, gateway: Option<&str>) -> IpConfig {
    IpConfig {
        interface,
        address: address.parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        extra: Default::default(),
    }
}

fn to(dst: &str) -> Route {
    Route {
        dst: dst.parse().unwrap(),
        gw: None,
        mtu: None,
        advmss: None,
        priority: None,
        table: None,
        scope: None,
        extra: Default::default(),
    }
}

/// As a plugin does it, which knows the link already.
fn configure(
    pod: &mut Netlink,
    interface: usize,
    ips: &[IpConfig],
    routes: &[Route],
    options: Options,
) -> hostnet::Result<()> {
    let eth0 = link::get(pod, "eth0").unwrap().unwrap();
    endpoint::configure(pod, &eth0, interface, ips, routes, options)
}

const FAST: Options = Options { dad: false };

#[test]
fn dual_stack_with_every_kind_of_route() {
    with_pod(|host, pod| {
        eth0(host, pod);
        for name in ["lo", "eth0"] {
            sysctl::set(pod, &format!("net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
        }
        let ips = [
            ip(Some(2), "10.1.2.2/24", Some("10.1.2.1")),
            ip(Some(2), "2001:db8::2/64", Some("2001:db8::1")),
            ip(Some(2), "10.1.3.3/32", None),
        ];
        let routes = [
            to("0.0.0.0/0"),
            to("::/0"),
            Route { mtu: Some(1400), advmss: Some(1360), priority: Some(50), ..to("10.9.0.0/16") },
            Route { gw: Some("10.1.2.9".parse().unwrap()), table: Some(5000), ..to("10.8.0.0/16") },
            // The reference lets it inherit the gateway, and fails.
            Route { scope: Some(253), ..to("10.7.0.0/16") },
            // The reference fails on host bits.
            to("10.6.6.6/16"),
        ];
        let begun = Instant::now();
        configure(pod, 2, &ips, &routes, FAST).unwrap();
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());

        let text = run(pod, "ip route show");
        for line in [
            "default via 10.1.2.1 dev eth0 ",
            "10.1.2.0/24 dev eth0 proto kernel scope link src 10.1.2.2 ",
            "10.6.0.0/16 via 10.1.2.1 dev eth0 ",
            "10.7.0.0/16 dev eth0 scope link ",
            "10.9.0.0/16 via 10.1.2.1 dev eth0 metric 50 mtu 1400 advmss 1360 ",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(run(pod, "ip route show table 5000").contains("10.8.0.0/16 via 10.1.2.9 dev eth0 "));
        assert!(run(pod, "ip -6 route show").contains("default via 2001:db8::1 dev eth0 "));
        assert!(!run(pod, "ip -6 addr show dev eth0 scope global").contains("tentative"));
        assert_eq!(sysctl::get(pod, "net/ipv6/conf/eth0/keep_addr_on_down").unwrap().as_deref(), Some("1"));
        assert_eq!(sysctl::get(pod, "net/ipv6/conf/lo/disable_ipv6").unwrap().as_deref(), Some("0"));

        // Reference defect 10: table routes, host addresses and unmasked destinations never pass its CHECK.
        endpoint::check(pod, "eth0", &ips, &routes).unwrap();

        // An IPv6 address outlives the link's going down.
        run(pod, "ip link set eth0 down");
        assert!(run(pod, "ip -6 addr show dev eth0").contains("2001:db8::2"));
    });
}

#[test]
fn only_addresses_of_this_interface() {
    with_pod(|host, pod| {
        eth0(host, pod);
        let ips = [ip(None, "10.1.1.1/24", None), ip(Some(1), "10.1.3.3/24", None)];
        configure(pod, 1, &ips, &[], FAST).unwrap();
        let seen = json(pod, "ip -j -4 addr show dev eth0");
        let seen = seen[0]["addr_info"].as_array().unwrap();
        assert_eq!((seen.len(), &seen[0]["local"]), (1, &"10.1.3.3".into()));
        assert!(link::get(pod, "eth0").unwrap().unwrap().up);
    });
}

#[test]
fn an_address_of_another_interface_is_refused_before_anything_is_done() {
    with_pod(|host, pod| {
        eth0(host, pod);
        for index in [0, 2, 7, -1] {
            let ips = [ip(Some(1), "10.1.3.3/24", None), ip(Some(index), "10.1.2.2/24", None)];
            let error = configure(pod, 1, &ips, &[], FAST).unwrap_err();
            assert_eq!(error.to_string(), r#"failed to add IP addr 10.1.2.2/24 to "eth0": invalid interface index"#);
        }
        assert!(!run(pod, "ip addr show dev eth0").contains("inet "));
        assert!(!link::get(pod, "eth0").unwrap().unwrap().up);
    });
}

/// Trap 8: the default route of `isDefaultGateway` and that of IPAM.
#[test]
fn the_default_route_twice() {
    with_pod(|host, pod| {
        eth0(host, pod);
        let gw = "10.1.2.1";
        let routes = [to("0.0.0.0/0"), Route { gw: Some(gw.parse().unwrap()), ..to("0.0.0.0/0") }];
        configure(pod, 0, &[ip(Some(0), "10.1.2.2/24", Some(gw))], &routes, FAST).unwrap();
        assert_eq!(run(pod, "ip route show default").lines().count(), 1);
    });
}

#[test]
fn detection_where_it_is_wanted() {
    with_pod(|host, pod| {
        eth0(host, pod);
        let ips = [ip(Some(0), "2001:db8::2/64", None)];
        configure(pod, 0, &ips, &[], Options { dad: true }).unwrap();
        let text = run(pod, "ip -6 addr show dev eth0");
        assert!(text.contains("2001:db8::2") && !text.contains("tentative") && !text.contains("nodad"), "{text}");
    });
}

#[test]
fn check_names_what_is_missing() {
    with_pod(|host, pod| {
        eth0(host, pod);
        let ips = [ip(Some(2), "10.1.2.2/24", Some("10.1.2.1"))];
        let routes = [Route { mtu: Some(1400), ..to("10.9.0.0/16") }];
        let text = |pod: &mut Netlink, name: &str| endpoint::check(pod, name, &ips, &routes).unwrap_err().to_string();
        assert!(text(pod, "eth7").starts_with("Cannot find container link eth7"));
        assert_eq!(text(pod, "eth0"), "Failed to match addr 10.1.2.2/24 on interface eth0: it has: none");
        configure(pod, 2, &ips, &routes, FAST).unwrap();
        endpoint::check(pod, "eth0", &ips, &routes).unwrap();

        // What the reference's ADD leaves: no metrics.
        run(pod, "ip route del 10.9.0.0/16");
        run(pod, "ip route add 10.9.0.0/16 via 10.1.2.1 dev eth0");
        endpoint::check(pod, "eth0", &ips, &routes).unwrap();
        run(pod, "ip route change 10.9.0.0/16 via 10.1.2.1 dev eth0 mtu 1300");
        assert!(text(pod, "eth0").contains("mtu 1300"), "{}", text(pod, "eth0"));
        run(pod, "ip route change 10.9.0.0/16 via 10.1.2.5 dev eth0");
        let error = text(pod, "eth0");
        assert!(
            error.starts_with("Expected Route {10.9.0.0/16 via 10.1.2.1 dev eth0") && error.contains("10.1.2.5"),
            "{error}"
        );
        run(pod, "ip route del 10.9.0.0/16");
        assert!(text(pod, "eth0").contains("not found in routing table: its routes there: none"));

        run(pod, "ip route del 10.1.2.0/24");
        assert!(text(pod, "eth0").starts_with("Failed to find Gateway 10.1.2.1 for interface eth0"));
        run(pod, "ip addr del 10.1.2.2/24 dev eth0");
        run(pod, "ip addr add 10.1.2.2/25 dev eth0");
        assert!(
            text(pod, "eth0").starts_with("Failed to match addr 10.1.2.2/24 on interface eth0: it has: 10.1.2.2/25")
        );
    });
}

/// Chained plugins (sbr, vrf) move routes; a default route is anybody's.
#[test]
fn check_of_routes_that_were_moved() {
    with_pod(|host, pod| {
        eth0(host, pod);
        let ips = [ip(Some(2), "10.1.2.2/24", Some("10.1.2.1"))];
        let routes = [to("10.9.0.0/16"), to("0.0.0.0/0")];
        configure(pod, 2, &ips, &routes, FAST).unwrap();
        run(pod, "ip route del 10.9.0.0/16");
        run(pod, "ip route add 10.9.0.0/16 via 10.1.2.1 dev eth0 table 100");
        run(pod, "ip route replace default via 10.1.2.7");
        endpoint::check(pod, "eth0", &ips, &routes).unwrap();
        run(pod, "ip route del default");
        run(pod, "ip route add default via 10.1.2.1 dev eth0 table 100"); // as sbr does it
        endpoint::check(pod, "eth0", &ips, &routes).unwrap();
        run(pod, "ip route del default table 100");
        assert!(endpoint::check(pod, "eth0", &ips, &routes).unwrap_err().to_string().contains("{default via 10.1.2.1"));
    });
}
