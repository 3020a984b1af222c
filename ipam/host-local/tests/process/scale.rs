//! The cost of an ADD and a DEL must not grow with the number of leases.
//!
//! Both are measured in turns in one run, so that a busy machine slows both. To see the figures, on the release code:
//! `cargo test -p host-local --profile quick --test process -- ten_thousand --nocapture`

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::node::{Node, OURS, call, reference};

const LEASES: u32 = 10_000;
const BOUND: f64 = 1.3;

/// A network, and one with leases of others in it.
fn networks() -> [(Node, Value); 2] {
    let empty = Node::new();
    let full = Node::new();
    let confs = [&empty, &full].map(|node| node.subnets(&["10.0.0.0/12"]));
    for n in 0..LEASES {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0002 + n).to_string();
        full.write(&address, &format!("{n:064x}\r\neth0"));
        if n + 1 == LEASES {
            full.write("last_reserved_ip.0", &address);
        }
    }
    let [conf, full_conf] = confs;
    [(empty, conf), (full, full_conf)]
}

/// The median time of an ADD and a DEL, with no lease and with many, measured in turns.
fn medians(program: &Path, networks: &[(Node, Value); 2], rounds: usize) -> [[Duration; 2]; 2] {
    let mut times = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for round in 0..rounds {
        for (times, (_, conf)) in times.iter_mut().zip(networks) {
            for (times, verb) in times.iter_mut().zip(["ADD", "DEL"]) {
                let started = Instant::now();
                let outcome = call(program, verb, &format!("bench{round}"), conf);
                times.push(started.elapsed());
                outcome.succeeded();
            }
        }
    }
    times.map(|times| {
        times.map(|mut times| {
            times.sort();
            times[times.len() / 2]
        })
    })
}

fn report(name: &str, medians: &[[Duration; 2]; 2]) -> f64 {
    let both = |times: &[Duration; 2]| times.iter().sum::<Duration>().as_secs_f64();
    let [empty, full] = medians;
    let ratio = both(full) / both(empty);
    eprintln!(
        "{name}: empty ADD {:?} DEL {:?}; {LEASES} leases ADD {:?} DEL {:?}; ratio {ratio:.2}",
        empty[0], empty[1], full[0], full[1]
    );
    ratio
}

#[test]
fn ten_thousand_leases_cost_no_more_than_none() {
    let networks = networks();
    // The first call reads the leases that others have made.
    let started = Instant::now();
    call(OURS, "ADD", "first", &networks[1].1).succeeded();
    eprintln!("first call, which makes the index: {:?}", started.elapsed());
    let mut ratio = report("podwire", &medians(Path::new(OURS), &networks, 300));
    if ratio > BOUND {
        ratio = report("podwire, again", &medians(Path::new(OURS), &networks, 300));
    }
    report("reference", &medians(&reference(), &networks, 15));
    assert!(ratio <= BOUND, "{ratio:.2} > {BOUND}");
}
