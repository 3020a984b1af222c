//! bridge as a gateway: its addresses, the pods' default routes, forwarding, and addresses that are in the way.

use serde_json::{Value, json};
use tests::{Host, Pod};

use crate::bridge_conf::{GATEWAY_V4, GATEWAY_V6, add, check, del, dual, of, routes, v4, v6, with};

/// The gateways of the default routes of a pod.
fn default_gateways(pod: &Pod) -> Vec<String> {
    let all = ["-4", "-6"].map(|family| routes(pod, family)).concat();
    let defaults = all.iter().filter(|route| route["dst"] == "default");
    defaults.map(|route| route["gateway"].as_str().unwrap_or("none").to_owned()).collect()
}

#[test]
fn a_gateway_has_its_addresses_and_forwards_for_its_families() {
    for (conf, addresses, v4_forwards, v6_forwards) in [
        (v4(), vec!["10.1.0.1/24"], "1", "0"),
        (v6(), vec!["fd00:1::1/64"], "0", "1"),
        (dual(), vec!["10.1.0.1/24", "fd00:1::1/64"], "1", "1"),
    ] {
        let host = Host::new();
        host.set_sysctl("net/ipv4/ip_forward", "0");
        host.set_sysctl("net/ipv6/conf/all/forwarding", "0");
        let pod = host.pod();
        let result = add(&host, &conf, &pod);
        assert_eq!(host.addresses("cni0"), addresses);
        assert_eq!(host.sysctl("net/ipv4/ip_forward"), v4_forwards, "{conf}");
        assert_eq!(host.sysctl("net/ipv6/conf/all/forwarding"), v6_forwards, "{conf}");
        for address in addresses {
            let gateway = address.split('/').next().unwrap();
            assert!(pod.pings(gateway), "{gateway}");
        }
        del(&host, &conf, &result, &pod);
        assert_eq!(host.sysctl("net/ipv4/ip_forward"), v4_forwards, "others may need it");
    }
}

#[test]
fn is_gateway_alone_gives_no_default_route() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&dual(), json!({"isDefaultGateway": false, "isGateway": true}));
    let result = add(&host, &conf, &pod);
    assert_eq!(default_gateways(&pod), [""; 0]);
    assert_eq!(result.get("routes"), None, "{result}");
    assert!(pod.pings(GATEWAY_V4) && pod.pings(GATEWAY_V6));
}

/// Reference defect 3: `file exists`.
#[test]
fn is_default_gateway_with_a_default_route_of_ipam_is_one_route() {
    for routes in [
        json!([{"dst": "0.0.0.0/0"}]),
        json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]),
        json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]),
        json!([{"dst": "::/0", "gw": "fd00:1::1"}]),
    ] {
        let host = Host::new();
        let pod = host.pod();
        let conf = with(&dual(), json!({"ipam": {"routes": routes}}));
        let result = add(&host, &conf, &pod);
        assert_eq!(default_gateways(&pod), [GATEWAY_V4, GATEWAY_V6], "{routes}");
        assert!(pod.pings(GATEWAY_V4) && pod.pings(GATEWAY_V6));
        let defaults = |result: &Value| {
            let routes = result["routes"].as_array().unwrap().clone();
            routes.iter().filter(|route| route["dst"] == "0.0.0.0/0" || route["dst"] == "::/0").count()
        };
        assert_eq!(defaults(&result), 2, "{result}");
        check(&host, &conf, &result, &pod).success();
    }
}

#[test]
fn the_gateway_of_ipam_is_the_gateway() {
    let host = Host::new();
    let pod = host.pod();
    let ranges = json!([[{"subnet": "10.1.0.0/24", "gateway": "10.1.0.254"}],
        [{"subnet": "fd00:1::/64", "gateway": "fd00:1::fe"}]]);
    let conf = with(&dual(), json!({"ipam": {"ranges": ranges}}));
    let result = add(&host, &conf, &pod);
    assert_eq!(host.addresses("cni0"), ["10.1.0.254/24", "fd00:1::fe/64"]);
    assert_eq!(default_gateways(&pod), ["10.1.0.254", "fd00:1::fe"]);
    assert!(pod.pings("10.1.0.254") && pod.pings("fd00:1::fe"));
    check(&host, &conf, &result, &pod).success();
}

