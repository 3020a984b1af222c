//! One suite's ADD, the other's CHECK and DEL: a node's binaries can be swapped in either direction.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Plugin, bins};

use crate::bridge_conf::{leases, links, rules, with};
use crate::ports::{knows_trunks, layer2, port, port_of, routed, vlans};

/// `adds` makes two pods; `removes` checks them and takes them away. The reference cannot CHECK without IPAM (its defect
/// 10).
fn swapped(host: &Host, conf: &Value, adds: &Plugin<'_>, removes: &Plugin<'_>, checks: bool) {
    let pods = [host.pod(), host.pod()];
    let results = pods.each_ref().map(|pod| adds.add(conf, pod, "eth0").success());
    let who = removes.program().display();
    for result in &results {
        let found = vlans(host, port(result));
        assert!(found.contains(&"100 PVID untagged".to_owned()), "{found:?}");
    }
    let routed = conf.get("ipam").is_some();
    if routed {
        assert!(pods[0].pings("10.1.0.1") && pods[0].pings("fd00:1::1"), "{who}");
    }
    for (result, pod) in results.iter().zip(&pods).filter(|_| checks) {
        removes.check(with_prev_result(conf, result), pod, "eth0").success();
    }
    for (result, pod) in results.iter().zip(&pods) {
        removes.del(with_prev_result(conf, result), pod, "eth0").success();
        assert!(pod.link("eth0").is_none(), "{who}");
    }
    assert_eq!((leases(host), rules(host)), (vec![], vec![]), "{who}");
    let mut stays = Vec::new();
    if routed {
        stays = vec!["cni0.100".to_owned(), port_of(host, "cni0.100")];
        stays.sort();
    }
    let mut present = links(host, "veth");
    present.sort();
    assert_eq!(present, stays, "{who}");
}

fn masqueraded() -> Value {
    with(&routed(&["10.1.0.0/24", "fd00:1::/64"]), json!({"ipMasq": true, "ipMasqBackend": "iptables"}))
}

fn trunk() -> Value {
    layer2(json!({"vlan": 100, "vlanTrunk": [{"minID": 101, "maxID": 103}]}))
}

#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn ours_checks_and_removes_what_the_reference_made() {
    for version in 0..bins::reference_directories().len() {
        let host = Host::new();
        let reference = host.references("bridge").swap_remove(version);
        swapped(&host, &masqueraded(), &reference, &host.plugin("bridge"), true);
        if knows_trunks(&reference) {
            let host = Host::new();
            let reference = host.references("bridge").swap_remove(version);
            swapped(&host, &trunk(), &reference, &host.plugin("bridge"), true);
        }
    }
}

#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn the_reference_checks_and_removes_what_ours_made() {
    for version in 0..bins::reference_directories().len() {
        for (conf, checks) in [(masqueraded(), true), (trunk(), false)] {
            let host = Host::new();
            let reference = host.references("bridge").swap_remove(version);
            swapped(&host, &conf, &host.plugin("bridge"), &reference, checks);
        }
    }
}

/// On a node whose binaries were swapped, pods of both share bridge and gateway, and each is checked by both.
#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn pods_of_both_share_a_vlan() {
    let host = Host::new();
    let conf = routed(&["10.1.0.0/24"]);
    let (ours, reference) = (host.plugin("bridge"), host.reference("bridge"));
    let (one, two, three) = (host.pod(), host.pod(), host.pod());
    let first = reference.add(&conf, &one, "eth0").success();
    let second = ours.add(&conf, &two, "eth0").success();
    // What the reference compares, and leaves to follow the ports.
    assert_eq!(second["interfaces"][0]["mac"], host.link("cni0").unwrap()["address"]);
    reference.check(with_prev_result(&conf, &second), &two, "eth0").success();
    let third = reference.add(&conf, &three, "eth0").success();
    assert_eq!(first["interfaces"][3]["name"], "cni0.100");
    assert_eq!(second["interfaces"][3], third["interfaces"][3]);
    for (result, pod) in [(&first, &one), (&second, &two), (&third, &three)] {
        ours.check(with_prev_result(&conf, result), pod, "eth0").success();
    }
    let neighbour = one.listen();
    for (pod, address) in [(&two, [10, 1, 0, 3]), (&three, [10, 1, 0, 4])] {
        assert_eq!(pod.asks("10.1.0.2", &neighbour), Ok(address.into()));
    }
}
