//! portmap killed in the middle of its work: what is there then, DEL finds, and what it had started makes nothing more.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::namespace::{PATH, find};
use tests::plugin::with_prev_result;
use tests::{Host, Pod};

use crate::portmap_conf::{BACKENDS, PORT, add, both, check, conf, del, result_of, rules};
use crate::refusal::write_script;

/// One in this many system calls. Few of them change anything, and those lie apart.
const GRID: usize = 7;

fn results(pods: [&Pod; 2]) -> [Value; 2] {
    [("10.77.0.2/24", "fd00:77::2/64", pods[0]), ("10.77.0.3/24", "fd00:77::3/64", pods[1])]
        .map(|(v4, v6, pod)| result_of(pod, &[v4, v6]))
}

/// Kills a verb at one system call after the other, on a node that has had a pod before, and on one that has not.
fn at_every_seventh_call(verb: &str, backend: &str, alone: bool) {
    for call in (1..).step_by(GRID) {
        let host = Host::new();
        let (pod, neighbour) = (host.pod(), host.pod());
        let [result, of_neighbour] = results([&pod, &neighbour]);
        let (conf, other) = (conf(backend, both(PORT, 80)), conf(backend, both(PORT + 1, 80)));
        if !alone {
            add(&host, &other, &of_neighbour, &neighbour).success();
        }
        let before = rules(&host);
        if verb == "DEL" {
            add(&host, &conf, &result, &pod).success();
        }
        let killed = host.plugin("portmap").killed_at(call, verb, with_prev_result(&conf, &result), &pod, "eth0");
        del(&host, &conf, &result, &pod);
        assert_eq!(rules(&host), before, "{backend}: {verb} killed at call {call}");
        // What it left of the chains that all share is good enough for the next.
        add(&host, &other, &of_neighbour, &neighbour).success();
        check(&host, &other, &of_neighbour, &neighbour).success();
        if !killed {
            assert!(call > 30, "only {call} calls: nothing was tested");
            return;
        }
    }
}

#[test]
fn add_of_the_first_pod() {
    for backend in BACKENDS {
        at_every_seventh_call("ADD", backend, true);
    }
}

#[test]
fn add_of_the_second_pod() {
    for backend in BACKENDS {
        at_every_seventh_call("ADD", backend, false);
    }
}

#[test]
fn del_with_a_neighbour() {
    for backend in BACKENDS {
        at_every_seventh_call("DEL", backend, false);
    }
}

/// `iptables-restore` may wait for its lock when a runtime loses patience with portmap, kills it and calls DEL.
#[test]
fn what_it_had_started_makes_nothing_after_del() {
    for program in ["iptables-restore", "ip6tables-restore"] {
        let host = Host::new();
        let pod = host.pod();
        let [result, _] = results([&pod, &pod]);
        let directory = TempDir::new().unwrap();
        let done = directory.path().join("done");
        let script =
            format!("kill -9 $PPID; sleep 0.3; {} \"$@\"; touch {}", find(program).unwrap().display(), done.display());
        write_script(&directory.path().join(program), &script);
        let conf = with_prev_result(&conf("iptables", both(PORT, 80)), &result);
        let path = format!("{}:{PATH}", directory.path().display());
        let outcome = host.plugin("portmap").env("PATH", path).add(&conf, &pod, "eth0");
        assert_eq!(outcome.status, None, "{program}: it lives\n{outcome}");
        host.plugin("portmap").del(&conf, &pod, "eth0").success();
        std::thread::sleep(Duration::from_secs(1));
        assert!(!done.exists(), "{program} went on");
        assert_eq!(rules(&host), [""; 0], "{program}");
    }
}
