//! tuning's backups: the first one stays, DEL takes them away whatever has happened, GC those that DEL never came for,
//! and the reference reads ours as we read its.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Plugin};

use crate::bridge_conf::with;
use crate::tuning_conf::{at, attributes, backup, conf, everything, files, pod_with_eth0, tuned, untouched};

const DATA_DIR: &str = "/run/cni/tuning";

/// T2: the reference's second ADD takes what the first one made for the original.
#[test]
fn a_repeated_add_keeps_the_first_backup() {
    let host = Host::new();
    let pod = pod_with_eth0(&host);
    let tuning = host.plugin("tuning");
    tuning.add(conf(&pod, json!({"mtu": 1400})), &pod, "eth0").success();
    let first = backup(&host, &pod, DATA_DIR);
    tuning.add(conf(&pod, json!({"mtu": 1400})), &pod, "eth0").success();
    assert_eq!(backup(&host, &pod, DATA_DIR), first);
    // A third with more to tune adds what is new.
    tuning.add(conf(&pod, everything()), &pod, "eth0").success();
    assert_eq!(attributes(&pod), tuned());
    // A fourth fails, and the third's work stays.
    tuning.add(conf(&pod, json!({"mtu": 70000})), &pod, "eth0").failure();
    assert_eq!(attributes(&pod), tuned());
    tuning.del(conf(&pod, everything()), &pod, "eth0").success();
    assert_eq!((attributes(&pod), files(&host, DATA_DIR)), (untouched(), vec![]));
}

#[test]
fn del_may_be_repeated_and_comes_without_an_add() {
    let host = Host::new();
    let pod = pod_with_eth0(&host);
    let tuning = host.plugin("tuning");
    tuning.del(conf(&pod, everything()), &pod, "eth0").success();
    tuning.add(conf(&pod, everything()), &pod, "eth0").success();
    for _ in 0..2 {
        tuning.del(conf(&pod, everything()), &pod, "eth0").success();
        assert_eq!(attributes(&pod), untouched());
    }
    // A name that is too long for a file.
    let long = "x".repeat(300);
    tuning.env("CNI_CONTAINERID", long).del(conf(&pod, everything()), &pod, "eth0").success();
}

/// T3: there the reference's files stay for ever.
#[test]
fn del_removes_the_backup_of_what_is_gone() {
    for how in ["namespace", "link", "variable"] {
        let host = Host::new();
        let mut pod = pod_with_eth0(&host);
        let conf = conf(&pod, everything());
        host.plugin("tuning").add(&conf, &pod, "eth0").success();
        let mut tuning = host.plugin("tuning");
        match how {
            "namespace" => pod.destroy(),
            "link" => drop(pod.run("ip link del eth0")),
            _ => tuning = tuning.without_env("CNI_NETNS"),
        }
        tuning.del(&conf, &pod, "eth0").success();
        assert_eq!(files(&host, DATA_DIR), [""; 0], "{how}");
    }
}

/// T10: somebody has broken the configuration since the ADD; the directory is still where it says.
#[test]
fn del_needs_no_valid_configuration() {
    for (keys, data_dir) in [
        (json!({"mtu": "big", "sysctl": {"net.x": 5}, "mac": "zz", "dataDir": "/run/own"}), "/run/own"),
        (json!({"args": 5, "prevResult": 7, "promisc": "x", "sysctl": [], "dataDir": "/run/own"}), "/run/own"),
        (json!({"dataDir": 7}), DATA_DIR),
    ] {
        let host = Host::new();
        let pod = pod_with_eth0(&host);
        let tuning = host.plugin("tuning");
        tuning.add(conf(&pod, with(&everything(), json!({"dataDir": data_dir}))), &pod, "eth0").success();
        let broken = with(&conf(&pod, json!({})), keys);
        tuning.env("CNI_ARGS", "FOO=1;;").del(&broken, &pod, "eth0").success();
        assert_eq!((attributes(&pod), files(&host, data_dir)), (untouched(), vec![]), "{broken}");
    }
}

