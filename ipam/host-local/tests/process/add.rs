//! ADD: what is allocated, in which order, and what the result and the files say.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::node::{Node, OURS, add, call, call_with, check, del};

/// The reference's main test, for every version: two sets, one of two ranges; routes of four kinds.
#[test]
fn two_sets_in_every_version() {
    for version in ["", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let node = Node::new();
        let mut conf = node.conf(json!({
            "ranges": [
                [{ "subnet": "10.1.2.0/24" }, { "subnet": "10.2.2.0/24" }],
                [{ "subnet": "2001:db8:1::0/64" }],
            ],
            "routes": [
                { "dst": "0.0.0.0/0" }, { "dst": "::/0" }, { "dst": "192.168.0.0/16", "gw": "1.1.1.1" },
                { "dst": "2001:db8:2::0/64", "gw": "2001:db8:3::1" },
            ],
        }));
        conf["cniVersion"] = version.into();
        let result = add("dummy", &conf);
        assert!(result.ok && result.stderr.is_empty(), "{version}: {result:?}");
        let routes4 = json!([{ "dst": "0.0.0.0/0" }, { "dst": "192.168.0.0/16", "gw": "1.1.1.1" }]);
        let routes6 = json!([{ "dst": "::/0" }, { "dst": "2001:db8:2::/64", "gw": "2001:db8:3::1" }]);
        let expected = match version {
            "" | "0.1.0" | "0.2.0" => json!({
                "ip4": { "ip": "10.1.2.2/24", "gateway": "10.1.2.1", "routes": routes4 },
                "ip6": { "ip": "2001:db8:1::2/64", "gateway": "2001:db8:1::1", "routes": routes6 },
            }),
            _ => {
                let mut ips = json!([
                    { "address": "10.1.2.2/24", "gateway": "10.1.2.1" },
                    { "address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1" },
                ]);
                if version < "1.0.0" {
                    ips[0]["version"] = "4".into();
                    ips[1]["version"] = "6".into();
                }
                json!({ "ips": ips, "routes": [routes4[0], routes6[0], routes4[1], routes6[1]] })
            }
        };
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(result.json[key], *value, "{version}: {key}");
        }
        assert_eq!(node.read("10.1.2.2"), "dummy\r\neth0");
        assert_eq!(node.read("2001:db8:1::2"), "dummy\r\neth0");
        assert_eq!(node.read("last_reserved_ip.0"), "10.1.2.2");
        assert_eq!(node.read("last_reserved_ip.1"), "2001:db8:1::2");
        del("dummy", &conf).succeeded();
        assert!(node.addresses().is_empty());
        assert_eq!(node.read("last_reserved_ip.0"), "10.1.2.2");
    }
}

#[test]
fn files_are_for_root_alone() {
    let node = Node::new();
    add("dummy", &node.subnets(&["10.1.2.0/24"])).succeeded();
    let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let leases = node.leases();
    // The reference's are 0755 and 0750; what it opens it opens as root.
    assert_eq!(mode(leases.clone()), 0o700);
    assert_eq!(mode(leases.join("lock")), 0o600);
    assert_eq!(mode(leases.join("10.1.2.2")), 0o600);
    assert_eq!(mode(leases.join("last_reserved_ip.0")), 0o600);
}

#[test]
fn routes_are_passed_on_as_they_are() {
    let node = Node::new();
    let routes = json!([
        { "dst": "10.9.8.7/16", "gw": "10.1.2.9", "mtu": 1400, "advmss": 1300, "priority": 7, "table": 100, "scope": 253 },
    ]);
    let mut conf = node.conf(json!({ "subnet": "10.1.2.0/24", "routes": routes }));
    conf["cniVersion"] = "1.1.0".into();
    assert_eq!(add("dummy", &conf).json["routes"], routes);
}

