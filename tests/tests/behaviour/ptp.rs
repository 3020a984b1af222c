//! ptp: the state it makes is the documented one and the reference's, and packets go where they should.

use std::net::IpAddr;

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Internet, Outcome, Plugin, Pod};

use crate::bridge_conf::{leases, links, routes, rules, with};
use crate::bridge_masquerade::BACKENDS;

/// A default route of each family, and one range of each subnet.
pub fn of(subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
    let default = |subnet: &&str| json!({"dst": if subnet.contains(':') { "::/0" } else { "0.0.0.0/0" }});
    let routes: Vec<Value> = subnets.iter().map(default).collect();
    json!({"cniVersion": "1.0.0", "name": "net", "type": "ptp",
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}})
}

pub fn v4() -> Value {
    of(&["10.1.0.0/24"])
}

pub fn dual() -> Value {
    of(&["10.1.0.0/24", "fd00:1::/64"])
}

pub fn masqueraded(backend: &str) -> Value {
    with(&dual(), json!({"ipMasq": true, "ipMasqBackend": backend}))
}

#[track_caller]
pub fn add(host: &Host, conf: &Value, pod: &Pod) -> Value {
    host.plugin("ptp").add(conf, pod, "eth0").success()
}

/// CHECK as a runtime calls it: with the result of the ADD.
pub fn check(host: &Host, conf: &Value, result: &Value, pod: &Pod) -> Outcome {
    host.plugin("ptp").check(with_prev_result(conf, result), pod, "eth0")
}

/// DEL as a runtime calls it: with the result of the ADD.
#[track_caller]
pub fn del(host: &Host, conf: &Value, result: &Value, pod: &Pod) {
    host.plugin("ptp").del(with_prev_result(conf, result), pod, "eth0").success();
}

