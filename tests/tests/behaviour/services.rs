//! Services of Kubernetes over our pods: two nodes with kube-proxy's chains, and who sees whose address.
//!
//! A test is a combination of plugin, masquerade and iptables flavour; in it every path is asked in both families, over
//! TCP and UDP, and all that went wrong is told at the end.

use std::fmt;
use std::thread;

use serde_json::{Value, json};
use tests::cluster::{CLUSTER_CIDR, Cluster, Flavour, Link, Member, Node};
use tests::{Findings, kube_proxy};

use crate::bridge_conf::with;
use crate::services_paths::Stage;

/// What happens to packets that leave the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    /// They stay as they are.
    Off,
    /// They get the node's address, all of them: `ipMasq`, by this backend.
    All(&'static str),
    /// All but those to other pods: the same with `nonMasqueradeCIDRs`.
    Beyond(&'static str),
}

/// How a pod of this cluster is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// `bridge` with `hairpinMode`.
    Bridge,
    /// `bridge` with `promiscMode`.
    Promiscuous,
    Ptp,
}

impl Plugin {
    pub fn name(self) -> &'static str {
        if self == Self::Ptp { "ptp" } else { "bridge" }
    }
}

/// A combination: what is the same in every pod of a cluster.
#[derive(Clone, Copy)]
pub struct Combination {
    pub plugin: Plugin,
    pub masquerade: Masquerade,
    pub flavour: Flavour,
    /// `bridge-nf-call-iptables`, as Kubernetes asks of a node.
    pub bridged_is_filtered: bool,
    /// kube-proxy is there before the pods.
    pub kube_proxy_first: bool,
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, masquerade, flavour, bridged_is_filtered, kube_proxy_first } = self;
        write!(f, "{plugin:?}, masquerade {masquerade:?}, iptables {flavour:?}")?;
        write!(f, ", bridge-nf-call-iptables {bridged_is_filtered}, kube-proxy first {kube_proxy_first}")
    }
}

impl Combination {
    pub fn new(plugin: Plugin, masquerade: Masquerade, flavour: Flavour) -> Self {
        Self { plugin, masquerade, flavour, bridged_is_filtered: true, kube_proxy_first: true }
    }

