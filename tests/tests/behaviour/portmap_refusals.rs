//! Bad input for portmap: each refusal names the key and the value, and changes nothing; and what was tried by way of a string
//! that ends up near a ruleset.

use serde_json::{Value, json};

use crate::bridge_conf::with;
use crate::refusal::{CONFIG, DECODING, ENVIRONMENT, FAILED, OWN_NETNS, Row, TEXT, VERSION, row};

/// portmap with these keys over those of a good configuration.
fn portmap(what: &'static str, codes: &'static [u64], word: &'static str, keys: Value) -> Row {
    row(what, codes, word).keys(with(&good(), keys)).plugin("portmap")
}

fn good() -> Value {
    json!({"prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.77.0.2/24"}, {"address": "fd00:77::2/64"}]},
        "runtimeConfig": {"portMappings": [mapping()]}})
}

fn mapping() -> Value {
    json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"})
}

/// A good mapping and one with these keys.
fn second(keys: Value) -> Value {
    json!({"runtimeConfig": {"portMappings": [mapping(), with(&mapping(), keys)]}})
}

fn mappings() -> Vec<Row> {
    let port = |key: &str, port: Value| second(json!({key: port}));
    vec![
        portmap("port 0 of the node", CONFIG, "Invalid host port number: 0", port("hostPort", json!(0))),
        portmap(
            "a port of the node above 65535",
            CONFIG,
            "portMappings[1].hostPort: 70000",
            port("hostPort", json!(70000)),
        ),
        portmap("a port of the node that is 80 in 16 bits", CONFIG, "65616", port("hostPort", json!(65616))),
        portmap("a negative port of the node", CONFIG, "-1", port("hostPort", json!(-1))),
        portmap("no port of the node", CONFIG, "hostPort", port("hostPort", json!(null))),
        portmap("port 0 of the pod", CONFIG, "Invalid container port number: 0", port("containerPort", json!(0))),
        portmap("a port of the pod above 65535", CONFIG, "containerPort: 65536", port("containerPort", json!(65536))),
        portmap("a port that is text", DECODING, "hostPort", port("hostPort", json!("80"))),
        portmap("a port that is no integer", DECODING, "hostPort", port("hostPort", json!(80.5))),
        portmap(
            "a mapping that is a list",
            DECODING,
            "portMappings[0]",
            json!({"runtimeConfig": {"portMappings": [[]]}}),
        ),
        portmap(
            "mappings that are an object",
            DECODING,
            "portMappings",
            json!({"runtimeConfig": {"portMappings": {"a": 1}}}),
        ),
        portmap("no protocol", CONFIG, "portMappings[1].protocol: \"\"", second(json!({"protocol": null}))),
        portmap("an empty protocol", CONFIG, "portMappings[1].protocol: \"\"", second(json!({"protocol": ""}))),
        portmap("a protocol without ports", CONFIG, "icmp", second(json!({"protocol": "icmp"}))),
        portmap("all protocols", CONFIG, "all", second(json!({"protocol": "all"}))),
        portmap("a protocol that is a number", DECODING, "protocol", second(json!({"protocol": 6}))),
        portmap("a host address that is a name", CONFIG, "localhost", second(json!({"hostIP": "localhost"}))),
        portmap("a host address with a length", CONFIG, "192.0.2.1/32", second(json!({"hostIP": "192.0.2.1/32"}))),
        portmap("a host address with a leading zero", CONFIG, "192.0.2.01", second(json!({"hostIP": "192.0.2.01"}))),
        portmap("a host address with a zone", CONFIG, "fe80::1%eth0", second(json!({"hostIP": "fe80::1%eth0"}))),
        portmap("a multicast host address", CONFIG, "224.0.0.1", second(json!({"hostIP": "224.0.0.1"}))),
        portmap("a host address that is a number", DECODING, "hostIP", second(json!({"hostIP": 1}))),
    ]
}

