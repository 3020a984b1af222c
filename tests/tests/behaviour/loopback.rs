//! loopback: the pod's `lo`, as containerd asks for it, and in every version.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Pod};

/// What containerd's libcni sends: a list at 0.3.1 with this one plugin.
fn of_containerd() -> Value {
    json!({"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"})
}

fn at(version: &str) -> Value {
    json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"})
}

fn is_up(pod: &Pod) -> bool {
    pod.link("lo").unwrap()["flags"].as_array().unwrap().contains(&"UP".into())
}

#[test]
fn containerd_gets_an_lo_that_is_up() {
    let host = Host::new();
    let pod = host.pod();
    assert!(!is_up(&pod));
    let loopback =
        host.plugin("loopback").env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web");
    let result = loopback.add(of_containerd(), &pod, "lo").success();
    assert!(is_up(&pod) && pod.pings("127.0.0.1") && pod.pings("::1"));
    assert_eq!(
        result,
        json!({"cniVersion": "0.3.1", "dns": {},
            "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod.path()}],
            "ips": [{"version": "4", "interface": 0, "address": "127.0.0.1/8"},
                {"version": "6", "interface": 0, "address": "::1/128"}]})
    );
    loopback.add(of_containerd(), &pod, "lo").success();
    loopback.del(of_containerd(), &pod, "lo").success();
    assert!(!is_up(&pod));
}

/// The reference prints the 1.x shape under every version's name.
#[test]
fn the_shape_is_that_of_the_version() {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let host = Host::new();
        let pod = host.pod();
        let result = host.plugin("loopback").add(at(version), &pod, "lo").success();
        let interfaces = json!([{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod.path()}]);
        let expected = match version {
            "0.1.0" | "0.2.0" => {
                json!({"cniVersion": version, "ip4": {"ip": "127.0.0.1/8"}, "ip6": {"ip": "::1/128"}, "dns": {}})
            }
            "0.3.0" | "0.3.1" | "0.4.0" => json!({"cniVersion": version, "dns": {}, "interfaces": interfaces,
                "ips": [{"version": "4", "interface": 0, "address": "127.0.0.1/8"},
                    {"version": "6", "interface": 0, "address": "::1/128"}]}),
            _ => json!({"cniVersion": version, "interfaces": interfaces,
                "ips": [{"interface": 0, "address": "127.0.0.1/8"}, {"interface": 0, "address": "::1/128"}]}),
        };
        assert_eq!(result, expected);
        let check = host.plugin("loopback").check(with_prev_result(&at(version), &result), &pod, "lo");
        assert_eq!(check.status, Some(i32::from(version < "0.4.0")), "{check}");
        host.plugin("loopback").del(with_prev_result(&at(version), &result), &pod, "lo").success();
    }
}

#[test]
fn the_interface_is_lo_whatever_it_is_called() {
    let host = Host::new();
    let pod = host.pod();
    let result = host.plugin("loopback").add(of_containerd(), &pod, "eth0").success();
    assert_eq!(result["interfaces"][0]["name"], "lo");
    assert!(is_up(&pod));
}

/// The reference does not read CNI_ARGS here; runtimes pass what they like.
#[test]
fn args_do_not_matter() {
    let host = Host::new();
    for args in ["none", "MAC=1;;", "FOO=1"] {
        let pod = host.pod();
        let loopback = host.plugin("loopback").env("CNI_ARGS", args);
        loopback.add(of_containerd(), &pod, "lo").success();
        loopback.del(of_containerd(), &pod, "lo").success();
    }
}

#[test]
fn without_ipv6_there_is_one_address() {
    let host = Host::new();
    let pod = host.pod();
    pod.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    let result = host.plugin("loopback").add(at("1.0.0"), &pod, "lo").success();
    assert_eq!(result["ips"], json!([{"interface": 0, "address": "127.0.0.1/8"}]));
}

/// In a chain it passes on what came before, with all that it does not know.
#[test]
fn a_previous_result_passes_through_unharmed() {
    let host = Host::new();
    let pod = host.pod();
    let before = json!({"cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": pod.path(),
            "mtu": 1400, "pciID": "0000:00:1f.6"}],
        "ips": [{"interface": 0, "address": "10.1.0.2/24", "gateway": "10.1.0.1"}],
        "routes": [{"dst": "0.0.0.0/0", "table": 0}], "dns": {"nameservers": ["192.0.2.53"]},
        "x-mine": {"large": 9_007_199_254_740_993_u64}});
    let outcome = host.plugin("loopback").add(with_prev_result(&at("1.0.0"), &before), &pod, "lo");
    assert_eq!(outcome.success(), before);
    assert!(outcome.stdout.contains("9007199254740993"), "{outcome}");
    assert!(is_up(&pod));
}

#[test]
fn del_may_be_repeated_and_needs_no_namespace() {
    let host = Host::new();
    let mut pod = host.pod();
    let loopback = host.plugin("loopback");
    loopback.add(of_containerd(), &pod, "lo").success();
    loopback.del(of_containerd(), &pod, "lo").success();
    loopback.del(of_containerd(), &pod, "lo").success();
    loopback.clone().without_env("CNI_NETNS").del(of_containerd(), &pod, "lo").success();
    pod.destroy();
    loopback.del(of_containerd(), &pod, "lo").success();
}

#[test]
fn check_finds_an_lo_that_is_down() {
    let host = Host::new();
    let pod = host.pod();
    let loopback = host.plugin("loopback");
    let result = loopback.add(at("1.0.0"), &pod, "lo").success();
    loopback.check(with_prev_result(&at("1.0.0"), &result), &pod, "lo").success();
    pod.run("ip link set lo down");
    let error = loopback.check(with_prev_result(&at("1.0.0"), &result), &pod, "lo").failure();
    assert!(error["msg"].as_str().unwrap().contains("loopback interface is down"), "{error}");
}
