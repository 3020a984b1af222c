//! bridge killed in the middle of an ADD (out of memory, a runtime out of patience): what is there then, DEL finds.
//!
//! The killers are the programs that bridge starts, so that each moment is always the same one; and the system calls one
//! by one, on a coarse grid (host-local's own tests have the fine one).

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::namespace::{PATH, find};
use tests::{Host, Pod, bins};

use crate::bridge_conf::{GATEWAY_V6, add, check, leases, links, masqueraded, rules, with};
use crate::refusal::write_script;

/// An ADD that dies, and then what a runtime does: DEL, as if nothing had been.
fn killed(what: &str, conf: &Value, cni_path: &str, path: &str) {
    let host = Host::new();
    let (first, pod) = (host.pod(), host.pod());
    let sane = with(conf, json!({"ipam": {"type": "host-local"}}));
    let result = add(&host, &sane, &first);
    let before = host.state();
    let outcome = host.plugin("bridge").env("CNI_PATH", cni_path).env("PATH", path).add(conf, &pod, "eth0");
    assert_eq!(outcome.status, None, "{what}: it lives\n{outcome}");
    assert!(pod.link("eth0").is_some(), "{what}: nothing had been done yet");
    host.plugin("bridge").del(&sane, &pod, "eth0").success();
    host.state().assert_same(&before);
    assert!(pod.link("eth0").is_none());

    check(&host, &sane, &result, &first).success();
    add(&host, &sane, &pod);
    host.plugin("bridge").del(&sane, &pod, "eth0").success();
    host.plugin("bridge").del(&sane, &first, "eth0").success();
    assert_eq!((rules(&host), leases(&host), links(&host, "veth")), (vec![], vec![], vec![]), "{what}");
}

#[test]
fn killed_at_the_lease() {
    let ours = bins::directory();
    for (what, script) in [
        ("before the lease", "kill -9 $PPID".to_owned()),
        ("with the lease", format!("{}/host-local; kill -9 $PPID", ours.display())),
    ] {
        for backend in ["iptables", "nftables"] {
            let directory = TempDir::new().unwrap();
            write_script(&directory.path().join("killer"), &script);
            let conf = with(&masqueraded(backend), json!({"macspoofchk": true, "ipam": {"type": "killer"}}));
            let cni_path = format!("{}:{}", directory.path().display(), ours.display());
            killed(what, &conf, &cni_path, PATH);
        }
    }
}

#[test]
fn killed_at_the_masquerade() {
    let ours = bins::directory().display().to_string();
    for program in ["iptables-restore", "ip6tables-restore"] {
        for (when, script) in [
            ("before", "kill -9 $PPID".to_owned()),
            ("after", format!("{} \"$@\"; kill -9 $PPID", find(program).unwrap().display())),
        ] {
            let directory = TempDir::new().unwrap();
            write_script(&directory.path().join(program), &script);
            let path = format!("{}:{PATH}", directory.path().display());
            let conf = with(&masqueraded("iptables"), json!({"macspoofchk": true}));
            killed(&format!("{when} {program}"), &conf, &ours, &path);
        }
    }
}

/// One in this many system calls: with all of them (1), which pass too, it is two minutes.
const GRID: usize = 10;

/// Kills a verb at one system call after the other. DEL then takes away what stands, and what it leaves (a bridge, by
/// contract) is good enough for the next pod. `alone`: on a node that has had no pod before.
fn at_every_tenth_call(verb: &str, conf: &Value, alone: bool) {
    for call in (1..).step_by(GRID) {
        let host = Host::new();
        let bridge = host.plugin("bridge");
        let (pod, neighbour) = (host.pod(), host.pod());
        let result = (!alone).then(|| add_and_settle(&host, conf, &neighbour));
        let before = host.state();
        if verb == "DEL" {
            add(&host, conf, &pod);
        }
        let killed = bridge.killed_at(call, verb, conf, &pod, "eth0");
        bridge.del(conf, &pod, "eth0").success();
        assert!(pod.link("eth0").is_none(), "{verb} killed at call {call}");
        let difference = if alone {
            // The bridge stays, and forwarding.
            host.state().without_link("cni0").without("sysctls").difference(&before.without("sysctls"))
        } else {
            host.state().difference(&before)
        };
        assert!(difference.is_empty(), "{verb} killed at call {call}:\n{difference}");

        let result = result.unwrap_or_else(|| add(&host, conf, &neighbour));
        check(&host, conf, &result, &neighbour).success();
        if !killed {
            assert!(call > 10 * GRID, "only {call} calls: nothing was tested");
            return;
        }
    }
}

/// The kernel makes the local route of an IPv6 address later, in its own time.
fn add_and_settle(host: &Host, conf: &Value, pod: &Pod) -> Value {
    let result = add(host, conf, pod);
    let gateway = format!("-6 route show table local {GATEWAY_V6}");
    while host.ip(&gateway) == json!([]) {
        std::thread::yield_now();
    }
    result
}

fn all_at_once(backend: &str) -> Value {
    with(&masqueraded(backend), json!({"macspoofchk": true}))
}

#[test]
fn add_of_the_first_pod_iptables() {
    at_every_tenth_call("ADD", &all_at_once("iptables"), true);
}

#[test]
fn add_of_the_first_pod_nftables() {
    at_every_tenth_call("ADD", &all_at_once("nftables"), true);
}

#[test]
fn add_of_a_second_pod_iptables() {
    at_every_tenth_call("ADD", &all_at_once("iptables"), false);
}

#[test]
fn add_of_a_second_pod_nftables() {
    at_every_tenth_call("ADD", &all_at_once("nftables"), false);
}

#[test]
fn del_of_the_only_pod_iptables() {
    at_every_tenth_call("DEL", &all_at_once("iptables"), true);
}

#[test]
fn del_of_a_second_pod_nftables() {
    at_every_tenth_call("DEL", &all_at_once("nftables"), false);
}
