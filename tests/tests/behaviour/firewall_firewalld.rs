//! firewall with the backend firewalld: on a bus of the host's own, before a stand-in and before Debian's firewalld.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::dbus::{Bus, HungBus};
use tests::firewalld::{Debian, Firewalld, StandIn};
use tests::plugin::with_prev_result;
use tests::{Host, Internet, Plugin, Pod};

use crate::bridge_conf::with;
use crate::parallel::at_once;

/// Longest operation of the plugin with firewalld. An ADD that comes to nothing tries to take back what it did.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a plugin before has given the pod: one address of each family.
fn dual(pod: &Pod) -> Value {
    json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": pod.path().display().to_string()}],
        "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 0},
            {"address": "2001:db8:1:2::1/64", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["192.0.2.53"]}})
}

/// Addresses as firewalld knows them.
const SOURCES: [&str; 2] = ["10.0.0.2/32", "2001:db8:1:2::1/128"];

fn conf(result: &Value, more: Value) -> Value {
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "firewall", "backend": "firewalld"});
    with_prev_result(&with(&conf, more), result)
}

/// Each with a host of its own: the stand-in and Debian's.
fn each(test: impl Fn(&Host, &dyn Firewalld)) {
    let host = Host::new();
    let bus = Bus::start(&host);
    test(&host, &StandIn::start(&bus));
    let host = Host::new();
    let bus = Bus::start(&host);
    test(&host, &Debian::start(&host, &bus));
}

#[track_caller]
fn assert_says(error: &Value, words: &[&str]) {
    let said = format!("{} {}", error["msg"], error["details"]);
    assert!(words.iter().all(|word| said.contains(word)), "expected {words:?} in {error}");
}

fn ours(host: &Host) -> Plugin<'_> {
    host.plugin("firewall")
}

#[test]
fn every_address_is_a_source_of_the_zone() {
    each(|host, firewalld| {
        let pod = host.pod();
        let (result, before) = (dual(&pod), host.state().without("nft"));
        let conf = conf(&result, json!({}));
        // The result passes through.
        assert_eq!(ours(host).add(&conf, &pod, "eth0").success(), result);
        assert_eq!(firewalld.sources("trusted"), SOURCES);
        // Once more is the same.
        ours(host).add(&conf, &pod, "eth0").success();
        assert_eq!(firewalld.sources("trusted"), SOURCES);
        ours(host).check(&conf, &pod, "eth0").success();
        ours(host).del(&conf, &pod, "eth0").success();
        assert!(firewalld.sources("trusted").is_empty());
        ours(host).del(&conf, &pod, "eth0").success();
        host.state().without("nft").assert_same(&before);
    });
}

#[test]
fn what_is_asked_is_what_the_reference_asks() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let standin = StandIn::start(&bus);
    let pod = host.pod();
    let result = dual(&pod);
    for version in ["0.4.0", "1.0.0"] {
        let mut result = result.clone();
        if version == "0.4.0" {
            (result["ips"][0]["version"], result["ips"][1]["version"]) = ("4".into(), "6".into());
        }
        result["cniVersion"] = version.into();
        let conf = conf(&result, json!({"cniVersion": version, "firewalldZone": "pods"}));
        let asked = |plugin: Plugin<'_>| {
            let before = standin.calls().len();
            assert_eq!(plugin.add(&conf, &pod, "eth0").success(), result);
            plugin.check(&conf, &pod, "eth0").success();
            plugin.del(&conf, &pod, "eth0").success();
            standin.calls().split_off(before)
        };
        let ours = asked(ours(&host));
        assert_eq!(ours[0], "addSource pods 10.0.0.2/32");
        assert_eq!(ours.len(), 6, "{ours:?}");
        for reference in host.references("firewall") {
            assert_eq!(asked(reference), ours);
        }
    }
}

#[test]
fn firewalld_is_found_without_being_named() {
    each(|host, firewalld| {
        let pod = host.pod();
        let conf = conf(&dual(&pod), json!({"backend": null}));
        ours(host).add(&conf, &pod, "eth0").success();
        assert_eq!(firewalld.sources("trusted"), SOURCES);
        ours(host).check(&conf, &pod, "eth0").success();
        ours(host).del(&conf, &pod, "eth0").success();
        assert!(firewalld.sources("trusted").is_empty());
    });
}

