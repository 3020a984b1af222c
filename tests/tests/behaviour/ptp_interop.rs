//! ptp against the reference, and many at once.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{Host, Pod};

use crate::bridge_conf::with;
use crate::bridge_masquerade::BACKENDS;
use crate::mixed_pairs::every_pair;
use crate::parallel::{PODS, at_once};
use crate::ptp::{add, check, dual, masqueraded, v4};

fn networks(newer: bool) -> Vec<(&'static str, Value)> {
    let mut networks = vec![
        ("IPv4", v4()),
        ("dual stack", dual()),
        ("dual stack masqueraded", masqueraded("iptables")),
        ("dual stack masqueraded at 0.4.0", with(&masqueraded("iptables"), json!({"cniVersion": "0.4.0"}))),
    ];
    if newer {
        networks.push(("dual stack in nftables", masqueraded("nftables")));
    }
    // 1.1.1 does not find a route without a next hop again, not even its own: its CHECK is asked without.
    for (_, conf) in networks.iter_mut().filter(|_| !newer) {
        conf["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "10.1.0.1"}]);
    }
    networks
}

#[test]
fn what_the_reference_added_we_check_and_delete() {
    every_pair("ptp", networks, |ours, theirs| (theirs, ours));
}

#[test]
fn what_we_added_the_reference_checks_and_deletes() {
    every_pair("ptp", networks, |ours, theirs| (ours, theirs));
}

#[test]
fn fifty_adds_give_fifty_addresses() {
    for backend in BACKENDS {
        let host = Host::new();
        host.internet();
        let before = host.state();
        let conf = masqueraded(backend);
        let pods: Vec<Pod> = (0..PODS).map(|_| host.pod()).collect();
        let results = at_once(&pods, |_, pod| add(&host, &conf, pod));
        for index in 0..2 {
            let all: BTreeSet<&str> = results.iter().map(|r| r["ips"][index]["address"].as_str().unwrap()).collect();
            assert_eq!(all.len(), PODS);
        }
        at_once(&pods, |number, pod| check(&host, &conf, &results[number], pod).success());
        for ip in results[PODS - 1]["ips"].as_array().unwrap() {
            let last = ip["address"].as_str().unwrap().split('/').next().unwrap();
            assert!(pods[0].pings(last), "{last}");
        }
        let ptp = host.plugin("ptp");
        at_once(&pods, |_, pod| ptp.del(&conf, pod, "eth0").success());
        host.state().assert_same(&before);
    }
}
