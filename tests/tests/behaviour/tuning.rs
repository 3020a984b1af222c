//! tuning: the reference's list of tests (each at every version that has interfaces), and its defects, mended.
//!
//! Of that list `eth/0` is in `bad_input`: no plugin is called with it.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Outcome};

use crate::bridge_conf::with;
use crate::tuning_conf::{
    VERSIONS, at, attributes, backup, before, conf, everything, files, pod_with_eth0, tuned, untouched,
};

const DATA_DIR: &str = "/run/cni/tuning";
const MARTIANS: &str = "net/ipv4/conf/all/log_martians";

/// ADD, CHECK where the version has it, the attributes as they shall be, DEL, and all as it was. Returns the result.
fn cycle(version: &str, keys: &Value, args: &str, expected: (String, u64, bool, bool, u64)) -> Value {
    let host = Host::new();
    let pod = pod_with_eth0(&host);
    let state = pod.state();
    let conf = at(version, &pod, keys.clone());
    let tuning = host.plugin("tuning").env("CNI_ARGS", args);
    let result = tuning.add(&conf, &pod, "eth0").success();
    assert_eq!(attributes(&pod), expected, "{version} {keys}");
    let after = with_prev_result(&conf, &result);
    let check = tuning.check(&after, &pod, "eth0");
    assert_eq!(check.status, Some(i32::from(version < "0.4.0")), "{check}");
    tuning.del(&after, &pod, "eth0").success();
    assert_eq!(attributes(&pod), untouched(), "{version} {keys}");
    pod.state().assert_same(&state);
    assert_eq!(backup(&host, &pod, DATA_DIR), None);
    result
}

fn each_version(keys: Value, expected: (String, u64, bool, bool, u64)) {
    for version in VERSIONS {
        cycle(version, &keys, "", expected.clone());
    }
}

fn args(keys: Value) -> Value {
    json!({"args": {"cni": keys}})
}

