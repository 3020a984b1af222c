//! The pods of [`crate::services`], the Services they are behind, and every path to them: who is asked from where, and
//! whose address is seen.

use std::net::{IpAddr, SocketAddr};

use tests::cluster::{Cluster, Dual, Link, Member, Node};
use tests::echo::Protocol;
use tests::kube_proxy::Service;
use tests::{Echo, Findings};

use crate::services::{Combination, Masquerade, Plugin};

/// A cluster with its pods.
pub struct Stage<'a> {
    pub combination: Combination,
    pub cluster: &'a Cluster,
    /// On node 1.
    pub client: Member<'a>,
    /// On node 1 and on node 2.
    pub servers: [Member<'a>; 2],
    on_nodes: [Echo; 2],
    outside: Echo,
}

/// `web` and `local` have both servers behind them, `own` the first one alone, `none` nobody.
const NAMES: [&str; 4] = ["web", "local", "own", "none"];
const PORT: u16 = 80;

fn position(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap()
}

fn node_port(name: &str) -> u16 {
    30080 + u16::try_from(position(name)).unwrap()
}

fn cluster_ip(name: &str) -> Dual {
    let last = 10 + position(name);
    [format!("10.96.0.{last}").parse().unwrap(), format!("fd00:10:96::{last}").parse().unwrap()]
}

impl<'c> Stage<'c> {
    /// Attaches the pods; `chained` as in [`Combination::run_with`].
    pub fn new(
        cluster: &'c Cluster,
        combination: Combination,
        chained: impl Fn(&'c Node, &str, u16) -> Vec<Link<'c>>,
    ) -> Self {
        let nodes = cluster.nodes();
        let attach = |node: &'c Node, name: &str| {
            node.attach(name, |port| {
                let mut chain = vec![(node.plugin(combination.plugin.name()), combination.conf(node))];
                chain.extend(chained(node, name, port));
                chain
            })
        };
        Self {
            combination,
            cluster,
            client: attach(&nodes[0], "client"),
            servers: [attach(&nodes[0], "server-1"), attach(&nodes[1], "server-2")],
            on_nodes: nodes.each_ref().map(|node| Echo::named(node, &format!("node-{}", node.number()))),
            outside: Echo::named(cluster.internet(), "internet"),
        }
    }

    /// All three pods.
    pub fn members(&self) -> [&Member<'c>; 3] {
        let [one, two] = &self.servers;
        [&self.client, one, two]
    }

    pub fn services(&self) -> Vec<Service> {
        let service = |name| {
            let behind = match name {
                "none" => &self.servers[..0],
                "own" => &self.servers[..1],
                _ => &self.servers[..],
            };
            Service {
                name,
                cluster_ip: cluster_ip(name),
                port: PORT,
                node_port: Some(node_port(name)),
                is_local: name == "local",
                endpoints: behind.iter().map(Member::endpoint).collect(),
            }
        };
        NAMES.map(service).to_vec()
    }

    /// What is asked in every combination.
    pub fn ask(&self, findings: &mut Findings) {
        for family in [0, 1] {
            self.ask_without_services(findings, family);
            self.ask_cluster_ips(findings, family);
            self.ask_node_ports(findings, family);
        }
        self.ask_where_nobody_is(findings);
    }

    /// The address that the other node's pods see of a pod of node 1.
    fn seen_by_pods(&self, member: &Member<'_>, family: usize) -> IpAddr {
        match self.combination.masquerade {
            Masquerade::Off | Masquerade::Beyond(_) => member.addresses[family],
            Masquerade::All(_) => member.node.lan[family],
        }
    }

    /// The address that the other node itself sees of a pod of node 1.
    pub fn seen_by_nodes(&self, member: &Member<'_>, family: usize) -> IpAddr {
        match self.combination.masquerade {
            Masquerade::Off => member.addresses[family],
            Masquerade::All(_) | Masquerade::Beyond(_) => member.node.lan[family],
        }
    }

    /// Answers of both servers to the client where kube-proxy does not masquerade.
    fn unmasked(&self, family: usize) -> Vec<String> {
        let ([first, second], client) = (&self.servers, &self.client);
        vec![first.saw(client.addresses[family]), second.saw(self.seen_by_pods(client, family))]
    }

    /// Between two ports of a bridge the answer of a pod passes by iptables, which takes the translation back, only where
    /// bridged frames do.
    pub fn reaches_its_neighbour_through_services(&self) -> bool {
        self.combination.bridged_is_filtered || self.combination.plugin == Plugin::Ptp
    }

    /// Where bridged frames pass by iptables they get their new address there, and go back to where they came from on
    /// the bridge: by `hairpinMode`. `promiscMode` was the other way; newer kernels forget what they translated in a
    /// frame that a promiscuous bridge takes in (seen on 6.18, with the reference too).
    pub fn reaches_itself_through_services(&self) -> bool {
        self.combination.plugin != Plugin::Promiscuous || !self.combination.bridged_is_filtered
    }

