//! Every configuration that is refused: the code, the message, and the key that `details` names.

use serde_json::{Value, json};

use crate::call::{OURS, add, call, conf, with};

const NOT_CIDR: &str = "the 'address' field is expected to be in CIDR notation, got: ";

#[test]
fn refusals_of_ipam() {
    let one = |address: Value| json!({ "addresses": [{ "address": "10.1.0.2/24" }, address] });
    for (ipam, code, msg, at) in [
        (one(json!({ "address": "10.1.0.2" })), 7, format!("{NOT_CIDR}'10.1.0.2'"), "ipam.addresses[1].address"),
        (one(json!({ "address": "10.1.0.2/33" })), 7, format!("{NOT_CIDR}'10.1.0.2/33'"), "ipam.addresses[1].address"),
        (
            one(json!({ "address": "10.1.0.2/024" })),
            7,
            format!("{NOT_CIDR}'10.1.0.2/024'"),
            "ipam.addresses[1].address",
        ),
        (one(json!({ "address": "" })), 7, format!("{NOT_CIDR}''"), "ipam.addresses[1].address"),
        (one(json!({ "gateway": "10.1.0.1" })), 7, format!("{NOT_CIDR}''"), "ipam.addresses[1].address"),
        (
            one(json!({ "address": "10.1.0.2/24", "gateway": "foo" })),
            7,
            "invalid IP address: foo".into(),
            "ipam.addresses[1].gateway",
        ),
        (
            one(json!({ "address": "10.1.0.2/24", "gateway": "10.1.0.1/24" })),
            7,
            "invalid IP address: 10.1.0.1/24".into(),
            "ipam.addresses[1].gateway",
        ),
        (one(json!({ "address": 7 })), 6, "ipam.addresses[1].address".into(), ""),
        (one(json!("10.1.0.2/24")), 6, "ipam.addresses[1]".into(), ""),
        (one(json!(null)), 6, "ipam.addresses[1]".into(), ""),
        (json!({ "addresses": "10.1.0.2/24" }), 6, "ipam.addresses".into(), ""),
        (json!({ "routes": [{ "gw": "10.1.0.1" }] }), 6, "ipam.routes[0]".into(), ""),
        (json!({ "routes": [{ "dst": "10.1.0.1" }] }), 6, "ipam.routes[0]: dst: invalid CIDR address".into(), ""),
        (json!({ "routes": [null] }), 6, "ipam.routes[0]".into(), ""),
        (json!({ "dns": { "nameservers": "10.1.0.1" } }), 6, "ipam.dns: nameservers: invalid type".into(), ""),
    ] {
        let outcome = add(&conf(ipam.clone()), "");
        let (found, text) = outcome.error();
        assert!(found == code && text.contains(&msg), "{ipam}: {outcome:?}");
        let details = outcome.json["details"].as_str().unwrap_or_default();
        assert!(details.starts_with(at), "{ipam}: {outcome:?}");
    }
}

/// The key itself must be there, wherever the addresses come from.
#[test]
fn without_ipam() {
    let network = json!({ "cniVersion": "1.0.0", "name": "net", "type": "bridge" });
    for keys in [
        json!({}),
        json!({ "ipam": null }),
        json!({ "args": { "cni": { "ips": ["10.1.0.2/24"] } } }),
        json!({ "runtimeConfig": { "ips": ["10.1.0.2/24"] } }),
    ] {
        assert_eq!(add(&with(&network, keys.clone()), "").error(), (7, "IPAM config missing 'ipam' key"), "{keys}");
    }
}

#[test]
fn refusals_of_what_the_runtime_gives() {
    let conf = conf(json!({}));
    for (text, code) in [("10.1.0.2", 7), ("", 7), (" 10.1.0.2/24", 7), ("10.1.0.2/24,10.1.0.3/24", 7)] {
        let msg = format!("an entry in the 'ips' field is NOT in CIDR notation, got: '{text}'");
        for (keys, at) in [
            (json!({ "args": { "cni": { "ips": ["10.1.0.9/24", text] } } }), "args.cni.ips[1]"),
            (json!({ "RuntimeConfig": { "ips": ["10.1.0.9/24", text] } }), "runtimeConfig.ips[1]"),
        ] {
            let outcome = add(&with(&conf, keys), "");
            assert_eq!(outcome.error(), (code, msg.as_str()));
            assert!(outcome.json["details"].as_str().unwrap().starts_with(at), "{outcome:?}");
        }
    }
    for keys in [json!({ "args": { "cni": { "ips": [null] } } }), json!({ "runtimeConfig": { "ips": "10.1.0.2/24" } })]
    {
        assert_eq!(add(&with(&conf, keys), "").error().0, 6);
    }
}

#[test]
fn refusals_of_cni_args() {
    let conf = conf(json!({}));
    for (args, msg) in [
        ("IP=10.1.0.2", "the 'ip' field is expected to be in CIDR notation, got: '10.1.0.2'"),
        ("IP=10.1.0.2/24, foo", "the 'ip' field is expected to be in CIDR notation, got: 'foo'"),
        ("IP=10.1.0.2/24,", "the 'ip' field is expected to be in CIDR notation, got: ''"),
        ("GATEWAY=foo", "invalid gateway address: foo"),
        ("IP=10.1.0.2/24;GATEWAY=10.1.0.1,", "invalid gateway address: "),
        ("GATEWAY=10.1.0.1/24", "invalid gateway address: 10.1.0.1/24"),
        ("FOO=1", "CNI_ARGS: unknown args [\"FOO=1\"]"),
        ("ip=10.1.0.2/24", "CNI_ARGS: unknown args [\"ip=10.1.0.2/24\"]"),
        (";", "CNI_ARGS: invalid pair \"\""),
    ] {
        for verb in ["ADD", "CHECK"] {
            assert_eq!(call(OURS, verb, &conf, args).error(), (4, msg), "{verb} {args}");
        }
    }
}

/// What the runtime gives must be right also where it does not count; what is written in `ipam` need not be.
#[test]
fn what_is_replaced() {
    let broken = conf(json!({ "addresses": [{ "address": "foo", "gateway": "bar" }] }));
    let given = json!({ "args": { "cni": { "ips": ["10.1.0.2/24"] } } });
    assert_eq!(add(&with(&broken, given.clone()), "").ips(), [("10.1.0.2/24", None)]);
    assert_eq!(add(&with(&broken, given), "IP=foo").error().0, 4);
    let both = json!({ "args": { "cni": { "ips": ["foo"] } }, "runtimeConfig": { "ips": ["10.1.0.2/24"] } });
    assert_eq!(add(&with(&broken, both), "").error().0, 7);
}

#[test]
fn status_wants_what_add_wants() {
    let at = |ipam: Value| with(&conf(ipam), json!({ "cniVersion": "1.1.0" }));
    call(OURS, "STATUS", &at(json!({ "addresses": [{ "address": "10.1.0.2/24" }] })), "").success();
    assert_eq!(call(OURS, "STATUS", &at(json!({ "addresses": [{}] })), "").error().0, 7);
}