/// F7: the reference does not look at the answer.
#[test]
fn check_finds_a_source_that_is_gone() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let firewalld = Debian::start(&host, &bus);
    let pod = host.pod();
    let conf = conf(&dual(&pod), json!({}));
    ours(&host).add(&conf, &pod, "eth0").success();
    firewalld.command("--zone=trusted --remove-source=2001:db8:1:2::1/128");
    host.reference("firewall").check(&conf, &pod, "eth0").success();
    assert_says(&ours(&host).check(&conf, &pod, "eth0").failure(), &["2001:db8:1:2::1/128", "trusted"]);
    // In another zone it is as good as gone.
    firewalld.command("--zone=public --add-source=2001:db8:1:2::1/128");
    assert_says(&ours(&host).check(&conf, &pod, "eth0").failure(), &["2001:db8:1:2::1/128", "trusted"]);
    // That one is not ours to remove.
    ours(&host).del(&conf, &pod, "eth0").success();
    assert_eq!((firewalld.sources("trusted"), firewalld.sources("public")), (vec![], vec![SOURCES[1].to_owned()]));
}

#[test]
fn a_reload_of_firewalld_is_seen_by_check_and_mended_by_add() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let firewalld = Debian::start(&host, &bus);
    let pod = host.pod();
    let conf = conf(&dual(&pod), json!({}));
    ours(&host).add(&conf, &pod, "eth0").success();
    firewalld.reload();
    assert_says(&ours(&host).check(&conf, &pod, "eth0").failure(), &["10.0.0.2/32", "trusted"]);
    ours(&host).add(&conf, &pod, "eth0").success();
    ours(&host).check(&conf, &pod, "eth0").success();
    firewalld.reload();
    ours(&host).del(&conf, &pod, "eth0").success();
}

#[test]
fn a_refused_source_takes_the_others_back() {
    each(|host, firewalld| {
        let pod = host.pod();
        let mut foreign = dual(&pod);
        foreign["ips"].as_array_mut().unwrap().remove(0);
        ours(host).add(conf(&foreign, json!({"firewalldZone": "public"})), &pod, "eth1").success();
        let conf = conf(&dual(&pod), json!({}));
        let error = ours(host).add(&conf, &pod, "eth0").failure();
        assert_says(&error, &["addSource", "2001:db8:1:2::1/128", "trusted", "ZONE_CONFLICT"]);
        assert!(firewalld.sources("trusted").is_empty());
        assert_eq!(firewalld.sources("public"), ["2001:db8:1:2::1/128"]);
        ours(host).del(&conf, &pod, "eth0").success();
        assert_eq!(firewalld.sources("public"), ["2001:db8:1:2::1/128"]);
    });
}

#[test]
fn a_zone_that_does_not_exist() {
    each(|host, firewalld| {
        let pod = host.pod();
        let nowhere = conf(&dual(&pod), json!({"firewalldZone": "nowhere"}));
        let error = ours(host).add(&nowhere, &pod, "eth0").failure();
        assert_says(&error, &["addSource", "10.0.0.2/32", "nowhere", "INVALID_ZONE"]);
        // Whatever may be written there is a name to firewalld, and to nobody a command.
        for zone in
            ["nowhere", "trusted;public", "trusted --add", "\"$(reboot)\"", "../trusted", "trusted\n", "\0", "Ä"]
        {
            let conf = conf(&dual(&pod), json!({"firewalldZone": zone}));
            ours(host).add(&conf, &pod, "eth0").failure();
            ours(host).check(&conf, &pod, "eth0").failure();
        }
        ours(host).del(&nowhere, &pod, "eth0").success();
        for zone in ["public", "trusted"] {
            assert!(firewalld.sources(zone).is_empty());
        }
    });
}

#[test]
fn firewalld_refuses_everything() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let standin = StandIn::start(&bus);
    let pod = host.pod();
    let conf = conf(&dual(&pod), json!({}));
    ours(&host).add(&conf, &pod, "eth0").success();
    standin.refuse("COMMAND_FAILED: ZONE_ALREADY_SET UNKNOWN_SOURCE is not what happened");
    assert_says(&ours(&host).add(&conf, &pod, "eth0").failure(), &["addSource", "10.0.0.2/32", "COMMAND_FAILED"]);
    assert_says(&ours(&host).check(&conf, &pod, "eth0").failure(), &["querySource", "COMMAND_FAILED"]);
    // DEL goes on after an error, and tells of both.
    let error = ours(&host).del(&conf, &pod, "eth0").failure();
    assert_says(&error, &["removeSource", "10.0.0.2/32", "2001:db8:1:2::1/128", "COMMAND_FAILED"]);
}

