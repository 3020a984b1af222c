//! kube-proxy in its iptables mode: the chains it writes on every node, by `iptables-restore --noflush`.
//!
//! Written from what `iptables-save` shows on nodes of Kubernetes 1.24 and later. Only the ends of the names differ: a
//! hash there, the name of the Service here, for those who read a failed test.
//!
//! ```text
//! nat      PREROUTING, OUTPUT -> KUBE-SERVICES -> KUBE-SVC-* -> (at random) KUBE-SEP-* -> DNAT
//!          KUBE-SERVICES -> KUBE-NODEPORTS -> KUBE-EXT-* -> KUBE-SVC-*, or KUBE-SVL-* under the policy Local
//!          KUBE-MARK-MASQ sets 0x4000; POSTROUTING -> KUBE-POSTROUTING masquerades what has it
//! filter   FORWARD, OUTPUT -> KUBE-SERVICES, INPUT, FORWARD -> KUBE-EXTERNAL-SERVICES: REJECT without endpoints
//!          FORWARD -> KUBE-FORWARD: ACCEPT what has the mark, and what is established
//! ```

use std::fmt::Write;
use std::fs;

use crate::cluster::{CLUSTER_CIDR, Cluster, Dual, Node};

/// A Service with one port, for TCP and for UDP.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name, short: it becomes the end of chain names.
    pub name: &'static str,
    /// Its own addresses.
    pub cluster_ip: Dual,
    /// Its port there.
    pub port: u16,
    /// Its port on every node.
    pub node_port: Option<u16>,
    /// `externalTrafficPolicy: Local`: what comes from outside stays on the node where it came in.
    pub is_local: bool,
    /// The pods behind it.
    pub endpoints: Vec<Endpoint>,
}

/// A pod behind a Service.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The number of its node.
    pub node: u8,
    /// Its addresses.
    pub addresses: Dual,
    /// The port its server listens on.
    pub port: u16,
}

/// The jumps from the kernel's chains: (table, chain, match, target). Each is put before what is there.
const JUMPS: [(&str, &str, &str, &str); 10] = [
    ("nat", "PREROUTING", "", "KUBE-SERVICES"),
    ("nat", "OUTPUT", "", "KUBE-SERVICES"),
    ("nat", "POSTROUTING", "", "KUBE-POSTROUTING"),
    ("filter", "INPUT", "", "KUBE-NODEPORTS"),
    ("filter", "INPUT", "-m conntrack --ctstate NEW", "KUBE-EXTERNAL-SERVICES"),
    ("filter", "FORWARD", "", "KUBE-FORWARD"),
    ("filter", "FORWARD", "-m conntrack --ctstate NEW", "KUBE-SERVICES"),
    ("filter", "FORWARD", "-m conntrack --ctstate NEW", "KUBE-EXTERNAL-SERVICES"),
    ("filter", "OUTPUT", "-m conntrack --ctstate NEW", "KUBE-SERVICES"),
    ("filter", "OUTPUT", "-m conntrack --ctstate NEW", "KUBE-EXTERNAL-SERVICES"),
];

/// The first run on every node of the cluster: its chains, no Service, and the jumps.
pub fn start(cluster: &Cluster) {
    sync(cluster, &[]);
    for node in cluster.nodes() {
        for program in ["iptables", "ip6tables"] {
            for (table, chain, matches, target) in JUMPS {
                node.run(&format!("{program} -t {table} -I {chain} {matches} -j {target}"));
            }
        }
    }
}

