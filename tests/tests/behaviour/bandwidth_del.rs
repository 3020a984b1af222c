//! bandwidth: CHECK finds what is broken (B5), DEL takes all away whatever has happened, GC what DEL never came for, and
//! STATUS says what is missing before.

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::with_prev_result;
use tests::{Host, Pod};

use crate::bandwidth_conf::{
    add, at, both, check, conf, egress, ifb_of, kinds, pod_with_veth, redirects, shaper, traffic_control,
};
use crate::bridge_conf::{links, with};
use crate::refusal::write_script;

/// B5: all of these pass the reference's CHECK but the last four.
#[test]
fn check_finds_what_is_broken() {
    for (damage, words) in [
        ("tc qdisc del dev host0 root", ["Failed to find qdisc", "host0"]),
        ("tc qdisc del dev IFB root", ["Failed to find qdisc", "IFB"]),
        ("tc qdisc del dev host0 clsact", ["no filter redirects", "host0 to IFB"]),
        ("tc filter del dev host0 ingress", ["no filter redirects", "host0 to IFB"]),
        ("ip link set IFB down", ["IFB", "down"]),
        ("ip link del IFB", ["get ifb device: Link not found", "IFB"]),
        (
            "tc qdisc change dev host0 root handle 1: tbf rate 9mbit burst 100kb limit 125000",
            ["Rate doesn't match", "1125000"],
        ),
        (
            "tc qdisc change dev IFB root handle 1: tbf rate 16mbit burst 200000 limit 9999",
            ["Limit doesn't match", "9999"],
        ),
        (
            "tc qdisc change dev IFB root handle 1: tbf rate 16mbit burst 5000 limit 250000",
            ["Buffer doesn't match", "200000"],
        ),
    ] {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        let conf = conf(&pod, both());
        let result = add(&host, &conf, &pod);
        check(&host, &conf, &result, &pod).success();
        let ifb = ifb_of(&result);
        host.run(&damage.replace("IFB", &ifb));
        let state = (host.state(), traffic_control(&host));
        let error = check(&host, &conf, &result, &pod).failure();
        let finds = |word: &&str| error["msg"].as_str().unwrap().contains(&word.replace("IFB", &ifb));
        assert!(words.iter().all(finds), "{damage}: {error}");
        host.state().assert_same(&state.0);
        assert_eq!(traffic_control(&host), state.1, "it mended something");
        // ADD does, and DEL takes away what is left.
        let ifb = ifb_of(&add(&host, &conf, &pod));
        assert_eq!(redirects(&host, "host0"), std::slice::from_ref(&ifb), "{damage}");
        check(&host, &conf, &result, &pod).success();
        host.run(&damage.replace("IFB", &ifb));
        host.plugin("bandwidth").del(with_prev_result(&conf, &result), &pod, "eth0").success();
        assert_eq!((links(&host, "ifb"), kinds(&host, "host0")), (vec![], vec!["noqueue".to_owned()]), "{damage}");
    }
}

/// B5: a filter that is there, and takes a part of the packets only.
#[test]
fn check_finds_a_filter_that_lets_packets_pass() {
    for part in ["protocol ip u32 match u32 0 0", "protocol all u32 match ip dst 10.9.0.0/16"] {
        let host = Host::new();
        let pod = pod_with_veth(&host, "host0");
        let conf = conf(&pod, both());
        let result = add(&host, &conf, &pod);
        let ifb = ifb_of(&result);
        host.run("tc filter del dev host0 ingress");
        host.run(&format!("tc filter add dev host0 ingress {part} action mirred egress redirect dev {ifb}"));
        let error = check(&host, &conf, &result, &pod).failure();
        assert!(error["msg"].as_str().unwrap().contains("no filter redirects"), "{part}: {error}");
        add(&host, &conf, &pod);
        check(&host, &conf, &result, &pod).success();
        host.plugin("bandwidth").del(with_prev_result(&conf, &result), &pod, "eth0").success();
        assert_eq!((links(&host, "ifb"), kinds(&host, "host0")), (vec![], vec!["noqueue".to_owned()]), "{part}");
    }
}

