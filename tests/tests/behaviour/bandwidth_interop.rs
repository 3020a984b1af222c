//! bandwidth against the reference: what one suite ADDed, the other CHECKs and DELs; behind bridge and behind ptp.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Plugin, Pod};

use crate::bandwidth_conf::{
    CONTAINERD_BURST, add_veth, at, both, check, conf, egress, ifb_of, ingress, pod_with_veth, qdiscs, redirects,
    shaper, traffic_control,
};
use crate::bridge_conf::{dual, links, with};
use crate::parallel::at_once;

/// A limit of which both make the same: a burst of a packet and more, and of a second and less.
fn one_second() -> Value {
    json!({"ingressRate": 1_000_000, "ingressBurst": 1_000_000, "egressRate": 3_333_333, "egressBurst": 333_337})
}

fn each(order: for<'a> fn(Plugin<'a>, Plugin<'a>) -> (Plugin<'a>, Plugin<'a>)) {
    for which in 0..Host::new().references("bandwidth").len() {
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            for keys in [both(), ingress(), egress(), one_second()] {
                let host = Host::new();
                let pod = pod_with_veth(&host, "host0");
                let (adder, remover) = order(host.plugin("bandwidth"), host.references("bandwidth").swap_remove(which));
                let conf = at(version, &pod, "host0", keys);
                let result = adder.add(&conf, &pod, "eth0").success();
                let after = with_prev_result(&conf, &result);
                if version >= "0.4.0" {
                    remover.check(&after, &pod, "eth0").success();
                    adder.check(&after, &pod, "eth0").success();
                }
                remover.del(&after, &pod, "eth0").success();
                assert_eq!(links(&host, "ifb"), [""; 0], "reference {which}");
                adder.del(&after, &pod, "eth0").success();
                assert_eq!(links(&host, "ifb"), [""; 0], "reference {which}");
            }
        }
    }
}

#[test]
fn what_the_reference_limited_we_check_and_delete() {
    each(|ours, theirs| (theirs, ours));
}

#[test]
fn what_we_limited_the_reference_checks_and_deletes() {
    each(|ours, theirs| (ours, theirs));
}

/// Of its state nothing is left by our DEL, as nothing is of ours.
#[test]
fn our_del_removes_all_that_the_reference_made() {
    let host = Host::new();
    for theirs in host.references("bandwidth") {
        let pod = pod_with_veth(&host, "host0");
        let state = traffic_control(&host);
        let result = theirs.add(conf_1_0(&pod, both()), &pod, "eth0").success();
        host.plugin("bandwidth").del(with_prev_result(&conf(&pod, both()), &result), &pod, "eth0").success();
        assert_eq!((traffic_control(&host), links(&host, "ifb")), (state, vec![]));
        host.run("ip link del host0");
    }
}

fn conf_1_0(pod: &Pod, keys: Value) -> Value {
    at("1.0.0", pod, "host0", keys)
}

/// The result and what `tc` shows of the shapers.
#[test]
fn both_make_the_same() {
    for which in 0..Host::new().references("bandwidth").len() {
        for keys in [both(), one_second(), json!({"ingressRate": 999_999_999, "ingressBurst": 123_456_789})] {
            let seen = [true, false].map(|is_ours| {
                let host = Host::new();
                let pod = pod_with_veth(&host, "host0");
                let theirs = host.references("bandwidth").swap_remove(which);
                let plugin = if is_ours { host.plugin("bandwidth") } else { theirs };
                let plugin = plugin.env("CNI_CONTAINERID", "ctr1");
                let mut result = plugin.add(conf_1_0(&pod, keys.clone()), &pod, "eth0").success();
                result["interfaces"][1]["sandbox"] = "pod".into();
                if let Some(ifb) = result["interfaces"].get_mut(2) {
                    ifb["mac"] = "random".into();
                }
                if result["dns"] == json!({}) {
                    result.as_object_mut().unwrap().remove("dns"); // Debian's says under 1.x that it has nothing to say
                }
                let root = |link: &str| qdiscs(&host, link).into_iter().find(|qdisc| qdisc["kind"] == "tbf");
                let shapers = (root("host0"), links(&host, "ifb").first().and_then(|ifb| root(ifb)));
                (result, shapers, redirects(&host, "host0"))
            });
            assert_eq!(seen[0], seen[1], "reference {which}, {keys}");
        }
    }
}