#[test]
fn without_a_bus() {
    let host = Host::new();
    let pod = host.pod();
    let before = host.state();
    let named = conf(&dual(&pod), json!({}));
    let started = Instant::now();
    for outcome in [
        ours(&host).add(&named, &pod, "eth0"),
        ours(&host).check(&named, &pod, "eth0"),
        ours(&host).del(&named, &pod, "eth0"),
    ] {
        assert_says(&outcome.failure(), &["/var/run/dbus/system_bus_socket", "No such file"]);
    }
    // Nobody asked for it, so there is nothing to say.
    ours(&host).del(conf(&dual(&pod), json!({"backend": null})), &pod, "eth0").success();
    assert!(started.elapsed() < DEADLINE);
    host.state().assert_same(&before);
}

#[test]
fn nothing_starts_firewalld() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let pod = host.pod();
    let named = conf(&dual(&pod), json!({}));
    assert_says(&ours(&host).add(&named, &pod, "eth0").failure(), &["firewalld does not run"]);
    assert_says(&ours(&host).check(&named, &pod, "eth0").failure(), &["firewalld does not run"]);
    // What it knew is gone with it.
    ours(&host).del(&named, &pod, "eth0").success();
    ours(&host).del(conf(&dual(&pod), json!({"backend": null})), &pod, "eth0").success();
    assert!(!bus.started());
    // The reference does start it.
    host.reference("firewall").add(&named, &pod, "eth0").failure();
    assert!(bus.started());
}

#[test]
fn status_says_whether_firewalld_runs() {
    let host = Host::new();
    let conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "firewall", "backend": "firewalld"});
    assert_eq!(ours(&host).status(&conf).code(), 50);
    let bus = Bus::start(&host);
    let error = ours(&host).status(&conf).failure();
    assert_eq!(error["code"], 50);
    assert_says(&error, &["firewalld"]);
    let standin = StandIn::start(&bus);
    ours(&host).status(&conf).success();
    drop(standin);
    assert_eq!(ours(&host).status(&conf).code(), 50);
}

#[test]
fn a_firewalld_that_hangs_does_not_hang_a_pod() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let standin = StandIn::start(&bus);
    standin.hang();
    let pod = host.pod();
    let conf = conf(&dual(&pod), json!({}));
    let started = Instant::now();
    let error = ours(&host).add(&conf, &pod, "eth0").failure();
    assert_says(&error, &["addSource", "10.0.0.2/32", "no answer within 10 s"]);
    let took = started.elapsed();
    assert!(took >= DEADLINE && took < 3 * DEADLINE, "{took:?}");
    // What comes too late is taken back: the removal stands behind it.
    assert_eq!(standin.calls(), ["addSource trusted 10.0.0.2/32", "removeSource trusted 10.0.0.2/32"]);
}

#[test]
fn a_bus_that_hangs_does_not_hang_a_pod() {
    let host = Host::new();
    let _bus = HungBus::start(&host);
    let pod = host.pod();
    let conf = conf(&dual(&pod), json!({}));
    let started = Instant::now();
    let error = ours(&host).add(&conf, &pod, "eth0").failure();
    assert_says(&error, &["/var/run/dbus/system_bus_socket", "no answer within 10 s"]);
    let took = started.elapsed();
    assert!(took >= DEADLINE && took < 2 * DEADLINE, "{took:?}");
}

#[test]
fn a_bus_elsewhere() {
    let host = Host::new();
    let bus = Bus::start_at(&host, "/run/elsewhere/socket");
    let standin = StandIn::start(&bus);
    let pod = host.pod();
    let conf = conf(&dual(&pod), json!({}));
    ours(&host).add(&conf, &pod, "eth0").failure();
    for address in ["unix:path=/run/elsewhere/socket", "unix:path=/run/nowhere;unix:path=/run/elsewhere/socket"] {
        for more in [json!({}), json!({"backend": null})] {
            let conf = with(&conf, more);
            let plugin = ours(&host).env("DBUS_SYSTEM_BUS_ADDRESS", address);
            plugin.add(&conf, &pod, "eth0").success();
            assert_eq!(standin.sources("trusted"), SOURCES);
            plugin.check(&conf, &pod, "eth0").success();
            plugin.del(&conf, &pod, "eth0").success();
            assert!(standin.sources("trusted").is_empty());
        }
    }
    for address in ["nonsense", "unix:", "path=/run/elsewhere/socket", "x:y=z"] {
        let plugin = ours(&host).env("DBUS_SYSTEM_BUS_ADDRESS", address);
        assert_says(&plugin.add(&conf, &pod, "eth0").failure(), &["DBUS_SYSTEM_BUS_ADDRESS", address]);
    }
}

