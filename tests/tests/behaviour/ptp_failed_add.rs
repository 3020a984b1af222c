//! ptp: an ADD that fails leaves nothing, neither pair nor addresses, lease or rules.

use std::fs;

use serde_json::json;
use tempfile::TempDir;
use tests::Host;
use tests::namespace::PATH;

use crate::bridge_conf::with;
use crate::ptp::{add, check, dual, masqueraded};
use crate::refusal::write_script;

/// The IPAM plugin is told to release what it gave, once, and when nobody answers for it any more.
#[test]
fn ipam_is_told_of_the_failure() {
    let lease = |ip: &str| {
        format!(r#"[ $CNI_COMMAND = DEL ] || echo '{{"cniVersion":"1.0.0","ips":[{{"address":"10.1.0.2/24"{ip}}}]}}'"#)
    };
    for (what, script, code, word) in [
        ("garbage", "echo garbage".to_owned(), None, "fake"),
        ("no address", r#"echo '{"cniVersion":"1.0.0"}'"#.to_owned(), None, "IP config"),
        ("no gateway", lease(""), Some(7), "10.1.0.2/24 without a gateway"),
        ("a gateway of the other family", lease(r#","gateway":"fd00::1""#), Some(7), "fd00::1"),
        ("itself as its gateway", lease(r#","gateway":"10.1.0.2""#), Some(7), "10.1.0.2"),
    ] {
        let host = Host::new();
        host.internet();
        let pod = host.pod();
        let directory = TempDir::new().unwrap();
        let log = directory.path().join("log");
        let look = format!(
            "nsenter --net=$CNI_NETNS ip -o link show eth0 >/dev/null 2>&1; echo $CNI_COMMAND $? >> {}",
            log.display()
        );
        write_script(&directory.path().join("fake"), &format!("{look}\n{script}"));
        let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "ptp", "ipam": {"type": "fake"}});
        let (before, pod_before) = (host.state(), pod.state());
        let error = host.plugin("ptp").env("CNI_PATH", directory.path().display()).add(&conf, &pod, "eth0").failure();
        assert!(error.to_string().contains(word), "{what}: {error}");
        assert!(code.is_none_or(|code: u64| error["code"] == code), "{what}: {error}");
        let log = fs::read_to_string(&log).unwrap();
        let calls: Vec<&str> = log.lines().collect();
        assert_eq!((calls.len(), calls[0]), (2, "ADD 0"), "{what}: {log}");
        // An undecodable lease is released before the pair goes: it is nobody's.
        assert!(calls[1].starts_with("DEL") && (code.is_none() || calls[1] == "DEL 1"), "{what}: {log}");
        host.state().assert_same(&before);
        pod.state().assert_same(&pod_before);
    }
}

/// Both families' rules are wanted, the second fails: nothing of the first stays, nor of what came before.
#[test]
fn a_masquerade_that_fails_leaves_nothing() {
    for failing in ["iptables-restore", "ip6tables-restore"] {
        let host = Host::new();
        host.internet();
        let conf = masqueraded("iptables");
        let first = host.pod();
        let result = add(&host, &conf, &first);
        let directory = TempDir::new().unwrap();
        write_script(&directory.path().join(failing), "echo no luck today >&2; exit 1");
        let path = format!("{}:{PATH}", directory.path().display());
        let pod = host.pod();
        let (before, pod_before) = (host.state(), pod.state());
        let error = host.plugin("ptp").env("PATH", &path).add(&conf, &pod, "eth0").failure();
        assert!(error.to_string().contains("no luck today"), "{error}");
        host.state().assert_same(&before);
        pod.state().assert_same(&pod_before);
        check(&host, &conf, &result, &first).success();
        add(&host, &conf, &pod);
    }
}

#[test]
fn what_the_kernel_refuses_leaves_nothing() {
    for (what, keys) in [
        ("a route that leads nowhere", json!({"ipam": {"routes": [{"dst": "10.9.0.0/16", "gw": "10.200.0.1"}]}})),
        ("an mtu without IPv6", json!({"mtu": 1200})),
        (
            "two addresses of a family before 0.3.0",
            json!({"cniVersion": "0.2.0", "ipam": {"ranges":
            [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}}),
        ),
    ] {
        let host = Host::new();
        host.internet();
        let pod = host.pod();
        let (before, pod_before) = (host.state(), pod.state());
        let outcome = host.plugin("ptp").add(with(&dual(), keys), &pod, "eth0");
        assert_eq!(outcome.status, Some(1), "{what}\n{outcome}");
        host.state().assert_same(&before);
        pod.state().assert_same(&pod_before);
    }
}

/// A runtime that lost count: the second ADD fails and takes nothing from the first.
#[test]
fn a_second_add_takes_nothing_from_the_first() {
    for backend in crate::bridge_masquerade::BACKENDS {
        let host = Host::new();
        let conf = masqueraded(backend);
        let pod = host.pod();
        let result = add(&host, &conf, &pod);
        let (before, pod_before) = (host.state(), pod.state());
        let error = host.plugin("ptp").add(&conf, &pod, "eth0").failure();
        assert!(error["msg"].as_str().unwrap().contains("eth0"), "{error}");
        host.state().assert_same(&before);
        pod.state().assert_same(&pod_before);
        check(&host, &conf, &result, &pod).success();
    }
}
