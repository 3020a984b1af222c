//! Services, and hostPort, of pods with `portmap` and `firewall` behind `bridge` or `ptp` in the chain.

use std::net::SocketAddr;

use serde_json::json;
use tests::Findings;
use tests::cluster::{Cluster, Dual, Link, Node};

use crate::services::{Combination, Masquerade, Plugin, in_every_backend};
use crate::services_paths::Stage;

/// Each server's port, on its node under the same number.
const HOST_PORT: u16 = 8080;

fn portmap<'a>(node: &'a Node, backend: &str, name: &str, port: u16) -> Vec<Link<'a>> {
    let mapping = |protocol| json!({"hostPort": HOST_PORT, "containerPort": port, "protocol": protocol});
    let mappings = if name == "client" { json!([]) } else { json!([mapping("tcp"), mapping("udp")]) };
    let conf = json!({"cniVersion": "1.0.0", "name": "pods", "type": "portmap", "backend": backend,
        "capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": mappings}});
    vec![(node.plugin("portmap"), conf)]
}

fn firewall<'a>(node: &'a Node, backend: &str) -> Vec<Link<'a>> {
    let conf = json!({"cniVersion": "1.0.0", "name": "pods", "type": "firewall", "backend": backend});
    vec![(node.plugin("firewall"), conf)]
}

/// hostPort, from everywhere.
fn ask_host_ports(stage: &Stage<'_>, findings: &mut Findings) {
    let ([one, two], [first, second]) = (stage.cluster.nodes(), &stage.servers);
    for family in [0, 1] {
        let to = |address: Dual| SocketAddr::new(address[family], HOST_PORT);
        let (lan, masked) = (to(one.lan), first.saw(one.gateway[family]));
        for (node, server) in [(one, first), (two, second)] {
            let path = format!("internet to hostPort of node {}", node.number());
            let kept = [server.saw(node.outside[family])];
            findings.ask(&path, stage.cluster.internet(), to(node.uplink), &kept);
        }
        findings.ask("node to hostPort of the other node", two, lan, &[first.saw(two.lan[family])]);
        let own = [first.saw(one.lan[family]), masked.clone()];
        findings.ask_any("node to its own hostPort", one, lan, &own);
        if family == 0 {
            let localhost = SocketAddr::from(([127, 0, 0, 1], HOST_PORT));
            findings.ask("node to hostPort at 127.0.0.1", one, localhost, std::slice::from_ref(&masked));
        }
        let seen = [first.saw(stage.seen_by_nodes(second, family))];
        findings.ask("pod to hostPort of the other node", &second.pod, lan, &seen);
        if stage.reaches_itself_through_services() {
            findings.ask("pod to its own hostPort", &first.pod, lan, std::slice::from_ref(&masked));
        }
        if stage.reaches_its_neighbour_through_services() {
            // Whether a neighbour is masked differs between the backends of the reference.
            let seen = [masked, first.saw(stage.client.addresses[family])];
            findings.ask_any("pod to its neighbour's hostPort", &stage.client.pod, lan, &seen);
        }
    }
}

/// Words in the names of what portmap and firewall leave for good, as the reference does.
const PORTMAP_LEAVES: [&str; 4] = ["CNI-HOSTPORT-", "cni_hostport", "route_localnet", "cni_localnet"];
const FIREWALL_LEAVES: [&str; 3] = ["CNI-FORWARD", "CNI-ADMIN", "cni_firewall"];

#[test]
fn host_ports_from_everywhere_over_bridge() {
    in_every_backend(Plugin::Bridge, Masquerade::All, with_host_ports);
}

#[test]
fn host_ports_from_everywhere_over_ptp() {
    in_every_backend(Plugin::Ptp, Masquerade::All, with_host_ports);
}

fn with_host_ports(combination: Combination) {
    combination.run_with(
        |_| (),
        |node, name, port| portmap(node, combination.backend(), name, port),
        ask_host_ports,
        &PORTMAP_LEAVES,
    );
}

/// The reference accepts a pod's packets before kube-proxy refuses them, so that a Service without endpoints is waited
/// for; and what comes to a `NodePort` with policy Local from outside is dropped.
#[test]
fn with_firewall_every_path_where_forward_drops_over_bridge() {
    in_every_backend(Plugin::Bridge, Masquerade::All, with_firewall);
}

#[test]
fn with_firewall_every_path_where_forward_drops_over_ptp() {
    in_every_backend(Plugin::Ptp, Masquerade::All, with_firewall);
}

fn with_firewall(combination: Combination) {
    for kube_proxy_first in [true, false] {
        let combination = Combination { kube_proxy_first, ..combination };
        combination.run_with(
            Cluster::drop_forwarded,
            |node, _, _| firewall(node, "iptables"),
            |_, _| (),
            &FIREWALL_LEAVES,
        );
    }
}

/// What the backend nftables accepts others may still refuse: kube-proxy does.
#[test]
fn with_firewall_by_nftables_every_path_over_bridge() {
    in_every_backend(Plugin::Bridge, Masquerade::All, with_firewall_by_nftables);
}

#[test]
fn with_firewall_by_nftables_every_path_over_ptp() {
    in_every_backend(Plugin::Ptp, Masquerade::All, with_firewall_by_nftables);
}

fn with_firewall_by_nftables(combination: Combination) {
    combination.run_with(|_| (), |node, _, _| firewall(node, "nftables"), |_, _| (), &FIREWALL_LEAVES);
}

/// With the reference, what comes from outside to a hostPort is dropped.
#[test]
fn host_ports_where_forward_drops_over_bridge() {
    in_every_backend(Plugin::Bridge, Masquerade::All, with_host_ports_and_firewall);
}

#[test]
fn host_ports_where_forward_drops_over_ptp() {
    in_every_backend(Plugin::Ptp, Masquerade::All, with_host_ports_and_firewall);
}

fn with_host_ports_and_firewall(combination: Combination) {
    combination.run_with(
        Cluster::drop_forwarded,
        |node, name, port| [portmap(node, combination.backend(), name, port), firewall(node, "iptables")].concat(),
        ask_host_ports,
        &[&PORTMAP_LEAVES[..], &FIREWALL_LEAVES].concat(),
    );
}
