//! An IPAM plugin that needs no interface is asked before there is one, and works while it is made. What may go wrong between
//! the two leaves no lease, and takes nobody's.

use std::fs;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Host, Pod, bins};

use crate::bridge_conf::{leases, links, with};
use crate::refusal::write_script;

const SUBNET: &str = "10.1.0.0/24";

fn conf(plugin: &str, ipam: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "type": plugin, "ipam": {"type": ipam, "subnet": SUBNET}})
}

/// An IPAM plugin of this name that notes what it is asked, and whether the pod's eth0 is there, when it begins and when it
/// ends half a second later.
fn slow(directory: &Path, name: &str) {
    let look = "nsenter --net=$CNI_NETNS ip -o link show eth0 >/dev/null 2>&1 && echo there || echo not";
    let note = |when: &str| format!("echo {when} $CNI_COMMAND $({look}) >> {}", directory.join("log").display());
    let lease = r#"[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"}]}'"#;
    let script = format!("{}\nsleep 0.5\n{}\n{lease}\nexit 0", note("begins"), note("ends"));
    write_script(&directory.join(name), &script);
}

fn log(directory: &Path) -> Vec<String> {
    fs::read_to_string(directory.join("log")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The pair cannot be made: who was asked before is waited for and then told, and who needs the interface is not asked.
#[test]
fn a_lease_without_an_interface_is_released() {
    let released = ["begins ADD not", "ends ADD not", "begins DEL not", "ends DEL not"];
    for (ipam, expected) in [("host-local", &released[..]), ("static", &released), ("dhcp", &[])] {
        for plugin in ["bridge", "ptp"] {
            let directory = TempDir::new().unwrap();
            slow(directory.path(), ipam);
            let host = Host::new();
            // There is a bridge: only what comes after it fails.
            host.plugin("bridge").add(conf("bridge", "host-local"), &host.pod(), "eth0").success();
            let pod = host.pod();
            let (before, pod_before) = (host.state(), pod.state());
            let too_small = with(&conf(plugin, ipam), json!({"mtu": 60}));
            let refused = host.plugin(plugin).env("CNI_PATH", directory.path().display()).add(&too_small, &pod, "eth0");
            assert!(refused.failure().to_string().contains("mtu 60"), "{refused}");
            assert_eq!(log(directory.path()), expected, "{plugin}, {ipam}");
            host.state().assert_same(&before);
            pod.state().assert_same(&pod_before);
        }
    }
}

/// A runtime must not, but one that lost count may: of two ADDs of one attachment one succeeds, and what it has stays. The
/// reference's host-local refuses the second, whose DEL would be the end of the first one's lease.
#[test]
fn two_adds_of_one_attachment_at_once() {
    for ipam in [bins::directory()].into_iter().chain(bins::reference_directories()) {
        for plugin in ["bridge", "ptp"] {
            let host = Host::new();
            let wanted = conf(plugin, "host-local");
            for _ in 0..8 {
                let pod = host.pod();
                let adder = host.plugin(plugin).env("CNI_PATH", ipam.display());
                let outcomes = twice(|| adder.add(&wanted, &pod, "eth0"));
                let won: Vec<_> = outcomes.iter().filter(|outcome| outcome.status == Some(0)).collect();
                assert_eq!(won.len(), 1, "{}: {} {}", ipam.display(), outcomes[0], outcomes[1]);
                let lost = outcomes.iter().find(|outcome| outcome.status != Some(0)).unwrap().failure();
                assert!(lost["msg"].as_str().unwrap().contains("\"eth0\" already exists"), "{lost}");
                assert_holds_its_lease(&host, &pod);
                adder.del(&wanted, &pod, "eth0").success();
                assert_eq!((leases(&host), links(&host, "veth")), (vec![], vec![]));
            }
        }
    }
}

fn twice<T: Send>(act: impl Fn() -> T + Sync) -> [T; 2] {
    thread::scope(|scope| [scope.spawn(&act), scope.spawn(&act)].map(|thread| thread.join().unwrap()))
}

/// The pod's address is leased: nobody else gets it.
fn assert_holds_its_lease(host: &Host, pod: &Pod) {
    let address = pod.addresses("eth0").into_iter().find(|address| address.starts_with("10.1.")).unwrap();
    assert_eq!(leases(host), [address.split('/').next().unwrap()]);
}

/// Plugins in a container of their own may not write to /run: then IPAM is asked when there is an interface.
#[test]
fn without_a_lock_nobody_is_asked_early() {
    let directory = TempDir::new().unwrap();
    slow(directory.path(), "host-local");
    let host = Host::new();
    host.run("mkdir -p /run/cni/attachments.lock");
    for plugin in ["bridge", "ptp"] {
        let pod = host.pod();
        let path = directory.path().display();
        let wanted = conf(plugin, "host-local");
        host.plugin(plugin).env("CNI_PATH", &path).add(&wanted, &pod, "eth0").success();
        assert_eq!(log(directory.path()), ["begins ADD there", "ends ADD there"], "{plugin}");
        host.plugin(plugin).env("CNI_PATH", &path).del(&wanted, &pod, "eth0").success();
        fs::remove_file(directory.path().join("log")).unwrap();
    }
}
