//! Expected texts are the reference's (its documented shapes and conversion matrix), not our own output.

use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::types::json;

/// The reference's order and indentation before 1.0.0: as written, four spaces, `dns` always there.
const V040: &str = r#"{
    "cniVersion": "0.4.0",
    "interfaces": [
        {
            "name": "eth0",
            "mac": "00:11:22:33:44:55",
            "sandbox": "/proc/3553/ns/net"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 0,
            "address": "1.2.3.30/24",
            "gateway": "1.2.3.1"
        },
        {
            "version": "6",
            "interface": 0,
            "address": "abcd:1234:ffff::cdde/64",
            "gateway": "abcd:1234:ffff::1"
        }
    ],
    "routes": [
        {
            "dst": "15.5.6.0/24",
            "gw": "15.5.6.8",
            "mtu": 1400,
            "priority": 5,
            "table": 0,
            "scope": 253
        },
        {
            "dst": "1111:dddd::/80",
            "gw": "1111:dddd::aaaa"
        }
    ],
    "dns": {}
}"#;

/// 1.0.0 and later go through a map in the reference: keys in alphabetical order, no empty `dns`.
const V100: &str = r#"{
    "cniVersion": "1.0.0",
    "interfaces": [
        {
            "mac": "00:11:22:33:44:55",
            "name": "eth0",
            "sandbox": "/proc/3553/ns/net"
        }
    ],
    "ips": [
        {
            "address": "1.2.3.30/24",
            "gateway": "1.2.3.1",
            "interface": 0
        },
        {
            "address": "abcd:1234:ffff::cdde/64",
            "gateway": "abcd:1234:ffff::1",
            "interface": 0
        }
    ],
    "routes": [
        {
            "dst": "15.5.6.0/24",
            "gw": "15.5.6.8",
            "mtu": 1400,
            "priority": 5,
            "scope": 253,
            "table": 0
        },
        {
            "dst": "1111:dddd::/80",
            "gw": "1111:dddd::aaaa"
        }
    ]
}"#;

const V020: &str = r#"{
    "cniVersion": "0.2.0",
    "ip4": {
        "ip": "1.2.3.30/24",
        "gateway": "1.2.3.1",
        "routes": [
            {
                "dst": "15.5.6.0/24",
                "gw": "15.5.6.8"
            }
        ]
    },
    "ip6": {
        "ip": "abcd:1234:ffff::cdde/64",
        "gateway": "abcd:1234:ffff::1",
        "routes": [
            {
                "dst": "1111:dddd::/80",
                "gw": "1111:dddd::aaaa"
            }
        ]
    },
    "dns": {}
}"#;

fn read(text: &str) -> Success {
    Success::from_json(text.as_bytes(), Version::V0_1_0).unwrap().1
}

fn write(success: &Success, version: Version) -> String {
    String::from_utf8(success.to_json(version).unwrap()).unwrap()
}

#[test]
fn each_shape_is_read_and_printed_byte_for_byte() {
    for (text, version) in [(V040, Version::V0_4_0), (V100, Version::V1_0_0), (V020, Version::V0_2_0)] {
        let (read_version, success) = Success::from_json(text.as_bytes(), Version::V0_1_0).unwrap();
        assert_eq!(read_version, version);
        assert_eq!(write(&success, version), text);
    }
}

#[test]
fn the_conversion_matrix() {
    // From, to, what the reference prints.
    assert_eq!(write(&read(V040), Version::V1_0_0), V100);
    assert_eq!(write(&read(V100), Version::V0_4_0), V040);
    assert_eq!(write(&read(V040), Version::V0_2_0), V020);
    assert_eq!(write(&read(V100), Version::V0_2_0), V020);
    // Between versions of one shape only the version changes.
    for (text, from, to) in [(V040, "0.4.0", "0.3.0"), (V100, "1.0.0", "1.1.0"), (V020, "0.2.0", "0.1.0")] {
        let printed = write(&read(text), to.parse().unwrap());
        assert_eq!(printed, text.replace(from, to));
    }
    // Upwards from the oldest: all routes, IPv4's first, no interfaces.
    let upward = read(V020);
    assert!(upward.interfaces.is_empty());
    assert_eq!(
        upward.ips.iter().map(|ip| ip.address.to_string()).collect::<Vec<_>>(),
        ["1.2.3.30/24", "abcd:1234:ffff::cdde/64"]
    );
    assert_eq!(upward.routes.len(), 2);
}

/// The reference's "round-trip 0.2 without route gw", "index 0 kept" ([`V040`] has it) and "absent index omitted".
#[test]
fn what_is_absent_stays_absent() {
    let text = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/8","gateway":"10.0.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}"#;
    let value = |version| serde_json::from_str::<Value>(&write(&read(text), version)).unwrap();
    assert_eq!(value(Version::V1_0_0), serde_json::from_str::<Value>(text).unwrap());
    let ip = serde_json::json!([{"version":"4","address":"10.0.0.2/8","gateway":"10.0.0.1"}]);
    assert_eq!(value(Version::V0_4_0)["ips"], ip);
    for version in [Version::V0_2_0, Version::V0_1_0] {
        let old = value(version);
        assert_eq!(old["ip4"]["routes"], serde_json::json!([{"dst":"0.0.0.0/0"}]), "{version}");
        let back = Success::from_value(old, version).unwrap().1;
        assert_eq!((back.routes[0].gw, back.ips[0].interface), (None, None), "{version}");
    }
}

