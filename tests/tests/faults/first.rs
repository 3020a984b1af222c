//! The first pod of a node, under the same faults: there the ADD also makes what all pods share, and what stays.
//!
//! What is exact. Two states are known: the empty node's, and the one that an ADD and a DEL without any fault leave. After a
//! fault and its DEL or GC everything is as in one of the two, but the bridge, which may be half made; an ADD that fails by itself takes
//! the bridge away as well. Then a whole ADD, CHECK and DEL must lead to the second state. The address of a
//! bridge is random, and its number is counted up: they are not compared.

use std::collections::BTreeSet;

use serde_json::Value;
use tests::State;
use tests::faults::{Fault, Place, Step};

use crate::conf::{bridge, chain};
use crate::failing::{counts, faults_of, judge};
use crate::scene::{Healer, Scene, all};

const BRIDGE: &str = "cni0";

/// The lines of a state, without what is random or counted up.
fn lines(state: &State) -> BTreeSet<String> {
    state.to_string().lines().map(without_chance).collect()
}

fn without_chance(line: &str) -> String {
    let link = line.strip_prefix("links: ").and_then(|link| serde_json::from_str(link).ok());
    let Some(Value::Object(mut link)) = link else { return line.to_owned() };
    link.retain(|key, _| !["address", "ifindex"].contains(&key.as_str()));
    if let Some(Value::Object(of_bridge)) = link.get_mut("linkinfo").and_then(|info| info.get_mut("info_data")) {
        of_bridge.remove("bridge_id");
    }
    format!("links: {}", Value::Object(link))
}

/// The two states.
struct Known {
    empty: State,
    left: State,
}

impl Known {
    fn of(conf: &[Value]) -> Self {
        let scene = Scene::empty(conf.to_vec());
        let empty = scene.host.state();
        scene.works();
        Self { empty, left: scene.host.state() }
    }

    /// What is neither as on the empty node nor as it is left.
    fn difference(&self, now: &State, with_bridge: bool) -> String {
        let view = |state: &State| if with_bridge { lines(state) } else { lines(&state.without_link(BRIDGE)) };
        let (empty, left, now) = (view(&self.empty), view(&self.left.without_link(BRIDGE)), view(now));
        let came = now.iter().filter(|line| !empty.contains(*line) && !left.contains(*line));
        let gone = empty.intersection(&left).filter(|line| !now.contains(*line));
        came.map(|line| format!("+ {line}\n")).chain(gone.map(|line| format!("- {line}\n"))).collect()
    }

    /// The next pod is as if nothing had been.
    fn then(&self, scene: &Scene) -> String {
        scene.works();
        let (now, left) = (lines(&scene.host.state()), lines(&self.left));
        now.symmetric_difference(&left).map(|line| format!("after the next pod: {line}\n")).collect()
    }
}

fn killed(conf: &[Value], plugin: usize, grid: usize) -> String {
    let known = Known::of(conf);
    let mut findings = String::new();
    let grid = if all() { 1 } else { grid };
    for number in (0..).step_by(grid) {
        let scene = Scene::empty(conf.to_vec());
        let healer = if number / grid % 2 == 0 { Healer::Del } else { Healer::Gc };
        let run = scene.with_fault("ADD", plugin, Place { counts: Step::changes, number }, Fault::KillAll);
        scene.heal(healer);
        let found = known.difference(&scene.host.state(), false) + &known.then(&scene);
        if !found.is_empty() {
            let place = run.struck.as_ref().map_or_else(|| "its end".to_owned(), Step::to_string);
            findings += &format!("first ADD killed at {number}, {place}; after {healer:?}:\n{found}\n");
        }
        if run.struck.is_none() {
            break;
        }
    }
    findings
}

fn fails(conf: &[Value], plugin: usize, grid: usize) -> String {
    let known = Known::of(conf);
    let mut findings = String::new();
    let nothing = Place { counts, number: 0 };
    let steps = Scene::empty(conf.to_vec()).with_fault("ADD", plugin, nothing, Fault::None).steps;
    let grid = if all() { 1 } else { grid };
    for (number, step) in steps.iter().enumerate().step_by(grid) {
        for fault in faults_of(&step.operation, number) {
            let scene = Scene::empty(conf.to_vec());
            let run = scene.with_fault("ADD", plugin, Place { counts, number }, fault);
            let mut found = judge(&run);
            if run.outcome.status == Some(1) && plugin == 0 {
                found += &known.difference(&scene.host.state(), true);
            }
            scene.heal(Healer::Del);
            found += &known.difference(&scene.host.state(), false);
            found += &known.then(&scene);
            if !found.is_empty() {
                findings += &format!("first ADD, {number}, {step}, {fault:?}:\n{found}\n");
            }
        }
    }
    findings
}

#[test]
fn bridge_killed() {
    for backend in ["iptables", "nftables"] {
        let findings = killed(&bridge(backend), 0, 5);
        assert!(findings.is_empty(), "{backend}\n{findings}");
    }
}

#[test]
fn bridge_fails() {
    for backend in ["iptables", "nftables"] {
        let findings = fails(&bridge(backend), 0, 9);
        assert!(findings.is_empty(), "{backend}\n{findings}");
    }
}

#[test]
fn chain_killed() {
    for backend in ["iptables", "nftables"] {
        let conf = chain(backend);
        let findings: String = (1..conf.len()).map(|plugin| killed(&conf, plugin, 3)).collect();
        assert!(findings.is_empty(), "{backend}\n{findings}");
    }
}

#[test]
fn chain_fails() {
    for backend in ["iptables", "nftables"] {
        let conf = chain(backend);
        let findings: String = (1..conf.len()).map(|plugin| fails(&conf, plugin, 17)).collect();
        assert!(findings.is_empty(), "{backend}\n{findings}");
    }
}