#[test]
fn many_at_once() {
    each(|host, firewalld| {
        let pods: Vec<Pod> = (0..20).map(|_| host.pod()).collect();
        let of = |number: usize, pod: &Pod| {
            let mut result = dual(pod);
            result["ips"][0]["address"] = format!("10.0.0.{}/24", number + 2).into();
            result["ips"][1]["address"] = format!("2001:db8::{}/64", number + 2).into();
            conf(&result, json!({}))
        };
        at_once(&pods, |number, pod| ours(host).add(of(number, pod), pod, "eth0").success());
        assert_eq!(firewalld.sources("trusted").len(), 2 * pods.len());
        at_once(&pods, |number, pod| ours(host).check(of(number, pod), pod, "eth0").success());
        at_once(&pods, |number, pod| ours(host).del(of(number, pod), pod, "eth0").success());
        assert!(firewalld.sources("trusted").is_empty());
    });
}

#[test]
fn with_the_reference_in_mixed_pairs() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let firewalld = Debian::start(&host, &bus);
    let pod = host.pod();
    let conf = conf(&dual(&pod), json!({}));
    for reference in host.references("firewall") {
        for (adder, remover) in [(&reference, &ours(&host)), (&ours(&host), &reference)] {
            adder.add(&conf, &pod, "eth0").success();
            remover.check(&conf, &pod, "eth0").success();
            remover.del(&conf, &pod, "eth0").success();
            assert!(firewalld.sources("trusted").is_empty(), "{remover:?}");
        }
    }
}

/// What all of it is for: firewalld rejects what a node forwards, but for the sources of `trusted`.
#[test]
fn packets_pass_debians_firewalld() {
    let host = Host::new();
    let internet = host.internet();
    let echo = internet.listen();
    let bus = Bus::start(&host);
    let firewalld = Debian::start(&host, &bus);
    println!("firewalld {}", firewalld.version());
    let pod = host.pod();
    let bridge = with(&crate::bridge_conf::dual(), json!({"ipMasq": true, "ipMasqBackend": "nftables"}));
    let result = host.plugin("bridge").add(&bridge, &pod, "eth0").success();
    let asks = || (pod.asks(Internet::V4, &echo), pod.asks(Internet::V6, &echo));
    assert!(matches!(asks(), (Err(_), Err(_))));
    let conf = conf(&result, json!({}));
    ours(&host).add(&conf, &pod, "eth0").success();
    assert_eq!(asks(), (Ok(Internet::HOST_V4), Ok(Internet::HOST_V6)));
    ours(&host).check(&conf, &pod, "eth0").success();
    ours(&host).del(&conf, &pod, "eth0").success();
    assert!(matches!(asks(), (Err(_), Err(_))));
}

/// F1, F13: sources have owners as rules have.
#[test]
fn a_late_del_leaves_the_source_of_the_pod_that_has_the_address_now() {
    each(|host, firewalld| {
        let (old, new) = (host.pod(), host.pod());
        let conf = conf(&dual(&old), json!({}));
        ours(host).add(&conf, &old, "eth0").success();
        ours(host).add(&conf, &new, "eth0").success();
        ours(host).check(&conf, &new, "eth0").success();
        assert_says(&ours(host).check(&conf, &old, "eth0").failure(), &["10.0.0.2/32", "belongs to"]);
        for late in [&conf, &with(&conf, json!({"prevResult": null}))] {
            ours(host).del(late, &old, "eth0").success();
            assert_eq!(firewalld.sources("trusted"), SOURCES);
        }
        // An ADD that fails gives the address back to its owner.
        let refused = with(&conf, json!({"firewalldZone": "nowhere"}));
        ours(host).add(&refused, &old, "eth0").failure();
        ours(host).check(&conf, &new, "eth0").success();
        // Without a result, and with a configuration that has another zone by now, or another backend.
        let changed = json!({"prevResult": null, "firewalldZone": "public", "backend": "iptables"});
        ours(host).del(with(&conf, changed), &new, "eth0").success();
        assert!(firewalld.sources("trusted").is_empty());
        assert!(!host.enter(|| std::fs::read_dir("/run/cni/firewalld").unwrap().any(|_| true)));
    });
}