/// The name of the host's end.
pub fn host_end(result: &Value) -> &str {
    result["interfaces"][0]["name"].as_str().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The lines of `ip route show`, words alone.
fn lines(place: &tests::Namespace, command: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = place.run(command).lines().map(words).filter(|line| !line.contains("fe80")).collect();
    lines.sort();
    lines
}

#[test]
fn the_state_is_the_documented_one() {
    let host = Host::new();
    let pod = host.pod();
    let result = add(&host, &dual(), &pod);
    let end = host_end(&result);
    assert_eq!(host.addresses(end), ["10.1.0.1/32", "fd00:1::1/128"]);
    assert_eq!(pod.addresses("eth0"), ["10.1.0.2/24", "fd00:1::2/64"]);
    assert_eq!(lines(&host, "ip -4 route show"), [format!("10.1.0.2 dev {end} scope host")]);
    assert!(lines(&host, "ip -6 route show").contains(&format!("fd00:1::2 dev {end} metric 1024 pref medium")));
    assert_eq!(
        lines(&pod, "ip -4 route show"),
        [
            "10.1.0.0/24 via 10.1.0.1 dev eth0 src 10.1.0.2",
            "10.1.0.1 dev eth0 scope link src 10.1.0.2",
            "default via 10.1.0.1 dev eth0"
        ]
    );
    assert_eq!(
        lines(&pod, "ip -6 route show"),
        [
            "default via fd00:1::1 dev eth0 metric 1024 pref medium",
            "fd00:1::/64 via fd00:1::1 dev eth0 src fd00:1::2 metric 1024 pref medium",
            "fd00:1::1 dev eth0 src fd00:1::2 metric 1024 pref medium"
        ]
    );
    assert_eq!(
        (host.sysctl("net/ipv4/ip_forward"), host.sysctl("net/ipv6/conf/all/forwarding")),
        ("1".into(), "1".into())
    );
    assert_eq!(host.sysctl(&format!("net/ipv6/conf/{end}/accept_ra")), "0");
    assert_eq!(host.link(end).unwrap()["ifalias"], format!("net {} eth0", pod.id()));

    let mac = |link: Option<Value>| link.unwrap()["address"].clone();
    assert_eq!(
        result,
        json!({"cniVersion": "1.0.0", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            "interfaces": [{"name": end, "mac": mac(host.link(end))},
                {"name": "eth0", "mac": pod.mac("eth0"), "sandbox": pod.path()}],
            "ips": [{"interface": 1, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
                {"interface": 1, "address": "fd00:1::2/64", "gateway": "fd00:1::1"}]})
    );
}

/// Addresses and routes of a pod and of the host, as `ip -j` shows them, the host's end called `host`.
fn picture(host: &Host, pod: &Pod, result: &Value) -> String {
    let mut facts = Vec::new();
    for (place, link) in [(&**host, host_end(result)), (&**pod, "eth0")] {
        for of_link in place.ip(&format!("address show dev {link}")).as_array().unwrap() {
            for address in of_link["addr_info"].as_array().unwrap() {
                let field = |key: &str| address[key].to_string();
                facts.push(["local", "prefixlen", "scope", "broadcast"].map(field).join(" "));
            }
        }
        facts.extend(["-4", "-6"].iter().flat_map(|family| routes(place, family)).map(|route| route.to_string()));
    }
    facts.retain(|fact| !fact.contains("fe80:"));
    facts.sort();
    facts.join("\n").replace(host_end(result), "host")
}

#[test]
fn the_state_and_the_result_are_the_references() {
    let mut wide = of(&["10.1.0.0/16", "fd00:1::/48"]);
    wide["mtu"] = 1400.into();
    let routed = json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.1"}]}});
    for conf in [v4(), dual(), wide, with(&v4(), routed), with(&dual(), json!({"cniVersion": "0.4.0"}))] {
        for which in 0..Host::new().references("ptp").len() {
            let seen = [true, false].map(|is_ours| {
                let host = Host::new();
                let pod = host.pod();
                let ptp = if is_ours { host.plugin("ptp") } else { host.references("ptp").swap_remove(which) };
                let mut result = ptp.add(&conf, &pod, "eth0").success();
                let picture = picture(&host, &pod, &result);
                let mtu = [host.link(host_end(&result)), pod.link("eth0")].map(|link| link.unwrap()["mtu"].clone());
                result.as_object_mut().unwrap().remove("interfaces");
                if result["dns"] == json!({}) {
                    result.as_object_mut().unwrap().remove("dns"); // Debian's says under 1.x, too, that it has none
                }
                (picture, result, mtu, pod.state().without("links"))
            });
            assert_eq!(seen[0].0, seen[1].0, "reference {which}: {conf}");
            assert_eq!((&seen[0].1, &seen[0].2), (&seen[1].1, &seen[1].2), "reference {which}: {conf}");
            assert_eq!(seen[0].3.difference(&seen[1].3), "", "ours is +, reference {which}: {conf}");
        }
    }
}

#[test]
fn a_pod_reaches_its_gateway_its_neighbour_and_the_internet_as_the_host() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let conf = masqueraded(backend);
        let (one, two) = (host.pod(), host.pod());
        let (before, empty) = (host.state(), one.state());
        let result = add(&host, &conf, &one);
        let second = add(&host, &conf, &two);
        let (outside, neighbour, gateway) = (internet.listen(), two.listen(), host.listen());
        for (node, peer, own, there, seen) in [
            ("10.1.0.1", "10.1.0.3", "10.1.0.2", Internet::V4, Internet::HOST_V4),
            ("fd00:1::1", "fd00:1::3", "fd00:1::2", Internet::V6, Internet::HOST_V6),
        ] {
            assert!(one.pings(node), "{node}");
            assert_eq!(one.asks(node, &gateway), Ok(address(own)), "{backend}");
            assert_eq!(one.asks(peer, &neighbour), Ok(address(own)), "{backend}");
            assert_eq!(one.asks(there, &outside), Ok(seen), "{backend}");
        }
        check(&host, &conf, &result, &one).success();
        del(&host, &conf, &result, &one);
        assert_eq!(two.asks(Internet::V4, &outside), Ok(Internet::HOST_V4), "another pod's DEL takes nothing of ours");
        check(&host, &conf, &second, &two).success();
        del(&host, &conf, &second, &two);
        del(&host, &conf, &second, &two);
        host.state().assert_same(&before);
        one.state().assert_same(&empty);
    }
}

#[test]
fn without_ip_masq_the_internet_sees_the_pod() {
    let host = Host::new();
    let internet = host.internet();
    let pod = host.pod();
    add(&host, &dual(), &pod);
    let outside = internet.listen();
    assert!(pod.asks(Internet::V4, &outside).is_err(), "the internet has no route to a pod");
    internet.run(&format!("ip route add 10.1.0.0/24 via {}", Internet::HOST_V4));
    internet.run(&format!("ip route add fd00:1::/64 via {}", Internet::HOST_V6));
    assert_eq!(pod.asks(Internet::V4, &outside), Ok(address("10.1.0.2")));
    assert_eq!(pod.asks(Internet::V6, &outside), Ok(address("fd00:1::2")));
    assert_eq!(rules(&host), [""; 0]);
}

