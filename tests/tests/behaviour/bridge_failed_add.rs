//! An ADD that fails leaves nothing. Reference defect 4: it left the pair, the addresses and the rules.

use std::fs;

use serde_json::json;
use tempfile::TempDir;
use tests::namespace::PATH;
use tests::{Host, Internet, bins};

use crate::bridge_conf::{
    add, dual, hide_firewall_programs, leases, links, masqueraded, rules, show_firewall_programs, with,
};
use crate::refusal::write_script;

/// The IPAM plugin is told to release what it gave, once, whether the failure is its own or comes later.
#[test]
fn ipam_is_told_of_the_failure() {
    let lease = r#"[ $CNI_COMMAND = DEL ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24"}]}'"#;
    let (garbage, foreign) = ("echo garbage", lease.replace("10.1.0.2", "10.9.0.2"));
    for (what, script, keys) in [
        ("garbage", garbage, json!({})),
        ("a foreign address", &foreign, json!({})),
        ("a conflict on the bridge", lease, json!({"forceAddress": false})),
    ] {
        let host = Host::new();
        let pod = host.pod();
        host.run("ip link add cni0 type bridge");
        host.run("ip link set cni0 address 02:00:00:00:00:01 up");
        host.run("ip address add 10.7.0.1/24 dev cni0");
        let directory = TempDir::new().unwrap();
        let log = directory.path().join("log");
        write_script(&directory.path().join("fake"), &format!("echo $CNI_COMMAND >> {}\n{script}", log.display()));
        let conf = with(&dual(), with(&json!({"ipam": {"type": "fake"}}), keys));
        let conf = with(&conf, json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]]}}));
        host.plugin("bridge").env("CNI_PATH", directory.path().display()).add(&conf, &pod, "eth0").failure();
        assert_eq!(fs::read_to_string(&log).unwrap(), "ADD\nDEL\n", "{what}");
        assert_eq!(links(&host, "veth"), [""; 0], "{what}");
        assert!(pod.link("eth0").is_none(), "{what}");
    }
}

