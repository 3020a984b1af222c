//! bridge with static: the addresses that are written are the pod's, and packets use them.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Echo, Host, Pod};

use crate::bridge_conf::{GATEWAY_V4, GATEWAY_V6, layer2, with};

/// A dual-stack network on `cni0` with these addresses for its pod; the IPv6 gateway is the bridge's own choice.
fn conf(v4: &str, v6: &str) -> Value {
    with(
        &layer2(),
        json!({"isGateway": true, "ipam": {"type": "static",
            "addresses": [{"address": v4, "gateway": GATEWAY_V4}, {"address": v6}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": GATEWAY_V6}],
            "dns": {"nameservers": ["192.0.2.53"]}}}),
    )
}

/// Asks an echo server from the pod, over both families; the server sees who asked.
#[track_caller]
fn asks(pod: &Pod, echo: &Echo, v4: (&str, &str), v6: (&str, &str)) {
    for (address, seen) in [v4, v6] {
        assert_eq!(pod.asks(address, echo), Ok(seen.parse().unwrap()), "{address}");
    }
}

#[test]
fn the_written_addresses_are_the_pods() {
    let host = Host::new();
    host.run("ip link set lo up");
    host.run("ip address add 192.0.2.1/32 dev lo");
    host.run("ip address add fd00:9::1/128 dev lo nodad");
    let (first, second) = (host.pod(), host.pod());
    let neighbour = conf("10.1.0.8/24", "fd00:1::8/64");
    host.plugin("bridge").add(&neighbour, &second, "eth0").success();
    let before = (host.state(), first.state());

    let conf = conf("10.1.0.7/24", "fd00:1::7/64");
    let result = host.plugin("bridge").add(&conf, &first, "eth0").success();
    assert_eq!(
        result["ips"],
        json!([{"address": "10.1.0.7/24", "gateway": GATEWAY_V4, "interface": 2},
            {"address": "fd00:1::7/64", "gateway": GATEWAY_V6, "interface": 2}])
    );
    assert_eq!(result["dns"], json!({"nameservers": ["192.0.2.53"]}));
    assert_eq!(first.addresses("eth0"), ["10.1.0.7/24", "fd00:1::7/64"]);
    asks(&first, &second.listen(), ("10.1.0.8", "10.1.0.7"), ("fd00:1::8", "fd00:1::7"));
    asks(&first, &host.listen(), (GATEWAY_V4, "10.1.0.7"), (GATEWAY_V6, "fd00:1::7"));
    // By the routes: these addresses of the host are in no subnet of the pod.
    assert!(first.pings("192.0.2.1") && first.pings("fd00:9::1"));

    let checked = with_prev_result(&conf, &result);
    host.plugin("bridge").check(&checked, &first, "eth0").success();
    host.plugin("bridge").del(&checked, &first, "eth0").success();
    host.plugin("bridge").del(&checked, &first, "eth0").success();
    host.state().assert_same(&before.0);
    first.state().assert_same(&before.1);
}

/// The reference's static says nothing to the first two.
#[test]
fn check_sees_that_the_configuration_says_something_else_now() {
    let host = Host::new();
    let pod = host.pod();
    let written = conf("10.1.0.7/24", "fd00:1::7/64");
    let result = host.plugin("bridge").add(&written, &pod, "eth0").success();
    for (changed, msg) in [
        (conf("10.1.0.9/24", "fd00:1::7/64"), "static: Failed to find addr 10.1.0.9 on interface eth0"),
        (conf("10.1.0.7/25", "fd00:1::7/64"), "static: Failed to match addr 10.1.0.7 on interface eth0"),
    ] {
        let error = host.plugin("bridge").check(with_prev_result(&changed, &result), &pod, "eth0").failure();
        assert!(error["msg"].as_str().unwrap().contains(msg), "{error}");
    }
    host.plugin("bridge").check(with_prev_result(&written, &result), &pod, "eth0").success();
}

/// Whichever static stands in `CNI_PATH`: what one suite has added the other checks and removes.
#[test]
fn either_suite_ends_what_the_other_began() {
    let host = Host::new();
    let conf = conf("10.1.0.7/24", "fd00:1::7/64");
    for reference in host.references("bridge") {
        let ours = host.plugin("bridge");
        for (first, then) in [(&ours, &reference), (&reference, &ours)] {
            let pod = host.pod();
            let before = pod.state();
            let result = first.add(&conf, &pod, "eth0").success();
            assert_eq!(pod.addresses("eth0"), ["10.1.0.7/24", "fd00:1::7/64"]);
            let checked = with_prev_result(&conf, &result);
            then.check(&checked, &pod, "eth0").success();
            then.del(&checked, &pod, "eth0").success();
            pod.state().assert_same(&before);
        }
    }
}
