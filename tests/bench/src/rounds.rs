//! ADD, CHECK and DEL one by one: every repetition runs each row once with each suite.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tests::Host;

use crate::Options;
use crate::burst::together;
use crate::results::{Results, Section};
use crate::scenario::Scenario;
use crate::seat::{Seat, Verb};
use crate::suite::{Programs, Suite};

/// Fewer repetitions say nothing.
const LEAST: usize = 10;

/// After each call. The kernel takes some things apart after the process has ended; the next one shall not pay for it.
const PAUSE: Duration = Duration::from_millis(5);

/// After all of it: until the kernel has taken hundreds of namespaces apart.
const REST: Duration = Duration::from_secs(2);

/// How many ADDs fill a node at once.
const FILLERS: usize = 4;

/// A /proc beside the one that plugins use, as each container has its own. In theirs a namespace whose sysctls were once
/// looked at makes everybody else's dearer (NOTES.md): that is for the plugins to cause, and not for the bench.
const OTHER_PROC: &str = "/run/proc-of-containers";

/// A pod to measure, and those beside it on its node.
struct Place {
    scenario: Scenario,
    suite: Suite,
    seat: Seat,
    _neighbours: Arc<Vec<Seat>>,
}

/// Measures these rows by turns until the deadline, then gives back what they were measured in.
pub fn run(options: &Options, scenarios: &[Scenario], deadline: Option<Instant>, results: &mut Results) {
    if scenarios.is_empty() {
        return;
    }
    println!("preparing {} rows ...", scenarios.len());
    let mut places: Vec<Vec<Place>> = scenarios.iter().map(|row| places(*row, &options.programs)).collect();
    println!("measuring ...");
    for repetition in 0..options.repeat {
        if repetition >= LEAST && deadline.is_some_and(|deadline| Instant::now() > deadline) {
            break;
        }
        for row in &mut places {
            let first = repetition % row.len().max(1);
            row.rotate_left(first);
            for place in row.iter_mut() {
                measure(place, results);
            }
            row.rotate_right(first);
        }
        results.repetitions = results.repetitions.max(repetition + 1);
    }
    for place in places.iter_mut().flatten() {
        watch(place, results);
    }
    drop(places);
    thread::sleep(REST);
}

fn measure(place: &mut Place, results: &mut Results) {
    let row = place.scenario.to_string();
    for verb in Verb::ALL {
        if verb == Verb::Check && place.suite == Suite::Floor {
            continue;
        }
        let answer = place.seat.run(verb);
        let section = match verb {
            Verb::Add => Section::Add,
            Verb::Check => Section::Check,
            Verb::Del => Section::Del,
        };
        let milliseconds = answer.time.as_secs_f64() * 1e3;
        results.cell(section, &row, place.suite).push_answer(milliseconds, answer.complaint);
        thread::sleep(PAUSE);
    }
    tidy(place);
}

/// Rules that a DEL left must not be there for the next ADD to be slower: the floor's DEL does not look for its rules
/// (that would be a question), and the reference 1.9.1 leaves its own where iptables is 1.8.9.
fn tidy(place: &Place) {
    if !place.scenario.has_floor_rules() {
        return;
    }
    let (host, id) = (place.seat.host(), place.seat.pod().id());
    let listed = host.run("nft -a list chain inet cni_plugins_masquerade masq_checks");
    let left = |line: &&str| match place.suite {
        Suite::Floor => line.contains("masquerade # handle"),
        Suite::Ours | Suite::Reference => line.contains(&id),
    };
    for handle in listed.lines().filter(left).filter_map(|line| line.rsplit(' ').next()) {
        host.run(&format!("nft delete rule inet cni_plugins_masquerade masq_checks handle {handle}"));
    }
}

fn watch(place: &mut Place, results: &mut Results) {
    let row = place.scenario.to_string();
    let host = Arc::clone(place.seat.host());
    if let Some((peak, tasks)) = host.enter(|| place.seat.watch(Verb::Add)) {
        results.cell(Section::Memory, &row, place.suite).push(peak as f64);
        results.cell(Section::Tasks, &row, place.suite).push(tasks as f64);
    }
    place.seat.run(Verb::Del);
    tidy(place);
}