/// An IPAM plugin that says what it is told to, in CNI_PATH before all others.
fn fake(host: &Host, lease: &str) -> (tempfile::TempDir, Value) {
    let directory = tempfile::TempDir::new().unwrap();
    let script = format!("[ $CNI_COMMAND != ADD ] || echo '{lease}'");
    crate::refusal::write_script(&directory.path().join("fake"), &script);
    host.set_sysctl("net/ipv4/ip_forward", "1");
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "ptp", "ipam": {"type": "fake"}});
    (directory, conf)
}

#[track_caller]
fn add_fake<'a>(host: &'a Host, lease: &Value, pod: &Pod) -> (Plugin<'a>, Value, Outcome, tempfile::TempDir) {
    let (directory, conf) = fake(host, &lease.to_string());
    let ptp = host.plugin("ptp").env("CNI_PATH", directory.path().display());
    let outcome = ptp.add(&conf, pod, "eth0");
    (ptp, conf, outcome, directory)
}

/// The reference's fails: it deletes a route that an address of one alone does not bring.
#[test]
fn addresses_of_one_alone_work() {
    let host = Host::new();
    let pod = host.pod();
    let before = pod.state();
    let lease = json!({"cniVersion": "1.0.0", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        "ips": [{"address": "10.1.0.2/32", "gateway": "169.254.1.1"}, {"address": "fd00:1::2/128", "gateway": "fd00:1::1"}]});
    let (ptp, conf, outcome, _directory) = add_fake(&host, &lease, &pod);
    let result = outcome.success();
    assert_eq!(pod.addresses("eth0"), ["10.1.0.2/32", "fd00:1::2/128"]);
    assert!(pod.pings("169.254.1.1") && pod.pings("fd00:1::1"));
    let known = with_prev_result(&conf, &result);
    ptp.check(&known, &pod, "eth0").success();
    ptp.del(&known, &pod, "eth0").success();
    pod.state().assert_same(&before);
    assert_eq!(links(&host, "veth"), [""; 0]);
}

#[test]
fn two_addresses_of_a_subnet_share_their_gateway() {
    let host = Host::new();
    let pod = host.pod();
    let ip = |address: &str, gateway: &str| json!({"address": address, "gateway": gateway});
    let lease = json!({"cniVersion": "1.0.0", "ips": [ip("10.1.0.2/24", "10.1.0.1"), ip("10.1.0.3/24", "10.1.0.1"),
        ip("fd00:1::2/64", "fd00:1::1"), ip("fd00:1::3/64", "fd00:1::1")]});
    let (ptp, conf, outcome, _directory) = add_fake(&host, &lease, &pod);
    let result = outcome.success();
    assert_eq!(host.addresses(host_end(&result)), ["10.1.0.1/32", "fd00:1::1/128"]);
    for address in ["10.1.0.2", "10.1.0.3", "fd00:1::2", "fd00:1::3"] {
        assert!(host.pings(address), "{address}");
    }
    ptp.check(with_prev_result(&conf, &result), &pod, "eth0").success();
}

/// mtu and advmss of a route, its table and scope: the reference does not program the first two.
#[test]
fn routes_are_programmed_as_they_are_written() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(
        &v4(),
        json!({"ipam": {"routes": [{"dst": "0.0.0.0/0", "mtu": 1300, "advmss": 1200, "priority": 50},
            {"dst": "192.0.2.0/24", "table": 5000}, {"dst": "198.18.0.0/15", "scope": 253}]}}),
    );
    let result = add(&host, &conf, &pod);
    let shown = lines(&pod, "ip -4 route show table all type unicast");
    for line in [
        "default via 10.1.0.1 dev eth0 metric 50 mtu 1300 advmss 1200",
        "192.0.2.0/24 via 10.1.0.1 dev eth0 table 5000",
        "198.18.0.0/15 dev eth0 scope link",
    ] {
        assert!(shown.iter().any(|shown| shown == line), "{line} is missing in {shown:?}");
    }
    check(&host, &conf, &result, &pod).success();
}

/// The reference waits one to three seconds for addresses that nobody else can have.
#[test]
fn ipv6_addresses_can_be_used_at_once() {
    let host = Host::new();
    let pod = host.pod();
    add(&host, &dual(), &pod);
    assert_eq!(pod.run("ip -6 address show dev eth0 scope global tentative"), "");
    pod.run("ping -n -q -c 1 -W 2 fd00:1::1");
}

