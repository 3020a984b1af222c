//! All seven versions of the specification, and a configuration without one: every verb, and the documented shapes.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Pod};

use crate::bridge_conf::{dual, layer2, leases, links, of, rules, with};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A configuration of a version; "" is one that names none, which means 0.1.0.
fn at(version: &str, conf: &Value) -> Value {
    let mut conf = conf.clone();
    match version {
        "" => drop(conf.as_object_mut().unwrap().remove("cniVersion")),
        version => conf["cniVersion"] = version.into(),
    }
    conf
}

/// The versions, and none.
fn all() -> impl Iterator<Item = &'static str> {
    VERSIONS.into_iter().chain([""])
}

/// The result of bridge with [`dual`] in a version's own words.
fn documented(version: &str, host: &Host, pod: &Pod, name: &str) -> Value {
    let mac = |link: Option<Value>| link.unwrap()["address"].clone();
    let interfaces = json!([
        {"name": "cni0", "mac": mac(host.link("cni0"))},
        {"name": name, "mac": mac(host.link(name))},
        {"name": "eth0", "mac": pod.mac("eth0"), "sandbox": pod.path()}]);
    let routes = json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0", "gw": "fd00:1::1"}]);
    match version {
        "" => documented("0.1.0", host, pod, name),
        "0.1.0" | "0.2.0" => json!({"cniVersion": version, "dns": {},
            "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [routes[0]]},
            "ip6": {"ip": "fd00:1::2/64", "gateway": "fd00:1::1", "routes": [routes[1]]}}),
        "0.3.0" | "0.3.1" | "0.4.0" => {
            json!({"cniVersion": version, "interfaces": interfaces, "dns": {}, "routes": routes,
            "ips": [{"version": "4", "interface": 2, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
                {"version": "6", "interface": 2, "address": "fd00:1::2/64", "gateway": "fd00:1::1"}]})
        }
        _ => json!({"cniVersion": version, "interfaces": interfaces, "routes": routes,
            "ips": [{"interface": 2, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
                {"interface": 2, "address": "fd00:1::2/64", "gateway": "fd00:1::1"}]}),
    }
}

#[test]
fn bridge_speaks_every_version() {
    for version in all() {
        let host = Host::new();
        let pod = host.pod();
        let conf = at(version, &with(&dual(), json!({"ipMasq": true})));
        let bridge = host.plugin("bridge");
        let result = bridge.add(&conf, &pod, "eth0").success();
        let name = links(&host, "veth").remove(0);
        assert_eq!(result, documented(version, &host, &pod, &name), "{version}");
        assert_eq!(pod.addresses("eth0"), ["10.1.0.2/24", "fd00:1::2/64"]);

        let with_result = with_prev_result(&conf, &result);
        let check = bridge.check(&with_result, &pod, "eth0");
        if ["0.4.0", "1.0.0", "1.1.0"].contains(&version) {
            assert_eq!(check.success(), Value::Null, "{version}");
            assert_eq!(check.stdout, "", "CHECK prints nothing");
        } else {
            assert_eq!(check.code(), 1, "{version}");
        }
        let del = bridge.del(&with_result, &pod, "eth0");
        del.success();
        assert_eq!(del.stdout, "", "DEL prints nothing");
        assert_eq!((rules(&host), leases(&host), pod.link("eth0")), (vec![], vec![], None), "{version}");
    }
}

/// The words of a result before 1.0.0 stand in an order, for people; those of 1.x in that of the alphabet.
#[test]
fn results_are_printed_as_the_reference_prints_them() {
    for (version, order) in [
        ("0.2.0", vec!["cniVersion", "ip4", "ip6", "dns"]),
        ("0.4.0", vec!["cniVersion", "interfaces", "ips", "routes", "dns"]),
        ("1.0.0", vec!["cniVersion", "interfaces", "ips", "routes"]),
    ] {
        let host = Host::new();
        let text = host.plugin("bridge").add(at(version, &dual()), &host.pod(), "eth0").stdout;
        let keys: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("    \"")?.split('"').next()).collect();
        assert_eq!(keys, order, "{version}\n{text}");
        assert!(text.starts_with("{\n    \"cniVersion\"") && text.ends_with("\n}"), "{text:?}");
    }
}

#[test]
fn status_and_gc_are_of_1_1_0() {
    for version in all() {
        let of_each = [dual(), dual(), layer2(), dual(), layer2()];
        for (plugin, conf) in ["bridge", "host-local", "loopback", "static", "tuning"].into_iter().zip(of_each) {
            let host = Host::new();
            let conf = with(&at(version, &conf), json!({"cni.dev/valid-attachments": []}));
            for outcome in [host.plugin(plugin).status(&conf), host.plugin(plugin).gc(&conf)] {
                match version {
                    "1.1.0" => assert_eq!((outcome.success(), outcome.stdout.as_str()), (Value::Null, "")),
                    _ => assert_eq!(outcome.code(), 1, "{plugin} at {version}"),
                }
            }
        }
    }
}

#[test]
fn version_is_one_line_with_all_of_them() {
    let host = Host::new();
    for plugin in ["bridge", "host-local", "loopback", "static", "tuning"] {
        let outcome = host.plugin(plugin).version();
        let versions = r#"["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]"#;
        let line = format!(r#"{{"cniVersion":"1.1.0","podwireDryRun":true,"supportedVersions":{versions}}}"#);
        assert_eq!(outcome.stdout, format!("{line}\n"), "{plugin}");
        assert_eq!(outcome.status, Some(0));
    }
}

/// Started by a person: what it is goes to stderr.
#[test]
fn without_a_verb_a_plugin_says_what_it_is() {
    let host = Host::new();
    for plugin in ["bridge", "host-local", "loopback", "static", "tuning"] {
        let outcome = host.plugin(plugin).env("CNI_COMMAND", "").version();
        assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(0), ""), "{outcome}");
        let lines: Vec<&str> = outcome.stderr.split('\n').collect();
        let [about, versions, ""] = lines[..] else { panic!("{outcome}") };
        let version = about.strip_prefix(&format!("CNI {plugin} plugin v")).unwrap_or_default();
        assert!(
            version.split('.').count() == 3 && version.split('.').all(|part| part.parse::<u32>().is_ok()),
            "{about}"
        );
        assert_eq!(versions, "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
    }
}

#[test]
fn host_local_speaks_every_version() {
    let (v4, v6) = (("10.1.0.2/24", "10.1.0.1"), ("fd00:1::2/64", "fd00:1::1"));
    for version in all() {
        let host = Host::new();
        let pod = host.pod();
        let conf = with(&at(version, &dual()), json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}));
        let result = host.plugin("host-local").add(&conf, &pod, "eth0").success();
        let printed = if version.is_empty() { "0.1.0" } else { version };
        let expected = match printed {
            "0.1.0" | "0.2.0" => json!({"cniVersion": printed, "dns": {},
                "ip4": {"ip": v4.0, "gateway": v4.1, "routes": [{"dst": "0.0.0.0/0"}]},
                "ip6": {"ip": v6.0, "gateway": v6.1}}),
            "0.3.0" | "0.3.1" | "0.4.0" => json!({"cniVersion": printed, "dns": {}, "routes": [{"dst": "0.0.0.0/0"}],
                "ips": [{"version": "4", "address": v4.0, "gateway": v4.1},
                    {"version": "6", "address": v6.0, "gateway": v6.1}]}),
            _ => json!({"cniVersion": printed, "routes": [{"dst": "0.0.0.0/0"}],
                "ips": [{"address": v4.0, "gateway": v4.1}, {"address": v6.0, "gateway": v6.1}]}),
        };
        assert_eq!(result, expected, "{version}");
        host.plugin("host-local").del(&conf, &pod, "eth0").success();
        assert_eq!(leases(&host), [""; 0], "{version}");
    }
}