/// A pod of each suite that has what the row needs. A crowd is there once, for all of them.
fn places(scenario: Scenario, programs: &Programs) -> Vec<Place> {
    let crowd = scenario.is_crowded().then(|| Arc::new(neighbours(scenario, Suite::Ours, programs)));
    let suites = Suite::ALL.into_iter().filter(|suite| scenario.is_known_to(programs, *suite));
    let place = |suite: Suite| {
        let neighbours = crowd.clone().unwrap_or_else(|| Arc::new(neighbours(scenario, suite, programs)));
        let host = neighbours[0].host();
        let seat = Seat::new(host, scenario, suite, programs, 1);
        Place { scenario, suite, seat, _neighbours: neighbours }
    };
    suites.map(place).collect()
}

/// The pods that are there already, at least the first one.
pub fn neighbours(scenario: Scenario, suite: Suite, programs: &Programs) -> Vec<Seat> {
    match scenario {
        Scenario::Bridge { crowd, .. } if crowd > 0 => crowd_of(scenario, programs, crowd),
        _ => vec![first_pod(scenario, suite, programs)],
    }
}

/// A node where the first pod has made what all pods share, as on every node but a new one.
pub fn first_pod(scenario: Scenario, suite: Suite, programs: &Programs) -> Seat {
    let host = Arc::new(Host::new());
    if let Scenario::HostLocal { leases } = scenario {
        fill_store(&host, leases);
    } else if suite == Suite::Floor {
        lay_floor(&host);
    }
    let mut seat = Seat::new(&host, scenario, suite, programs, 0);
    let answer = seat.run(Verb::Add);
    assert!(answer.complaint.is_none(), "{scenario}, {}: {:?}", suite.name(), answer.complaint);
    seat
}

/// What the floor takes for granted.
fn lay_floor(host: &Host) {
    host.run("ip link add cni0 type bridge");
    host.run("ip address add 10.88.0.1/16 dev cni0");
    host.run("ip address add fd88::1/64 dev cni0 nodad");
    host.run("ip link set cni0 up");
    host.run("nft add table inet cni_plugins_masquerade");
    host.run("nft add chain inet cni_plugins_masquerade masq_checks");
    let hook = "{ type nat hook postrouting priority 100 ; }";
    host.run(&format!("nft add chain inet cni_plugins_masquerade postrouting {hook}"));
    host.run("nft add rule inet cni_plugins_masquerade postrouting goto masq_checks");
}

/// Leases as both suites write them, of containers that nobody asks for.
fn fill_store(host: &Host, leases: usize) {
    let directory = host.store().join("networks/bench");
    fs::create_dir_all(&directory).expect("make the store");
    let first = u32::from(Ipv4Addr::new(10, 88, 0, 2));
    let mut last = None;
    for address in (first..).take(leases).map(Ipv4Addr::from) {
        let lease = format!("{:064x}\r\neth0", u32::from(address));
        fs::write(directory.join(address.to_string()), lease).expect("write a lease");
        last = Some(address);
    }
    if let Some(last) = last {
        fs::write(directory.join("last_reserved_ip.0"), last.to_string()).expect("write the last lease");
    }
}

/// A node full of pods, wired by our suite; what is there is the same by either.
fn crowd_of(scenario: Scenario, programs: &Programs, count: usize) -> Vec<Seat> {
    let first = first_pod(scenario, Suite::Ours, programs);
    let host = Arc::clone(first.host());
    let mut seats = vec![first];
    seats.extend((1..count).map(|_| Seat::new(&host, scenario, Suite::Ours, programs, 0)));
    host.run(&format!("mkdir {OTHER_PROC}"));
    host.run(&format!("mount -t proc proc {OTHER_PROC}"));
    for seat in &seats {
        // What hundreds of pods announce to each other over IPv6 in their first seconds is no part of an ADD.
        let quiet = || fs::write(format!("{OTHER_PROC}/sys/net/ipv6/conf/default/disable_ipv6"), "1");
        seat.pod().enter(quiet).expect("switch IPv6 off");
    }
    let (_, answers) = together(&host, &mut seats[1..], FILLERS, Verb::Add);
    for answer in answers {
        assert!(answer.complaint.is_none(), "{scenario}: {:?}", answer.complaint);
    }
    seats
}
