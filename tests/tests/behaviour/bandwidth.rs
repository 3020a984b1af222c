//! bandwidth: the reference's list of tests (each at every version), and its defects of ADD, mended.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Outcome};

use crate::bandwidth_conf::{
    CONTAINERD_BURST, Shaper, VERSIONS, add, add_veth, at, before, both, check, conf, egress, ifb_of, ingress, kinds,
    of_egress, of_ingress, pod_with_veth, qdiscs, redirects, shaper, traffic_control,
};
use crate::bridge_conf::{links, with};

#[test]
fn both_directions() {
    for version in VERSIONS {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        let state = (host.state(), traffic_control(&host), pod.state());
        let conf = at(version, &pod, "host0", with(&both(), json!({"name": "spec2net"})));
        let bandwidth = host.plugin("bandwidth").env("CNI_CONTAINERID", "ctr1");
        let result = bandwidth.add(&conf, &pod, "eth0").success();

        // The name is the reference's, from a run of it.
        let ifb = "bwp4a087b41196a";
        let link = host.link(ifb).unwrap();
        let mut expected = before(version, &pod, "host0");
        expected["interfaces"].as_array_mut().unwrap().push(json!({"name": ifb, "mac": link["address"]}));
        assert_eq!(result, expected, "{version}");
        assert_eq!((&link["mtu"], &link["linkinfo"]["info_kind"]), (&1400.into(), &"ifb".into()));
        assert!(link["flags"].as_array().unwrap().contains(&"UP".into()));
        assert_eq!((shaper(&host, "host0"), shaper(&host, ifb)), (of_ingress(), of_egress()));
        assert_eq!((qdiscs(&host, "host0").len(), qdiscs(&host, ifb).len()), (2, 1));
        assert_eq!(redirects(&host, "host0"), [ifb]);

        let after = with_prev_result(&conf, &result);
        let outcome = bandwidth.check(&after, &pod, "eth0");
        assert_eq!(outcome.status, Some(i32::from(version < "0.4.0")), "{outcome}");
        bandwidth.del(&after, &pod, "eth0").success();
        host.state().assert_same(&state.0);
        pod.state().assert_same(&state.2);
        assert_eq!(traffic_control(&host), state.1, "{version}");
    }
}

#[test]
fn one_direction() {
    for (keys, on_host, on_ifb) in [(ingress(), of_ingress(), None), (egress(), None, of_egress())] {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        let state = traffic_control(&host);
        let conf = conf(&pod, keys);
        let result = add(&host, &conf, &pod);
        assert_eq!(shaper(&host, "host0"), on_host);
        let ifbs = links(&host, "ifb");
        assert_eq!(ifbs.first().and_then(|ifb| shaper(&host, ifb)), on_ifb);
        assert_eq!(redirects(&host, "host0"), ifbs);
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 2 + ifbs.len());
        check(&host, &conf, &result, &pod).success();
        host.plugin("bandwidth").del(with_prev_result(&conf, &result), &pod, "eth0").success();
        assert_eq!((traffic_control(&host), links(&host, "ifb")), (state, vec![]));
    }
}

/// containerd spells the keys as Go does, and a test of the reference spells `bandWidth`.
#[test]
fn limits_of_the_runtime_in_any_spelling() {
    for runtime in [
        json!({"bandwidth": both()}),
        json!({"bandWidth": both()}),
        json!({"bandwidth": {"IngressRate": 8_000_000, "IngressBurst": 800_000, "EgressRate": 16_000_000, "EgressBurst": 1_600_000}}),
    ] {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        let result = add(&host, &conf(&pod, json!({"runtimeConfig": runtime})), &pod);
        assert_eq!((shaper(&host, "host0"), shaper(&host, &ifb_of(&result))), (of_ingress(), of_egress()));
    }
}

/// One key of the network's, and the runtime's are not looked at: also a 0.
#[test]
fn limits_of_the_network_go_before_those_of_the_runtime() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let runtime = json!({"runtimeConfig": {"bandwidth": {"ingressRate": 5, "ingressBurst": 0, "egressRate": 77}}});
    let result = add(&host, &conf(&pod, with(&both(), runtime.clone())), &pod);
    assert_eq!((shaper(&host, "host0"), shaper(&host, &ifb_of(&result))), (of_ingress(), of_egress()));
    let pod = pod_with_veth(&host, "host1");
    let conf = at("1.0.0", &pod, "host1", with(&runtime, json!({"egressBurst": 0})));
    assert_eq!(add(&host, &conf, &pod), before("1.0.0", &pod, "host1"));
    assert_eq!(shaper(&host, "host1"), None);
}

