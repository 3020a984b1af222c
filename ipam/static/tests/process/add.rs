//! ADD: what it answers with, from each place that can name an address, in every version.

use serde_json::json;

use crate::call::{OURS, add, call, conf, with};

#[test]
fn both_families_with_routes_and_dns() {
    let routes = json!([
        { "dst": "0.0.0.0/0" },
        { "dst": "192.168.0.0/16", "gw": "10.10.5.1", "mtu": 1400, "priority": 5, "table": 100, "scope": 253 },
        { "dst": "3ffe:ffff:0:01ff::1/64" },
    ]);
    let dns = json!({ "nameservers": ["8.8.8.8"], "domain": "example.com", "search": ["a", "b"], "options": ["c"] });
    let conf = conf(json!({ "addresses": [
        { "address": "10.10.0.1/24", "gateway": "10.10.0.254" },
        { "address": "3ffe:ffff:0:01ff::1/64", "gateway": "3ffe:ffff:0::1" },
    ], "routes": routes, "dns": dns }));
    // As RFC 5952 writes it; a route keeps its host bits.
    let mut printed = routes.clone();
    printed[2]["dst"] = "3ffe:ffff:0:1ff::1/64".into();
    let ips = json!([
        { "address": "10.10.0.1/24", "gateway": "10.10.0.254" },
        { "address": "3ffe:ffff:0:1ff::1/64", "gateway": "3ffe:ffff::1" },
    ]);
    assert_eq!(add(&conf, "").success(), &json!({ "cniVersion": "1.0.0", "ips": ips, "routes": printed, "dns": dns }));
}