fn keys() -> Vec<Row> {
    let nftables = |keys: Value| with(&json!({"backend": "nftables"}), keys);
    vec![
        portmap("an unknown backend", CONFIG, "unrecognized backend \"foo\"", json!({"backend": "foo"})),
        portmap("an empty backend", CONFIG, "unrecognized backend \"\"", json!({"backend": ""})),
        portmap("a mark bit of 32", CONFIG, "MasqMarkBit must be between 0 and 31", json!({"markMasqBit": 32})),
        portmap("a negative mark bit", CONFIG, "markMasqBit: -1", json!({"markMasqBit": -1})),
        portmap("a mark bit that is text", DECODING, "markMasqBit", json!({"markMasqBit": "13"})),
        portmap(
            "a mark bit and a chain that sets it",
            CONFIG,
            "Cannot specify externalSetMarkChain and markMasqBit",
            json!({"markMasqBit": 13, "externalSetMarkChain": "KUBE-MARK-MASQ"}),
        ),
        portmap("snat that is text", DECODING, "snat", json!({"snat": "true"})),
        portmap("conditions that are text", DECODING, "conditionsV4", json!({"conditionsV4": "-s 10.0.0.0/8"})),
        portmap(
            "nftables' conditions with iptables",
            CONFIG,
            "iptables backend was requested but configuration contains nftables-specific options [conditionsV4 conditionsV6]",
            json!({"backend": "iptables", "conditionsV4": ["ip", "saddr", "10.0.0.1"], "conditionsV6": ["meta", "mark", "1"]}),
        ),
        portmap(
            "nftables' conditions with whatever is there",
            CONFIG,
            "nftables-specific options [conditionsV6]",
            json!({"conditionsV6": ["meta", "mark", "1"]}),
        ),
        portmap(
            "iptables' options with nftables",
            CONFIG,
            "nftables backend was requested but configuration contains iptables-specific options [externalSetMarkChain conditionsV4]",
            nftables(json!({"externalSetMarkChain": "MARK-IT", "conditionsV4": ["-s", "10.0.0.1"]})),
        ),
        portmap("no prevResult for portmap", CONFIG, "must be called as chained plugin", json!({"prevResult": null})),
        portmap("a prevResult that is none", DECODING, "prevResult", json!({"prevResult": "none"})),
        portmap(
            "no prevResult for portmap's CHECK",
            CONFIG,
            "Required prevResult missing",
            json!({"prevResult": null}),
        )
        .verb("CHECK"),
        portmap("CHECK of what is not there", FAILED, "CNI-DN-", json!({})).verb("CHECK"),
        portmap("CHECK of what is not there, with nftables", FAILED, "hostports", nftables(json!({}))).verb("CHECK"),
        portmap("STATUS before 1.1.0 of portmap", VERSION, "STATUS", json!({})).verb("STATUS"),
        portmap("truncated JSON for portmap", DECODING, "network config", json!({})).stdin("{"),
        portmap("portmap in the plugin's own netns", OWN_NETNS, "netns", json!({}))
            .env("CNI_NETNS", "/proc/self/ns/net"),
    ]
}