/// The reference does not write in one step: killed, it leaves half a file, and has changed nothing.
#[test]
fn half_a_backup_is_none() {
    for text in ["", "{\n \"mac\": \"02:0", "[]", "{\"mtu\": -1}"] {
        let host = Host::new();
        let pod = pod_with_eth0(&host);
        host.enter(|| {
            std::fs::create_dir_all(DATA_DIR).unwrap();
            std::fs::write(format!("{DATA_DIR}/{}_eth0.json", pod.id()), text).unwrap();
        });
        let tuning = host.plugin("tuning");
        tuning.add(conf(&pod, everything()), &pod, "eth0").success();
        tuning.del(conf(&pod, everything()), &pod, "eth0").success();
        assert_eq!((attributes(&pod), files(&host, DATA_DIR)), (untouched(), vec![]), "{text:?}");
    }
}

fn gc(host: &Host, conf: &Value, valid: Value) {
    host.plugin("tuning").gc(with(conf, json!({"cni.dev/valid-attachments": valid}))).success();
}

#[test]
fn gc_removes_the_backups_of_this_networks_lost_attachments() {
    let host = Host::new();
    let pods: Vec<_> = (0..4).map(|_| pod_with_eth0(&host)).collect();
    let of = |name: &str, which: usize| at("1.1.0", &pods[which], with(&everything(), json!({"name": name})));
    host.plugin("tuning").add(of("net", 0), &pods[0], "eth0").success();
    host.plugin("tuning").add(of("net", 1), &pods[1], "eth0").success();
    host.plugin("tuning").add(of("other", 2), &pods[2], "eth0").success();
    let kept = || pods.iter().map(|pod| backup(&host, pod, DATA_DIR).is_some()).collect::<Vec<_>>();
    // The runtime did not say: nothing goes.
    host.plugin("tuning").gc(of("net", 0)).success();
    gc(&host, &of("net", 0), json!([{"containerID": pods[0].id(), "ifname": "eth0"}]));
    assert_eq!(kept(), [true, false, true, false]);
    assert_eq!(attributes(&pods[1]), tuned(), "GC has no namespace to set back");
    gc(&host, &of("net", 0), json!([{"containerID": pods[0].id(), "ifname": "eth1"}]));
    assert_eq!(kept(), [false, false, true, false]);
    gc(&host, &of("other", 0), json!([]));
    assert_eq!(files(&host, DATA_DIR), [""; 0]);
    gc(&host, &of("never-used", 0), json!([]));
}

/// The reference's DEL leaves our second name; another network may have made the first one anew since.
#[test]
fn gc_leaves_a_backup_that_is_no_longer_this_networks() {
    let host = Host::new();
    let theirs = host.reference("tuning");
    let pod = pod_with_eth0(&host);
    let of = |name: &str| at("1.1.0", &pod, with(&everything(), json!({"name": name})));
    let of_theirs = |name: &str| conf(&pod, with(&everything(), json!({"name": name})));
    host.plugin("tuning").add(of("net"), &pod, "eth0").success();
    theirs.del(of_theirs("net"), &pod, "eth0").success();
    assert_eq!(backup(&host, &pod, DATA_DIR), None);
    theirs.add(of_theirs("other"), &pod, "eth0").success();
    gc(&host, &of("net"), json!([]));
    gc(&host, &of("other"), json!([]));
    assert_eq!(files(&host, DATA_DIR), [format!("{}_eth0.json", pod.id())]);
}

#[test]
fn status() {
    let host = Host::new();
    let pod = pod_with_eth0(&host);
    let tuning = host.plugin("tuning");
    let conf = |keys: Value| at("1.1.0", &pod, keys);
    tuning.status(conf(everything())).success();
    assert_eq!(files(&host, DATA_DIR), [""; 0]);
    host.run("mount -t tmpfs -o ro tmpfs /run/cni");
    assert_eq!(tuning.status(conf(everything())).code(), 50);
    // Sysctls need no backup.
    tuning.status(conf(json!({"sysctl": {"net.ipv4.ip_forward": "1"}}))).success();
}