#[test]
fn several_subnets_have_a_gateway_each() {
    let host = Host::new();
    let (one, two) = (host.pod(), host.pod());
    let conf = of(&["10.1.0.0/24", "fd00:1::/64", "fd00:2::/64"]);
    let result = add(&host, &conf, &one);
    add(&host, &conf, &two);
    assert_eq!(host.addresses("cni0").sorted(), ["10.1.0.1/24", "fd00:1::1/64", "fd00:2::1/64"]);
    for neighbour in ["10.1.0.3", "fd00:1::3", "fd00:2::3", "10.1.0.1", "fd00:1::1", "fd00:2::1"] {
        assert!(one.pings(neighbour), "{neighbour}");
    }
    assert_eq!(default_gateways(&one), [GATEWAY_V4, GATEWAY_V6], "one a family: of the first subnet");
    check(&host, &conf, &result, &one).success();
}

/// Addresses in the order of their text: the kernel shows the younger ones of IPv6 first.
trait Sorted {
    fn sorted(&self) -> Vec<String>;
}

impl Sorted for [String] {
    fn sorted(&self) -> Vec<String> {
        let mut all = self.to_vec();
        all.sort();
        all
    }
}

/// (address there, what is added, whether the two can be neighbours)
const IN_THE_WAY: [(&str, &str, bool); 3] = [
    ("10.9.0.1/24", "10.1.0.1/24", false),   // IPv4 leaves no room for another
    ("fd00:1::9/60", "fd00:1::1/64", false), // overlaps
    ("fd00:9::1/64", "fd00:1::1/64", true),  // disjoint
];

#[test]
fn an_address_in_the_way_is_an_error_or_is_replaced_with_force_address() {
    for (old, new, disjoint) in IN_THE_WAY {
        for force in [false, true] {
            let host = Host::new();
            host.run("ip link add cni0 type bridge");
            host.run("ip link set cni0 address 02:00:00:00:00:01 up");
            let nodad = if old.contains(':') { " nodad" } else { "" };
            host.run(&format!("ip address add {old} dev cni0{nodad}"));
            let pod = host.pod();
            let conf = if old.contains(':') { v6() } else { v4() };
            let conf = with(&conf, json!({ "forceAddress": force }));
            let outcome = host.plugin("bridge").add(&conf, &pod, "eth0");
            let mut expected = match (disjoint, force) {
                (true, _) => vec![old, new],
                (false, true) => vec![new],
                (false, false) => vec![old],
            };
            expected.sort_unstable();
            assert_eq!(host.addresses("cni0").sorted(), expected, "{old}, forceAddress {force}\n{outcome}");
            if disjoint || force {
                outcome.success();
                assert!(pod.pings(new.split('/').next().unwrap()), "{new}");
            } else {
                let error = outcome.failure();
                let msg = error["msg"].as_str().unwrap();
                assert!(msg.contains(old) || msg.contains(new), "{msg}");
            }
        }
    }
}

/// The host's own ends believe no router: a pod must not give the node a default route.
#[test]
fn router_advertisements_of_pods_are_not_believed() {
    let host = Host::new();
    host.set_sysctl("net/ipv6/conf/default/accept_ra", "2");
    let pod = host.pod();
    let result = add(&host, &dual(), &pod);
    let port = result["interfaces"][1]["name"].as_str().unwrap();
    for link in ["cni0", port] {
        assert_eq!(host.sysctl(&format!("net/ipv6/conf/{link}/accept_ra")), "0", "{link}");
    }
}