#[test]
fn del_whatever_the_runtime_knows() {
    type How = fn(&Host, &mut Pod, &Value) -> Value;
    let hows: [(&str, How); 7] = [
        ("as after ADD", |_, _, conf| conf.clone()),
        ("without a result", |_, _, conf| with(conf, json!({"prevResult": null}))),
        ("an empty result", |_, _, conf| {
            with_prev_result(conf, &json!({"cniVersion": "1.0.0", "dns": {}})) // containerd's second DEL
        }),
        ("a result that is none", |_, _, conf| with(conf, json!({"prevResult": 7}))),
        ("a broken configuration", |_, _, conf| with(conf, json!({"ingressRate": "fast", "egressBurst": 0}))),
        ("the interface is gone", |_, pod, conf| {
            pod.run("ip link del eth0");
            conf.clone()
        }),
        ("the namespace is gone", |_, pod, conf| {
            pod.destroy();
            conf.clone()
        }),
    ];
    for (how, act) in hows {
        for netns in [true, false] {
            let host = Host::new();
            let mut pod = pod_with_veth(&host, "host0");
            let conf = conf(&pod, both());
            let result = add(&host, &conf, &pod);
            let conf = act(&host, &mut pod, &with_prev_result(&conf, &result));
            let plugin = host.plugin("bandwidth");
            let plugin = if netns { plugin } else { plugin.without_env("CNI_NETNS") };
            for _ in 0..2 {
                plugin.del(&conf, &pod, "eth0").success();
                assert_eq!(links(&host, "ifb"), [""; 0], "{how}");
            }
            if netns && !how.ends_with("gone") {
                assert_eq!(kinds(&host, "host0"), ["noqueue"], "{how}");
            }
        }
    }
}

/// A pod outlives its DEL for a moment: what it sends goes on. After the reference's it is dropped.
#[test]
fn after_del_packets_pass() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    host.run("ip address add 10.1.0.1/24 dev host0");
    pod.run("ip address add 10.1.0.2/24 dev eth0");
    let conf = conf(&pod, both());
    let result = add(&host, &conf, &pod);
    assert!(pod.pings("10.1.0.1"));
    host.plugin("bandwidth").del(with_prev_result(&conf, &result), &pod, "eth0").success();
    assert!(pod.pings("10.1.0.1"));
}

#[test]
fn del_comes_without_an_add_and_ten_at_once() {
    let host = Host::new();
    let pods = [pod_with_veth(&host, "host0"), pod_with_veth(&host, "host1")];
    let bandwidth = host.plugin("bandwidth");
    let bystander = at("1.1.0", &pods[1], "host1", both());
    let result = add(&host, &bystander, &pods[1]);
    bandwidth.del(conf(&pods[0], both()), &pods[0], "eth0").success();
    for _ in 0..3 {
        add(&host, &conf(&pods[0], both()), &pods[0]);
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| bandwidth.del(conf(&pods[0], both()), &pods[0], "eth0").success());
            }
        });
        assert_eq!(links(&host, "ifb"), [ifb_of(&result)]);
        assert_eq!(kinds(&host, "host0"), ["noqueue"]);
    }
    check(&host, &bystander, &result, &pods[1]).success();
}

/// Killed at each of its system calls that changes something: what is there then, DEL takes away.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[test]
fn what_a_killed_add_leaves_is_removed() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let state = (host.state(), traffic_control(&host));
    let conf = conf(&pod, both());
    for call in 0.. {
        let killed = host.plugin("bandwidth").killed_at(call, "ADD", &conf, &pod, "eth0");
        host.plugin("bandwidth").del(&conf, &pod, "eth0").success();
        host.state().assert_same(&state.0);
        // An empty hook is in nobody's way; it goes with the link.
        let left = traffic_control(&host).replace("qdisc clsact ffff:[ffff0000] dev host0 parent ffff:fff1 \n", "");
        assert_eq!(left.trim(), state.1.trim(), "call {call}");
        drop(host.try_run("tc qdisc del dev host0 clsact"));
        if !killed {
            assert!(call > 4, "only {call} calls: nothing was tested");
            break;
        }
    }
}

/// B9: a link of another kind that has the name. The reference deletes it.
#[test]
fn a_link_of_another_kind_is_left() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let name = ifb_of(&add(&host, &conf(&pod, egress()), &pod));
    let bandwidth = host.plugin("bandwidth");
    bandwidth.del(conf(&pod, egress()), &pod, "eth0").success();
    host.run(&format!("ip link add {name} type bridge"));
    bandwidth.del(conf(&pod, egress()), &pod, "eth0").success();
    assert_eq!(links(&host, "bridge"), std::slice::from_ref(&name));
    // And ADD has another name.
    let result = add(&host, &conf(&pod, egress()), &pod);
    assert_eq!(redirects(&host, "host0"), [ifb_of(&result)]);
    check(&host, &conf(&pod, egress()), &result, &pod).success();
    bandwidth.del(with_prev_result(&conf(&pod, egress()), &result), &pod, "eth0").success();
    assert_eq!((links(&host, "bridge"), links(&host, "ifb")), (vec![name], vec![]));
}

