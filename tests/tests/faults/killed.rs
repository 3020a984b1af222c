//! Killed at every call that changes something: DEL alone, or GC alone, then restores what was there before, and the next ADD
//! works.

use serde_json::Value;
use tests::faults::{Fault, Place, Step};

use crate::conf::{bridge, chain, ptp};
use crate::scene::{Healer, Scene, all};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    All,
    PluginAlone,
}

/// Kills a verb of one plugin at every `grid`th call, one after the other. The findings.
fn at_every_call(conf: &[Value], plugin: usize, verb: &str, victims: Victims, healer: Healer, grid: usize) -> String {
    at_every_call_in(&Scene::new(conf.to_vec(), healer), plugin, verb, victims, healer, grid)
}

fn at_every_call_in(scene: &Scene, plugin: usize, verb: &str, victims: Victims, healer: Healer, grid: usize) -> String {
    let mut findings = String::new();
    let grid = if all() { 1 } else { grid };
    for number in (0..).step_by(grid) {
        let place = Place { counts: Step::changes, number };
        let heal = || scene.heal(healer);
        let fault = match victims {
            Victims::All => Fault::KillAll,
            Victims::PluginAlone => Fault::KillPlugin(&heal),
        };
        let run = scene.with_fault(verb, plugin, place, fault);
        if victims == Victims::All || run.struck.is_none() {
            scene.heal(healer);
        }
        let difference = scene.difference();
        if !difference.is_empty() {
            let place = run.struck.as_ref().map_or_else(|| "its end".to_owned(), |step| step.to_string());
            findings += &format!("{verb} killed ({victims:?}) at {number}, {place}; after {healer:?}:\n{difference}\n");
            scene.heal(Healer::Del);
        } else {
            scene.works();
        }
        if run.struck.is_none() {
            assert!(number > 4 || plugin > 0, "only {number} calls: nothing was tested");
            break;
        }
    }
    findings
}

fn nothing_found(findings: &[String]) {
    assert!(findings.iter().all(String::is_empty), "{}", findings.concat());
}

/// A main plugin, with every victim and every healer.
fn main_killed(conf: &[Value]) {
    let mut findings = Vec::new();
    for verb in ["ADD", "DEL"] {
        for (victims, grid) in [(Victims::All, 1), (Victims::PluginAlone, 2)] {
            for healer in [Healer::Del, Healer::Gc] {
                findings.push(at_every_call(conf, 0, verb, victims, healer, grid));
            }
        }
    }
    nothing_found(&findings);
}

#[test]
fn bridge_iptables() {
    main_killed(&bridge("iptables"));
}

#[test]
fn bridge_nftables() {
    main_killed(&bridge("nftables"));
}

#[test]
fn ptp_nftables() {
    main_killed(&ptp("nftables"));
}

/// One in this many calls of those behind bridge: with all of them, each backend takes five minutes.
const CHAIN_GRID: usize = 4;

/// Each plugin of the chain behind bridge.
fn chain_killed(backend: &str) {
    let mut findings = Vec::new();
    let conf = chain(backend);
    for plugin in 1..conf.len() {
        for (verb, victims, healer) in [
            ("ADD", Victims::All, Healer::Del),
            ("ADD", Victims::All, Healer::Gc),
            ("ADD", Victims::PluginAlone, Healer::Del),
            ("DEL", Victims::All, Healer::Del),
            ("DEL", Victims::All, Healer::Gc),
        ] {
            findings.push(at_every_call(&conf, plugin, verb, victims, healer, CHAIN_GRID));
        }
    }
    nothing_found(&findings);
}

#[test]
fn chain_iptables() {
    chain_killed("iptables");
}

#[test]
fn chain_nftables() {
    chain_killed("nftables");
}

/// One in this many calls: a legacy iptables writes its whole table at once, so there are few places that matter.
const LEGACY_GRID: usize = 9;

/// Those that have rules of iptables: bridge, portmap and firewall.
#[test]
fn chain_legacy() {
    let mut findings = Vec::new();
    for plugin in 0..3 {
        for (verb, victims, healer) in [
            ("ADD", Victims::All, Healer::Del),
            ("ADD", Victims::PluginAlone, Healer::Del),
            ("DEL", Victims::All, Healer::Gc),
        ] {
            let scene = Scene::of_legacy(chain("iptables")[..3].to_vec(), healer);
            findings.push(at_every_call_in(&scene, plugin, verb, victims, healer, LEGACY_GRID));
        }
    }
    nothing_found(&findings);
}
