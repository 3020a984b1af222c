//! Against the reference: what one suite ADDed, the other CHECKs and DELs, and nothing is left. This is how the
//! binaries of a live node are swapped, in either direction.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::with_prev_result;
use tests::{Host, Plugin, Pod, namespace};

use crate::bridge_conf::{dual, layer2, leases, links, rules, v4, with};

/// Whether a reference is newer than Debian's 1.1.1: those that speak 1.1.0 know `ipMasqBackend`, too.
pub fn is_newer(reference: &Plugin<'_>) -> bool {
    reference.version().success()["supportedVersions"].as_array().unwrap().contains(&"1.1.0".into())
}

/// The same attachments for every pair of suites.
fn networks(newer: bool) -> Vec<(&'static str, Value)> {
    let masqueraded = json!({"ipMasq": true, "ipMasqBackend": "iptables", "macspoofchk": true});
    let routes = json!({"ipam": {"routes": [{"dst": "192.0.2.0/24", "gw": "10.1.0.77"},
        {"dst": "2001:db8:9::/48", "gw": "fd00:1::77"}]}});
    let mut networks = vec![
        ("IPv4", v4()),
        ("dual stack", with(&dual(), routes)),
        ("IPv4 masqueraded", with(&v4(), masqueraded.clone())),
        ("dual stack masqueraded", with(&dual(), masqueraded)),
        (
            "dual stack at 0.4.0",
            with(&dual(), json!({"cniVersion": "0.4.0", "ipMasq": true, "ipMasqBackend": "iptables"})),
        ),
    ];
    if newer {
        networks.push(("dual stack in nftables", with(&dual(), json!({"ipMasq": true, "ipMasqBackend": "nftables"}))));
        // 1.1.1 does not find such a route again, not even its own.
        networks
            .push(("a route without a next hop", with(&v4(), json!({"ipam": {"routes": [{"dst": "192.0.2.0/24"}]}}))));
    }
    networks
}

/// A directory with nft alone. The reference's DEL asks iptables for a chain that the nftables backend never made, and
/// takes iptables 1.8.9's answer for a failure; where there is no iptables it does not ask.
pub fn nft_alone() -> TempDir {
    let directory = TempDir::new().unwrap();
    let nft = namespace::find("nft").unwrap();
    std::os::unix::fs::symlink(nft, directory.path().join("nft")).unwrap();
    directory
}

/// The reference's gateway address is tested for duplicates, and has its routes only then.
pub fn wait_for_duplicate_detection(host: &Host) {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end && !host.run("ip -6 address show scope global tentative").is_empty() {
        thread::sleep(Duration::from_millis(100));
    }
}

fn pair<'a>(adder: &Plugin<'a>, remover: &Plugin<'a>, host: &'a Host, what: &str, conf: &Value) {
    // The first pod is the other suite's: they share the store, the tables and the bridge, if there is one.
    let (first, pod) = (host.pod(), host.pod());
    let first_result = remover.add(conf, &first, "eth0").success();
    wait_for_duplicate_detection(host);
    let before = host.state();
    let result = adder.add(conf, &pod, "eth0").success();
    assert_ne!(first_result["ips"][0]["address"], result["ips"][0]["address"], "{what}");
    for ip in first_result["ips"].as_array().unwrap() {
        let address = ip["address"].as_str().unwrap().split('/').next().unwrap();
        assert!(pod.pings(address), "{what}: {address}");
    }
    let known = with_prev_result(conf, &result);
    remover.check(&known, &pod, "eth0").success();
    remover.del(&known, &pod, "eth0").success();
    assert!(pod.link("eth0").is_none(), "{what}");
    host.state().assert_same(&before);
    // And the first goes by the hand that did not make it.
    adder.del(with_prev_result(conf, &first_result), &first, "eth0").success();
    assert_eq!((rules(host), leases(host), links(host, "veth")), (vec![], vec![], vec![]), "{what}");
}

#[test]
fn what_the_reference_added_we_check_and_delete() {
    every_pair("bridge", networks, |ours, theirs| (theirs, ours));
}

#[test]
fn what_we_added_the_reference_checks_and_deletes() {
    every_pair("bridge", networks, |ours, theirs| (ours, theirs));
}