/// Nothing is limited: nothing is made, and the interface may be of any kind. The reference's CHECK wants a veth.
#[test]
fn without_a_limit() {
    let zeros = json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0});
    for keys in [json!({}), zeros.clone(), json!({"runtimeConfig": {"bandwidth": zeros}})] {
        let host = Host::new();
        let pod = host.pod();
        pod.run("ip link add eth0 type bridge");
        let state = (host.state(), traffic_control(&host));
        let conf = conf(&pod, keys);
        let mut result = before("1.1.0", &pod, "host0");
        result["x-mine"] = json!({"large": 9_007_199_254_740_993_u64});
        let conf = with_prev_result(&conf, &result);
        assert_eq!(add(&host, &conf, &pod), result);
        check(&host, &conf, &result, &pod).success();
        host.plugin("bandwidth").del(&conf, &pod, "eth0").success();
        host.state().assert_same(&state.0);
        assert_eq!(traffic_control(&host), state.1);
    }
}

#[test]
fn of_several_host_links_it_is_the_other_end() {
    for version in VERSIONS {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        host.run("ip link add other0 type veth peer name other1");
        let mut conf = at(version, &pod, "host0", both());
        let more = [json!({"name": "other0"}), json!({"name": "other1"})];
        conf["prevResult"]["interfaces"].as_array_mut().unwrap().splice(0..0, more);
        let result = add(&host, &conf, &pod);
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 5);
        assert_eq!(
            (shaper(&host, "host0"), shaper(&host, "other0"), shaper(&host, "other1")),
            (of_ingress(), None, None)
        );
    }
}

#[track_caller]
fn refused(outcome: &Outcome, words: &[&str]) {
    let error = outcome.failure();
    assert!(words.iter().all(|word| error["msg"].as_str().unwrap().contains(word)), "{error}");
}

#[test]
fn only_a_veth_can_be_limited() {
    for kind in ["bridge", "ifb"] {
        let host = Host::new();
        let pod = host.pod();
        pod.run(&format!("ip link add eth0 type {kind}"));
        let outcome = host.plugin("bandwidth").add(conf(&pod, both()), &pod, "eth0");
        refused(&outcome, &["container interface eth0 has no veth peer", "was not a veth interface", kind]);
    }
    // Both ends in the pod.
    let host = Host::new();
    let pod = host.pod();
    pod.run("ip link add eth0 type veth peer name peer0");
    refused(&host.plugin("bandwidth").add(conf(&pod, both()), &pod, "eth0"), &["eth0", "is not in host ns"]);
    // The other end is in a third namespace, with the number that another pod's has on the host.
    let (third, other) = (host.pod(), pod_with_veth(&host, "host0"));
    let index = host.link("host0").unwrap()["ifindex"].as_u64().unwrap();
    let pod = host.pod();
    third.run(&format!("ip link add host0 index {index} type veth peer name eth0 index 99 netns {}", pod.name()));
    refused(&host.plugin("bandwidth").add(conf(&pod, both()), &pod, "eth0"), &["eth0", "is not in host ns"]);
    assert_eq!(shaper(&host, "host0"), None);
    drop(other);
    // Behind another plugin than the one that made it.
    let pod = pod_with_veth(&host, "host1");
    let outcome = host.plugin("bandwidth").add(conf(&pod, both()), &pod, "eth0");
    refused(&outcome, &["no veth peer of container interface found in host ns", "host1"]);
}

/// B1, B2: containerd has a rate alone. The reference gives 1 Mbit/s a burst of 21 MB and a queue of 512 MB.
#[test]
fn a_rate_alone_has_a_small_burst_and_a_short_queue() {
    for (burst, rate, expected) in [
        (CONTAINERD_BURST, 1_000_000, Shaper { rate: 125_000, limit: 17_305, burst: 14_180 }),
        (CONTAINERD_BURST, 10_000_000, Shaper { rate: 1_250_000, limit: 62_500, burst: 31_250 }),
        (CONTAINERD_BURST, 1_000_000_000, Shaper { rate: 125_000_000, limit: 6_250_000, burst: 3_125_000 }),
        (34_359_738_359, 100_000_000, Shaper { rate: 12_500_000, limit: 625_000, burst: 312_500 }), // CRI-O
        (2_147_483_647, 100_000_000, Shaper { rate: 12_500_000, limit: 625_000, burst: 312_500 }),
    ] {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        let bandwidth = json!({"IngressRate": rate, "IngressBurst": burst, "EgressRate": 0, "EgressBurst": 0});
        let conf = conf(&pod, json!({"runtimeConfig": {"bandwidth": bandwidth}}));
        let result = add(&host, &conf, &pod);
        assert_eq!(shaper(&host, "host0"), Some(expected));
        check(&host, &conf, &result, &pod).success();
    }
}

