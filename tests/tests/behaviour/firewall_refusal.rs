//! Bad input for firewall: the rows of `bad_input`, for this plugin. What comes from outside must not become a rule.

use serde_json::{Value, json};
use tests::Host;

use crate::bridge_conf::with;
use crate::refusal::{CONFIG, DECODING, ENVIRONMENT, FAILED, Row, TEXT, VERSION, row};

/// A line that would let everybody in, were it ever read by iptables-restore.
const INJECTED: &str = "x\n-I FORWARD 1 -j ACCEPT";

fn result(interfaces: Value) -> Value {
    json!({"cniVersion": "1.0.0", "interfaces": interfaces, "ips": [{"address": "10.1.0.2/24"}]})
}

/// firewall with these keys, behind a plugin that made a bridge.
fn firewall(what: &'static str, codes: &'static [u64], word: &'static str, keys: Value) -> Row {
    let chained = json!({"backend": "iptables", "prevResult": result(json!([{"name": "br0"}]))});
    row(what, codes, word).keys(with(&chained, keys)).plugin("firewall").prepare(with_bridges)
}

/// `br0`, and bridges whose names would mean something in a rule.
fn with_bridges(host: &Host, _: &tests::Pod) {
    for name in ["br0", "-jACCEPT", "br+", "\"", "a\\b"] {
        host.run(&format!("ip link add name {name} type bridge"));
    }
    host.run("ip link add dummy type veth peer name other");
}

fn policy(interfaces: Value) -> Value {
    json!({"ingressPolicy": "isolated", "prevResult": result(interfaces)})
}