/// Our plugin with that of each reference, on each network that the reference knows. `order` says who adds, and who
/// removes.
pub fn every_pair(
    plugin: &str,
    networks: fn(newer: bool) -> Vec<(&'static str, Value)>,
    order: for<'a> fn(Plugin<'a>, Plugin<'a>) -> (Plugin<'a>, Plugin<'a>),
) {
    for which in 0..Host::new().references(plugin).len() {
        let newer = is_newer(&Host::new().references(plugin)[which]);
        for (what, conf) in networks(newer) {
            let host = Host::new();
            let nft = nft_alone();
            let mut theirs = host.references(plugin).swap_remove(which);
            if conf["ipMasqBackend"] == "nftables" {
                theirs = theirs.env("PATH", nft.path().display());
            }
            let (adder, remover) = order(host.plugin(plugin), theirs);
            pair(&adder, &remover, &host, &format!("{what}, reference {which}"), &conf);
        }
    }
}

/// Layer 2: the reference's CHECK cannot be asked (its defect 10).
#[test]
fn layer_2_goes_both_ways() {
    let host = Host::new();
    for theirs in host.references("bridge") {
        let ours = host.plugin("bridge");
        let pod = host.pod();
        let result = theirs.add(layer2(), &pod, "eth0").success();
        ours.check(with_prev_result(&layer2(), &result), &pod, "eth0").success();
        ours.del(with_prev_result(&layer2(), &result), &pod, "eth0").success();
        let result = ours.add(layer2(), &pod, "eth0").success();
        theirs.del(with_prev_result(&layer2(), &result), &pod, "eth0").success();
        assert!(pod.link("eth0").is_none());
    }
}

/// The results of the two say the same, but for names and MACs.
#[test]
fn the_results_are_the_same() {
    let host = Host::new();
    for theirs in host.references("bridge") {
        for conf in [
            v4(),
            dual(),
            layer2(),
            with(&dual(), json!({"cniVersion": "0.4.0"})),
            with(&v4(), json!({"cniVersion": "0.2.0"})),
        ] {
            let results = [host.plugin("bridge"), theirs.clone()].map(|bridge| {
                let pod = host.pod();
                let mut result = bridge.add(&conf, &pod, "eth0").success();
                bridge.del(with_prev_result(&conf, &result), &pod, "eth0").success();
                for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
                    interface["mac"] = interface["mac"].as_str().unwrap().len().into();
                    interface["name"] = interface["name"].as_str().unwrap().get(..4).into();
                    if interface.get("sandbox").is_some() {
                        interface["sandbox"] = "pod".into();
                    }
                }
                // Debian's version says under 1.x, too, that it has nothing to say.
                if result["dns"] == json!({}) {
                    result.as_object_mut().unwrap().remove("dns");
                }
                fs::remove_dir_all(host.store().join("networks")).ok();
                result
            });
            assert_eq!(results[0], results[1], "{conf}");
        }
    }
}

/// The state as well: links, addresses, routes and sysctls of pod and host.
#[test]
fn the_state_of_the_pod_is_the_same() {
    for which in 0..Host::new().references("bridge").len() {
        let states = [true, false].map(|is_ours| {
            let host = Host::new();
            let pod = host.pod();
            let theirs = host.references("bridge").swap_remove(which);
            let bridge = if is_ours { host.plugin("bridge") } else { theirs };
            let conf = with(&dual(), json!({"runtimeConfig": {"mac": "02:00:00:00:00:01"}, "mtu": 1400}));
            bridge.add(&conf, &pod, "eth0").success();
            (pod.addresses("eth0"), pod.state().without("links"))
        });
        assert_eq!(states[0].0, states[1].0);
        assert_eq!(states[0].1.difference(&states[1].1), "", "ours is +, reference {which}");
    }
}

#[test]
fn loopback_goes_both_ways() {
    let host = Host::new();
    let conf = json!({"cniVersion": "1.0.0", "name": "cni-loopback", "type": "loopback"});
    for theirs in host.references("loopback") {
        let ours = host.plugin("loopback");
        for (adder, remover) in [(&ours, &theirs), (&theirs, &ours)] {
            let pod = host.pod();
            let result = adder.add(&conf, &pod, "lo").success();
            assert_eq!(result["ips"][0], json!({"address": "127.0.0.1/8", "interface": 0}));
            remover.check(with_prev_result(&conf, &result), &pod, "lo").success();
            remover.del(&conf, &pod, "lo").success();
        }
    }
}

/// Our bridge with their host-local, and the reverse: IPAM is whatever CNI_PATH has.
#[test]
fn either_ipam_serves_either_bridge() {
    let host = Host::new();
    for directory in tests::bins::reference_directories() {
        let pods = [host.pod(), host.pod()];
        let with_theirs = host.plugin("bridge").env("CNI_PATH", directory.display());
        let result = with_theirs.add(dual(), &pods[0], "eth0").success();
        with_theirs.check(with_prev_result(&dual(), &result), &pods[0], "eth0").success();
        let ours = host.plugin("bridge");
        let second = ours.add(dual(), &pods[1], "eth0").success();
        assert_ne!(result["ips"], second["ips"]);
        ours.del(with_prev_result(&dual(), &result), &pods[0], "eth0").success();
        with_theirs.del(with_prev_result(&dual(), &second), &pods[1], "eth0").success();
        assert_eq!(leases(&host), [""; 0]);
    }
}

/// A node in the middle of an upgrade: both at once, in one store, on one bridge.
#[test]
fn both_at_once_take_distinct_addresses() {
    let host = Host::new();
    let pods: Vec<Pod> = (0..20).map(|_| host.pod()).collect();
    let conf = dual();
    let results: Vec<Value> = thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(number, pod)| {
                let bridge = if number % 2 == 0 { host.plugin("bridge") } else { host.reference("bridge") };
                let conf = &conf;
                scope.spawn(move || bridge.add(conf, pod, "eth0").success())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for index in 0..2 {
        let addresses: BTreeSet<&str> =
            results.iter().map(|result| result["ips"][index]["address"].as_str().unwrap()).collect();
        assert_eq!(addresses.len(), pods.len());
    }
    assert_eq!(leases(&host).len(), 2 * pods.len());
    for (number, pod) in pods.iter().enumerate() {
        let bridge = if number % 2 == 0 { host.reference("bridge") } else { host.plugin("bridge") };
        bridge.del(with_prev_result(&conf, &results[number]), pod, "eth0").success();
    }
    assert_eq!(leases(&host), [""; 0]);
}
