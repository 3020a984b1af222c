//! Many at once: fifty ADDs give fifty addresses, all pods work, and fifty DELs leave nothing.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};
use tests::{Host, Outcome, Pod};

use crate::bridge_conf::{add, check, dual, leases, links, masqueraded, rules, with};

/// How many are many.
pub const PODS: usize = 50;

/// Does something for all pods, each in a thread of its own.
pub fn at_once<'a, T: Send>(pods: &'a [Pod], act: impl Fn(usize, &'a Pod) -> T + Sync) -> Vec<T> {
    let act = &act;
    thread::scope(|scope| {
        let threads: Vec<_> =
            pods.iter().enumerate().map(|(number, pod)| scope.spawn(move || act(number, pod))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn addresses(results: &[Value], index: usize) -> BTreeSet<&str> {
    results.iter().map(|result| result["ips"][index]["address"].as_str().unwrap()).collect()
}

fn fifty(backend: &str) {
    let host = Host::new();
    let before = host.state();
    let conf = masqueraded(backend);
    let pods: Vec<Pod> = (0..PODS).map(|_| host.pod()).collect();
    let results = at_once(&pods, |_, pod| add(&host, &conf, pod));
    assert_eq!((addresses(&results, 0).len(), addresses(&results, 1).len()), (PODS, PODS));
    assert_eq!(leases(&host).len(), 2 * PODS);
    assert_eq!(links(&host, "veth").len(), PODS);
    assert_eq!(host.addresses("cni0"), ["10.1.0.1/24", "fd00:1::1/64"]);

    at_once(&pods, |number, pod| check(&host, &conf, &results[number], pod).success());
    let last = |index: usize| results[PODS - 1]["ips"][index]["address"].as_str().unwrap().split('/').next().unwrap();
    for address in ["10.1.0.1", "fd00:1::1", last(0), last(1)] {
        assert!(pods[0].pings(address), "{address}");
    }

    let bridge = host.plugin("bridge");
    at_once(&pods, |_, pod| bridge.del(&conf, pod, "eth0").success());
    assert_eq!((rules(&host), leases(&host), links(&host, "veth")), (vec![], vec![], vec![]));
    let rest = |state: tests::State| state.without_link("cni0").without("sysctls").without("nft");
    rest(host.state()).assert_same(&rest(before));
}

#[test]
fn fifty_adds_give_fifty_addresses_iptables() {
    fifty("iptables");
}

#[test]
fn fifty_adds_give_fifty_addresses_nftables() {
    fifty("nftables");
}

/// ADD of some while others are DELed: no address is given twice, and nobody's rules go with another's.
#[test]
fn adds_and_dels_do_not_disturb_each_other() {
    for backend in ["iptables", "nftables"] {
        let host = Host::new();
        let conf = masqueraded(backend);
        let (old, new): (Vec<Pod>, Vec<Pod>) =
            ((0..10).map(|_| host.pod()).collect(), (0..10).map(|_| host.pod()).collect());
        at_once(&old, |_, pod| add(&host, &conf, pod));
        let (bridge, host, conf) = (host.plugin("bridge"), &host, &conf);
        let results = thread::scope(|scope| {
            let dels = scope.spawn(|| at_once(&old, |_, pod| bridge.del(conf, pod, "eth0").success()));
            let results = at_once(&new, |_, pod| add(host, conf, pod));
            dels.join().unwrap();
            results
        });
        assert_eq!(addresses(&results, 0).len(), 10);
        assert_eq!(leases(host).len(), 20);
        at_once(&new, |number, pod| check(host, conf, &results[number], pod).success());
        at_once(&new, |_, pod| bridge.del(conf, pod, "eth0").success());
        assert_eq!((rules(host), leases(host), links(host, "veth")), (vec![], vec![], vec![]));
    }
}

/// A runtime that lost count: of ten ADDs for one interface one wins, and the others take nothing from it.
#[test]
fn ten_adds_of_one_interface_are_one() {
    let host = Host::new();
    let conf = masqueraded("nftables");
    let pod = host.pod();
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| host.plugin("bridge").add(&conf, &pod, "eth0"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.status == Some(0));
    assert_eq!((won.len(), lost.len()), (1, 9));
    for outcome in lost {
        assert!(outcome.failure()["msg"].as_str().unwrap().contains("eth0"), "{outcome}");
    }
    assert_eq!(leases(&host).len(), 2);
    check(&host, &conf, &won[0].success(), &pod).success();
}

/// A runtime that is in a hurry: DEL is no error because another DEL was faster.
#[test]
fn ten_dels_of_one_interface_all_succeed() {
    for backend in ["iptables", "nftables"] {
        let host = Host::new();
        let conf = with(&masqueraded(backend), json!({"macspoofchk": true}));
        let (bystander, pod) = (host.pod(), host.pod());
        let result = add(&host, &conf, &bystander);
        let before = host.state();
        add(&host, &conf, &pod);
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| host.plugin("bridge").del(&conf, &pod, "eth0").success());
            }
        });
        host.state().assert_same(&before);
        check(&host, &conf, &result, &bystander).success();
    }
}

/// Two ADDs that both find no bridge make one.
#[test]
fn the_first_pods_of_a_node_share_one_bridge() {
    for _ in 0..5 {
        let host = Host::new();
        let pods: Vec<Pod> = (0..4).map(|_| host.pod()).collect();
        let results = at_once(&pods, |_, pod| add(&host, &dual(), pod));
        let macs: BTreeSet<&str> =
            results.iter().map(|result| result["interfaces"][0]["mac"].as_str().unwrap()).collect();
        assert_eq!(macs.len(), 1, "{macs:?}");
        assert_eq!(host.link("cni0").unwrap()["address"], *macs.first().unwrap());
    }
}