#[test]
fn the_one_conversion_that_fails() {
    let error = read(r#"{"cniVersion":"1.0.0"}"#).to_json(Version::V0_2_0).unwrap_err();
    assert_eq!(error.msg(), "cannot convert: no valid IP addresses");
}

#[test]
fn fields_of_1_1_0_are_lost_on_the_way_to_0_4_0_only() {
    let text =
        r#"{"cniVersion":"1.1.0","interfaces":[{"name":"n","mtu":9000,"socketPath":"/s","pciID":"0000:00:1f.6"}]}"#;
    let success = read(text);
    let now: Value = serde_json::from_str(&write(&success, Version::V1_0_0)).unwrap();
    assert_eq!(now["interfaces"][0]["mtu"], Value::from(9000));
    let then: Value = serde_json::from_str(&write(&success, Version::V0_4_0)).unwrap();
    assert_eq!(then["interfaces"][0], serde_json::json!({ "name": "n" }));
}

#[test]
fn what_we_do_not_know_survives_with_its_digits() {
    let text = r#"{"cniVersion":"1.1.0","x-top":12345678901234567890,"interfaces":[{"name":"n","x-if":{"A":1}}],
        "ips":[{"address":"10.0.0.1/8","x-ip":9007199254740993}],"routes":[{"dst":"0.0.0.0/0","x-route":1.50}],"dns":{"x-dns":[null]}}"#;
    let printed: Value = serde_json::from_str(&write(&read(text), Version::V1_1_0)).unwrap();
    let mut expected: Value = serde_json::from_str(text).unwrap();
    expected.sort_all_objects();
    assert_eq!(printed, expected);
    assert!(write(&read(text), Version::V0_4_0).contains("12345678901234567890"));
}

#[test]
fn keys_in_any_case_and_null() {
    let success =
        read(r#"{"CNIVersion":"0.4.0","IPS":[{"Address":"10.0.0.1/8","Gateway":null,"VERSION":"4"}],"DNS":null}"#);
    assert_eq!(success.ips, [IpConfig::new("10.0.0.1/8".parse().unwrap(), None)]);
}

#[test]
fn versions_of_results() {
    assert_eq!(Success::from_json(b"null", Version::V1_0_0).unwrap(), (Version::V1_0_0, Success::default()));
    for assumed in [r"{}", r#"{"cniVersion":""}"#, r#"{"cniVersion":null}"#, r#"{"cniVersion":7}"#] {
        assert_eq!(Success::from_json(assumed.as_bytes(), Version::V0_3_1).unwrap().0, Version::V0_3_1);
    }
    let error = Success::from_json(br#"{"cniVersion":"1.2.0"}"#, Version::V1_0_0).unwrap_err();
    assert_eq!(error.msg(), "unsupported CNI result version \"1.2.0\"");
}

#[test]
fn refusals_name_the_place() {
    for (text, place) in [
        (r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/8"},{"address":"10.0.0.1"}]}"#, "ips[1].address"),
        (r#"{"cniVersion":"1.0.0","ips":[{}]}"#, "ips[0]: missing field `address`"),
        (r#"{"cniVersion":"1.0.0","routes":[{"dst":"0.0.0.0/0","gw":"x"}]}"#, "routes[0].gw"),
        (r#"{"cniVersion":"1.0.0","ips":[null]}"#, "ips[0]"),
        (r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1"}}"#, "ip4.ip"),
        ("[]", "a result is a JSON object"),
        ("oops", "line 1 column 1"),
    ] {
        let error = Success::from_json(text.as_bytes(), Version::V1_0_0).unwrap_err();
        assert!(error.msg().contains(place), "{error}");
    }
}

#[test]
fn a_route_in_a_configuration_that_cannot_be_read_is_named() {
    #[derive(Debug, Deserialize)]
    struct Ipam {
        #[expect(dead_code, reason = "read for its errors only")]
        routes: Vec<Route>,
    }
    for (text, place) in [
        (r#"{"routes":[{"dst":"0.0.0.0/0"},{}]}"#, "routes[1]: missing field `dst`"),
        (r#"{"routes":[{"dst":"0.0.0.0/0","gw":"x"}]}"#, "routes[0]: gw: invalid IP address syntax"),
    ] {
        assert_eq!(json::from_slice::<Ipam>(text.as_bytes()).unwrap_err().to_string(), place);
    }
}

/// Found by the fuzz target `result`: a field that the shape does not know got a meaning in the next one.
#[test]
fn what_is_unknown_in_one_shape_means_nothing_in_another() {
    let text = br#"{"ips":[{"address":"10.88.0.2/16"}],"Routes":[{"dst":"0.0.0.0/0"}],
        "ip4":{"ip":"10.0.0.2/24","interface":3,"more":1},"x":1}"#;
    let (_, success) = Success::from_json(text, Version::V0_2_0).unwrap();
    let (_, read) = Success::from_value(success.to_value(Version::V1_0_0).unwrap(), Version::V1_0_0).unwrap();
    let [ip] = read.ips.as_slice() else { panic!("{read:?}") };
    assert_eq!((ip.address.to_string().as_str(), ip.interface), ("10.0.0.2/24", None));
    assert!(read.routes.is_empty());
    // What has no meaning anywhere is kept.
    assert_eq!((&read.extra["x"], &ip.extra["more"]), (&1.into(), &1.into()));
}
