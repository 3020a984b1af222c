//! An ADD that fails leaves nothing: neither the bridge nor the gateway's interface, where they were made for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::namespace::PATH;
use tests::{Host, Pod, State};

use crate::bridge_conf::{add, links, with};
use crate::ports::{layer2, routed};

#[track_caller]
fn state(host: &Host) -> State {
    host.state().without("sysctls") // forwarding stays on
}

/// A directory whose iptables-restore refuses everything: ADD's last step fails.
fn no_luck() -> TempDir {
    let directory = TempDir::new().unwrap();
    let program = directory.path().join("iptables-restore");
    fs::write(&program, "#!/bin/sh\necho no luck today >&2; exit 1\n").unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

#[track_caller]
fn fails_late(host: &Host, conf: &Value, pod: &Pod) {
    let directory = no_luck();
    let conf = with(conf, json!({"ipMasq": true, "ipMasqBackend": "iptables"}));
    let pod_before = pod.state();
    let plugin = host.plugin("bridge").env("PATH", format!("{}:{PATH}", directory.path().display()));
    let error = plugin.add(&conf, pod, "eth0").failure();
    assert!(error.to_string().contains("no luck today"), "{error}");
    pod.state().assert_same(&pod_before);
}

#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn what_was_made_for_it_is_gone() {
    let host = Host::new();
    let (conf, before) = (routed(&["10.1.0.0/24"]), state(&host));
    let pod = host.pod();
    let pod_before = pod.state();

    // IPAM fails.
    let missing = with(&conf, json!({"ipam": {"type": "no-such-ipam"}}));
    host.plugin("bridge").add(&missing, &pod, "eth0").failure();
    state(&host).assert_same(&before);
    pod.state().assert_same(&pod_before);

    // It fails when everything else is made.
    fails_late(&host, &conf, &host.pod());
    state(&host).assert_same(&before);
}

#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn what_others_use_stays() {
    let host = Host::new();
    let conf = routed(&["10.1.0.0/24"]);
    // Another VLAN of the bridge: of ours nothing stays.
    add(&host, &layer2(json!({"name": "other", "vlan": 200})), &host.pod());
    let before = state(&host);
    fails_late(&host, &conf, &host.pod());
    state(&host).assert_same(&before);
    // The same VLAN: its gateway is in use.
    let pod = host.pod();
    add(&host, &conf, &pod);
    let before = state(&host);
    fails_late(&host, &conf, &host.pod());
    state(&host).assert_same(&before);
    assert!(pod.pings("10.1.0.1"));
}

/// The gateway is there and has an address of another network.
#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn an_address_in_the_way_is_an_error_and_force_address_replaces_it() {
    let host = Host::new();
    let pod = host.pod();
    add(&host, &routed(&["10.1.0.0/24"]), &pod);
    let before = host.state();
    let conf = with(&routed(&["10.2.0.0/24"]), json!({"name": "moved"}));
    let error = host.plugin("bridge").add(&conf, &host.pod(), "eth0").failure();
    assert!(
        error.to_string().contains(r#"\"cni0.100\" already has an IP address different from 10.2.0.1/24"#),
        "{error}"
    );
    host.state().assert_same(&before);
    add(&host, &with(&conf, json!({"forceAddress": true})), &host.pod());
    assert_eq!(host.addresses("cni0.100"), ["10.2.0.1/24"]);
    assert_eq!(links(&host, "bridge"), ["cni0"]);
}

/// Those that fail take back what they made only if nobody else has come to use it meanwhile.
#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn failures_among_many_at_once_take_nothing_from_the_others() {
    let host = Host::new();
    let before = state(&host);
    let conf = routed(&["10.1.0.0/24"]);
    for _ in 0..2 {
        let (good, bad) = ([host.pod(), host.pod(), host.pod()], [host.pod(), host.pod(), host.pod()]);
        thread::scope(|scope| {
            for (good, bad) in good.iter().zip(&bad) {
                scope.spawn(|| fails_late(&host, &conf, bad));
                scope.spawn(|| add(&host, &conf, good));
            }
        });
        assert_eq!(links(&host, "veth").len(), good.len() + 2);
        assert_eq!(host.addresses("cni0.100"), ["10.1.0.1/24"]);
        for pod in &good {
            assert!(pod.pings("10.1.0.1"));
            host.plugin("bridge").del(&conf, pod, "eth0").success();
        }
        host.run("ip link delete cni0.100");
        host.run("ip link delete cni0");
        state(&host).assert_same(&before);
    }
}