#[test]
fn every_version() {
    let both = conf(json!({
        "addresses": [{ "address": "10.1.0.2/24", "gateway": "10.1.0.1" }, { "address": "fd00:1::2/64" }],
        "routes": [{ "dst": "0.0.0.0/0" }],
    }));
    for version in ["", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let printed = if version.is_empty() { "0.1.0" } else { version };
        let expected = match printed {
            "0.1.0" | "0.2.0" => json!({ "cniVersion": printed, "dns": {},
                "ip4": { "ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{ "dst": "0.0.0.0/0" }] },
                "ip6": { "ip": "fd00:1::2/64" } }),
            "0.3.0" | "0.3.1" | "0.4.0" => json!({ "cniVersion": printed, "dns": {},
                "routes": [{ "dst": "0.0.0.0/0" }],
                "ips": [{ "version": "4", "address": "10.1.0.2/24", "gateway": "10.1.0.1" },
                    { "version": "6", "address": "fd00:1::2/64" }] }),
            _ => json!({ "cniVersion": printed, "routes": [{ "dst": "0.0.0.0/0" }],
                "ips": [{ "address": "10.1.0.2/24", "gateway": "10.1.0.1" }, { "address": "fd00:1::2/64" }] }),
        };
        let conf = with(&both, json!({ "cniVersion": version }));
        assert_eq!(add(&conf, "").success(), &expected, "{version}");
        assert_eq!(call(OURS, "DEL", &conf, "").success(), &json!(null), "{version}");
    }
}

#[test]
fn one_address_from_cni_args() {
    let conf = conf(json!({ "routes": [{ "dst": "0.0.0.0/0" }] }));
    let outcome = add(&conf, "IP=10.10.0.1/24;GATEWAY=10.10.0.254");
    assert_eq!(outcome.ips(), [("10.10.0.1/24", Some("10.10.0.254"))]);
    assert_eq!(outcome.json["routes"], json!([{ "dst": "0.0.0.0/0" }]));
    assert_eq!(outcome.stderr, "");
    assert_eq!(add(&conf, "IP=10.10.0.1/24").ips(), [("10.10.0.1/24", None)]);
}

#[test]
fn two_addresses_from_cni_args_and_a_gateway_of_the_first() {
    let conf = conf(json!({}));
    let args = "IP=10.10.0.1/24,11.11.0.1/24;GATEWAY=10.10.0.254";
    assert_eq!(add(&conf, args).ips(), [("10.10.0.1/24", Some("10.10.0.254")), ("11.11.0.1/24", None)]);
    for version in ["", "0.1.0", "0.2.0"] {
        let printed = if version.is_empty() { "0.1.0" } else { version };
        let msg = format!("CNI version {printed} does not support more than 1 address per family");
        let conf = with(&conf, json!({ "cniVersion": version }));
        assert_eq!(add(&conf, args).error(), (7, msg.as_str()));
        assert_eq!(add(&conf, "IP=10.10.0.1/24,fd00::1/64").success()["ip6"], json!({ "ip": "fd00::1/64" }));
    }
}

#[test]
fn cni_args_bear_white_space_between_commas_and_add_to_the_configuration() {
    let conf = conf(json!({ "addresses": [{ "address": "10.1.0.2/24" }] }));
    for (args, ips) in [
        ("", vec![("10.1.0.2/24", None)]),
        ("IP=;GATEWAY=", vec![("10.1.0.2/24", None)]),
        (
            "IP= 10.2.0.1/24 , fd00::1/64;GATEWAY= fd00::fe ,10.2.0.8, 10.2.0.9",
            vec![("10.1.0.2/24", None), ("10.2.0.1/24", Some("10.2.0.9")), ("fd00::1/64", Some("fd00::fe"))],
        ),
        ("K8S_POD_NAME=x;IgnoreUnknown=1;IP=10.2.0.1/24", vec![("10.1.0.2/24", None), ("10.2.0.1/24", None)]),
    ] {
        assert_eq!(add(&conf, args).ips(), ips, "{args}");
    }
}

/// `RuntimeConfig` with a capital is how the reference's own test writes it, and what some runtimes send.
#[test]
fn addresses_from_the_runtime() {
    for key in ["RuntimeConfig", "runtimeConfig"] {
        let conf = with(&conf(json!({ "routes": [{ "dst": "0.0.0.0/0", "gw": "10.10.0.254" }] })), {
            json!({ key: { "ips": ["10.10.0.1/24", "3ffe:ffff:0:01ff::1/64"] } })
        });
        let outcome = add(&conf, "");
        assert_eq!(outcome.ips(), [("10.10.0.1/24", None), ("3ffe:ffff:0:1ff::1/64", None)], "{key}");
        assert_eq!(outcome.json["routes"], json!([{ "dst": "0.0.0.0/0", "gw": "10.10.0.254" }]));
    }
    let conf = with(&conf(json!({})), json!({ "args": { "cni": { "ips": ["10.10.0.1/24", "11.11.0.1/24"] } } }));
    assert_eq!(add(&conf, "").ips(), [("10.10.0.1/24", None), ("11.11.0.1/24", None)]);
}

#[test]
fn which_place_counts() {
    let written = conf(json!({ "addresses": [{ "address": "10.1.0.2/24", "gateway": "10.1.0.1" }] }));
    let args = json!({ "cni": { "ips": ["10.3.0.2/24"] } });
    let runtime_config = json!({ "ips": ["10.4.0.2/24"] });
    let in_env = "IP=10.2.0.2/24;GATEWAY=10.2.0.1";
    for (keys, ips) in [
        (json!({}), vec![("10.1.0.2/24", Some("10.1.0.1")), ("10.2.0.2/24", Some("10.2.0.1"))]),
        (json!({ "args": args }), vec![("10.3.0.2/24", None)]),
        (json!({ "runtimeConfig": runtime_config }), vec![("10.4.0.2/24", None)]),
        (json!({ "args": args, "runtimeConfig": runtime_config }), vec![("10.4.0.2/24", None)]),
        (json!({ "args": args, "runtimeConfig": { "ips": [] } }), vec![("10.3.0.2/24", None)]),
        (
            json!({ "args": { "cni": { "ips": [] } }, "runtimeConfig": { "ips": null } }),
            vec![("10.1.0.2/24", Some("10.1.0.1")), ("10.2.0.2/24", Some("10.2.0.1"))],
        ),
    ] {
        assert_eq!(add(&with(&written, keys.clone()), in_env).ips(), ips, "{keys}");
    }
}

/// A gateway of `CNI_ARGS` is for the addresses of `CNI_ARGS` alone.
#[test]
fn a_gateway_that_nobody_uses_is_in_the_log() {
    let conf = conf(json!({ "addresses": [{ "address": "10.1.0.2/24" }] }));
    let outcome = add(&conf, "IP=10.2.0.2/24;GATEWAY=10.1.0.1");
    assert_eq!(outcome.ips(), [("10.1.0.2/24", None), ("10.2.0.2/24", None)]);
    assert!(outcome.stderr.contains("GATEWAY=10.1.0.1 of CNI_ARGS is not used"), "{outcome:?}");
}

#[test]
fn a_gateway_outside_its_subnet_is_in_the_log_and_in_the_result() {
    for (address, gateway, doubt) in [
        ("10.1.0.2/24", "10.1.1.1", "is outside of 10.1.0.0/24"),
        ("10.1.0.2/24", "fd00::1", "is of the other family"),
        ("10.1.0.2/32", "fd00::1", "is of the other family"),
        ("10.1.0.2/24", "10.1.0.1", ""),
        // How clouds do it: no subnet at all, and a route to the gateway in `routes`.
        ("10.1.0.2/32", "169.254.1.1", ""),
        ("fd00::2/128", "fe80::1", ""),
    ] {
        let outcome = add(&conf(json!({ "addresses": [{ "address": address, "gateway": gateway }] })), "");
        assert_eq!(outcome.ips(), [(address, Some(gateway))]);
        match doubt {
            "" => assert_eq!(outcome.stderr, "", "{address}"),
            _ => assert!(outcome.stderr.contains(&format!("gateway {gateway} of {address} {doubt}")), "{outcome:?}"),
        }
    }
}

#[test]
fn no_address_is_no_error_where_the_version_can_say_it() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let outcome = add(&with(&conf(json!({})), json!({ "cniVersion": version })), "");
        assert_eq!(outcome.success().get("ips"), None, "{version}");
    }
    for version in ["", "0.1.0", "0.2.0"] {
        let outcome = add(&with(&conf(json!({})), json!({ "cniVersion": version })), "");
        assert_eq!(outcome.error(), (1, "cannot convert: no valid IP addresses"));
    }
}

#[test]
fn ipv4_addresses_written_as_ipv6() {
    let conf = conf(json!({ "addresses": [{ "address": "::ffff:10.1.0.1/120", "gateway": "::ffff:10.1.0.9" }] }));
    assert_eq!(add(&conf, "").ips(), [("10.1.0.1/24", Some("10.1.0.9"))]);
}