/// B11: an ifb whose DEL never came.
#[test]
fn gc_removes_this_networks_lost_ifbs() {
    let host = Host::new();
    let pods: Vec<_> = (0..4).map(|number| pod_with_veth(&host, &format!("host{number}"))).collect();
    let of = |network: &str, number: usize| {
        at("1.1.0", &pods[number], &format!("host{number}"), with(&both(), json!({"name": network})))
    };
    let ifbs: Vec<String> = ["net", "net", "other", "net-2"]
        .iter()
        .enumerate()
        .map(|(number, network)| ifb_of(&add(&host, &of(network, number), &pods[number])))
        .collect();
    // The host's end has the same alias from bridge and ptp.
    let directory = TempDir::new().unwrap();
    let lines =
        pods.iter().enumerate().map(|(number, pod)| format!("link set host{number} alias \"net {} eth0\"\n", pod.id()));
    std::fs::write(directory.path().join("aliases"), lines.collect::<String>()).unwrap();
    host.run(&format!("ip -batch {}", directory.path().join("aliases").display()));
    host.run("ip link add bwp123456789abc type ifb"); // the reference's, of which nobody knows whose it is
    let kept = || ifbs.iter().map(|ifb| host.link(ifb).is_some()).collect::<Vec<_>>();
    let gc = |network: &str, valid: Value| {
        host.plugin("bandwidth").gc(with(&of(network, 0), json!({"cni.dev/valid-attachments": valid}))).success();
    };
    // The runtime did not say: nothing goes.
    host.plugin("bandwidth").gc(of("net", 0)).success();
    gc("net", json!([{"containerID": pods[0].id(), "ifname": "eth0"}, {"containerID": "../x", "ifname": "eth0"}]));
    assert_eq!(kept(), [true, false, true, true]);
    gc("net", json!([{"containerID": pods[0].id(), "ifname": "eth1"}]));
    assert_eq!(kept(), [false, false, true, true]);
    gc("other", json!([]));
    gc("net-2", json!([]));
    gc("never-used", json!([]));
    assert_eq!((kept(), links(&host, "ifb")), (vec![false; 4], vec!["bwp123456789abc".to_owned()]));
    assert_eq!(links(&host, "veth").len(), 4);
}

#[test]
fn status() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let state = (host.state(), traffic_control(&host));
    let bandwidth = host.plugin("bandwidth");
    bandwidth.status(conf(&pod, both())).success();
    bandwidth.status(conf(&pod, json!({}))).success();
    host.state().assert_same(&state.0);
    assert_eq!(traffic_control(&host), state.1);
    assert_eq!(bandwidth.status(conf(&pod, json!({"ingressRate": 5}))).code(), 7);

    // A runtime that may not: what is missing is said.
    let directory = TempDir::new().unwrap();
    let script = directory.path().join("status");
    let (program, input) = (bandwidth.program().display().to_string(), directory.path().join("conf"));
    std::fs::write(&input, conf(&pod, both()).to_string()).unwrap();
    let command = "setpriv --bounding-set -net_admin,-sys_admin --inh-caps -net_admin,-sys_admin";
    write_script(&script, &format!("CNI_COMMAND=STATUS CNI_PATH=/none {command} {program} < {}", input.display()));
    let output = host.try_run(&script.display().to_string());
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &error["code"]), (Some(1), &50.into()), "{error}");
    assert!(error["msg"].as_str().unwrap().contains("Operation not permitted"), "{error}");
}

/// The reference's 1.5 had another shaper, and filters on the way out.
#[test]
fn the_htb_of_an_older_reference_is_replaced_and_removed() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let state = (host.state(), traffic_control(&host));
    let conf = conf(&pod, both());
    let name = ifb_of(&add(&host, &conf, &pod));
    let bandwidth = host.plugin("bandwidth");
    bandwidth.del(&conf, &pod, "eth0").success();
    for adds in [false, true] {
        host.run(&format!("ip link add {name} mtu 1400 type ifb"));
        host.run(&format!("ip link set {name} up"));
        for link in ["host0", &name] {
            host.run(&format!("tc qdisc add dev {link} root handle 1: htb default 48"));
            host.run(&format!("tc class add dev {link} parent 1: classid 1:48 htb rate 8mbit"));
        }
        host.run("tc qdisc add dev host0 ingress");
        host.run(&format!(
            "tc filter add dev host0 parent ffff: prio 1 protocol all u32 match u32 0 0 action mirred egress redirect dev {name}"
        ));
        if adds {
            let result = add(&host, &conf, &pod);
            assert_eq!((ifb_of(&result), redirects(&host, "host0")), (name.clone(), vec![name.clone()]));
            assert!(shaper(&host, "host0").is_some() && shaper(&host, &name).is_some());
        }
        bandwidth.del(&conf, &pod, "eth0").success();
        host.state().assert_same(&state.0);
        assert_eq!(traffic_control(&host), state.1);
    }
}