#[test]
fn a_previous_result_passes_through_and_a_sysctl_needs_no_backup() {
    for version in VERSIONS {
        let host = Host::new();
        let pod = pod_with_eth0(&host);
        let conf = at(version, &pod, json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1"}}));
        let result = host.plugin("tuning").add(&conf, &pod, "eth0").success();
        assert_eq!(result, before(version, &pod));
        assert_eq!((pod.sysctl(MARTIANS).as_str(), host.sysctl(MARTIANS).as_str()), ("1", "0"));
        assert_eq!((backup(&host, &pod, DATA_DIR), attributes(&pod)), (None, untouched()));
        host.plugin("tuning").del(&conf, &pod, "eth0").success();
        assert_eq!(pod.sysctl(MARTIANS), "1");
    }
}

#[test]
fn results_before_interfaces_pass_through_too() {
    for version in ["0.1.0", "0.2.0"] {
        let host = Host::new();
        let pod = pod_with_eth0(&host);
        let result = json!({"cniVersion": version, "ip4": {"ip": "10.1.0.2/24"}, "dns": {}});
        let conf = with_prev_result(&at(version, &pod, everything()), &result);
        assert_eq!(host.plugin("tuning").add(&conf, &pod, "eth0").success(), result);
        assert_eq!(attributes(&pod), tuned());
        host.plugin("tuning").del(&conf, &pod, "eth0").success();
        assert_eq!(attributes(&pod), untouched());
    }
}

#[test]
fn what_we_do_not_know_passes_through_unharmed() {
    let host = Host::new();
    let pod = pod_with_eth0(&host);
    let mut result = before("1.0.0", &pod);
    result["x-mine"] = json!({"large": 9_007_199_254_740_993_u64});
    result["interfaces"][1]["x"] = json!([1]);
    let conf = with_prev_result(&conf(&pod, json!({"txQLen": 5})), &result);
    assert_eq!(host.plugin("tuning").add(conf, &pod, "eth0").success(), result);
}

#[test]
fn promiscuous_mode() {
    let (mac, mtu, _, allmulti, txqlen) = untouched();
    let expected = (mac, mtu, true, allmulti, txqlen);
    each_version(json!({"promisc": true}), expected.clone());
    each_version(with(&args(json!({"promisc": true})), json!({"promisc": false})), expected);
    each_version(with(&args(json!({"promisc": false})), json!({"promisc": true})), untouched());
}

#[test]
fn mtu() {
    let (mac, _, promisc, allmulti, txqlen) = untouched();
    let expected = (mac, 1454, promisc, allmulti, txqlen);
    each_version(json!({"mtu": 1454}), expected.clone());
    each_version(with(&args(json!({"mtu": 1454})), json!({"mtu": 1400})), expected);
    each_version(json!({"mtu": 0}), untouched());
}

#[test]
fn length_of_the_queue() {
    let (mac, mtu, promisc, allmulti, _) = untouched();
    for length in [20000, 0] {
        let expected = (mac.clone(), mtu, promisc, allmulti, length);
        each_version(json!({"txQLen": length}), expected.clone());
        each_version(with(&args(json!({"txQLen": length})), json!({"txQLen": 10})), expected);
    }
}

#[test]
fn all_multicast() {
    let (mac, mtu, promisc, _, txqlen) = untouched();
    let expected = (mac, mtu, promisc, true, txqlen);
    each_version(json!({"allmulti": true}), expected.clone());
    each_version(with(&args(json!({"allmulti": true})), json!({"allmulti": false})), expected);
    each_version(json!({"allmulti": false}), untouched());
}

/// The order of the sources: the key itself, CNI_ARGS, runtimeConfig, args.cni.
#[test]
fn mac() {
    let (_, mtu, promisc, allmulti, txqlen) = untouched();
    let mac = |last: &str| format!("c2:11:22:33:44:{last}");
    let of_args = format!("IgnoreUnknown=true;MAC={}", mac("02"));
    let mut keys = json!({"mac": mac("01")});
    let mut steps = vec![(keys.clone(), String::new(), mac("01")), (keys.clone(), of_args.clone(), mac("02"))];
    keys["RuntimeConfig"] = json!({"mac": mac("03")});
    steps.push((keys.clone(), of_args.clone(), mac("03")));
    keys["args"] = json!({"cni": {"mac": mac("04")}});
    steps.push((keys, of_args, mac("04")));
    for version in VERSIONS {
        for (keys, args, expected) in &steps {
            let result = cycle(version, keys, args, (expected.clone(), mtu, promisc, allmulti, txqlen));
            assert_eq!(result["interfaces"][1]["mac"], *expected);
            assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:02");
        }
    }
}

/// The reference repeats the configuration's spelling, and its CHECK then compares that with the kernel's (T5).
#[test]
fn a_mac_may_be_spelled_in_three_ways() {
    let (_, mtu, promisc, allmulti, txqlen) = untouched();
    for spelling in ["C2:11:22:33:44:0A", "c2-11-22-33-44-0a", "c211.2233.440a"] {
        let expected = ("c2:11:22:33:44:0a".to_owned(), mtu, promisc, allmulti, txqlen);
        let result = cycle("1.0.0", &json!({"mac": spelling}), "", expected);
        assert_eq!(result["interfaces"][1]["mac"], "c2:11:22:33:44:0a");
    }
}

/// The host's end may have the same name: only the one with a sandbox is meant.
#[test]
fn the_result_changes_for_the_pods_interface_alone() {
    let host = Host::new();
    let pod = pod_with_eth0(&host);
    let mut result = before("1.1.0", &pod);
    result["interfaces"][0]["name"] = "eth0".into();
    let conf = with_prev_result(&at("1.1.0", &pod, everything()), &result);
    result["interfaces"][1]["mac"] = "02:00:00:00:00:aa".into();
    result["interfaces"][1]["mtu"] = 1400.into(); // a field of 1.1.0
    assert_eq!(host.plugin("tuning").add(conf, &pod, "eth0").success(), result);
}

#[test]
fn everything_at_once_with_a_directory_of_ones_own() {
    for version in VERSIONS {
        let host = Host::new();
        let pod = pod_with_eth0(&host);
        let conf = at(version, &pod, with(&everything(), json!({"dataDir": "/run/my/own"})));
        let tuning = host.plugin("tuning");
        let result = tuning.add(&conf, &pod, "eth0").success();
        assert_eq!((attributes(&pod), backup(&host, &pod, DATA_DIR)), (tuned(), None));
        // What the reference's newest release writes, to the byte.
        let text = "{\n \"mac\": \"02:00:00:00:00:01\",\n \"promisc\": false,\n \"mtu\": 1450,\n \"allmulti\": false,\n \"txQLen\": 900\n}";
        assert_eq!(backup(&host, &pod, "/run/my/own").as_deref(), Some(text));
        if version >= "0.4.0" {
            tuning.check(with_prev_result(&conf, &result), &pod, "eth0").success();
        }
        tuning.del(&conf, &pod, "eth0").success();
        assert_eq!((attributes(&pod), files(&host, "/run/my/own")), (untouched(), vec![]));
    }
}

/// Where the machine has an /etc/cni of its own, it is covered.
fn allow(host: &Host, text: &str) {
    host.run("mount -t tmpfs tmpfs /etc");
    host.run("mkdir -p /etc/cni/tuning");
    host.enter(|| std::fs::write("/etc/cni/tuning/allowlist.conf", text).unwrap());
}

fn add_with_list(list: &str, sysctl: Value) -> (Outcome, String) {
    let host = Host::new();
    let pod = pod_with_eth0(&host);
    allow(&host, list);
    let conf = at("1.1.0", &pod, json!({"sysctl": sysctl}));
    let outcome = host.plugin("tuning").add(&conf, &pod, "eth0");
    assert_eq!(host.plugin("tuning").status(&conf).status, outcome.status, "STATUS says it before");
    (outcome, pod.sysctl(MARTIANS))
}

#[test]
fn the_allowlist() {
    let pattern = "\n  ^net\\.ipv4\\.conf\\.all\\.[a-z_]*$\n\n";
    let (outcome, value) = add_with_list(pattern, json!({"net.ipv4.conf.all.log_martians": "1"}));
    outcome.success();
    assert_eq!(value, "1");
    for (list, sysctl, word) in [
        (pattern, json!({"net.ipv4.conf.all.log_martians": "1", "net.ipv4.ip_forward": "1"}), "net.ipv4.ip_forward"),
        (pattern, json!({"net/ipv4/conf/all/log_martians": "1"}), "net/ipv4/conf/all/log_martians"),
        ("", json!({"net.ipv4.conf.all.log_martians": "1"}), "is not allowed"),
        ("(\n", json!({"net.ipv4.conf.all.log_martians": "1"}), "error parsing regexp"),
    ] {
        let (outcome, value) = add_with_list(list, sysctl);
        let error = outcome.failure();
        assert!(error["msg"].as_str().unwrap().contains(word), "{error}");
        assert_eq!(value, "0", "nothing was set: {error}");
    }
}

/// T1: the reference panics.
#[test]
fn sysctls_in_args_alone() {
    let host = Host::new();
    let pod = pod_with_eth0(&host);
    let keys = args(json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1"}}));
    host.plugin("tuning").add(conf(&pod, keys), &pod, "eth0").success();
    assert_eq!(pod.sysctl(MARTIANS), "1");
    // And over those at the top, in whatever spelling.
    let keys = json!({"sysctl": {MARTIANS: "1"}, "args": {"cni": {"sysctl": {"net.ipv4.conf.all.log_martians": "0"}}}});
    host.plugin("tuning").add(conf(&pod, keys), &pod, "eth0").success();
    assert_eq!(pod.sysctl(MARTIANS), "0");
}

/// T7, T8: in their order, both separators, a dot in the interface's name.
#[test]
fn sysctls_of_an_interface_with_a_dot() {
    let host = Host::new();
    let pod = host.pod();
    pod.run("ip link add eth0.100 type veth peer name peer0");
    let keys = json!({"sysctl": {
        "net.ipv4.conf.eth0/100.arp_notify": "1", "net/ipv4/conf/eth0.100/arp_ignore": "2",
        "net.ipv4.conf.IFNAME.arp_announce": "1", "net/ipv4/conf/IFNAME/arp_filter": "1",
        "net.ipv4.ip_local_port_range": "20000 30000", "net.ipv4.conf.all.forwarding": "1", "net.ipv4.conf.IFNAME.forwarding": "0"}});
    let conf = conf(&pod, keys);
    let result = host.plugin("tuning").add(&conf, &pod, "eth0.100").success();
    let own = |key: &str| pod.sysctl(&format!("net/ipv4/conf/eth0.100/{key}"));
    assert_eq!((own("arp_notify"), own("arp_ignore")), ("1".into(), "2".into()));
    assert_eq!((own("arp_announce"), own("arp_filter"), own("forwarding")), ("1".into(), "1".into(), "0".into()));
    assert_eq!(pod.sysctl("net/ipv4/conf/all/forwarding"), "1");
    // T5: the kernel prints a tab.
    assert_eq!(pod.sysctl("net/ipv4/ip_local_port_range"), "20000\t30000");
    host.plugin("tuning").check(with_prev_result(&conf, &result), &pod, "eth0.100").success();
}

/// T7: one is refused, and nothing remains of the others.
#[test]
fn a_failed_add_leaves_nothing() {
    for bad in [
        json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1", "net.ipv4.nope": "1"}}),
        json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1", "net.ipv4.conf.all.rp_filter": "many"}}),
        json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1"}, "mtu": 70000, "args": {"cni": {"mtu": 65}}}),
        json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1"}, "mtu": 70000, "dataDir": "/proc/none"}),
        json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1"}, "mtu": 70000}),
    ] {
        let host = Host::new();
        let pod = pod_with_eth0(&host);
        let state = pod.state();
        let conf = conf(&pod, with(&everything(), bad));
        host.plugin("tuning").add(&conf, &pod, "eth0").failure();
        pod.state().assert_same(&state);
        assert_eq!((attributes(&pod), backup(&host, &pod, DATA_DIR)), (untouched(), None), "{conf}");
        host.plugin("tuning").del(&conf, &pod, "eth0").success();
    }
}

#[test]
fn check_finds_each_difference() {
    let keys = with(&everything(), json!({"sysctl": {"net.ipv4.conf.all.log_martians": "1"}}));
    for (change, words) in [
        ("ip link set eth0 address 02:00:00:00:00:bb", ["02:00:00:00:00:aa", "02:00:00:00:00:bb"]),
        ("ip link set eth0 promisc off", ["promisc", "current value is false"]),
        ("ip link set eth0 mtu 1300", ["1400", "1300"]),
        ("ip link set eth0 allmulticast off", ["allmulti", "current value is false"]),
        ("ip link set eth0 txqueuelen 7", ["20000", "current value is 7"]),
        ("sysctl", [MARTIANS, "\"0\""]),
        ("ip link del eth0", ["eth0", "Link not found"]),
    ] {
        let host = Host::new();
        let pod = pod_with_eth0(&host);
        let conf = conf(&pod, keys.clone());
        let result = host.plugin("tuning").add(&conf, &pod, "eth0").success();
        let conf = with_prev_result(&conf, &result);
        host.plugin("tuning").check(&conf, &pod, "eth0").success();
        if change == "sysctl" {
            pod.set_sysctl(MARTIANS, "0");
        } else {
            pod.run(change);
        }
        let error = host.plugin("tuning").check(&conf, &pod, "eth0").failure();
        assert!(words.iter().all(|word| error["msg"].as_str().unwrap().contains(word)), "{change}: {error}");
    }
}

/// T4: the reference takes a packet capture for a broken pod.
#[test]
fn check_does_not_mind_who_looks_at_packets() {
    let host = Host::new();
    let pod = pod_with_eth0(&host);
    let conf = conf(&pod, json!({"mtu": 1400}));
    let result = host.plugin("tuning").add(&conf, &pod, "eth0").success();
    pod.run("ip link set eth0 promisc on");
    host.plugin("tuning").check(with_prev_result(&conf, &result), &pod, "eth0").success();
}

#[test]
fn behind_bridge_the_pod_keeps_working() {
    let host = Host::new();
    let pod = host.pod();
    let chain = crate::bridge_conf::v4();
    let result = host.plugin("bridge").add(&chain, &pod, "eth0").success();
    let tuning = with_prev_result(&conf(&pod, json!({"mac": "02:00:00:00:00:aa", "mtu": 1400})), &result);
    let result = host.plugin("tuning").add(&tuning, &pod, "eth0").success();
    assert_eq!(result["interfaces"][2]["mac"], "02:00:00:00:00:aa");
    assert!(pod.pings("10.1.0.1"));
    host.plugin("tuning").del(with_prev_result(&tuning, &result), &pod, "eth0").success();
    assert!(pod.pings("10.1.0.1"));
    host.plugin("bridge").del(with_prev_result(&chain, &result), &pod, "eth0").success();
}