#[test]
fn gc_removes_the_sources_that_are_nobodys_on_its_network_alone() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let firewalld = StandIn::start(&bus);
    let (keep, lost, elsewhere) = (host.pod(), host.pod(), host.pod());
    let of = |name: &str, pod: &Pod, number: u8| {
        let result = json!({"cniVersion": "1.1.0", "ips": [{"address": format!("10.0.0.{number}/24")}]});
        ours(&host).add(conf(&result, json!({"cniVersion": "1.1.0", "name": name})), pod, "eth0").success();
    };
    of("net", &keep, 2);
    of("net", &lost, 3);
    of("other", &elsewhere, 4);
    let gc = |valid: Value| {
        let conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "firewall"});
        ours(&host).gc(with(&conf, valid)).success();
        firewalld.sources("trusted")
    };
    assert_eq!(gc(json!({})).len(), 3);
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": keep.id(), "ifname": "eth0"}]});
    assert_eq!(gc(valid), ["10.0.0.2/32", "10.0.0.4/32"]);
    assert_eq!(gc(json!({"cni.dev/valid-attachments": []})), ["10.0.0.4/32"]);
}

/// What GC and DEL would take, and they take nothing.
#[test]
fn a_dry_run_names_the_sources_that_go() {
    each(|host, firewalld| {
        let pod = host.pod();
        let conf = conf(&dual(&pod), json!({"cniVersion": "1.1.0"}));
        ours(host).add(&conf, &pod, "eth0").success();
        let (state, expected) =
            (host.state(), SOURCES.map(|source| format!("remove the source {source} of zone trusted of firewalld")));
        let collect = with(&conf, json!({"prevResult": null, "cni.dev/valid-attachments": []}));
        let forgetful = with(&conf, json!({"prevResult": null}));
        for answer in [
            ours(host).call_as_set("PODWIRE_DRY_RUN_GC", &collect),
            ours(host).env("CNI_COMMAND", "PODWIRE_DRY_RUN_DEL").del(&conf, &pod, "eth0"),
            ours(host).env("CNI_COMMAND", "PODWIRE_DRY_RUN_DEL").del(&forgetful, &pod, "eth0"),
        ] {
            let answer = answer.success();
            assert_eq!(answer.pointer("/dryRun/changes"), Some(&json!(expected)), "{answer}");
        }
        assert_eq!(firewalld.sources("trusted"), SOURCES);
        host.state().assert_same(&state);
        ours(host).check(&conf, &pod, "eth0").success();
        // And the real thing takes just these.
        ours(host).gc(&collect).success();
        assert!(firewalld.sources("trusted").is_empty());
        let nothing = ours(host).call_as_set("PODWIRE_DRY_RUN_GC", &collect).success();
        assert_eq!(nothing.pointer("/dryRun/changes"), Some(&json!([])), "{nothing}");
    });
}

/// What cannot be written down is a source all the same.
#[test]
fn sources_without_a_place_for_their_owners() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let firewalld = StandIn::start(&bus);
    let pod = host.pod();
    host.run("mkdir -p /run/cni");
    host.run("touch /run/cni/firewalld");
    let conf = conf(&dual(&pod), json!({}));
    ours(&host).add(&conf, &pod, "eth0").success();
    ours(&host).check(&conf, &pod, "eth0").success();
    ours(&host).del(&conf, &pod, "eth0").success();
    assert!(firewalld.sources("trusted").is_empty());
}

/// A DEL after an ADD that was killed has no result.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[test]
fn killed_anywhere_on_the_way_to_firewalld() {
    let host = Host::new();
    let bus = Bus::start(&host);
    let firewalld = StandIn::start(&bus);
    let pod = host.pod();
    let conf = conf(&dual(&pod), json!({}));
    let mut call = 0;
    while ours(&host).killed_at(call, "ADD", &conf, &pod, "eth0") {
        ours(&host).del(with(&conf, json!({"prevResult": null})), &pod, "eth0").success();
        assert!(firewalld.sources("trusted").is_empty(), "killed at call {call}");
        call += 1;
    }
    assert!(call > 4, "only {call} calls: nothing was tested");
    assert_eq!(firewalld.sources("trusted"), SOURCES);
}