fn rows() -> Vec<Row> {
    let admin = |name: &str| json!({"iptablesAdminChainName": name});
    let address = |address: &str| json!({"prevResult": {"ips": [{"address": address}]}});
    vec![
        firewall("truncated JSON", DECODING, "network config", json!({})).stdin("{"),
        firewall("no prevResult", CONFIG, "missing prevResult", json!({"prevResult": null})),
        firewall("no prevResult on CHECK", CONFIG, "missing prevResult", json!({"prevResult": null})).verb("CHECK"),
        firewall("a version before 0.4.0", VERSION, "0.3.1", json!({"cniVersion": "0.3.1", "prevResult": null})),
        firewall("GC before 1.1.0", VERSION, "GC", json!({})).verb("GC"),
        firewall("STATUS before 1.1.0", VERSION, "STATUS", json!({})).verb("STATUS"),
        firewall("an unknown backend", CONFIG, "\"backend\": \"iptable\"", json!({"backend": "iptable"})),
        firewall(
            "the known backends are listed",
            CONFIG,
            "iptables, nftables and firewalld",
            json!({"backend": "ipfw"}),
        ),
        firewall("a backend that is a number", DECODING, "backend", json!({"backend": 1})),
        firewall("an unknown backend on CHECK", CONFIG, "ipfw", json!({"backend": "ipfw"})).verb("CHECK"),
        firewall("firewalld where it does not run", FAILED, "system bus", json!({"backend": "firewalld"})),
        firewall("an unknown policy", CONFIG, "\"ingressPolicy\": \"closed\"", json!({"ingressPolicy": "closed"})),
        firewall("a policy with another", CONFIG, "ingressPolicy", json!({"ingressPolicy": "open\nisolated"})),
        firewall("a policy that is a list", DECODING, "ingressPolicy", json!({"ingressPolicy": ["open"]})),
        firewall("a policy without interfaces", CONFIG, "isolated", policy(json!([]))),
        firewall("a policy for a veth", CONFIG, "dummy", policy(json!([{"name": "dummy"}]))),
        firewall("a policy for what is not there", CONFIG, "br7", policy(json!([{"name": "br7"}]))),
        firewall(
            "a policy for a bridge in the pod",
            CONFIG,
            "isolated",
            policy(json!([{"name": "br0", "sandbox": "/x"}])),
        ),
        firewall("a bridge without the pod's port", FAILED, "br0", policy(json!([{"name": "br0"}]))),
        firewall("a bridge that is an option", CONFIG, "-jACCEPT", policy(json!([{"name": "-jACCEPT"}]))),
        firewall("a bridge that is many", CONFIG, "br+", policy(json!([{"name": "br+"}]))),
        firewall("a bridge that is a quote", CONFIG, "prevResult.interfaces", policy(json!([{"name": "\""}]))),
        firewall("a bridge that escapes", CONFIG, "prevResult.interfaces", policy(json!([{"name": "a\\b"}]))),
        firewall("a bridge that is a rule", CONFIG, "ingress policy", policy(json!([{"name": INJECTED}]))),
        firewall("a bridge with a NUL", &[7, 999], "", policy(json!([{"name": "br0\u{0}x"}]))),
        firewall("an admin chain that is a rule", CONFIG, "iptablesAdminChainName", admin(INJECTED)),
        firewall("an admin chain of two words", CONFIG, "X -j ACCEPT", admin("X -j ACCEPT")),
        firewall("an admin chain that is an option", CONFIG, "-F", admin("-F")),
        firewall("an admin chain with a quote", CONFIG, "iptablesAdminChainName", admin("X\"")),
        firewall("an admin chain with an exclamation mark", CONFIG, "!X", admin("!X")),
        firewall("an admin chain of 29 bytes", CONFIG, "28", admin("a2345678901234567890123456789")),
        firewall("an admin chain that accepts", CONFIG, "ACCEPT", admin("ACCEPT")),
        firewall("an admin chain that is FORWARD", CONFIG, "FORWARD", admin("FORWARD")),
        firewall("an admin chain that is ours", CONFIG, "CNI-FORWARD", admin("CNI-FORWARD")),
        firewall("an admin chain of letters beyond ASCII", CONFIG, "é", admin("é")),
        firewall(
            "an admin chain that is a number",
            DECODING,
            "iptablesAdminChainName",
            json!({"iptablesAdminChainName": 1}),
        ),
        firewall("a zone with a newline", CONFIG, "firewalldZone", json!({"firewalldZone": "a\nb"})),
        firewall("a zone with a slash", CONFIG, "a/b", json!({"firewalldZone": "a/b"})),
        firewall("an address that is a rule", TEXT, "10.1.0.2", address("10.1.0.2/24\n-I FORWARD -j ACCEPT")),
        firewall("an address that is none", TEXT, "foo", address("foo")),
        firewall("an address without a length", TEXT, "10.1.0.2", address("10.1.0.2")),
        firewall("a name that is a rule", CONFIG, "name", json!({"name": INJECTED})),
        firewall("a name that is a quote", CONFIG, "name", json!({"name": "a\""})),
        firewall("a container that is a rule", ENVIRONMENT, "containerID", json!({})).env("CNI_CONTAINERID", INJECTED),
        firewall("an interface that is a rule", ENVIRONMENT, "interface name", json!({})).ifname("a\n-F"),
    ]
}

#[test]
fn every_refusal_is_an_error_with_its_code_and_changes_nothing() {
    let rows = rows();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            rows.chunks(12).map(|rows| scope.spawn(move || crate::bad_input::refusals(rows))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} refusals are not as they should be:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// What is allowed in an interface's name is more than what is plain in a comment.
#[test]
fn a_comment_holds_whatever_an_interface_may_be_called() {
    for (backend, chain) in [("iptables", "ip filter CNI-FORWARD"), ("nftables", "inet cni_firewall pods")] {
        let host = Host::new();
        let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "firewall", "backend": backend,
            "prevResult": result(json!([]))});
        for name in ["a\"-jDROP", "a\\", "'", "$(x)", "\u{1}", "é…", "#", "a;b", "--comment"] {
            let pod = host.pod();
            host.plugin("firewall").add(&conf, &pod, name).success();
            host.plugin("firewall").check(&conf, &pod, name).success();
            let rules = host.run(&format!("nft -j list chain {chain}"));
            assert!(!rules.contains("\"drop\""), "{name:?}: {rules}");
            host.plugin("firewall").del(&conf, &pod, name).success();
            let rules = host.run(&format!("nft -j list chain {chain}"));
            assert!(!rules.contains("10.1.0.2"), "{name:?}: {rules}");
        }
    }
}
