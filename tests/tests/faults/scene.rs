//! A scene for faults: a node on which one pod is added and deleted over and over, by a chain of plugins as a runtime
//! calls it, and what must be there in between.
//!
//! What is exact. The node has had a pod of the network before, and a neighbour lives on it, so that everything that stays
//! by contract is there already: the bridge and its addresses, forwarding, tables and chains that pods share, the directories of
//! the stores. Its state then is *the* state, and after each fault and what mends it, it must be the same to the last rule,
//! in order; the pod's namespace too. Nothing is left out but what [`tests::State`] leaves out anywhere.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::faults::{Fault, Place, Run};
use tests::plugin::with_prev_result;
use tests::{Host, Outcome, Pod, State};

use crate::conf::{GATEWAYS, of_neighbour, with};

const IFNAME: &str = "eth0";

/// Who makes up for a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healer {
    /// DEL of the chain, as the runtime that saw the ADD or DEL fail calls it.
    Del,
    /// GC without any valid attachment: the runtime has forgotten all.
    Gc,
}

/// What there is on node and in pod.
#[derive(PartialEq, Eq)]
pub struct Snapshot {
    host: State,
    pod: State,
    /// The files below /run/cni: locks, tuning's backups.
    run: BTreeSet<String>,
}

/// A node, a chain, a pod.
pub struct Scene {
    pub host: Host,
    pub pod: Pod,
    chain: Vec<Value>,
    /// It lives through everything.
    neighbour: Option<Pod>,
    before: Snapshot,
}

impl Scene {
    /// With `healer` to be called: GC without valid attachments takes every pod of the network, so the neighbour is of
    /// another one then.
    pub fn new(chain: Vec<Value>, healer: Healer) -> Self {
        Self::lived_in(Self::empty(chain), healer)
    }

    /// The same on a node whose iptables are the legacy ones.
    pub fn of_legacy(chain: Vec<Value>, healer: Healer) -> Self {
        let scene = Self::empty(chain);
        scene.host.choose_legacy();
        Self::lived_in(scene, healer)
    }

    fn lived_in(mut scene: Self, healer: Healer) -> Self {
        let network = if healer == Healer::Gc { "other" } else { "net" };
        let neighbour = scene.host.pod();
        add(&scene.host, &of_neighbour(&scene.chain, network), &neighbour);
        scene.add();
        scene.heal(Healer::Del);
        // What heals may need a lock, whose file stays.
        scene.heal(healer);
        scene.before = scene.state();
        scene.neighbour = Some(neighbour);
        scene
    }

    /// A node that has never had a pod.
    pub fn empty(chain: Vec<Value>) -> Self {
        let host = Host::new();
        let pod = host.pod();
        let before = Snapshot { host: host.state(), pod: pod.state(), run: BTreeSet::new() };
        Self { host, pod, chain, neighbour: None, before }
    }

    /// ADD of the whole chain; the results of each.
    pub fn add(&self) -> Vec<Value> {
        add(&self.host, &self.chain, &self.pod)
    }

    /// A verb of one plugin with a fault, on a pod that is as far as it is then.
    pub fn with_fault(&self, verb: &str, plugin: usize, place: Place, fault: Fault<'_>) -> Run {
        let results = self.prepare(verb, plugin);
        self.strike(verb, plugin, &results, place, fault)
    }

    /// What comes before a verb of one plugin: ADD of those before it; for DEL all ADDs, and DEL of those behind it. The
    /// results of the ADDs.
    pub fn prepare(&self, verb: &str, plugin: usize) -> Vec<Value> {
        if verb == "ADD" {
            return add(&self.host, &self.chain[..plugin], &self.pod);
        }
        let results = self.add();
        for later in self.chain[plugin + 1..].iter().rev() {
            self.plugin(later).del(with_last(later, &results), &self.pod, IFNAME).success();
        }
        results
    }

    /// The verb itself.
    pub fn strike(&self, verb: &str, plugin: usize, results: &[Value], place: Place, fault: Fault<'_>) -> Run {
        let conf = &self.chain[plugin];
        self.plugin(conf).with_fault(verb, with_last(conf, results), (&self.pod, IFNAME), place, fault)
    }

    /// CHECK of one plugin.
    pub fn check(&self, plugin: usize, result: &Value) -> Outcome {
        let conf = &self.chain[plugin];
        self.plugin(conf).check(with_prev_result(conf, result), &self.pod, IFNAME)
    }

    /// What there is now.
    pub fn state(&self) -> Snapshot {
        let listed = self.host.try_run("find /run/cni -printf %p\\n");
        let run = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
        Snapshot { host: self.host.state(), pod: self.pod.state(), run }
    }

    fn plugin(&self, conf: &Value) -> tests::Plugin<'_> {
        self.host.plugin(conf["type"].as_str().unwrap())
    }

    /// Makes up for a fault. The runtime knows no result: the ADD never gave one, or it was forgotten.
    pub fn heal(&self, healer: Healer) {
        let none = json!({"cni.dev/valid-attachments": []});
        let call = |conf: &Value| match healer {
            Healer::Del => self.plugin(conf).del(conf, &self.pod, IFNAME),
            Healer::Gc => self.plugin(conf).gc(with(conf, none.clone())),
        };
        for conf in self.chain.iter().rev() {
            let outcome = call(conf);
            assert!(outcome.status == Some(0), "{healer:?} of {}\n{outcome}", conf["type"]);
        }
    }

    /// What is different from what it was; empty is right.
    pub fn difference(&self) -> String {
        self.difference_from(&self.before)
    }

    /// What is different from an earlier [`Scene::state`].
    pub fn difference_from(&self, before: &Snapshot) -> String {
        let now = self.state();
        let mut difference = now.host.difference(&before.host) + &now.pod.difference(&before.pod);
        for line in now.run.symmetric_difference(&before.run) {
            difference += &format!("/run/cni, now or before: {line}\n");
        }
        if difference.is_empty() && now != *before {
            difference += "the order of the rules changed\n";
        }
        difference
    }

    /// The next ADD works, packets pass, and its DEL takes all away.
    pub fn works(&self) {
        let result = self.add().pop().unwrap();
        for gateway in GATEWAYS {
            let answered = self.pod.try_run(&format!("ping -n -q -c 1 -W 2 {gateway}")).status.success();
            assert!(answered || self.pod.pings(gateway), "{gateway} does not answer");
        }
        for conf in self.chain.iter().rev() {
            let conf = with_prev_result(conf, &result);
            self.plugin(&conf).check(&conf, &self.pod, IFNAME).success();
        }
        for conf in self.chain.iter().rev() {
            let conf = with_prev_result(conf, &result);
            self.plugin(&conf).del(&conf, &self.pod, IFNAME).success();
        }
    }
}

fn with_last(conf: &Value, results: &[Value]) -> Value {
    results.last().map_or_else(|| conf.clone(), |result| with_prev_result(conf, result))
}

fn add(host: &Host, chain: &[Value], pod: &Pod) -> Vec<Value> {
    let mut results: Vec<Value> = Vec::new();
    for conf in chain {
        let plugin = host.plugin(conf["type"].as_str().unwrap());
        results.push(plugin.add(with_last(conf, &results), pod, IFNAME).success());
    }
    results
}

/// Whether every place is to be tried, and not only as many as a minute allows.
pub fn all() -> bool {
    std::env::var("PODWIRE_FAULTS").is_ok_and(|which| which == "all")
}
