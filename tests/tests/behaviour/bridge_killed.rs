//! bridge killed in the middle of an ADD (out of memory, a runtime out of patience): what is there then, DEL finds.
//!
//! The killers are the programs that bridge starts, so that each moment is always the same one.

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::namespace::{PATH, find};
use tests::{Host, bins};

use crate::bridge_conf::{add, check, leases, links, masqueraded, rules, with};
use crate::refusal::write_script;

/// An ADD that dies, and then what a runtime does: DEL, as if nothing had been.
fn killed(what: &str, conf: &Value, cni_path: &str, path: &str) {
    let host = Host::new();
    let (first, pod) = (host.pod(), host.pod());
    let sane = with(conf, json!({"ipam": {"type": "host-local"}}));
    let result = add(&host, &sane, &first);
    let before = host.state();
    let outcome = host.plugin("bridge").env("CNI_PATH", cni_path).env("PATH", path).add(conf, &pod, "eth0");
    assert_eq!(outcome.status, None, "{what}: it lives\n{outcome}");
    assert!(pod.link("eth0").is_some(), "{what}: nothing had been done yet");
    host.plugin("bridge").del(&sane, &pod, "eth0").success();
    host.state().assert_same(&before);
    assert!(pod.link("eth0").is_none());

    check(&host, &sane, &result, &first).success();
    add(&host, &sane, &pod);
    host.plugin("bridge").del(&sane, &pod, "eth0").success();
    host.plugin("bridge").del(&sane, &first, "eth0").success();
    assert_eq!((rules(&host), leases(&host), links(&host, "veth")), (vec![], vec![], vec![]), "{what}");
}

#[test]
fn killed_at_the_lease() {
    let ours = bins::directory();
    for (what, script) in [
        ("before the lease", "kill -9 $PPID".to_owned()),
        ("with the lease", format!("{}/host-local; kill -9 $PPID", ours.display())),
    ] {
        for backend in ["iptables", "nftables"] {
            let directory = TempDir::new().unwrap();
            write_script(&directory.path().join("killer"), &script);
            let conf = with(&masqueraded(backend), json!({"macspoofchk": true, "ipam": {"type": "killer"}}));
            let cni_path = format!("{}:{}", directory.path().display(), ours.display());
            killed(what, &conf, &cni_path, PATH);
        }
    }
}

#[test]
fn killed_at_the_masquerade() {
    let ours = bins::directory().display().to_string();
    for program in ["iptables-restore", "ip6tables-restore"] {
        for (when, script) in [
            ("before", "kill -9 $PPID".to_owned()),
            ("after", format!("{} \"$@\"; kill -9 $PPID", find(program).unwrap().display())),
        ] {
            let directory = TempDir::new().unwrap();
            write_script(&directory.path().join(program), &script);
            let path = format!("{}:{PATH}", directory.path().display());
            let conf = with(&masqueraded("iptables"), json!({"macspoofchk": true}));
            killed(&format!("{when} {program}"), &conf, &ours, &path);
        }
    }
}
