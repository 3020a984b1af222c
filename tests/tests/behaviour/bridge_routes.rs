//! Routes that IPAM hands out: what the result says is what the kernel has, metrics and tables included.

use serde_json::{Value, json};
use tests::{Host, Namespace};

use crate::bridge_conf::{GATEWAY_V4, GATEWAY_V6, add, check, del, dual, routes, with};

/// The one route to `dst`, in whichever table.
fn route(place: &Namespace, dst: &str) -> Value {
    let family = if dst.contains(':') { "-6" } else { "-4" };
    let mut found: Vec<Value> = routes(place, family).into_iter().filter(|route| route["dst"] == dst).collect();
    assert_eq!(found.len(), 1, "routes to {dst}: {found:?}");
    found.remove(0)
}

/// A metric of a route, wherever this iproute2 puts it.
fn metric(route: &Value, name: &str) -> Value {
    let metrics = route["metrics"].as_array().into_iter().flatten();
    metrics.filter_map(|metrics| metrics.get(name)).next().cloned().unwrap_or_default()
}

#[test]
fn a_route_without_a_next_hop_has_the_gateway_of_its_family() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&dual(), json!({"ipam": {"routes": [{"dst": "192.0.2.0/24"}, {"dst": "2001:db8:9::/48"}]}}));
    let result = add(&host, &conf, &pod);
    assert_eq!(route(&pod, "192.0.2.0/24")["gateway"], GATEWAY_V4);
    assert_eq!(route(&pod, "2001:db8:9::/48")["gateway"], GATEWAY_V6);
    assert_eq!(route(&pod, "192.0.2.0/24")["protocol"], "boot", "as iproute2 and the reference");
    check(&host, &conf, &result, &pod).success();
}

#[test]
fn a_route_with_a_next_hop_has_it() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(
        &dual(),
        json!({"ipam": {"routes": [{"dst": "192.0.2.0/24", "gw": "10.1.0.77"},
            {"dst": "2001:db8:9::/48", "gw": "fd00:1::77"}]}}),
    );
    let result = add(&host, &conf, &pod);
    assert_eq!(route(&pod, "192.0.2.0/24")["gateway"], "10.1.0.77");
    assert_eq!(route(&pod, "2001:db8:9::/48")["gateway"], "fd00:1::77");
    check(&host, &conf, &result, &pod).success();
}

/// Reference defect 9: mtu and advmss were echoed, and never programmed.
#[test]
fn mtu_and_advmss_and_priority_are_programmed() {
    let host = Host::new();
    let pod = host.pod();
    let written = json!([
        {"dst": "192.0.2.0/24", "mtu": 1400, "advmss": 1360, "priority": 50},
        {"dst": "2001:db8:9::/48", "mtu": 1380, "advmss": 1300, "priority": 70}]);
    let conf = with(&dual(), json!({"ipam": {"routes": written}}));
    let result = add(&host, &conf, &pod);
    for (dst, mtu, advmss, priority) in [("192.0.2.0/24", 1400, 1360, 50), ("2001:db8:9::/48", 1380, 1300, 70)] {
        let route = route(&pod, dst);
        assert_eq!((metric(&route, "mtu"), metric(&route, "advmss")), (mtu.into(), advmss.into()), "{route}");
        assert_eq!(route["metric"], priority, "{route}");
    }
    assert_eq!(result["routes"][0], json!({"dst": "192.0.2.0/24", "mtu": 1400, "advmss": 1360, "priority": 50}));
    check(&host, &conf, &result, &pod).success();
    del(&host, &conf, &result, &pod);
}

/// Reference defect 10: CHECK never found a route of another table.
#[test]
fn tables_are_programmed_and_checked() {
    let host = Host::new();
    let pod = host.pod();
    let written = json!([{"dst": "192.0.2.0/24", "table": 100}, {"dst": "198.18.0.0/15", "table": 5000},
        {"dst": "2001:db8:9::/48", "table": 5000}]);
    let conf = with(&dual(), json!({"ipam": {"routes": written}}));
    let result = add(&host, &conf, &pod);
    for (dst, table, gateway) in [
        ("192.0.2.0/24", "100", GATEWAY_V4),
        ("198.18.0.0/15", "5000", GATEWAY_V4),
        ("2001:db8:9::/48", "5000", GATEWAY_V6),
    ] {
        let route = route(&pod, dst);
        assert_eq!((&route["table"], &route["gateway"]), (&table.into(), &gateway.into()), "{route}");
    }
    check(&host, &conf, &result, &pod).success();
    pod.run("ip route flush table 5000");
    let error = check(&host, &conf, &result, &pod).failure();
    assert!(error["msg"].as_str().unwrap().contains("198.18.0.0"), "{error}");
}

/// The reference gave such a route the gateway too, and the kernel refused it.
#[test]
fn a_route_of_scope_link_has_no_next_hop() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(
        &dual(),
        json!({"ipam": {"routes": [{"dst": "192.0.2.0/24", "scope": 253}, {"dst": "198.18.0.0/15", "scope": 200}]}}),
    );
    let result = add(&host, &conf, &pod);
    let link = route(&pod, "192.0.2.0/24");
    assert_eq!((&link["scope"], link.get("gateway")), (&"link".into(), None), "{link}");
    let site = route(&pod, "198.18.0.0/15");
    assert_eq!((&site["scope"], &site["gateway"]), (&"site".into(), &GATEWAY_V4.into()), "{site}");
    assert_eq!(result["routes"][0], json!({"dst": "192.0.2.0/24", "scope": 253}));
    check(&host, &conf, &result, &pod).success();
}

/// A route that has been there already is the route that was asked for: IPAM may name the pod's own subnet.
#[test]
fn a_route_that_is_there_is_no_error() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&dual(), json!({"ipam": {"routes": [{"dst": "192.0.2.0/24"}, {"dst": "192.0.2.0/24"}]}}));
    let result = add(&host, &conf, &pod);
    assert_eq!(route(&pod, "192.0.2.0/24")["gateway"], GATEWAY_V4);
    check(&host, &conf, &result, &pod).success();
}

/// The reference handed host bits to the kernel, which refuses them.
#[test]
fn host_bits_of_a_destination_do_not_matter() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&dual(), json!({"ipam": {"routes": [{"dst": "192.0.2.7/24"}]}}));
    let result = add(&host, &conf, &pod);
    assert_eq!(route(&pod, "192.0.2.0/24")["gateway"], GATEWAY_V4);
    check(&host, &conf, &result, &pod).success();
}