#[test]
fn resolv_conf_becomes_dns() {
    let node = Node::new();
    let file = node.data_dir().join("resolv.conf");
    std::fs::write(&file, "nameserver 192.0.2.3\nsearch example.test\n").unwrap();
    let conf = node.conf(json!({ "subnet": "10.1.2.0/24", "resolvConf": file.to_str() }));
    let dns = json!({ "nameservers": ["192.0.2.3"], "search": ["example.test"] });
    assert_eq!(add("dummy", &conf).json["dns"], dns);
    std::fs::remove_file(file).unwrap();
    let (code, msg) = (5, "resolv.conf: No such file or directory");
    let refused = add("other", &conf);
    assert!(refused.error().0 == code && refused.error().1.contains(msg), "{refused:?}");
    assert_eq!(node.addresses().len(), 1, "nothing is reserved");
    check("dummy", &conf).succeeded();
    del("dummy", &conf).succeeded();
}

/// The reference refuses: "duplicate allocation is not allowed". After a reboot or a crash of the runtime the
/// container then never starts again.
#[test]
fn a_repeated_add_gives_the_same_addresses() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24", "2001:db8::/64"]);
    let first = add("a", &conf).addresses();
    add("b", &conf).succeeded();
    assert_eq!(add("a", &conf).addresses(), first);
    assert_eq!(node.addresses().len(), 4);
    assert_eq!(node.read("last_reserved_ip.0"), "10.1.2.3");
    // A second interface of the container is another owner.
    let second = call_with(OURS, "ADD", "a", &conf, &[("CNI_IFNAME", "eth1")]);
    assert_eq!(second.addresses(), ["10.1.2.4", "2001:db8::4"]);
}

#[test]
fn a_repeated_add_completes_what_a_killed_one_began() {
    let node = Node::new();
    node.write("10.1.2.77", "a\r\neth0");
    let conf = node.subnets(&["10.1.2.0/24", "2001:db8::/64"]);
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.77", "2001:db8::2"]);
}

/// A lease of before 2018 does not say which interface it is for.
#[test]
fn a_lease_without_interface_is_not_given_back() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    node.write("10.1.2.9", "dummy");
    let refused = add("dummy", &conf);
    let msg = "10.1.2.9 has been allocated to dummy, duplicate allocation is not allowed";
    assert!(refused.error().1.contains(msg), "{refused:?}");
    add("other", &conf).succeeded();
}

#[test]
fn round_robin_goes_on_from_the_last() {
    let ranges = json!([[
        { "subnet": "10.1.2.0/29", "rangeStart": "10.1.2.2", "rangeEnd": "10.1.2.3" },
        { "subnet": "10.1.3.0/29", "rangeStart": "10.1.3.2", "rangeEnd": "10.1.3.3" },
    ]]);
    for (last, taken, next) in [
        (None, &[][..], "10.1.2.2"),
        (Some("10.1.2.2"), &[], "10.1.2.3"),
        (Some("10.1.2.3"), &[], "10.1.3.2"),
        (Some("10.1.3.3"), &[], "10.1.2.2"),
        (Some("192.0.2.1"), &["10.1.2.2"], "10.1.2.3"),
        (Some("10.1.2.3\n"), &[], "10.1.2.2"),
        (Some("nonsense"), &[], "10.1.2.2"),
        (Some("10.1.3.2"), &["10.1.3.3", "10.1.2.2", "10.1.2.3"], "10.1.3.2"),
    ] {
        let node = Node::new();
        let conf = node.conf(json!({ "ranges": ranges }));
        if let Some(last) = last {
            node.write("last_reserved_ip.0", last);
        }
        taken.iter().for_each(|taken| node.write(taken, "other\r\neth0"));
        assert_eq!(add("dummy", &conf).addresses(), [next], "{last:?}");
        assert_eq!(node.read("last_reserved_ip.0"), next);
    }
}

#[test]
fn a_released_address_rests_until_its_turn() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/29"]);
    for expected in ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6", "10.1.2.2"] {
        assert_eq!(add("a", &conf).addresses(), [expected]);
        del("a", &conf).succeeded();
    }
}

