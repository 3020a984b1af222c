//! CHECK finds what is not as it was configured; DEL and GC have nothing to do and do not judge.

use serde_json::{Value, json};

use crate::call::{OURS, Outcome, call, conf, with};

fn written() -> Value {
    conf(json!({ "addresses": [
        { "address": "10.1.0.2/24", "gateway": "10.1.0.1" },
        { "address": "fd00:1::2/64" },
    ] }))
}

fn check(conf: &Value, ips: Value, args: &str) -> Outcome {
    let result = json!({ "cniVersion": "1.0.0", "ips": ips });
    call(OURS, "CHECK", &with(conf, json!({ "prevResult": result })), args)
}

#[test]
fn check_accepts_what_add_gave_and_what_others_made_of_it() {
    let conf = written();
    let ips = call(OURS, "ADD", &conf, "").success()["ips"].clone();
    check(&conf, ips.clone(), "").success();
    // bridge fills in the gateway that is not configured; another plugin may have added an address.
    let ips = json!([
        { "address": "192.0.2.7/24" },
        { "address": "fd00:1::2/64", "gateway": "fd00:1::1", "interface": 2 },
        { "address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2 },
    ]);
    check(&conf, ips.clone(), "").success();
    assert!(!check(&conf, ips, "IP=10.9.0.1/24").ok, "CNI_ARGS count on CHECK too");
}

#[test]
fn check_finds_what_is_different() {
    let v4 = json!({ "address": "10.1.0.2/24", "gateway": "10.1.0.1" });
    let v6 = json!({ "address": "fd00:1::2/64" });
    for (ips, msg, details) in [
        // The first three pass the reference's CHECK.
        (
            json!([v4]),
            "static: Failed to find addr fd00:1::2 on interface eth0",
            "prevResult has [10.1.0.2/24 with gateway 10.1.0.1]",
        ),
        (json!([]), "static: Failed to find addr 10.1.0.2 on interface eth0", "prevResult has []"),
        (
            json!([v6, { "address": "10.1.0.2/16", "gateway": "10.1.0.1" }]),
            "static: Failed to match addr 10.1.0.2 on interface eth0",
            "configured is 10.1.0.2/24 with gateway 10.1.0.1, prevResult has 10.1.0.2/16 with gateway 10.1.0.1",
        ),
        (
            json!([v6, { "address": "10.1.0.2/24", "gateway": "10.1.0.9" }]),
            "static: Failed to match addr 10.1.0.2 on interface eth0",
            "configured is 10.1.0.2/24 with gateway 10.1.0.1, prevResult has 10.1.0.2/24 with gateway 10.1.0.9",
        ),
        (
            json!([v6, { "address": "10.1.0.2/24" }]),
            "static: Failed to match addr 10.1.0.2 on interface eth0",
            "configured is 10.1.0.2/24 with gateway 10.1.0.1, prevResult has 10.1.0.2/24 without a gateway",
        ),
    ] {
        let outcome = check(&written(), ips.clone(), "");
        assert_eq!(outcome.error(), (999, msg), "{ips}");
        assert_eq!(outcome.json["details"], details, "{ips}");
    }
}

#[test]
fn check_needs_a_prev_result() {
    assert_eq!(call(OURS, "CHECK", &written(), "").error(), (999, "Required prevResult missing"));
    let bad = with(&written(), json!({ "prevResult": { "cniVersion": "1.0.0", "ips": [{ "address": "x" }] } }));
    let outcome = call(OURS, "CHECK", &bad, "");
    assert!(outcome.error().0 == 6 && outcome.error().1.contains("prevResult"), "{outcome:?}");
}

#[test]
fn del_and_gc_do_not_judge() {
    for broken in [
        written(),
        conf(json!({ "addresses": [{ "address": "foo" }] })),
        conf(json!({ "addresses": "foo", "routes": 7, "dns": [] })),
        with(&written(), json!({ "args": "none", "runtimeConfig": 7, "prevResult": 7 })),
        with(&written(), json!({ "ipam": null })),
    ] {
        for args in ["", ";;", "IP=foo"] {
            for version in ["0.1.0", "1.1.0"] {
                let conf = with(&broken, json!({ "cniVersion": version }));
                assert_eq!(call(OURS, "DEL", &conf, args).success(), &Value::Null, "{conf}");
            }
            let conf = with(&broken, json!({ "cniVersion": "1.1.0", "cni.dev/valid-attachments": [] }));
            assert_eq!(call(OURS, "GC", &conf, args).success(), &Value::Null, "{conf}");
        }
    }
}