/// What would be more than a word in a ruleset.
fn injections() -> Vec<Row> {
    let nftables = |keys: Value| with(&json!({"backend": "nftables"}), keys);
    let chain = |name: &str| json!({"externalSetMarkChain": name});
    let v4 = |words: Value| json!({"backend": "iptables", "conditionsV4": words});
    let nft = |words: Value| nftables(json!({"conditionsV6": words}));
    vec![
        portmap("a rule in the protocol", CONFIG, "protocol", second(json!({"protocol": "tcp\n-A INPUT -j DROP"}))),
        portmap(
            "a command in the protocol, for nft",
            CONFIG,
            "protocol",
            nftables(second(json!({"protocol": "tcp dport 1 accept; flush ruleset; add rule ip x y tcp"}))),
        ),
        portmap(
            "a command in the host address",
            CONFIG,
            "hostIP",
            nftables(second(json!({"hostIP": "::1\nflush ruleset"}))),
        ),
        portmap("an option in the host address", CONFIG, "hostIP", second(json!({"hostIP": "::1 -j ACCEPT"}))),
        portmap("a rule in the chain", CONFIG, "externalSetMarkChain", chain("X\n-A INPUT -j DROP")),
        portmap("an option in the chain", CONFIG, "externalSetMarkChain", chain("X --set-mark 1")),
        portmap("a chain that is an option", CONFIG, "externalSetMarkChain", chain("--goto")),
        portmap("a chain that is a verdict", CONFIG, "\"DROP\"", chain("DROP")),
        portmap("a chain whose name is too long", CONFIG, "xxxx", chain("xxxxxxxxxxxxxxxxxxxxxxxxxxxxx")),
        portmap("a chain with a quote", CONFIG, "externalSetMarkChain", chain("X\"")),
        portmap(
            "a target in the conditions",
            CONFIG,
            "conditionsV4[2]: \"-j\"",
            v4(json!(["-s", "10.0.0.1", "-j", "ACCEPT"])),
        ),
        portmap("a target that is cut short", CONFIG, "--jum", v4(json!(["!", "--jum=ACCEPT"]))),
        portmap("a table in the conditions", CONFIG, "--table", v4(json!(["--table", "filter"]))),
        portmap("a rule in the conditions", CONFIG, "conditionsV4[1]", v4(json!(["-s", "10.0.0.1\n-A INPUT -j DROP"]))),
        portmap("the end of the table in the conditions", CONFIG, "COMMIT", v4(json!(["-s", "10.0.0.1\nCOMMIT"]))),
        portmap("a command in the conditions", CONFIG, "flush", nft(json!(["ip6 saddr ::1; flush ruleset"]))),
        portmap("a line in the conditions", CONFIG, "flush", nft(json!(["ip6 saddr ::1\nflush ruleset"]))),
        portmap("a block in the conditions", CONFIG, "conditionsV6", nft(json!(["} flush ruleset {"]))),
        portmap("a verdict in the conditions", CONFIG, "accept", nft(json!(["ip6", "saddr", "::1", "accept"]))),
        portmap("a comment in the conditions", CONFIG, "#", nft(json!(["ip6 saddr ::1 #"]))),
        portmap("a quote in the conditions", CONFIG, "iifname", nft(json!(["iifname \"x\" drop"]))),
        portmap("a file in the conditions", CONFIG, "include", nft(json!(["include", "/etc/passwd"]))),
        portmap("conditions that nft does not understand", FAILED, "conditions", nft(json!(["nonsense", "1"]))),
        portmap("conditions that iptables does not understand", FAILED, "nonsense", v4(json!(["--nonsense", "1"]))),
        portmap("a rule in the network's name", CONFIG, "network name", json!({"name": "net\" -j ACCEPT"})),
        portmap("a rule in the container's id", ENVIRONMENT, "containerID", json!({}))
            .env("CNI_CONTAINERID", "a\" -j ACCEPT"),
        portmap("a rule in the interface's name", ENVIRONMENT, "whitespace", json!({})).ifname("a\n-A X"),
        portmap(
            "an address in prevResult that is none",
            TEXT,
            "10.77.0.2;",
            json!({"prevResult":
            {"ips": [{"address": "10.77.0.2;/24"}]}}),
        ),
    ]
}

#[test]
fn every_refusal_is_an_error_with_its_code_and_changes_nothing() {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads = [mappings, keys, injections].map(|group| scope.spawn(move || refusals(&group())));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} refusals are not as they should be:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

fn refusals(rows: &[Row]) -> Vec<String> {
    let judged = rows.iter().map(|row| (row.what, row.run()));
    judged.filter(|(_, wrong)| !wrong.is_empty()).map(|(what, wrong)| format!("{what}: {}", wrong.join("\n"))).collect()
}