#[test]
fn used_up_says_which_set_and_how_many() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/29"]);
    for id in ["a", "b", "c", "d", "e"] {
        add(id, &conf).succeeded();
    }
    let msg = "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.6 \
               (5 of 5 addresses are taken)";
    assert_eq!(add("f", &conf).error(), (999, msg));
    del("c", &conf).succeeded();
    assert_eq!(add("f", &conf).addresses(), ["10.1.2.4"]);
}

#[test]
fn a_large_range_is_used_to_the_last_address() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.0.0/22"]);
    for number in 0x0a01_0002u32..0x0a01_03ff {
        if number != 0x0a01_0200 {
            node.write(&std::net::Ipv4Addr::from_bits(number).to_string(), "other\r\neth0");
        }
    }
    node.write("last_reserved_ip.0", "10.1.2.1");
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.0"]);
    assert!(add("b", &conf).error().1.contains("(1021 of 1021 addresses are taken)"));
}

/// Of a failed ADD nothing stays, and of the container's earlier ADD everything: the reference's rollback frees
/// all that the container and interface own.
#[test]
fn a_failed_add_takes_back_only_its_own() {
    let node = Node::new();
    let one = node.conf(json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.9.0.0/30" }]] }));
    let first = add("a", &one).addresses();
    assert_eq!(first, ["10.1.2.2", "10.9.0.2"]);
    // The second set is used up by `a`: `b` gets nothing, and leaves nothing.
    assert!(!add("b", &one).ok);
    assert_eq!(node.addresses().len(), 2);
    // `a` asks for another address of set 0 and for one of set 1 that another has.
    let two = node.conf(json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.8.0.0/24" }]] }));
    node.write("10.8.0.5", "other\r\neth0");
    let mut wanted = two.clone();
    wanted["runtimeConfig"] = json!({ "ips": ["10.1.2.50", "10.8.0.5"] });
    let refused = add("a", &wanted);
    assert!(refused.error().1.contains("requested IP address 10.8.0.5 is not available"), "{refused:?}");
    assert!(refused.json["details"].as_str().unwrap().contains("other eth0"));
    assert_eq!(node.read("10.1.2.2"), "a\r\neth0");
    assert!(!node.files().contains("10.1.2.50"));
}

#[test]
fn requested_addresses_come_from_all_three_sources() {
    let node = Node::new();
    let mut conf = node.subnets(&["10.1.2.0/24", "10.1.3.0/24", "2001:db8::/64"]);
    conf["args"] = json!({ "cni": { "ips": ["10.1.3.9", "10.1.2.7/16"] } });
    conf["RuntimeConfig"] = json!({ "IPS": ["2001:DB8::9/64", "10.1.3.9/24"] });
    let result = call_with(OURS, "ADD", "a", &conf, &[("CNI_ARGS", "IgnoreUnknown=1;X=y;IP=10.1.2.7/8")]);
    assert_eq!(result.addresses(), ["10.1.2.7", "10.1.3.9", "2001:db8::9"]);
    assert_eq!(result.json["ips"][0]["address"], "10.1.2.7/24", "the range's prefix length");
    assert_eq!(node.read("last_reserved_ip.0"), "10.1.2.7", "round robin goes on behind it");
    // The same owner asks for the same addresses: fine.
    let again = call_with(OURS, "ADD", "a", &conf, &[("CNI_ARGS", "IgnoreUnknown=1;IP=10.1.2.7")]);
    assert_eq!(again.addresses(), result.addresses());
    let taken = call_with(OURS, "ADD", "b", &conf, &[("CNI_ARGS", "IP=10.1.2.7")]);
    let msg = "failed to allocate for range 0: requested IP address 10.1.2.7 is not available in range set 10.1.2.1-10.1.2.254";
    assert_eq!(taken.error().1, msg);
}

#[test]
fn a_requested_address_of_the_second_range() {
    let node = Node::new();
    let mut conf = node.conf(json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }, { "subnet": "10.1.3.0/24" }]] }));
    conf["args"] = json!({ "cni": { "ips": ["10.1.3.7"] } });
    let result = add("a", &conf);
    assert_eq!(result.json["ips"], json!([{ "address": "10.1.3.7/24", "gateway": "10.1.3.1" }]));
}

