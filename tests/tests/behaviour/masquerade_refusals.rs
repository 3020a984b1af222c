//! Bad values of the masquerade keys: rows of the table of bad input.

use serde_json::{Value, json};

use crate::bridge_conf::with;
use crate::masquerade_keys::PLUGINS;
use crate::refusal::{CONFIG, DECODING, Row, TEXT, row};

/// What must not be read as the value of a key: bad values, and what would be more than a value in a ruleset.
const NO_NETWORKS: [&str; 16] = [
    "",
    "10.0.0.0",
    "10.0.0.0/33",
    "10.0.0.0/08",
    "10.0.0.0/255.0.0.0",
    "10.0.0/8",
    "fd00::/129",
    "fe80::1%eth0/64",
    "0.0.0.0/0",
    "::/0",
    "! 10.0.0.0/8",
    "10.0.0.0/8 -j MASQUERADE",
    "10.0.0.0/8\nCOMMIT\n*filter\n-F",
    "10.0.0.0/8 accept; flush ruleset",
    "10.0.0.0/8,10.1.0.0/16",
    "@set",
];

const NO_SOURCES: [&str; 21] = [
    "",
    "node",
    "192.0.2.1/24",
    "192.0.2.1-192.0.2.9",
    "192.0.2.1:1024-2048",
    "192.0.2.1 --persistent",
    "192.0.2.1\nCOMMIT\n*filter\n-F",
    "192.0.2.1; flush ruleset",
    "192.0.2.01",
    "[2001:db8::1]",
    "fe80::1%eth0",
    "0.0.0.0",
    "127.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::192.0.2.1",
    "any",
];

/// With bridge and with ptp.
pub fn rows() -> Vec<Row> {
    let on = |keys: Value| with(&json!({"ipMasq": true}), keys);
    let mut rows = Vec::new();
    for plugin in PLUGINS {
        for bad in NO_NETWORKS {
            let keys = json!({"nonMasqueradeCIDRs": ["10.9.0.0/16", bad]});
            rows.push(row(bad, CONFIG, "nonMasqueradeCIDRs[1]: ").keys(on(keys)).plugin(plugin));
        }
        for bad in NO_SOURCES {
            let keys = json!({"masqSourceAddress": ["2001:db8::9", bad]});
            let keys = if bad.contains("::") { json!({ "masqSourceAddress": bad }) } else { keys };
            rows.push(row(bad, CONFIG, "masqSourceAddress: ").keys(on(keys)).plugin(plugin));
        }
        let more = [
            row("ipMasq4 is text", DECODING, "ipMasq4").keys(json!({"ipMasq4": "true"})),
            row("ipMasq6 is a number", DECODING, "ipMasq6").keys(json!({"ipMasq6": 1})),
            row("masqRandomFully is text", DECODING, "masqRandomFully").keys(on(json!({"masqRandomFully": "yes"}))),
            row("a list that is text", DECODING, "nonMasqueradeCIDRs")
                .keys(on(json!({"nonMasqueradeCIDRs": "10.0.0.0/8"}))),
            row("a list with null", TEXT, "nonMasqueradeCIDRs[0]").keys(on(json!({"nonMasqueradeCIDRs": [null]}))),
            row("a source that is a number", DECODING, "masqSourceAddress").keys(on(json!({"masqSourceAddress": 7}))),
            row("a source that is an object", DECODING, "masqSourceAddress")
                .keys(on(json!({"masqSourceAddress": {"v4": "192.0.2.1"}}))),
            row("a source in a list that is a number", DECODING, "masqSourceAddress[1]")
                .keys(on(json!({"masqSourceAddress": ["192.0.2.1", 7]}))),
            row("two sources of one family", CONFIG, "192.0.2.1")
                .keys(on(json!({"masqSourceAddress": ["192.0.2.1", "::ffff:192.0.2.2"]}))),
            row("a list without ipMasq", CONFIG, "nonMasqueradeCIDRs is set, but nothing is masqueraded")
                .keys(json!({"nonMasqueradeCIDRs": ["10.0.0.0/8"]})),
            row("a source without ipMasq", CONFIG, "masqSourceAddress is set, but nothing is masqueraded")
                .keys(json!({"masqSourceAddress": "192.0.2.1", "ipMasq4": false})),
            row("random ports without ipMasq", CONFIG, "masqRandomFully is set, but nothing is masqueraded")
                .keys(json!({"masqRandomFully": true})),
            row("a source of a family that is off", CONFIG, "2001:db8::1: IPv6 is not masqueraded")
                .keys(on(json!({"masqSourceAddress": ["192.0.2.1", "2001:db8::1"], "ipMasq6": false}))),
        ];
        rows.extend(more.into_iter().map(|row| row.plugin(plugin)));
    }
    rows
}