/// B1, B2: a burst of 2000 s is granted (the reference's 32 bits overflow); what waits is what a second brings.
#[test]
fn a_burst_of_many_seconds() {
    for (rate, burst, limit) in [(8_000, 16_000_000, 14_205), (8_000_000, 256_000_000, 1_025_000)] {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        let keys = json!({"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst});
        let conf = conf(&pod, keys);
        let result = add(&host, &conf, &pod);
        check(&host, &conf, &result, &pod).success();
        for link in ["host0", &ifb_of(&result)] {
            let shaper = shaper(&host, link).unwrap();
            assert_eq!((shaper.rate, shaper.limit), (rate / 8, limit));
        }
    }
}

/// Above 34 Gbit/s a rate has more than 32 bits.
#[test]
fn rates_of_64_bits() {
    for rate in [100_000_000_000, 34_359_738_368, 34_359_738_367, u64::MAX] {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        let keys =
            json!({"ingressRate": rate, "ingressBurst": 12_000, "egressRate": rate, "egressBurst": 1_000_000_000});
        let conf = conf(&pod, keys);
        let result = add(&host, &conf, &pod);
        check(&host, &conf, &result, &pod).success();
        assert_eq!(shaper(&host, &ifb_of(&result)).unwrap().rate, rate / 8);
        assert!(shaper(&host, "host0").unwrap().limit > 10_000);
    }
}

/// B8: a burst that is smaller than a packet; with the reference no packet of this size passes.
#[test]
fn packets_pass_whatever_the_burst() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    host.run("ip address add 10.1.0.1/24 dev host0");
    pod.run("ip address add 10.1.0.2/24 dev eth0");
    let keys = json!({"ingressRate": 800_000, "ingressBurst": 456, "egressRate": 800_000, "egressBurst": 1});
    let conf = conf(&pod, keys);
    let result = add(&host, &conf, &pod);
    pod.run("ping -n -q -c 1 -W 5 -M do -s 1372 10.1.0.1");
    check(&host, &conf, &result, &pod).success();
}

/// B3: the reference says `file exists`.
#[test]
fn a_repeated_add_changes_what_is_there() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let state = (host.state(), traffic_control(&host));
    let first = add(&host, &conf(&pod, both()), &pod);
    let made = traffic_control(&host);
    let second = add(&host, &with_prev_result(&conf(&pod, both()), &first), &pod);
    assert_eq!((second, traffic_control(&host)), (first.clone(), made));
    // Other limits, and a link of another width.
    host.run("ip link set host0 mtu 1300");
    let ifb = ifb_of(&first);
    host.run(&format!("ip link set {ifb} down"));
    let keys =
        json!({"ingressRate": 16_000_000, "ingressBurst": 1_600_000, "egressRate": 8_000_000, "egressBurst": 800_000});
    let changed = conf(&pod, keys);
    let result = add(&host, &changed, &pod);
    assert_eq!((shaper(&host, "host0"), shaper(&host, &ifb)), (of_egress(), of_ingress()));
    assert_eq!((&host.link(&ifb).unwrap()["mtu"], redirects(&host, "host0")), (&1300.into(), vec![ifb]));
    check(&host, &changed, &result, &pod).success();
    host.run("ip link set host0 mtu 1400");
    host.plugin("bandwidth").del(with_prev_result(&changed, &result), &pod, "eth0").success();
    host.state().assert_same(&state.0);
    assert_eq!(traffic_control(&host), state.1);
}

/// What the repeated ADD no longer limits goes on without a limit, and the other direction with its own.
#[test]
fn a_repeated_add_ends_what_is_no_longer_limited() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let before = (host.state(), traffic_control(&host));
    for (keys, on_host, on_ifb) in
        [(ingress(), of_ingress(), None), (egress(), None, of_egress()), (ingress(), of_ingress(), None)]
    {
        add(&host, &conf(&pod, both()), &pod);
        let conf = conf(&pod, keys);
        let result = add(&host, &conf, &pod);
        let ifbs = links(&host, "ifb");
        assert_eq!((shaper(&host, "host0"), ifbs.first().and_then(|ifb| shaper(&host, ifb))), (on_host, on_ifb));
        assert_eq!(
            (redirects(&host, "host0"), kinds(&host, "host0").contains(&"clsact".to_owned())),
            (ifbs, on_ifb.is_some())
        );
        check(&host, &conf, &result, &pod).success();
    }
    host.plugin("bandwidth").del(conf(&pod, ingress()), &pod, "eth0").success();
    host.state().assert_same(&before.0);
    assert_eq!(traffic_control(&host), before.1);
}

/// The reference's name and our second one are taken by links of another kind.
fn take_both_names(host: &Host, result: &Value, second: &Value) {
    for name in [ifb_of(result), ifb_of(second)] {
        host.run(&format!("ip link add {name} type bridge"));
    }
}

