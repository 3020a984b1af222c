//! What the project wants to reach, beside what was measured. Nothing is asserted: a machine may have a bad day.

use crate::results::{Line, Results, Section};
use crate::scenario::{Backend, EMPTY_STORE, FULL_STORE, Scenario, bridge, crowded};
use crate::size::is_static;
use crate::suite::Suite::{self, Floor, Ours, Reference};

/// One of them.
#[derive(Clone, Debug)]
pub struct Goal {
    /// What it is about.
    pub what: &'static str,
    /// What is wanted.
    pub wanted: String,
    /// What was measured; `None` where it was not.
    pub measured: Option<String>,
    /// Whether it is what is wanted.
    pub met: bool,
}

const PLAIN: Scenario = bridge(None, false);
const IPTABLES: Scenario = bridge(Some(Backend::Iptables), false);
const NFTABLES: Scenario = bridge(Some(Backend::Nftables), false);
const DUAL: Scenario = bridge(None, true);

/// A test for duplicate addresses takes the kernel more than a second.
const NO_WAIT: f64 = 500.0;

/// All of them.
pub fn all(results: &Results) -> Vec<Goal> {
    let add = |row, suite| results.median(Section::Add, row, suite);
    let over = |row, below| Some(add(row, Ours)? / add(below, Floor)?);
    let faster = |row| results.line(Section::Add, row)?.ratio(Reference, Ours);
    let crowds = [Backend::Iptables, Backend::Nftables].into_iter().filter_map(|backend| {
        let (full, empty) = (crowded(backend), bridge(Some(backend), false));
        Some((add(full, Ours)? / add(empty, Ours)?, backend.to_string()))
    });
    let dels = ratios(results, Section::Del, Ours, Floor).filter(|(_, row)| !row.contains("portmap"));
    let checks = ratios(results, Section::Check, Reference, Ours);
    let bursts = ratios(results, Section::BurstWall, Reference, Ours);
    let stores = add(FULL_STORE, Ours).zip(add(EMPTY_STORE, Ours)).map(|(full, empty)| full / empty);
    vec![
        at_most("ADD, no masquerade, over the floor", 1.8, one(over(PLAIN, PLAIN))),
        at_least("ADD, no masquerade, faster than the reference", 4.0, one(faster(PLAIN))),
        at_most("ADD, nftables, over the floor without masquerade", 2.5, one(over(NFTABLES, PLAIN))),
        at_least("ADD, nftables, faster than the reference", 8.0, one(faster(NFTABLES))),
        at_least("ADD, iptables, faster than the reference", 4.0, one(faster(IPTABLES))),
        children(results),
        at_least("CHECK, any row, faster than the reference", 4.0, least(checks)),
        at_most("DEL, bridge with any backend, over the floor", 1.3, most(dels)),
        at_least("60 pods, any backend, faster than the reference", 4.0, least(bursts)),
        burst(results),
        at_most("ADD with 400 pods there, over an empty node", 1.3, most(crowds)),
        at_most("host-local ADD with 10,000 leases, over an empty store", 1.3, one(stores)),
        memory(results),
        sizes(results),
        no_wait(results),
    ]
}

/// A measured ratio, and the row that it is of where there are several.
type Ratio = (f64, String);

fn ratios(results: &Results, section: Section, of: Suite, to: Suite) -> impl Iterator<Item = Ratio> {
    results.section(section).filter_map(move |line| Some((line.ratio(of, to)?, line.row.clone())))
}

fn one(ratio: Option<f64>) -> Option<Ratio> {
    Some((ratio?, String::new()))
}

fn least(ratios: impl Iterator<Item = Ratio>) -> Option<Ratio> {
    ratios.min_by(|one, other| one.0.total_cmp(&other.0))
}

fn most(ratios: impl Iterator<Item = Ratio>) -> Option<Ratio> {
    ratios.max_by(|one, other| one.0.total_cmp(&other.0))
}

fn at_most(what: &'static str, limit: f64, measured: Option<Ratio>) -> Goal {
    let met = measured.as_ref().is_some_and(|(ratio, _)| *ratio <= limit);
    Goal { what, wanted: format!("at most {limit}x"), measured: measured.map(words), met }
}

fn at_least(what: &'static str, limit: f64, measured: Option<Ratio>) -> Goal {
    let met = measured.as_ref().is_some_and(|(ratio, _)| *ratio >= limit);
    Goal { what, wanted: format!("at least {limit}x"), measured: measured.map(words), met }
}

fn words((ratio, row): Ratio) -> String {
    if row.is_empty() { format!("{ratio:.2}x") } else { format!("{ratio:.2}x ({row})") }
}

fn children(results: &Results) -> Goal {
    // One of the processes is the IPAM plugin.
    let started = results.median(Section::Tasks, IPTABLES, Ours).map(|tasks| tasks - 1.0);
    Goal {
        what: "ADD, iptables, processes beside IPAM",
        wanted: "at most 2".to_owned(),
        measured: started.map(|number| number.to_string()),
        met: started.is_some_and(|number| number <= 2.0),
    }
}

fn burst(results: &Results) -> Goal {
    let lines: Vec<&Line> = results.section(Section::BurstEach).collect();
    let failures: usize = lines.iter().map(|line| line.cell(Ours).failures).sum();
    let addresses = lines.iter().filter_map(|line| line.cell(Ours).addresses).min();
    Goal {
        what: "60 pods, failures",
        wanted: "none, 60 addresses".to_owned(),
        measured: addresses.map(|addresses| format!("{failures}, {addresses} addresses")),
        met: failures == 0 && addresses == Some(60),
    }
}

fn memory(results: &Results) -> Goal {
    let peak = results.section(Section::Memory).filter_map(|line| line.cell(Ours).median()).reduce(f64::max);
    Goal {
        what: "Peak memory of any process of an ADD",
        wanted: "3 MB".to_owned(),
        measured: peak.map(|kib| format!("{:.1} MB", kib * 1024.0 / 1e6)),
        met: peak.is_some_and(|kib| kib * 1024.0 <= 3e6),
    }
}

fn sizes(results: &Results) -> Goal {
    let excused = |line: &&Line| ["dhcp", "firewall"].contains(&line.row.as_str()) || line.row.contains(' ');
    let lines: Vec<&Line> = results.section(Section::Size).filter(|line| !excused(line)).collect();
    let largest = lines.iter().filter_map(|line| line.cell(Ours).median()).reduce(f64::max);
    let all_static = lines.iter().all(|line| is_static(&results.programs.ours.join(&line.row)));
    let how = if all_static { "static" } else { "NOT all static" };
    Goal {
        what: "Largest plugin but dhcp and firewall",
        wanted: "3 MB, static".to_owned(),
        measured: largest.map(|kib| format!("{:.1} MB, {how}", kib * 1024.0 / 1e6)),
        met: all_static && largest.is_some_and(|kib| kib * 1024.0 <= 3e6),
    }
}

fn no_wait(results: &Results) -> Goal {
    let slowest = results.line(Section::Add, DUAL).and_then(|line| line.cell(Ours).percentile(1.0));
    Goal {
        what: "IPv6 pod: no wait for duplicate address detection",
        wanted: "slowest ADD far below 1 s".to_owned(),
        measured: slowest.map(|milliseconds| format!("{milliseconds:.1} ms")),
        met: slowest.is_some_and(|milliseconds| milliseconds < NO_WAIT),
    }
}
