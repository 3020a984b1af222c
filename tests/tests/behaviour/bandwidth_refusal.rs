//! Bad input for bandwidth, as `bad_input` has it for the others: an error with its code, and nothing changed.

use serde_json::{Value, json};

use crate::bandwidth_conf::{add_veth, both};
use crate::bridge_conf::with;
use crate::refusal::{CONFIG, DECODING, ENVIRONMENT, FAILED, OWN_NETNS, Row, VERSION, row};

/// bandwidth with these keys, behind a plugin that made an eth0.
fn bandwidth(what: &'static str, codes: &'static [u64], word: &'static str, keys: Value) -> Row {
    let chained = json!({"prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "host0"}]}});
    let row = row(what, codes, word).keys(with(&chained, keys)).plugin("bandwidth");
    row.prepare(|host, pod| add_veth(host, pod, "host0", "eth0"))
}

fn limits() -> Vec<Row> {
    let runtime = |keys: Value| json!({"runtimeConfig": {"bandwidth": keys}});
    vec![
        bandwidth(
            "a rate without a burst",
            CONFIG,
            "ingressRate: 8000: if rate is set, burst must also be set",
            json!({"ingressRate": 8000}),
        ),
        bandwidth(
            "a burst without a rate",
            CONFIG,
            "egressBurst: 8000: if burst is set, rate must also be set",
            json!({"egressRate": 0, "egressBurst": 8000}),
        ),
        bandwidth(
            "a rate of the runtime without a burst",
            CONFIG,
            "runtimeConfig.bandwidth.egressRate: 8000",
            runtime(json!({"EgressRate": 8000})),
        ),
        bandwidth(
            "a burst of 32 bits of bytes",
            CONFIG,
            "ingressBurst: 34359738360: burst cannot be more than 4GB",
            json!({"ingressRate": 8000, "ingressBurst": 34_359_738_360_u64}),
        ),
        bandwidth("a rate of less than a byte", CONFIG, "egressRate: 7", json!({"egressRate": 7, "egressBurst": 8000})),
        bandwidth("a rate on CHECK without a burst", CONFIG, "ingressRate", json!({"ingressRate": 8000})).verb("CHECK"),
        bandwidth("a rate on STATUS without a burst", CONFIG, "ingressRate", json!({"ingressRate": 8000}))
            .verb("STATUS")
            .keys(json!({"cniVersion": "1.1.0", "ingressRate": 8000})),
    ]
}

fn documents() -> Vec<Row> {
    vec![
        bandwidth("a rate that is text", DECODING, "ingressRate", json!({"ingressRate": "10M"})),
        bandwidth("a rate below nothing", DECODING, "egressRate", json!({"egressRate": -1})),
        bandwidth("a rate with an exponent", DECODING, "ingressRate", json!({})).stdin(
            r#"{"cniVersion":"1.0.0","name":"net","ingressRate":1e6,"ingressBurst":8000,"prevResult":{"cniVersion":"1.0.0"}}"#,
        ),
        bandwidth("a rate of 65 bits", DECODING, "ingressRate", json!({})).stdin(
            r#"{"cniVersion":"1.0.0","name":"net","ingressRate":18446744073709551616,"ingressBurst":8000}"#,
        ),
        bandwidth("bandwidth is a list", DECODING, "bandwidth", json!({"runtimeConfig": {"bandwidth": []}})),
        bandwidth("truncated JSON for bandwidth", DECODING, "network config", json!({})).stdin("{"),
        bandwidth("prevResult is a number", DECODING, "prevResult", with(&both(), json!({"prevResult": 5}))),
        bandwidth("a version without interfaces", VERSION, "0.2.0", with(&both(), json!({"cniVersion": "0.2.0"}))),
    ]
}

fn chains() -> Vec<Row> {
    let alone = with(&both(), json!({"prevResult": null}));
    let prefix = "must be called as a chained plugin";
    vec![
        bandwidth("bandwidth alone", CONFIG, prefix, alone.clone()),
        bandwidth("bandwidth alone on CHECK", CONFIG, prefix, alone).verb("CHECK"),
        // B6: the reference panics.
        bandwidth("bandwidth alone and without a limit", CONFIG, prefix, json!({"prevResult": null})),
        bandwidth(
            "a result without interfaces",
            FAILED,
            "no interfaces provided",
            with(&both(), json!({"prevResult": {"interfaces": []}})),
        ),
        bandwidth(
            "a result without the host's end",
            FAILED,
            "host0 is not in prevResult",
            with(&both(), json!({"prevResult": {"interfaces": [{"name": "other0"}]}})),
        ),
        bandwidth(
            "a host's end that is said to be in a pod",
            FAILED,
            "no veth peer of container interface found",
            with(&both(), json!({"prevResult": {"interfaces": [{"name": "host0", "sandbox": "/run/netns/x"}]}})),
        ),
        bandwidth("limiting what is not there", FAILED, "eth7", both()).ifname("eth7"),
        bandwidth("limiting eth/0", ENVIRONMENT, "eth/0", both()).ifname("eth/0"),
        bandwidth("limiting in a netns that is a file", FAILED, "/etc/passwd", both()).env("CNI_NETNS", "/etc/passwd"),
        bandwidth("limiting in no netns", FAILED, "/run/netns/none", both()).env("CNI_NETNS", "/run/netns/none"),
        bandwidth("limiting the plugin's own netns", OWN_NETNS, "netns", both()).env("CNI_NETNS", "/proc/self/ns/net"),
        bandwidth("DEL in a netns that is a file", FAILED, "/etc/passwd", both())
            .env("CNI_NETNS", "/etc/passwd")
            .verb("DEL"),
    ]
}

#[test]
fn every_refusal_is_an_error_with_its_code_and_changes_nothing() {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads = [limits, documents, chains].map(|group| {
            scope.spawn(move || {
                let judged = group().into_iter().map(|row| (row.what, row.run()));
                judged
                    .filter(|(_, wrong)| !wrong.is_empty())
                    .map(|(what, wrong)| format!("{what}: {}", wrong.join("\n")))
                    .collect::<Vec<_>>()
            })
        });
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