/// Every later run: all chains are written anew, the jumps stay where they are.
pub fn sync(cluster: &Cluster, services: &[Service]) {
    for node in cluster.nodes() {
        for (family, restore) in ["iptables-restore", "ip6tables-restore"].into_iter().enumerate() {
            let text = Tables::of(family, node, services).text();
            let path = format!("/run/kube-proxy.{family}");
            node.enter(|| fs::write(&path, &text)).unwrap_or_else(|e| panic!("write {path}: {e}"));
            let output = node.try_run(&format!("{restore} --noflush {path}"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{restore} on node {}: {said}\n{text}", node.number());
        }
    }
}

/// The chains of one family on one node, table by table.
struct Tables {
    family: usize,
    node: u8,
    chains: [Vec<String>; 2],
    rules: [Vec<String>; 2],
}

const NAT: usize = 0;
const FILTER: usize = 1;

impl Tables {
    fn of(family: usize, node: &Node, services: &[Service]) -> Self {
        let nat = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"];
        let filter = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD"];
        let chains = [nat, filter].map(|names| names.map(str::to_owned).to_vec());
        let mut tables = Self { family, node: node.number(), chains, rules: [Vec::new(), Vec::new()] };
        for rule in [
            "KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
            "KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
            "KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        ] {
            tables.rule(NAT, rule);
        }
        for service in services {
            for protocol in ["tcp", "udp"] {
                tables.service(service, protocol);
            }
        }
        tables.rule(NAT, "KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS");
        for rule in [
            "KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            "KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
            "KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ] {
            tables.rule(FILTER, rule);
        }
        tables
    }

    fn rule(&mut self, table: usize, rule: &str) {
        self.rules[table].push(format!("-A {rule}"));
    }

    fn service(&mut self, service: &Service, protocol: &str) {
        let Service { name, port, .. } = service;
        let cluster_ip = service.cluster_ip[self.family];
        let end = format!("{}-{}", name.to_uppercase(), protocol.to_uppercase());
        let of_protocol = |port: u16| format!("-p {protocol} -m {protocol} --dport {port}");
        let to_service = format!("-d {cluster_ip} {}", of_protocol(*port));
        if service.endpoints.is_empty() {
            let why = format!("-m comment --comment \"{name} has no endpoints\"");
            self.rule(FILTER, &format!("KUBE-SERVICES {why} {to_service} -j REJECT"));
            if let Some(port) = service.node_port {
                let to_node = format!("-m addrtype --dst-type LOCAL {}", of_protocol(port));
                self.rule(FILTER, &format!("KUBE-EXTERNAL-SERVICES {why} {to_node} -j REJECT"));
            }
            return;
        }
        let (svc, cluster) = (format!("KUBE-SVC-{end}"), CLUSTER_CIDR[self.family]);
        self.chains[NAT].push(svc.clone());
        self.rule(NAT, &format!("KUBE-SERVICES -m comment --comment \"{name} cluster IP\" {to_service} -j {svc}"));
        self.rule(NAT, &format!("{svc} ! -s {cluster} {to_service} -j KUBE-MARK-MASQ"));
        self.endpoints(service, protocol, &end);
        if let Some(port) = service.node_port {
            self.rule(NAT, &format!("KUBE-NODEPORTS {} -j KUBE-EXT-{end}", of_protocol(port)));
            self.external(service, &end, &of_protocol(port));
        }
    }

    /// The endpoints' own chains, and the chances of each.
    fn endpoints(&mut self, service: &Service, protocol: &str, end: &str) {
        let mut all = Vec::new();
        for (position, endpoint) in service.endpoints.iter().enumerate() {
            let (sep, address) = (format!("KUBE-SEP-{end}-{position}"), endpoint.addresses[self.family]);
            let there = std::net::SocketAddr::new(address, endpoint.port);
            self.chains[NAT].push(sep.clone());
            self.rule(NAT, &format!("{sep} -s {address} -j KUBE-MARK-MASQ"));
            self.rule(NAT, &format!("{sep} -p {protocol} -m {protocol} -j DNAT --to-destination {there}"));
            all.push((endpoint.node, sep));
        }
        self.at_random(&format!("KUBE-SVC-{end}"), all.iter());
        let node = self.node;
        if service.is_local && all.iter().any(|(where_from, _)| *where_from == node) {
            self.chains[NAT].push(format!("KUBE-SVL-{end}"));
            self.at_random(&format!("KUBE-SVL-{end}"), all.iter().filter(|(where_from, _)| *where_from == node));
        }
    }

    fn at_random<'a>(&mut self, chain: &str, endpoints: impl Iterator<Item = &'a (u8, String)>) {
        let endpoints: Vec<_> = endpoints.collect();
        for (position, (_, sep)) in endpoints.iter().enumerate() {
            // Of those that are left, each has the same chance.
            let chance = match endpoints.len() - position {
                1 => String::new(),
                left => format!("-m statistic --mode random --probability {:.11} ", 1.0 / left as f64),
            };
            self.rule(NAT, &format!("{chain} {chance}-j {sep}"));
        }
    }

    /// What comes to a port of the node.
    fn external(&mut self, service: &Service, end: &str, to_port: &str) {
        let (ext, svc, svl) = (format!("KUBE-EXT-{end}"), format!("KUBE-SVC-{end}"), format!("KUBE-SVL-{end}"));
        self.chains[NAT].push(ext.clone());
        if !service.is_local {
            self.rule(NAT, &format!("{ext} -j KUBE-MARK-MASQ"));
            self.rule(NAT, &format!("{ext} -j {svc}"));
            return;
        }
        self.rule(NAT, &format!("{ext} -s {} -j {svc}", CLUSTER_CIDR[self.family]));
        self.rule(NAT, &format!("{ext} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"));
        self.rule(NAT, &format!("{ext} -m addrtype --src-type LOCAL -j {svc}"));
        if self.chains[NAT].contains(&svl) {
            self.rule(NAT, &format!("{ext} -j {svl}"));
        } else {
            let why = format!("-m comment --comment \"{} has no local endpoints\"", service.name);
            let rule = format!("KUBE-EXTERNAL-SERVICES {why} -m addrtype --dst-type LOCAL {to_port} -j DROP");
            self.rule(FILTER, &rule);
        }
    }

    /// What `iptables-restore` reads. A chain that is declared is emptied first.
    fn text(&self) -> String {
        let mut text = String::new();
        for (table, name) in [(NAT, "nat"), (FILTER, "filter")] {
            let declared: Vec<_> = self.chains[table].iter().map(|chain| format!(":{chain} - [0:0]")).collect();
            let rules = self.rules[table].join("\n");
            writeln!(text, "*{name}\n{}\n{rules}\nCOMMIT", declared.join("\n")).expect("write to a string");
        }
        text
    }
}