    fn ask_without_services(&self, findings: &mut Findings, family: usize) {
        let ([one, two], [first, second], client) = (self.cluster.nodes(), &self.servers, &self.client);
        let own = client.addresses[family];
        findings.ask("pod to pod on the same node", &client.pod, first.server(family), &[first.saw(own)]);
        let seen = second.saw(self.seen_by_pods(client, family));
        findings.ask("pod to pod on the other node", &client.pod, second.server(family), &[seen]);
        findings.ask("node to its pod", one, first.server(family), &[first.saw(one.gateway[family])]);
        findings.ask("node to a pod of the other node", one, second.server(family), &[second.saw(one.lan[family])]);
        let node_saw = [format!("node-1 saw {own}")];
        let there = |address: Dual| SocketAddr::new(address[family], self.on_nodes[0].port());
        findings.ask("pod to its gateway", &client.pod, there(one.gateway), &node_saw);
        // Over UDP the server of the lab answers from the address next to the pod.
        findings.ask_over(&[Protocol::Tcp], "pod to its node", &client.pod, there(one.lan), &node_saw);
        let there = SocketAddr::new(two.lan[family], self.on_nodes[1].port());
        let seen = format!("node-2 saw {}", self.seen_by_nodes(client, family));
        findings.ask("pod to the other node", &client.pod, there, &[seen]);
        if self.combination.masquerade != Masquerade::Off {
            let there = SocketAddr::new(one.outside[family], self.outside.port());
            let seen = format!("internet saw {}", one.uplink[family]);
            findings.ask("pod to the internet", &client.pod, there, &[seen]);
        }
    }

    fn ask_cluster_ips(&self, findings: &mut Findings, family: usize) {
        let ([one, _], [first, second], client) = (self.cluster.nodes(), &self.servers, &self.client);
        let to = |name: &str| SocketAddr::new(cluster_ip(name)[family], PORT);
        let (gateway, lan) = (one.gateway[family], one.lan[family]);
        if self.reaches_its_neighbour_through_services() {
            let both = self.unmasked(family);
            findings.ask("pod to ClusterIP", &client.pod, to("web"), &both);
            findings.ask("pod to ClusterIP, policy Local", &client.pod, to("local"), &both);
        }
        findings.ask("node to ClusterIP", one, to("web"), &[first.saw(gateway), second.saw(lan)]);
        if self.reaches_itself_through_services() {
            findings.ask("pod to itself through its Service", &first.pod, to("own"), &[first.saw(gateway)]);
            let both = [first.saw(gateway), second.saw(self.seen_by_pods(first, family))];
            findings.ask("pod to a Service that it is behind", &first.pod, to("web"), &both);
        }
    }

    fn ask_node_ports(&self, findings: &mut Findings, family: usize) {
        let ([one, two], [first, second], client) = (self.cluster.nodes(), &self.servers, &self.client);
        let to = |address: Dual, name: &str| SocketAddr::new(address[family], node_port(name));
        let through_one = [first.saw(one.gateway[family]), second.saw(one.lan[family])];
        let through_two = [first.saw(two.lan[family]), second.saw(two.gateway[family])];
        for (node, through, server) in [(one, &through_one, first), (two, &through_two, second)] {
            let (number, internet) = (node.number(), self.cluster.internet());
            let path = format!("internet to NodePort of node {number}");
            findings.ask(&path, internet, to(node.uplink, "web"), through);
            let kept = [server.saw(node.outside[family])];
            findings.ask(&format!("{path}, policy Local"), internet, to(node.uplink, "local"), &kept);
            findings.ask(&format!("pod to NodePort of node {number}"), &client.pod, to(node.lan, "web"), through);
            findings.ask(&format!("node to NodePort of node {number}"), one, to(node.lan, "web"), through);
        }
        if self.reaches_its_neighbour_through_services() {
            let there = to(one.lan, "local");
            findings.ask("pod to NodePort of its node, policy Local", &client.pod, there, &self.unmasked(family));
        }
    }

    /// A Service without endpoints is refused at once: kube-proxy's REJECT must be heard before anything accepts.
    fn ask_where_nobody_is(&self, findings: &mut Findings) {
        let (nodes, internet, client) = (self.cluster.nodes(), self.cluster.internet(), &self.client.pod);
        let mut questions = Vec::new();
        for family in [0, 1] {
            let cluster_ip = SocketAddr::new(cluster_ip("none")[family], PORT);
            questions.push(("pod to ClusterIP without endpoints".to_owned(), &**client, cluster_ip));
            questions.push(("node to ClusterIP without endpoints".to_owned(), &**nodes[0], cluster_ip));
            for node in nodes {
                let path = format!("NodePort of node {} without endpoints", node.number());
                let to = |address: Dual| SocketAddr::new(address[family], node_port("none"));
                questions.push((format!("internet to {path}"), &**internet, to(node.uplink)));
                questions.push((format!("pod to {path}"), &**client, to(node.lan)));
            }
        }
        findings.refused(&questions);
    }
}
