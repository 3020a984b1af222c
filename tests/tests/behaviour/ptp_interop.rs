//! ptp against the reference, and many at once.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Plugin, Pod};

use crate::bridge_conf::{leases, links, rules, with};
use crate::bridge_masquerade::BACKENDS;
use crate::mixed_pairs::{is_newer, nft_alone, wait_for_duplicate_detection};
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

fn pair<'a>(adder: &Plugin<'a>, remover: &Plugin<'a>, host: &'a Host, what: &str, conf: &Value) {
    // The first pod is the other suite's: they share the store and the tables.
    let (first, pod) = (host.pod(), host.pod());
    let first_result = remover.add(conf, &first, "eth0").success();
    wait_for_duplicate_detection(host);
    let before = host.state();
    let result = adder.add(conf, &pod, "eth0").success();
    for ip in first_result["ips"].as_array().unwrap() {
        let address = ip["address"].as_str().unwrap().split('/').next().unwrap();
        assert!(pod.pings(address), "{what}: {address}");
    }
    let known = with_prev_result(conf, &result);
    remover.check(&known, &pod, "eth0").success();
    remover.del(&known, &pod, "eth0").success();
    assert!(pod.link("eth0").is_none(), "{what}");
    host.state().assert_same(&before);
    adder.del(with_prev_result(conf, &first_result), &first, "eth0").success();
    assert_eq!((rules(host), leases(host), links(host, "veth")), (vec![], vec![], vec![]), "{what}");
}

fn every_pair(order: for<'a> fn(Plugin<'a>, Plugin<'a>) -> (Plugin<'a>, Plugin<'a>)) {
    for which in 0..Host::new().references("ptp").len() {
        let newer = is_newer(&Host::new().references("ptp")[which]);
        for (what, conf) in networks(newer) {
            let host = Host::new();
            let nft = nft_alone();
            let mut theirs = host.references("ptp").swap_remove(which);
            if conf["ipMasqBackend"] == "nftables" {
                theirs = theirs.env("PATH", nft.path().display());
            }
            let (adder, remover) = order(host.plugin("ptp"), theirs);
            pair(&adder, &remover, &host, &format!("{what}, reference {which}"), &conf);
        }
    }
}

#[test]
fn what_the_reference_added_we_check_and_delete() {
    every_pair(|ours, theirs| (theirs, ours));
}

#[test]
fn what_we_added_the_reference_checks_and_deletes() {
    every_pair(|ours, theirs| (ours, theirs));
}

const PODS: usize = 50;

fn at_once<'a, T: Send>(pods: &'a [Pod], act: impl Fn(usize, &'a Pod) -> T + Sync) -> Vec<T> {
    let act = &act;
    thread::scope(|scope| {
        let threads: Vec<_> =
            pods.iter().enumerate().map(|(number, pod)| scope.spawn(move || act(number, pod))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
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