/// dns is in every version; before 1.0.0 also when it says nothing.
#[test]
fn dns_is_in_every_version() {
    for version in all() {
        let host = Host::new();
        let dns = json!({"nameservers": ["192.0.2.53"], "domain": "example.org",
            "search": ["example.org"], "options": ["ndots:2"]});
        let conf = with(&at(version, &dual()), json!({ "dns": dns }));
        assert_eq!(host.plugin("bridge").add(&conf, &host.pod(), "eth0").success()["dns"], dns, "{version}");
    }
}

/// The reference makes the interface, and then finds that the version has no words for it.
#[test]
fn what_a_version_cannot_say_is_refused_and_leaves_nothing() {
    for version in ["0.1.0", "0.2.0", ""] {
        let host = Host::new();
        let pod = host.pod();
        let (before, pod_before) = (host.state(), pod.state());
        let error = host.plugin("bridge").add(at(version, &layer2()), &pod, "eth0").failure();
        assert!(error["msg"].as_str().unwrap().contains("no valid IP addresses"), "{error}");
        host.state().assert_same(&before);
        pod.state().assert_same(&pod_before);
    }
}

/// One address of a family is all that 0.1.0 and 0.2.0 can say, so host-local gives no more. The reference refuses the DEL as
/// well; ours frees what there is.
#[test]
fn two_addresses_of_a_family_are_too_many_for_the_first_versions() {
    let conf = of(&["10.1.0.0/24", "fd00:1::/64", "fd00:2::/64"]);
    for version in ["0.1.0", "0.2.0", ""] {
        let host = Host::new();
        let pod = host.pod();
        let (before, pod_before) = (host.state(), pod.state());
        let conf = at(version, &conf);
        let error = host.plugin("bridge").add(&conf, &pod, "eth0").failure();
        let printed = if version.is_empty() { "0.1.0" } else { version };
        let expected = format!("CNI version {printed} does not support more than 1 address per family");
        assert_eq!(error["msg"], expected, "{error}");
        host.state().assert_same(&before);
        pod.state().assert_same(&pod_before);
        host.plugin("bridge").del(&conf, &pod, "eth0").success();
        host.state().assert_same(&before);
    }
}

/// prevResult of another version of the same family is read; of another family the reference refuses.
#[test]
fn a_prev_result_of_the_same_family_is_read() {
    let host = Host::new();
    let pod = host.pod();
    let result = host.plugin("bridge").add(at("1.1.0", &dual()), &pod, "eth0").success();
    let check =
        |version: &str| host.plugin("bridge").check(with_prev_result(&at(version, &dual()), &result), &pod, "eth0");
    check("1.1.0").success();
    check("1.0.0").success();
    let mut unnamed = result.clone();
    unnamed.as_object_mut().unwrap().remove("cniVersion");
    host.plugin("bridge").check(with_prev_result(&dual(), &unnamed), &pod, "eth0").success();
}