#[test]
fn dns_is_ipams_unless_the_configuration_says_something() {
    let host = Host::new();
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 192.0.2.53\nsearch example.com\n").unwrap();
    let conf = with(&v4(), json!({"ipam": {"resolvConf": file}}));
    let of_ipam = json!({"nameservers": ["192.0.2.53"], "search": ["example.com"]});
    for (dns, expected) in [
        (json!({}), of_ipam.clone()),
        (json!({"nameservers": ["192.0.2.1"]}), json!({"nameservers": ["192.0.2.1"]})),
        (json!({"domain": "example.org"}), json!({"domain": "example.org"})),
        (json!({"search": []}), Value::Null),
    ] {
        let result = add(&host, &with(&conf, json!({ "dns": dns })), &host.pod());
        assert_eq!(result["dns"], expected, "{dns}");
    }
}

#[test]
fn every_version_is_spoken() {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let host = Host::new();
        let pod = host.pod();
        let conf = with(&masqueraded("nftables"), json!({"cniVersion": version}));
        let result = add(&host, &conf, &pod);
        assert_eq!(result["cniVersion"], version);
        match version {
            "0.1.0" | "0.2.0" => {
                let ip4 = json!({"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]});
                assert_eq!((&result["ip4"], &result["ip6"]["ip"]), (&ip4, &json!("fd00:1::2/64")));
            }
            _ => assert_eq!(result["ips"][1]["interface"], 1, "{result}"),
        }
        let outcome = check(&host, &conf, &result, &pod);
        let has_check = ["0.4.0", "1.0.0", "1.1.0"].contains(&version);
        assert_eq!(outcome.status, Some(i32::from(!has_check)), "{version}\n{outcome}");
        del(&host, &conf, &result, &pod);
        assert_eq!((rules(&host), leases(&host), links(&host, "veth")), (vec![], vec![], vec![]), "{version}");
    }
}

#[test]
fn status_is_that_of_ipam() {
    let host = Host::new();
    let conf = with(&v4(), json!({"cniVersion": "1.1.0"}));
    host.plugin("ptp").status(&conf).success();
    assert_eq!(host.plugin("ptp").status(with(&conf, json!({"ipam": {"type": "missing"}}))).status, Some(1));
    assert_eq!(host.plugin("ptp").status(with(&conf, json!({"ipam": null}))).code(), 7);
    host.plugin("ptp").gc(with(&conf, json!({"cni.dev/valid-attachments": []}))).success();
}

/// The namespace is gone, or its path alone while a process holds it: rules, lease and pair go all the same.
#[test]
fn del_needs_no_namespace() {
    for backend in BACKENDS {
        for held in [false, true] {
            let host = Host::new();
            host.internet();
            let before = host.state();
            let mut pod = host.pod();
            let conf = masqueraded(backend);
            let result = add(&host, &conf, &pod);
            let holder = held.then(|| (*pod).clone());
            pod.destroy();
            for _ in 0..2 {
                del(&host, &conf, &result, &pod);
            }
            host.state().assert_same(&before);
            drop(holder);
        }
    }
}

/// The link is gone: the reference leaves the rules.
#[test]
fn del_needs_no_link_and_no_good_configuration() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let before = host.state();
        let pod = host.pod();
        let conf = masqueraded(backend);
        let result = add(&host, &conf, &pod);
        pod.run("ip link delete eth0");
        let broken = with(&conf, json!({"ipMasqBackend": "foo", "mtu": -1, "ipMasq": null}));
        del(&host, &broken, &result, &pod);
        host.state().assert_same(&before);
        drop(internet);
    }
}

/// Two interfaces of one container on one network: each has its routes and its masquerade.
#[test]
fn two_interfaces_of_a_container_keep_their_masquerade_apart() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let conf = with(&masqueraded(backend), json!({"ipam": {"routes": []}}));
        let pod = host.pod();
        let ptp = host.plugin("ptp");
        let first = ptp.add(&conf, &pod, "eth0").success();
        ptp.add(&conf, &pod, "eth1").success();
        ptp.del(with_prev_result(&conf, &first), &pod, "eth0").success();
        pod.run("ip route add default via 10.1.0.1 dev eth1");
        assert_eq!(pod.asks(Internet::V4, &internet.listen()), Ok(Internet::HOST_V4), "{backend}");
        ptp.del(&conf, &pod, "eth1").success();
        assert_eq!((rules(&host), leases(&host)), (vec![], vec![]), "{backend}");
    }
}
