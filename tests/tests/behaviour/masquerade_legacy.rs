//! ipMasq with the iptables that has tables of its own: DEL takes the rules that ADD made in one go, and those that
//! somebody changed since by looking for them.

use std::fs;

use serde_json::json;
use tempfile::TempDir;
use tests::namespace::{PATH, find};
use tests::plugin::with_prev_result;
use tests::{Host, Pod};

use crate::bridge_conf::{FIRST_V4, dual, links, with};
use crate::ptp;
use crate::refusal::write_script;

const PROGRAMS: [&str; 4] =
    ["iptables-legacy", "iptables-legacy-restore", "ip6tables-legacy", "ip6tables-legacy-restore"];

/// Programs that write down that they were called.
struct Witnesses(TempDir);

impl Witnesses {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        for program in PROGRAMS {
            let (real, log) = (find(program).unwrap(), directory.path().join("log"));
            let script = format!("echo {program} >>{}; exec {} \"$@\"", log.display(), real.display());
            write_script(&directory.path().join(program), &script);
        }
        Self(directory)
    }

    fn path(&self) -> String {
        format!("{}:{PATH}", self.0.path().display())
    }

    fn called(&self) -> Vec<String> {
        fs::read_to_string(self.0.path().join("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// The masquerade rules there are.
fn rules(host: &Host) -> Vec<String> {
    let saved = ["iptables-legacy-save", "ip6tables-legacy-save"].map(|program| host.run(program));
    saved.iter().flat_map(|text| text.lines()).filter(|line| line.contains("CNI-")).map(uncounted).collect()
}

/// A chain's line without its counters.
fn uncounted(line: &str) -> String {
    line.split(" [").next().unwrap_or(line).to_owned()
}

/// A host whose iptables it is.
fn legacy_host() -> Host {
    let host = Host::new();
    host.choose_legacy();
    host
}

/// The chain that the pod's packets go through.
fn chain(host: &Host) -> String {
    let jump = rules(host).into_iter().find(|rule| rule.contains(&format!("-s {FIRST_V4}/32"))).unwrap();
    jump.rsplit(' ').next().unwrap().to_owned()
}

/// What is not as ADD left it.
type Change = (&'static str, fn(&Host, &Pod));

const CHANGES: [Change; 6] = [
    ("nothing", |_, _| ()),
    ("the pod lost an address", |_, pod| drop(pod.run("ip address flush dev eth0"))),
    ("the pod got an address", |_, pod| drop(pod.run("ip address add 10.1.0.77/24 dev eth0"))),
    ("an old version's jump", |host, _| {
        host.run(&format!("iptables-legacy -t nat -A POSTROUTING -s 10.1.0.0/24 -j {}", chain(host)));
    }),
    ("a jump is twice there", |host, _| {
        let rules = rules(host);
        let jump = rules.iter().find(|rule| rule.contains(&format!("-s {FIRST_V4}/32"))).unwrap();
        host.run(&format!(
            "iptables-legacy -t nat -A POSTROUTING -s {FIRST_V4}/32 {}",
            &jump[jump.find("-j").unwrap()..]
        ));
    }),
    ("a chain is gone", |host, _| {
        let chain = chain(host);
        let jump = host.run("ip6tables-legacy -t nat -S POSTROUTING 1").trim().replacen("-A", "-D", 1);
        let commands = format!("*nat\n{jump}\n-F {chain}\n-X {chain}\nCOMMIT\n");
        let file = TempDir::new().unwrap();
        fs::write(file.path().join("rules"), commands).unwrap();
        host.run(&format!("ip6tables-legacy-restore --noflush {}", file.path().join("rules").display()));
    }),
];

#[test]
fn del_takes_all_of_the_pod_whatever_was_changed_since() {
    for (name, conf) in [("bridge", dual()), ("ptp", ptp::dual())] {
        let conf = with(&conf, json!({"ipMasq": true, "ipMasqBackend": "iptables"}));
        for (what, change) in CHANGES {
            let host = legacy_host();
            let (pod, neighbour) = (host.pod(), host.pod());
            let plugin = host.plugin(name);
            let result = plugin.add(&conf, &pod, "eth0").success();
            let only_first = rules(&host);
            plugin.add(&conf, &neighbour, "eth0").success();
            let mut of_neighbour = rules(&host);
            of_neighbour.retain(|rule| !only_first.contains(rule));
            change(&host, &pod);
            let witnesses = Witnesses::new();
            let conf = with_prev_result(&conf, &result);
            host.plugin(name).env("PATH", witnesses.path()).del(&conf, &pod, "eth0").success();
            assert_eq!(rules(&host), of_neighbour, "{name}: {what}");
            if what == "nothing" {
                assert_eq!(witnesses.called(), ["iptables-legacy-restore", "ip6tables-legacy-restore"], "{name}");
            }
            host.plugin(name).del(&conf, &pod, "eth0").success();
            assert_eq!(rules(&host), of_neighbour, "{name}: {what}, once more");
        }
    }
}

/// The configuration says where to look first, and no more.
#[test]
fn del_does_not_need_the_configuration_of_add() {
    let masqueraded = with(&dual(), json!({"ipMasq": true, "ipMasqBackend": "iptables"}));
    for keys in [json!({"ipMasq": false}), json!({"ipMasq": "?"}), json!({"ipMasqBackend": "nftables"})] {
        let host = legacy_host();
        let pod = host.pod();
        host.plugin("bridge").add(&masqueraded, &pod, "eth0").success();
        host.plugin("bridge").del(with(&masqueraded, keys.clone()), &pod, "eth0").success();
        assert_eq!(rules(&host), [""; 0], "{keys}");
    }
}

/// They share a chain.
#[test]
fn del_of_one_interface_leaves_the_rules_of_another() {
    let host = legacy_host();
    let pod = host.pod();
    let conf = with(
        &dual(),
        json!({"ipMasq": true, "ipMasqBackend": "iptables", "isDefaultGateway": false, "isGateway": true}),
    );
    let bridge = host.plugin("bridge");
    bridge.add(&conf, &pod, "eth0").success();
    let result = bridge.add(&conf, &pod, "eth1").success();
    host.plugin("bridge").del(&conf, &pod, "eth0").success();
    let left = rules(&host);
    assert!(!left.iter().any(|rule| rule.contains(&format!("-s {FIRST_V4}/32"))), "{left:?}");
    assert_eq!(left.iter().filter(|rule| rule.starts_with("-A POSTROUTING")).count(), 2, "{left:?}");
    bridge.check(with_prev_result(&conf, &result), &pod, "eth1").success();
    host.plugin("bridge").del(&conf, &pod, "eth1").success();
    assert_eq!(rules(&host), [""; 0]);
}

#[test]
fn where_the_rules_cannot_be_removed_the_rest_is_and_the_next_del_removes_them() {
    for (name, conf) in [("bridge", dual()), ("ptp", ptp::dual())] {
        let conf = with(&conf, json!({"ipMasq": true, "ipMasqBackend": "iptables"}));
        let host = legacy_host();
        let pod = host.pod();
        host.plugin(name).add(&conf, &pod, "eth0").success();
        let before = rules(&host);
        let witnesses = Witnesses::new();
        for program in ["iptables-legacy-restore", "ip6tables-legacy-restore"] {
            write_script(&witnesses.0.path().join(program), "echo out of order >&2; exit 1");
        }
        let error = host.plugin(name).env("PATH", witnesses.path()).del(&conf, &pod, "eth0").failure();
        assert!(error["msg"].as_str().unwrap().contains("out of order"), "{error}");
        assert_eq!(rules(&host), before, "{name}");
        assert_eq!(links(&pod, "veth"), [""; 0], "{name}");
        host.plugin(name).del(&conf, &pod, "eth0").success();
        assert_eq!(rules(&host), [""; 0], "{name}");
    }
}

/// It does not know before it has looked.
#[test]
fn a_dry_run_says_what_is_there_and_changes_nothing() {
    let host = legacy_host();
    let pod = host.pod();
    let conf = with(&dual(), json!({"ipMasq": true, "ipMasqBackend": "iptables"}));
    host.plugin("bridge").add(&conf, &pod, "eth0").success();
    let (before, chain) = (rules(&host), chain(&host));
    let dry = || host.plugin("bridge").env("CNI_COMMAND", "PODWIRE_DRY_RUN_DEL").del(&conf, &pod, "eth0").success();
    let said = dry().to_string();
    assert!(said.contains(&format!("ip6tables-legacy -t nat -X {chain}")), "{said}");
    assert_eq!(rules(&host), before);
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        host.run(&format!("{program} -t nat -F"));
        host.run(&format!("{program} -t nat -X"));
    }
    let said = dry().to_string();
    assert!(!said.contains("legacy"), "{said}");
}