/// What Debian's version does not know: txQLen, and IFNAME in its CHECK.
fn newer_keys() -> Value {
    json!({"txQLen": 20000, "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}})
}

/// What every version knows.
fn known_to_all() -> Value {
    json!({"mac": "02:00:00:00:00:aa", "promisc": true, "mtu": 1400, "allmulti": true,
        "sysctl": {"net.ipv4.conf.all.log_martians": "1"}})
}

fn every_pair(order: for<'a> fn(Plugin<'a>, Plugin<'a>) -> (Plugin<'a>, Plugin<'a>)) {
    for which in 0..Host::new().references("tuning").len() {
        let newer = Host::new().references("tuning")[which].version().stdout.contains("1.1.0");
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            let host = Host::new();
            let pod = pod_with_eth0(&host);
            let (adder, remover) = order(host.plugin("tuning"), host.references("tuning").swap_remove(which));
            let keys = if newer { with(&known_to_all(), newer_keys()) } else { known_to_all() };
            let conf = at(version, &pod, keys);
            let result = adder.add(&conf, &pod, "eth0").success();
            let after = with_prev_result(&conf, &result);
            if version >= "0.4.0" {
                remover.check(&after, &pod, "eth0").success();
            }
            remover.del(&after, &pod, "eth0").success();
            assert_eq!((attributes(&pod), backup(&host, &pod, DATA_DIR)), (untouched(), None), "reference {which}");
            // Whoever made it finds nothing more to do, and leaves nothing.
            adder.del(&after, &pod, "eth0").success();
            assert_eq!((attributes(&pod), files(&host, DATA_DIR)), (untouched(), vec![]));
        }
    }
}

#[test]
fn what_the_reference_tuned_we_check_and_restore() {
    every_pair(|ours, theirs| (theirs, ours));
}

#[test]
fn what_we_tuned_the_reference_checks_and_restores() {
    every_pair(|ours, theirs| (ours, theirs));
}

/// The same result, the same file, the same state.
#[test]
fn both_write_the_same_backup_and_the_same_result() {
    for which in 0..Host::new().references("tuning").len() {
        let host = Host::new();
        let seen = [host.plugin("tuning"), host.references("tuning").swap_remove(which)].map(|tuning| {
            let pod = pod_with_eth0(&host);
            let mut result = tuning.add(conf(&pod, known_to_all()), &pod, "eth0").success();
            result["interfaces"][1]["sandbox"] = "pod".into();
            if result["dns"] == json!({}) {
                result.as_object_mut().unwrap().remove("dns"); // Debian's says under 1.x that it has nothing to say
            }
            (backup(&host, &pod, DATA_DIR).unwrap(), result, attributes(&pod), pod.state().section("sysctls").len())
        });
        assert_eq!(seen[0], seen[1], "reference {which}");
    }
}

/// A repeated ADD of ours after the reference's keeps what the reference had found.
#[test]
fn our_add_over_the_references() {
    let host = Host::new();
    for theirs in host.references("tuning") {
        let pod = pod_with_eth0(&host);
        theirs.add(conf(&pod, known_to_all()), &pod, "eth0").success();
        host.plugin("tuning").add(conf(&pod, everything()), &pod, "eth0").success();
        theirs.del(conf(&pod, everything()), &pod, "eth0").success();
        host.plugin("tuning").del(conf(&pod, everything()), &pod, "eth0").success();
        let (mac, mtu, promisc, allmulti, _) = attributes(&pod);
        assert_eq!((mac, mtu, promisc, allmulti), (untouched().0, 1450, false, false));
    }
}

/// Killed while it kept the backup: nothing is tuned yet, and what is there goes with DEL or GC.
#[test]
fn what_a_killed_add_leaves_is_removed() {
    for left in ["eth0.json.tmp", "eth0.json"] {
        for how in ["DEL", "GC", "ADD"] {
            let host = Host::new();
            let pod = pod_with_eth0(&host);
            let conf = at("1.1.0", &pod, everything());
            host.enter(|| {
                let directory = format!("{DATA_DIR}/networks/net");
                std::fs::create_dir_all(&directory).unwrap();
                std::fs::write(format!("{directory}/{}_{left}", pod.id()), "{").unwrap();
            });
            let tuning = host.plugin("tuning");
            if how == "ADD" {
                tuning.add(&conf, &pod, "eth0").success();
            }
            match how {
                "GC" => gc(&host, &conf, json!([])),
                _ => drop(tuning.del(&conf, &pod, "eth0").success()),
            }
            assert_eq!((attributes(&pod), files(&host, DATA_DIR)), (untouched(), vec![]), "{left} {how}");
        }
    }
}
