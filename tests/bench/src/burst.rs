//! Many pods at once, as when a node comes back.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tests::Host;

use crate::Options;
use crate::results::{Results, Section};
use crate::rounds::first_pod;
use crate::scenario::{self, Scenario};
use crate::seat::{Answer, Seat, Verb};
use crate::suite::Suite;

/// How many pods there are, and how many of them at once.
const PODS: u16 = 60;
const AT_ONCE: usize = 16;

/// How often all of it is done: at least, and at most.
const LEAST: usize = 2;
const MOST: usize = 7;

/// Until the kernel has come to rest.
const PAUSE: Duration = Duration::from_millis(200);

/// A node with its pods.
struct Node {
    scenario: Scenario,
    suite: Suite,
    seats: Vec<Seat>,
    _first: Seat,
}

/// Measures the rows of one family, until the deadline.
pub fn run(options: &Options, scenarios: &[Scenario], deadline: Option<Instant>, results: &mut Results) {
    let rows = scenario::MASQUERADES.map(|masquerade| scenario::bridge(masquerade, false));
    let mut nodes: Vec<Node> = Vec::new();
    for row in rows.into_iter().filter(|row| scenarios.contains(row)) {
        for suite in Suite::ALL.into_iter().filter(|suite| row.is_known_to(&options.programs, *suite)) {
            let first = first_pod(row, suite, &options.programs);
            let seat = |number| Seat::new(first.host(), row, suite, &options.programs, number);
            nodes.push(Node { scenario: row, suite, seats: (1..=PODS).map(seat).collect(), _first: first });
        }
    }
    if !nodes.is_empty() {
        println!("measuring {PODS} pods, {AT_ONCE} at once ...");
    }
    for round in 0..MOST.min(options.repeat) {
        if round >= LEAST && deadline.is_some_and(|deadline| Instant::now() > deadline) {
            break;
        }
        for node in &mut nodes {
            measure(node, results);
        }
    }
}

fn measure(node: &mut Node, results: &mut Results) {
    let row = node.scenario.to_string();
    let host = Arc::clone(node.seats[0].host());
    let (wall, answers) = together(&host, &mut node.seats, AT_ONCE, Verb::Add);
    let addresses = node.seats.iter().filter_map(Seat::address).collect::<BTreeSet<_>>().len();

    results.cell(Section::BurstWall, &row, node.suite).push(wall.as_secs_f64() * 1e3);
    let each = results.cell(Section::BurstEach, &row, node.suite);
    each.addresses = Some(each.addresses.map_or(addresses, |fewest| fewest.min(addresses)));
    for answer in answers {
        each.push_answer(answer.time.as_secs_f64() * 1e3, answer.complaint);
    }
    thread::sleep(PAUSE);
    together(&host, &mut node.seats, AT_ONCE, Verb::Del);
    thread::sleep(PAUSE);
}

/// Runs a verb for all seats of a host, so many at once; how long that took, and the answers in any order.
pub fn together(host: &Arc<Host>, seats: &mut [Seat], at_once: usize, verb: Verb) -> (Duration, Vec<Answer>) {
    let queue = Mutex::new(seats.iter_mut());
    let ready = Barrier::new(at_once);
    let work = || {
        host.enter(|| {
            ready.wait();
            let start = Instant::now();
            let next = || queue.lock().expect("no other thread has panicked").next();
            let answers: Vec<Answer> = std::iter::from_fn(next).map(|seat| seat.call(verb)).collect();
            (start, Instant::now(), answers)
        })
    };
    let done: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("the thread has not panicked")).collect()
    });
    let start = done.iter().map(|(start, _, _)| *start).min();
    let end = done.iter().map(|(_, end, _)| *end).max();
    let wall = start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start);
    (wall, done.into_iter().flat_map(|(_, _, answers)| answers).collect())
}
