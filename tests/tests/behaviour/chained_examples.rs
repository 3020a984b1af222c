//! The examples with a chain: host ports, limits and ingress policies do as they stand.

use serde_json::json;
use tests::{Echo, Host, Internet, Pod};

use crate::bridge_conf::leases;
use crate::conf_examples::directory;

/// The files of conf-examples/ that are run here.
pub const FILES: [&str; 6] = [
    "kubernetes.conflist",
    "kubernetes-nftables.conflist",
    "podman.conflist",
    "tenant-a.conflist",
    "tenant-b.conflist",
    "isolated.conflist",
];

const HOST_PORT: u16 = 8080;

/// What a runtime says of a pod whose server has a host port, and which may receive and send 10 Mbit/s.
fn capabilities(server: &Echo) -> String {
    let mapping = |protocol| json!({"hostPort": HOST_PORT, "containerPort": server.port(), "protocol": protocol});
    let limit = json!({"ingressRate": 10_000_000, "ingressBurst": 2_000_000,
        "egressRate": 10_000_000, "egressBurst": 2_000_000});
    json!({"portMappings": [mapping("tcp"), mapping("udp")], "bandwidth": limit}).to_string()
}

fn add(host: &Host, network: &str, pod: &Pod, server: Option<&Echo>) {
    let mut cnitool = host.cnitool(&directory());
    if let Some(server) = server {
        cnitool = cnitool.env("CAP_ARGS", capabilities(server));
    }
    cnitool.call("add", network, pod).success();
}

/// CHECK, DEL twice, and nothing of the pods is left: no lease, no rule that names an address, no link.
fn end(host: &Host, pods: &[(&str, &Pod, Option<&Echo>)]) {
    let addresses: Vec<String> = pods.iter().flat_map(|(_, pod, _)| pod.addresses("eth0")).collect();
    for (network, pod, server) in pods {
        let capable = server.map_or_else(|| "{}".to_owned(), capabilities);
        let cnitool = host.cnitool(&directory()).env("CAP_ARGS", capable);
        cnitool.call("check", network, pod).success();
        cnitool.call("del", network, pod).success();
        cnitool.call("del", network, pod).success();
    }
    let ruleset = host.run("nft list ruleset");
    for address in addresses {
        let address = address.split('/').next().unwrap();
        assert!(!ruleset.contains(address), "{address}\n{ruleset}");
    }
    assert_eq!(leases(host), Vec::<String>::new());
    let links = host.run("ip -br link");
    assert!(!links.contains("veth") && !links.contains("bwp"), "{links}");
}

/// The internet's server sees the node, and the internet reaches the pod's server at the node's addresses: as itself.
fn asks_both_ways(internet: &Internet, pod: &Pod) {
    let outside = internet.listen();
    for address in pod.addresses("eth0") {
        let (there, node) = match address.contains(':') {
            true => (Internet::V6, Internet::HOST_V6),
            false => (Internet::V4, Internet::HOST_V4),
        };
        assert_eq!(pod.asks(there, &outside), Ok(node), "{address}");
        let seen = internet.asks_at(&node.to_string(), HOST_PORT).map(|seen| seen.to_string());
        assert_eq!(seen.as_deref(), Ok(there), "{address}");
    }
}

fn pings(one: &Pod, two: &Pod) -> Vec<bool> {
    two.addresses("eth0").iter().map(|address| one.pings(address.split('/').next().unwrap())).collect()
}

/// One network; `shaped` where it has the plugin `bandwidth`.
fn one_network(network: &str, shaped: bool) {
    let host = Host::new();
    let internet = host.internet();
    let (one, two) = (host.pod(), host.pod());
    let server = one.listen();
    add(&host, network, &one, Some(&server));
    add(&host, network, &two, None);
    asks_both_ways(&internet, &one);
    assert!(pings(&one, &two).iter().all(|answered| *answered), "{network}");
    assert_eq!(host.run("tc qdisc show").matches("tbf").count(), if shaped { 2 } else { 0 }, "{network}");
    end(&host, &[(network, &one, Some(&server)), (network, &two, None)]);
}

#[test]
fn kubernetes() {
    one_network("podwire-kubernetes", true);
}

#[test]
fn kubernetes_nftables() {
    one_network("podwire-kubernetes-nftables", true);
}

#[test]
fn podman() {
    one_network("podman", false);
}

/// Pods of a tenant reach each other and the internet; another tenant's they do not.
#[test]
fn tenants() {
    let (tenant, other) = ("podwire-tenant-a", "podwire-tenant-b");
    let host = Host::new();
    let internet = host.internet();
    let (one, two, stranger) = (host.pod(), host.pod(), host.pod());
    let server = one.listen();
    add(&host, tenant, &one, Some(&server));
    add(&host, tenant, &two, None);
    add(&host, other, &stranger, None);
    asks_both_ways(&internet, &one);
    assert_eq!(pings(&one, &two), [true, true]);
    assert_eq!(pings(&one, &stranger), [false, false]);
    assert_eq!(pings(&stranger, &one), [false, false]);
    end(&host, &[(tenant, &one, Some(&server)), (tenant, &two, None), (other, &stranger, None)]);
}

/// Pods reach the internet, and are reached at their host ports alone: not by each other, nor by whoever has a route.
#[test]
fn isolated() {
    let network = "podwire-isolated";
    let host = Host::new();
    let internet = host.internet();
    let (one, two) = (host.pod(), host.pod());
    let server = one.listen();
    add(&host, network, &one, Some(&server));
    add(&host, network, &two, None);
    asks_both_ways(&internet, &one);
    assert_eq!(pings(&one, &two), [false, false]);
    internet.run(&format!("ip route add 10.97.0.0/16 via {}", Internet::HOST_V4));
    internet.run(&format!("ip -6 route add fd00:97::/64 via {}", Internet::HOST_V6));
    for address in one.addresses("eth0") {
        let address = address.split('/').next().unwrap();
        assert!(!internet.pings(address), "{address}");
        assert!(host.pings(address), "the node itself: {address}");
    }
    end(&host, &[(network, &one, Some(&server)), (network, &two, None)]);
}
