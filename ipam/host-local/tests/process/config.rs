//! Every configuration that is refused: the code, the message, and that nothing is on disk afterwards.

use serde_json::{Value, json};

use crate::node::{Node, OURS, add, call_with, del};

#[test]
fn refusals() {
    let sets = |ranges: Value| json!({ "ranges": ranges });
    for (ipam, code, msg) in [
        (json!({}), 7, "no IP ranges specified"),
        (json!({ "rangeStart": "10.1.2.3" }), 7, "no IP ranges specified"),
        (sets(json!([[]])), 7, "invalid range set 0: empty range set"),
        (sets(json!([[{}]])), 7, "invalid range set 0: IP <nil> not v4 nor v6"),
        (json!({ "subnet": "10.1.2.0/31" }), 7, "invalid range set 0: Network 10.1.2.0/31 too small to allocate from"),
        (json!({ "subnet": "10.1.2.0/32" }), 7, "invalid range set 0: Network 10.1.2.0/32 too small to allocate from"),
        (json!({ "subnet": "2001:db8::/127" }), 7, "invalid range set 0: Network 2001:db8::/127 too small"),
        (
            json!({ "subnet": "10.1.2.3/24" }),
            7,
            "invalid range set 0: Network has host bits set. For a subnet mask of length 24 the network address is 10.1.2.0",
        ),
        (json!({ "subnet": "10.1.2.0" }), 7, "invalid CIDR address: \"10.1.2.0\""),
        (json!({ "subnet": "" }), 7, "invalid CIDR address: \"\""),
        (json!({ "subnet": "::ffff:10.1.2.0/120" }), 7, "IPNet IP and Mask version mismatch"),
        (json!({ "subnet": "10.1.2.0/24", "rangeStart": "foo" }), 7, "invalid IP address: foo"),
        (
            json!({ "subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1" }),
            7,
            "invalid range set 0: RangeStart 10.1.3.1 not in network 10.1.2.0/24",
        ),
        (
            json!({ "subnet": "10.1.2.0/24", "rangeEnd": "10.1.3.1" }),
            7,
            "invalid range set 0: RangeEnd 10.1.3.1 not in network 10.1.2.0/24",
        ),
        (
            json!({ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8" }),
            7,
            "invalid range set 0: RangeStart 10.1.2.9 not in network 10.1.2.0/24",
        ),
        (json!({ "subnet": "10.1.2.0/24", "rangeStart": "::1" }), 7, "RangeStart ::1 not in network 10.1.2.0/24"),
        (
            json!({ "subnet": "10.1.2.0/24", "gateway": "10.1.3.1" }),
            7,
            "invalid range set 0: gateway 10.1.3.1 not in network 10.1.2.0/24",
        ),
        (
            json!({ "subnet": "10.1.2.0/24", "gateway": "::1" }),
            7,
            "invalid range set 0: gateway ::1 not in network 10.1.2.0/24",
        ),
        (json!({ "subnet": "10.1.2.0/24", "gateway": "10.1.2.256" }), 7, "invalid IP address: 10.1.2.256"),
        (
            sets(json!([[{ "subnet": "10.1.2.0/24" }, { "subnet": "2001:db8::/64" }]])),
            7,
            "invalid range set 0: mixed address families",
        ),
        (
            sets(json!([[{ "subnet": "10.1.0.0/16" }, { "subnet": "10.1.2.0/24" }]])),
            7,
            "invalid range set 0: subnets 10.1.0.1-10.1.255.254 and 10.1.2.1-10.1.2.254 overlap",
        ),
        (
            sets(json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.3.0.0/16" }], [{ "subnet": "10.1.2.0/25" }]])),
            7,
            "range set 0 overlaps with 2",
        ),
        (
            json!({ "subnet": "10.1.2.0/24", "ranges": [[{ "subnet": "10.1.0.0/16" }]] }),
            7,
            "range set 0 overlaps with 1",
        ),
        (sets(json!([{ "subnet": "10.1.2.0/24" }])), 6, "ipam.ranges[0]"),
        (json!({ "subnet": 7 }), 6, "ipam.subnet"),
        (json!({ "subnet": "10.1.2.0/24", "routes": [{ "gw": "10.1.2.1" }] }), 6, "ipam.routes"),
        (json!({ "subnet": "10.1.2.0/24", "routes": [{ "dst": "10.1.2.1" }] }), 6, "ipam.routes"),
    ] {
        let node = Node::new();
        let outcome = add("a", &node.conf(ipam.clone()));
        assert!(outcome.error().0 == code && outcome.error().1.contains(msg), "{ipam}: {outcome:?}");
        assert!(!node.leases().exists(), "{ipam}");
    }
}

#[test]
fn a_refusal_names_the_key() {
    let node = Node::new();
    for (ipam, at) in [
        (json!({ "subnet": "10.1.2.0/31" }), "ipam.subnet"),
        (json!({ "subnet": "10.1.2.0/24", "gateway": "1.1.1.1" }), "ipam.gateway"),
        (
            json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.2.0.0/24" }, { "subnet": "10.3.0.0/24", "rangeEnd": "1.1.1.1" }]] }),
            "ipam.ranges[1][1].rangeEnd",
        ),
        (json!({ "ranges": [[{ "subnet": "10.1.2.0/24", "rangeStart": "x" }]] }), "ipam.ranges[0][0].rangeStart"),
        (
            json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.1.2.0/24" }]] }),
            "ipam.ranges[0] and ipam.ranges[1]",
        ),
    ] {
        let outcome = add("a", &node.conf(ipam.clone()));
        assert_eq!(outcome.json["details"], at, "{ipam}: {outcome:?}");
    }
}

#[test]
fn without_ipam() {
    let conf = json!({ "cniVersion": "1.0.0", "name": "net" });
    assert_eq!(add("a", &conf).error(), (7, "IPAM config missing 'ipam' key"));
    assert_eq!(add("a", &json!({ "cniVersion": "1.0.0", "name": "net", "ipam": null })).error().0, 7);
}

#[test]
fn requested_addresses() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    for (ips, msg) in [(json!(["1.2.3"]), "invalid IP address 1.2.3"), (json!([""]), "invalid IP address ")] {
        for (key, value) in [("args", json!({ "cni": { "ips": ips } })), ("runtimeConfig", json!({ "ips": ips }))] {
            let mut conf = conf.clone();
            conf[key] = value;
            assert_eq!(add("a", &conf).error(), (7, msg));
            del("a", &conf).succeeded();
        }
    }
    // The reference crashes.
    let mut null = conf.clone();
    null["runtimeConfig"] = json!({ "ips": [null] });
    assert_eq!(add("a", &null).error().0, 6);
    for (args, msg) in [
        ("IP=foo", "ARGS: error parsing value of pair \"IP=foo\": invalid IP address foo"),
        ("IP=10.1.2.3,10.1.2.4", "ARGS: error parsing value of pair"),
        ("FOO=1", "unknown args"),
    ] {
        let refused = call_with(OURS, "ADD", "a", &conf, &[("CNI_ARGS", args)]);
        assert!(refused.error().0 == 4 && refused.error().1.contains(msg), "{refused:?}");
        // DEL does not use them, and does not refuse them.
        call_with(OURS, "DEL", "a", &conf, &[("CNI_ARGS", args)]).succeeded();
    }
    call_with(OURS, "ADD", "a", &conf, &[("CNI_ARGS", "IP=")]).succeeded();
}

#[test]
fn before_0_3_0_there_is_one_address_per_family() {
    let node = Node::new();
    let mut conf = node.subnets(&["10.1.2.0/24", "10.1.3.0/24"]);
    conf["cniVersion"] = "0.2.0".into();
    let msg = "CNI version 0.2.0 does not support more than 1 address per family";
    assert_eq!(add("a", &conf).error(), (7, msg));
    assert!(!node.leases().exists());
    del("a", &conf).succeeded();
    let mut conf = node.subnets(&["10.1.2.0/24", "2001:db8::/64"]);
    conf["cniVersion"] = "0.2.0".into();
    add("a", &conf).succeeded();
}

/// Written network and broadcast addresses are handed out, as in the reference.
#[test]
fn ends_may_be_network_and_broadcast() {
    let node = Node::new();
    let conf = node.conf(json!({ "subnet": "10.1.2.0/30", "rangeStart": "10.1.2.0", "rangeEnd": "10.1.2.3" }));
    let given: Vec<String> = ["a", "b", "c"].iter().flat_map(|id| add(id, &conf).addresses()).collect();
    assert_eq!(given, ["10.1.2.0", "10.1.2.2", "10.1.2.3"]);
}