/// Its shapers of a rate alone are not ours: its queue is 512 MB, its burst overflows (B1, B2). A pod that lives with
/// them is not broken; a repeated ADD mends it.
#[test]
fn we_check_what_the_reference_made_of_a_rate_alone() {
    let host = Host::new();
    for (number, theirs) in host.references("bandwidth").into_iter().enumerate() {
        for rate in [1_000_000, 10_000_000, 100_000_000] {
            let end = format!("end{number}x{rate}");
            let pod = pod_with_veth(&host, &end[..end.len().min(15)]);
            let end = &end[..end.len().min(15)];
            let keys = json!({"ingressRate": rate, "ingressBurst": CONTAINERD_BURST, "egressRate": rate, "egressBurst": CONTAINERD_BURST});
            let conf = at("1.0.0", &pod, end, keys);
            let result = theirs.add(&conf, &pod, "eth0").success();
            assert!(shaper(&host, end).unwrap().limit > 500_000_000);
            check(&host, &conf, &result, &pod).success();
            let again = host.plugin("bandwidth").add(&conf, &pod, "eth0").success();
            assert_eq!(again["interfaces"], result["interfaces"]);
            assert!(shaper(&host, end).unwrap().limit < 1_000_000);
            assert_eq!(redirects(&host, end), [ifb_of(&result)]);
            check(&host, &conf, &result, &pod).success();
            theirs.del(with_prev_result(&conf, &result), &pod, "eth0").success();
            assert_eq!(links(&host, "ifb"), [""; 0]);
        }
    }
}

/// B8: with a burst below a packet the reference's shaper drops all larger ones. That is broken.
#[test]
fn we_find_what_the_reference_made_of_a_tiny_burst() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let conf = conf_1_0(&pod, json!({"ingressRate": 8000, "ingressBurst": 80}));
    let result = host.reference("bandwidth").add(&conf, &pod, "eth0").success();
    let error = check(&host, &conf, &result, &pod).failure();
    assert!(error["msg"].as_str().unwrap().contains("drop packets"), "{error}");
}

/// An upgrade in the life of a container with two interfaces on one network.
#[test]
fn our_second_interface_leaves_the_references_first() {
    let host = Host::new();
    for theirs in host.references("bandwidth") {
        let pod = pod_with_veth(&host, "host0");
        add_veth(&host, &pod, "host1", "eth1");
        let first = theirs.add(conf_1_0(&pod, both()), &pod, "eth0").success();
        let mut second = at("1.0.0", &pod, "host1", both());
        second["prevResult"]["interfaces"][1]["name"] = "eth1".into();
        let ours = host.plugin("bandwidth");
        let result = ours.add(&second, &pod, "eth1").success();
        assert_ne!(ifb_of(&first), ifb_of(&result));
        ours.check(with_prev_result(&second, &result), &pod, "eth1").success();
        for _ in 0..2 {
            ours.del(with_prev_result(&second, &result), &pod, "eth1").success();
            ours.del(&second, &pod, "eth1").success();
        }
        assert_eq!(links(&host, "ifb"), [ifb_of(&first)]);
        theirs.check(with_prev_result(&conf_1_0(&pod, both()), &first), &pod, "eth0").success();
        ours.del(conf_1_0(&pod, both()), &pod, "eth0").success();
        assert_eq!(links(&host, "ifb"), [""; 0]);
        host.run("ip link del host0");
        host.run("ip link del host1");
    }
}