    pub fn conf(self, node: &Node) -> Value {
        let ranges = node.subnets().map(|subnet| json!([{ "subnet": subnet }]));
        let conf = json!({"cniVersion": "1.0.0", "name": "pods", "type": self.plugin.name(),
            "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}});
        let conf = match self.masquerade {
            Masquerade::Off => conf,
            Masquerade::All(backend) => with(&conf, json!({"ipMasq": true, "ipMasqBackend": backend})),
            Masquerade::Beyond(backend) => {
                with(&conf, json!({"ipMasq": true, "ipMasqBackend": backend, "nonMasqueradeCIDRs": CLUSTER_CIDR}))
            }
        };
        match self.plugin {
            Plugin::Bridge => with(&conf, json!({"bridge": "cni0", "isGateway": true, "hairpinMode": true})),
            Plugin::Promiscuous => with(&conf, json!({"bridge": "cni0", "isGateway": true, "promiscMode": true})),
            Plugin::Ptp => conf,
        }
    }

    /// Who masquerades, and who maps ports where that is asked too.
    pub fn backend(self) -> &'static str {
        match self.masquerade {
            Masquerade::Off => "iptables",
            Masquerade::All(backend) | Masquerade::Beyond(backend) => backend,
        }
    }

    /// Pods and all, every question, and away again: what was there before is there after.
    pub fn run(self) {
        self.run_with(|_| (), |_, _, _| Vec::new(), |_, _| (), &[]);
    }

    /// The same on nodes that were prepared, with plugins behind the first in the chain of the pod of that name, and with
    /// further questions. `shared` are words in the names of what these plugins leave on the node by contract, but for
    /// what is a pod's.
    pub fn run_with(
        self,
        prepare: impl FnOnce(&Cluster),
        chained: impl for<'a> Fn(&'a Node, &str, u16) -> Vec<Link<'a>>,
        ask: impl FnOnce(&Stage<'_>, &mut Findings),
        shared: &[&str],
    ) {
        let cluster = Cluster::new(self.flavour);
        let mut combination = self;
        for node in cluster.nodes() {
            combination.bridged_is_filtered = node.filters_bridged(self.bridged_is_filtered);
        }
        prepare(&cluster);
        if self.kube_proxy_first {
            kube_proxy::start(&cluster);
        }
        let before = cluster.nodes().each_ref().map(|node| node.state());
        let stage = Stage::new(&cluster, combination, chained);
        if !self.kube_proxy_first {
            kube_proxy::start(&cluster);
        }
        kube_proxy::sync(&cluster, &stage.services());
        let mut findings = Findings::new(&combination.to_string());
        stage.ask(&mut findings);
        ask(&stage, &mut findings);
        findings.finish();
        for member in stage.members() {
            member.check();
            member.detach();
        }
        // What comes with the first rule of iptables, and kube-proxy's.
        let frame: &[&str] = if self.kube_proxy_first { &["KUBE-"] } else { &["KUBE-", r#""table":{"#, r#""prio":"#] };
        let of_a_pod: Vec<String> = stage.members().into_iter().flat_map(Member::marks).collect();
        for (node, before) in cluster.nodes().iter().zip(before) {
            let changed = node.state().without_link("cni0").difference(&before);
            let is_left = |line: &&str| {
                let has = |word: &&str| line.contains(word);
                let is_shared = shared.iter().any(has) && !of_a_pod.iter().any(|mark| line.contains(mark));
                !frame.iter().any(has) && !is_shared
            };
            let left: Vec<_> = changed.lines().filter(is_left).collect();
            assert!(left.is_empty(), "{combination}: DEL left on node {}:\n{}", node.number(), left.join("\n"));
        }
    }
}

/// Both masquerade backends, each with both iptables, at the same time. Each failure has been told when this panics.
#[track_caller]
pub fn in_every_backend(plugin: Plugin, masquerade: fn(&'static str) -> Masquerade, run: impl Fn(Combination) + Sync) {
    let run = &run;
    let failed: Vec<String> = thread::scope(|scope| {
        let mut running = Vec::new();
        for backend in ["iptables", "nftables"] {
            for flavour in [Flavour::Nft, Flavour::Legacy] {
                let combination = Combination::new(plugin, masquerade(backend), flavour);
                running.push((combination, scope.spawn(move || run(combination))));
            }
        }
        let outcomes = running.into_iter().map(|(combination, thread)| (combination, thread.join()));
        outcomes.filter(|(_, outcome)| outcome.is_err()).map(|(combination, _)| combination.to_string()).collect()
    });
    assert!(failed.is_empty(), "{} of 4 combinations failed, as told above:\n  {}", failed.len(), failed.join("\n  "));
}

#[test]
fn every_path_over_bridge() {
    in_every_backend(Plugin::Bridge, Masquerade::All, Combination::run);
}

#[test]
fn every_path_over_ptp() {
    in_every_backend(Plugin::Ptp, Masquerade::All, Combination::run);
}

#[test]
fn other_nodes_pods_see_the_pod_that_is_not_to_be_masqueraded_over_bridge() {
    in_every_backend(Plugin::Bridge, Masquerade::Beyond, Combination::run);
}

#[test]
fn other_nodes_pods_see_the_pod_that_is_not_to_be_masqueraded_over_ptp() {
    in_every_backend(Plugin::Ptp, Masquerade::Beyond, Combination::run);
}

#[test]
fn without_ip_masq_nobody_but_kube_proxy_changes_an_address() {
    for plugin in [Plugin::Bridge, Plugin::Ptp] {
        Combination::new(plugin, Masquerade::Off, Flavour::Nft).run();
    }
}

#[test]
fn promisc_mode_is_not_in_the_way_and_a_pod_reaches_itself_where_it_is_routed() {
    for bridged_is_filtered in [true, false] {
        let combination = Combination::new(Plugin::Promiscuous, Masquerade::All("iptables"), Flavour::Nft);
        Combination { bridged_is_filtered, ..combination }.run();
    }
}

/// What needs `bridge-nf-call-iptables`: a pod to a Service whose endpoint is its neighbour on the bridge. No more.
#[test]
fn all_other_paths_work_where_bridged_frames_do_not_pass_by_iptables() {
    for backend in ["iptables", "nftables"] {
        let combination = Combination::new(Plugin::Bridge, Masquerade::All(backend), Flavour::Nft);
        Combination { bridged_is_filtered: false, ..combination }.run();
    }
}

#[test]
fn kube_proxy_may_come_after_the_pods() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        for plugin in [Plugin::Bridge, Plugin::Ptp] {
            let combination = Combination::new(plugin, Masquerade::All("iptables"), flavour);
            Combination { kube_proxy_first: false, ..combination }.run();
        }
    }
}