/// Whoever is given the address next must be alone with it: the pod's interface goes before the lease, as on DEL.
#[test]
fn the_lease_is_released_when_nobody_answers_for_it_any_more() {
    let host = Host::new();
    let pod = host.pod();
    host.run("ip link add cni0 type bridge");
    host.run("ip link set cni0 address 02:00:00:00:00:01 up");
    host.run("ip address add 10.7.0.1/24 dev cni0");
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    let lease = r#"[ $CNI_COMMAND = DEL ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24"}]}'"#;
    let look = format!("nsenter --net=$CNI_NETNS ip -o link show eth0 >> {} 2>&1", log.display());
    write_script(&directory.path().join("fake"), &format!("[ $CNI_COMMAND = ADD ] || {look}\n{lease}"));
    let conf = with(&dual(), json!({"ipam": {"type": "fake", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}));
    let error = host.plugin("bridge").env("CNI_PATH", directory.path().display()).add(&conf, &pod, "eth0").failure();
    assert!(error["msg"].as_str().unwrap().contains("already has an IP address"), "{error}");
    let seen = fs::read_to_string(&log).unwrap();
    assert!(seen.contains("does not exist"), "{seen}");
}

/// Both families' rules are wanted, the second fails: nothing of the first stays, nor of what came before.
#[test]
fn a_masquerade_that_fails_leaves_nothing() {
    for failing in ["iptables-restore", "ip6tables-restore"] {
        for with_first in [false, true] {
            let host = Host::new();
            let conf = with(&masqueraded("iptables"), json!({"macspoofchk": true}));
            if with_first {
                add(&host, &conf, &host.pod());
            }
            let directory = TempDir::new().unwrap();
            write_script(&directory.path().join(failing), "echo no luck today >&2; exit 1");
            let path = format!("{}:{PATH}", directory.path().display());
            let pod = host.pod();
            let (before, pod_before) = (host.state(), pod.state());
            let error = host.plugin("bridge").env("PATH", &path).add(&conf, &pod, "eth0").failure();
            assert!(error.to_string().contains("no luck today"), "{error}");
            if with_first {
                host.state().assert_same(&before);
            } else {
                // As after any ADD, forwarding stays on, and the base chain for all spoof checks is there.
                let rest = |state: tests::State| state.without("sysctls").without("nft");
                rest(host.state()).assert_same(&rest(before));
                assert_eq!(rules(&host), [""; 0]);
            }
            pod.state().assert_same(&pod_before);
            // And the next one is as if nothing had been.
            let result = add(&host, &conf, &pod);
            let expected = if with_first { "10.1.0.4/24" } else { "10.1.0.3/24" };
            assert_eq!(result["ips"][0]["address"], expected, "round robin goes on");
        }
    }
}

#[test]
fn without_the_programs_the_iptables_backend_fails_and_leaves_nothing() {
    let host = Host::new();
    let pod = host.pod();
    let before = host.state().without("sysctls");
    hide_firewall_programs(&host);
    let error = host.plugin("bridge").add(masqueraded("iptables"), &pod, "eth0").failure();
    show_firewall_programs(&host);
    assert!(error["msg"].as_str().unwrap().contains("iptables"), "{error}");
    host.state().without("sysctls").assert_same(&before);
    assert_eq!((rules(&host), leases(&host), links(&host, "bridge")), (vec![], vec![], vec![]));
}

/// Two interfaces of a container share a chain: the failure of one must not take it from the other.
#[test]
fn a_failed_second_interface_leaves_the_first_its_masquerade() {
    let host = Host::new();
    let internet = host.internet();
    let conf = masqueraded("iptables");
    let pod = host.pod();
    add(&host, &conf, &pod);
    let before = host.state();
    let directory = TempDir::new().unwrap();
    write_script(&directory.path().join("ip6tables-restore"), "exit 1");
    let path = format!("{}:{PATH}", directory.path().display());
    let second = with(&conf, json!({"isDefaultGateway": false, "isGateway": true}));
    host.plugin("bridge").env("PATH", path).add(&second, &pod, "eth1").failure();
    host.state().assert_same(&before);
    assert_eq!(pod.asks(Internet::V4, &internet.listen()), Ok(Internet::HOST_V4));
}

/// A bridge that an ADD found is not the ADD's to take away.
#[test]
fn a_bridge_that_was_there_stays() {
    let host = Host::new();
    host.run("ip link add cni0 type bridge");
    let conf = with(&dual(), json!({"ipam": {"type": "missing"}}));
    host.plugin("bridge").add(&conf, &host.pod(), "eth0").failure();
    assert_eq!(links(&host, "bridge"), ["cni0"]);
}

/// One pod's ADD makes the bridge and fails while another pod joins it: the other one keeps its network.
#[test]
fn a_failing_add_takes_no_bridge_from_under_another_pod() {
    let host = Host::new();
    let directory = TempDir::new().unwrap();
    write_script(&directory.path().join("slow"), "sleep 0.3; echo '{\"code\":11,\"msg\":\"no\"}'; exit 1");
    let path = format!("{}:{}", directory.path().display(), bins::directory().display());
    let pods: Vec<_> = (0..6).map(|_| host.pod()).collect();
    std::thread::scope(|scope| {
        for (number, pod) in pods.iter().enumerate() {
            let (host, path) = (&host, &path);
            scope.spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(60 * number as u64));
                let ipam = if number % 2 == 0 { "slow" } else { "host-local" };
                let conf = with(&dual(), json!({"ipam": {"type": ipam}}));
                let outcome = host.plugin("bridge").env("CNI_PATH", path).add(conf, pod, "eth0");
                assert_eq!(outcome.status, Some(i32::from(number % 2 == 0)), "{outcome}");
            });
        }
    });
    for pod in pods.iter().skip(1).step_by(2) {
        assert!(pod.pings("10.1.0.1") && pod.pings("fd00:1::1"));
    }
}