/// The whole chain, as a runtime runs it: the last plugin is deleted first.
#[test]
fn behind_bridge_and_ptp() {
    for plugin in ["bridge", "ptp"] {
        for theirs in [None, Some(0), Some(1)] {
            let host = Host::new();
            let references = || host.references("bandwidth");
            let bandwidth = match theirs {
                None => host.plugin("bandwidth"),
                Some(which) if which < references().len() => references().swap_remove(which),
                Some(_) => continue,
            };
            let main = with(&dual(), json!({"type": plugin, "ipMasq": true, "ipMasqBackend": "iptables"}));
            let pod = host.pod();
            let made = host.plugin(plugin).add(&main, &pod, "eth0").success();
            let limits = json!({"cniVersion": "1.0.0", "name": "net", "type": "bandwidth", "runtimeConfig": {"bandwidth": both()}});
            let result = bandwidth.add(with_prev_result(&limits, &made), &pod, "eth0").success();
            let after = |conf: &Value| with_prev_result(conf, &result);
            for address in ["10.1.0.1", "fd00:1::1"] {
                assert!(pod.pings(address), "{plugin}: {address}");
            }
            host.plugin(plugin).check(after(&main), &pod, "eth0").success();
            for checker in references().into_iter().chain([host.plugin("bandwidth")]) {
                checker.check(after(&limits), &pod, "eth0").success();
            }
            host.plugin("bandwidth").del(after(&limits), &pod, "eth0").success();
            host.plugin(plugin).del(after(&main), &pod, "eth0").success();
            assert_eq!((links(&host, "ifb"), links(&host, "veth")), (vec![], vec![]));
        }
    }
}

#[test]
fn fifty_at_once() {
    let host = Host::new();
    let pods: Vec<Pod> = (0..50).map(|number| pod_with_veth(&host, &format!("host{number}"))).collect();
    let state = (host.state(), traffic_control(&host));
    let conf = |number: usize| at("1.0.0", &pods[number], &format!("host{number}"), both());
    let bandwidth = host.plugin("bandwidth");
    let results = at_once(&pods, |number, pod| bandwidth.add(conf(number), pod, "eth0").success());
    for (number, result) in results.iter().enumerate() {
        assert_eq!(redirects(&host, &format!("host{number}")), [ifb_of(result)]);
    }
    let known = |number: usize| with_prev_result(&conf(number), &results[number]);
    at_once(&pods, |number, pod| bandwidth.check(known(number), pod, "eth0").success());
    at_once(&pods, |number, pod| bandwidth.del(known(number), pod, "eth0").success());
    host.state().assert_same(&state.0);
    assert_eq!(traffic_control(&host), state.1);
}

/// A runtime that lost count, and one that is in a hurry with two interfaces: nobody takes another's, nothing is left.
#[test]
fn adds_of_one_container_at_once() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    add_veth(&host, &pod, "host1", "eth1");
    let state = (host.state(), traffic_control(&host));
    let mut second = at("1.0.0", &pod, "host1", both());
    second["prevResult"]["interfaces"][1]["name"] = "eth1".into();
    let attachments = [("eth0", conf_1_0(&pod, both())), ("eth1", second)];
    let bandwidth = host.plugin("bandwidth");
    for times in [1, 5] {
        let results = std::thread::scope(|scope| {
            let all = attachments.iter().cycle().take(2 * times);
            let (bandwidth, pod) = (&bandwidth, &pod);
            let threads: Vec<_> = all.map(|(name, conf)| scope.spawn(move || bandwidth.add(conf, pod, name))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        if times == 1 {
            for ((name, conf), result) in attachments.iter().zip(&results) {
                bandwidth.check(with_prev_result(conf, &result.success()), &pod, name).success();
            }
        }
        for (name, conf) in &attachments {
            // Whatever they came to, one more ADD makes it right, and DEL ends it.
            let result = bandwidth.add(conf, &pod, name).success();
            bandwidth.check(with_prev_result(conf, &result), &pod, name).success();
        }
        for (name, conf) in &attachments {
            bandwidth.del(conf, &pod, name).success();
        }
        host.state().assert_same(&state.0);
        assert_eq!(traffic_control(&host), state.1);
    }
}