#[test]
fn requested_addresses_that_nothing_serves() {
    let node = Node::new();
    let mut conf = node.subnets(&["10.1.2.0/24"]);
    conf["args"] = json!({ "cni": { "ips": ["10.1.2.7", "10.1.2.8", "192.0.2.1"] } });
    assert_eq!(add("a", &conf).error(), (7, "failed to allocate all requested IPs: 10.1.2.8 192.0.2.1"));
    assert!(node.addresses().is_empty());
    let mut short = node.conf(json!({ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.10", "rangeEnd": "10.1.2.20" }));
    for outside in ["10.1.2.9", "10.1.2.21"] {
        short["runtimeConfig"] = json!({ "ips": [outside] });
        assert_eq!(add("a", &short).error(), (7, &*format!("failed to allocate all requested IPs: {outside}")));
    }
    conf["args"] = Value::Null;
    let gateway = call_with(OURS, "ADD", "a", &conf, &[("CNI_ARGS", "IP=10.1.2.1")]);
    assert_eq!(gateway.error(), (7, "failed to allocate for range 0: requested ip 10.1.2.1 is subnet's gateway"));
    assert!(node.addresses().is_empty());
}

/// In the reference a gateway is kept only from the range it is written in.
#[test]
fn a_gateway_of_another_range_is_not_handed_out() {
    let node = Node::new();
    let conf = node.conf(json!({ "ranges": [[
        { "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.2", "rangeEnd": "10.1.2.2", "gateway": "10.1.2.10" },
        { "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.10", "rangeEnd": "10.1.2.11" },
    ]] }));
    assert_eq!(add("a", &conf).addresses(), ["10.1.2.2"]);
    assert_eq!(add("b", &conf).addresses(), ["10.1.2.11"]);
    assert!(add("c", &conf).error().1.contains("(2 of 2 addresses are taken)"));
}

#[test]
fn names_of_ipv6_files_are_shortest() {
    let node = Node::new();
    let conf = node.conf(json!({ "subnet": "2001:DB8:0:0:1:0:0:0/80", "rangeStart": "2001:db8:0:0:1::A" }));
    assert_eq!(add("a", &conf).addresses(), ["2001:db8::1:0:0:a"]);
    assert!(node.files().contains("2001:db8::1:0:0:a"));
}

#[test]
fn ipam_of_runtime_comes_first() {
    let node = Node::new();
    let mut conf = node.conf(json!({ "subnet": "10.1.2.0/24", "ranges": [[{ "subnet": "10.1.3.0/24" }]] }));
    conf["runtimeConfig"] = json!({ "ipRanges": [[{ "subnet": "2001:db8::/64" }], [{ "subnet": "10.1.1.0/24" }]] });
    assert_eq!(add("a", &conf).addresses(), ["2001:db8::2", "10.1.1.2", "10.1.2.2", "10.1.3.2"]);
    assert_eq!(node.read("last_reserved_ip.3"), "10.1.3.2");
}

#[test]
fn status_is_real() {
    let node = Node::new();
    let mut conf = node.subnets(&["10.1.2.0/30"]);
    conf["cniVersion"] = "1.1.0".into();
    call(OURS, "STATUS", "", &conf).succeeded();
    add("a", &conf).succeeded();
    let msg = "no IP addresses available in range set: 10.1.2.1-10.1.2.2 (1 of 1 addresses are taken)";
    assert_eq!(call(OURS, "STATUS", "", &conf).error(), (50, msg));
    assert!(node.sealed(), "asking does not cost the index");
    del("a", &conf).succeeded();
    call(OURS, "STATUS", "", &conf).succeeded();
    conf["ipam"]["dataDir"] = "/proc/podwire".into();
    assert_eq!(call(OURS, "STATUS", "", &conf).error().0, 50);
}