/// B3, B9: nothing remains of an ADD that fails in the middle, and an earlier one's work is as it was.
#[test]
fn a_failed_add_leaves_what_was_there() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let bandwidth = host.plugin("bandwidth");
    let first = add(&host, &conf(&pod, egress()), &pod);
    bandwidth.del(conf(&pod, egress()), &pod, "eth0").success();
    host.run(&format!("ip link add {} type bridge", ifb_of(&first)));
    let second = add(&host, &conf(&pod, egress()), &pod);
    assert_ne!(ifb_of(&first), ifb_of(&second));
    bandwidth.del(conf(&pod, egress()), &pod, "eth0").success();
    host.run(&format!("ip link del {}", ifb_of(&first)));
    take_both_names(&host, &first, &second);

    let state = (host.state(), traffic_control(&host));
    refused(&bandwidth.add(conf(&pod, both()), &pod, "eth0"), &["create ifb bwp", "File exists"]);
    host.state().assert_same(&state.0);
    assert_eq!(traffic_control(&host), state.1);

    // The same with a shaper that was there before.
    add(&host, &conf(&pod, ingress()), &pod);
    let state = traffic_control(&host);
    let keys = with(&both(), json!({"ingressRate": 16_000_000}));
    refused(&bandwidth.add(conf(&pod, keys), &pod, "eth0"), &["File exists"]);
    assert_eq!(traffic_control(&host), state);

    // DEL leaves links that are none of ours.
    bandwidth.del(conf(&pod, both()), &pod, "eth0").success();
    assert_eq!(links(&host, "bridge").len(), 2);
}

/// B4: with the reference the second ADD fails, and either's DEL takes the other's ifb.
#[test]
fn two_interfaces_of_a_container_on_one_network() {
    // No alias has room for the long one.
    for (first, container) in [("eth0", "ctr1".to_owned()), ("eth1", "x".repeat(250))] {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        add_veth(&host, &pod, "host1", "eth1");
        let state = traffic_control(&host);
        let conf = |ifname: &str| {
            let mut conf = at("1.1.0", &pod, if ifname == "eth0" { "host0" } else { "host1" }, both());
            conf["prevResult"]["interfaces"][1]["name"] = ifname.into();
            conf
        };
        let bandwidth = host.plugin("bandwidth").env("CNI_CONTAINERID", &container);
        let results = ["eth0", "eth1"].map(|ifname| bandwidth.add(conf(ifname), &pod, ifname).success());
        let ifbs = results.each_ref().map(ifb_of);
        assert_ne!(ifbs[0], ifbs[1]);
        assert_eq!(
            (redirects(&host, "host0"), redirects(&host, "host1")),
            (vec![ifbs[0].clone()], vec![ifbs[1].clone()])
        );
        let second = if first == "eth0" { 1 } else { 0 };
        let names = ["eth0", "eth1"];
        for (which, name) in names.iter().enumerate() {
            bandwidth.check(with_prev_result(&conf(name), &results[which]), &pod, name).success();
        }
        // Whatever the runtime still knows of it: all three forms that DEL comes in.
        bandwidth.del(with_prev_result(&conf(first), &results[1 - second]), &pod, first).success();
        bandwidth.del(conf(first), &pod, first).success();
        bandwidth.clone().without_env("CNI_NETNS").del(conf(first), &pod, first).success();
        let left = names[second];
        bandwidth.check(with_prev_result(&conf(left), &results[second]), &pod, left).success();
        assert_eq!(links(&host, "ifb"), [ifbs[second].clone()]);
        bandwidth.del(conf(left), &pod, left).success();
        assert_eq!((traffic_control(&host), links(&host, "ifb")), (state, vec![]));
    }
}

/// A root qdisc with a handle is somebody's, and a limit would take its place.
#[test]
fn somebody_elses_shaper_is_not_replaced() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    host.run("tc qdisc add dev host0 root handle 7: pfifo limit 50");
    let state = traffic_control(&host);
    refused(&host.plugin("bandwidth").add(conf(&pod, both()), &pod, "eth0"), &["host0", "pfifo 7:", "somebody else"]);
    host.plugin("bandwidth").del(conf(&pod, both()), &pod, "eth0").success();
    assert_eq!(traffic_control(&host), state);
    // What it sends is not touched by it.
    add(&host, &conf(&pod, egress()), &pod);
}

/// Keys of the reference's 1.5, which it ignores since 1.6: all is limited, and stderr says so.
#[test]
fn lists_of_subnets_are_ignored_aloud() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let keys = with(&both(), json!({"unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": [7]}));
    let outcome = host.plugin("bandwidth").add(conf(&pod, keys), &pod, "eth0");
    outcome.success();
    assert!(outcome.stderr.contains("unshapedSubnets") && outcome.stderr.contains("ignored"), "{outcome}");
    assert_eq!(shaper(&host, "host0"), of_ingress());
}
