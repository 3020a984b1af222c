//! ipMasq: whose address the internet sees, the rules as the reference writes them, and who owns them.

use std::net::IpAddr;

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Echo, Host, Internet, Pod};

use crate::bridge_conf::{
    FIRST_V4, FIRST_V6, add, check, del, dual, hide_firewall_programs, masqueraded, of, rules, show_firewall_programs,
    v4, with,
};

pub const BACKENDS: [&str; 2] = ["iptables", "nftables"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the internet sees of a pod, in both families.
fn seen(pod: &Pod, outside: &Echo) -> [Result<IpAddr, String>; 2] {
    [Internet::V4, Internet::V6].map(|internet| pod.asks(internet, outside))
}

const AS_THE_HOST: [Result<IpAddr, String>; 2] = [Ok(Internet::HOST_V4), Ok(Internet::HOST_V6)];

#[test]
fn the_internet_sees_the_host_and_the_neighbours_see_the_pod() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let conf = masqueraded(backend);
        let (one, two) = (host.pod(), host.pod());
        let result = add(&host, &conf, &one);
        add(&host, &conf, &two);
        let outside = internet.listen();
        assert_eq!(seen(&one, &outside), AS_THE_HOST, "{backend}");
        let neighbour = two.listen();
        assert_eq!(one.asks("10.1.0.3", &neighbour), Ok(address(FIRST_V4)), "{backend}");
        assert_eq!(one.asks("fd00:1::3", &neighbour), Ok(address(FIRST_V6)), "{backend}");
        let gateway = host.listen();
        assert_eq!(one.asks("10.1.0.1", &gateway), Ok(address(FIRST_V4)), "{backend}");
        assert_eq!(one.asks("fd00:1::1", &gateway), Ok(address(FIRST_V6)), "{backend}");
        check(&host, &conf, &result, &one).success();
        del(&host, &conf, &result, &one);
        assert_eq!(seen(&two, &outside), AS_THE_HOST, "{backend}: another pod's DEL takes nothing of ours");
    }
}

#[test]
fn without_ip_masq_the_internet_sees_the_pod() {
    let host = Host::new();
    let internet = host.internet();
    let pod = host.pod();
    add(&host, &dual(), &pod);
    let outside = internet.listen();
    assert!(seen(&pod, &outside).iter().all(Result::is_err), "the internet has no route to a pod");
    internet.run(&format!("ip route add 10.1.0.0/24 via {}", Internet::HOST_V4));
    internet.run(&format!("ip route add fd00:1::/64 via {}", Internet::HOST_V6));
    assert_eq!(seen(&pod, &outside), [Ok(address(FIRST_V4)), Ok(address(FIRST_V6))]);
    assert_eq!(rules(&host), [""; 0]);
}

/// The reference's documented example: network `brnet`, container `ctr1`, 10.1.2.2 and 2001:db8:1::2.
fn documented(backend: &str) -> (Host, Pod, Value) {
    let host = Host::new();
    let pod = host.pod();
    let conf = of(&["10.1.2.0/24", "2001:db8:1::/64"]);
    let conf = with(&conf, json!({"name": "brnet", "ipMasq": true, "ipMasqBackend": backend}));
    host.plugin("bridge").env("CNI_CONTAINERID", "ctr1").add(&conf, &pod, "eth0").success();
    (host, pod, conf)
}

#[test]
fn the_iptables_rules_are_the_references_and_multicast_is_exempt() {
    let (host, pod, conf) = documented("iptables");
    let chain = "CNI-2fbf118d4cafd020f013271b";
    let comment = r#"-m comment --comment "name: \"brnet\" id: \"ctr1\"""#;
    for (program, address, subnet, multicast) in [
        ("iptables-save", "10.1.2.2/32", "10.1.2.0/24", "224.0.0.0/4"),
        ("ip6tables-save", "2001:db8:1::2/128", "2001:db8:1::/64", "ff00::/8"),
    ] {
        let saved = host.run(&format!("{program} -t nat"));
        let ours: Vec<&str> = saved.lines().filter(|line| line.starts_with("-A") && line.contains(chain)).collect();
        let expected = [
            format!("-A POSTROUTING -s {address} {comment} -j {chain}"),
            format!("-A {chain} -d {subnet} {comment} -j ACCEPT"),
            format!("-A {chain} ! -d {multicast} {comment} -j MASQUERADE"),
        ];
        assert_eq!(ours, expected);
    }
    host.plugin("bridge").env("CNI_CONTAINERID", "ctr1").del(&conf, &pod, "eth0").success();
    assert_eq!(rules(&host), [""; 0]);
}

#[test]
fn the_nftables_rules_are_the_references_and_multicast_is_exempt() {
    let (host, pod, conf) = documented("nftables");
    let table = host.run("nft list table inet cni_plugins_masquerade");
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let comment = r#"comment "bb82bb83e4c2720d-7883a6f9ce71eedb, net: brnet, if: eth0, id: ctr1""#;
    for line in [
        r#"comment "Masquerading for plugins from github.com/containernetworking/plugins""#,
        r#"comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet""#,
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip daddr 224.0.0.0/4 return",
        "ip6 daddr ff00::/8 return",
        "goto masq_checks",
        &format!("ip saddr 10.1.2.2 ip daddr != 10.1.2.0/24 masquerade {comment}"),
        &format!("ip6 saddr 2001:db8:1::2 ip6 daddr != 2001:db8:1::/64 masquerade {comment}"),
    ] {
        assert!(lines.contains(&line), "{line} is missing in\n{table}");
    }
    let position = |line: &str| lines.iter().position(|found| *found == line).unwrap();
    assert!(position("ip6 daddr ff00::/8 return") < position("goto masq_checks"), "{table}");
    host.plugin("bridge").env("CNI_CONTAINERID", "ctr1").del(&conf, &pod, "eth0").success();
    assert_eq!(rules(&host), [""; 0]);
}

#[test]
fn the_chain_of_rkt_has_the_name_it_always_had() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&v4(), json!({"name": "rkt.kubernetes.io", "ipMasq": true}));
    let container = "328287949eb4d4483a3a8035d65cc326417ae7384270844e59c2f4e963d87e18";
    let bridge = host.plugin("bridge").env("CNI_CONTAINERID", container);
    bridge.add(&conf, &pod, "eth0").success();
    let saved = host.run("iptables-save -t nat");
    assert!(saved.contains(":CNI-25df152800e33f7b16fc085a "), "{saved}");
    bridge.del(&conf, &pod, "eth0").success();
}

/// Unset: iptables where it is usable, else nftables, for which no program is needed.
#[test]
fn the_backend_is_chosen_as_the_reference_chooses() {
    for iptables in [true, false] {
        let host = Host::new();
        let internet = host.internet();
        let pod = host.pod();
        let conf = with(&dual(), json!({"ipMasq": true}));
        if !iptables {
            hide_firewall_programs(&host);
        }
        let result = add(&host, &conf, &pod);
        check(&host, &conf, &result, &pod).success();
        assert_eq!(seen(&pod, &internet.listen()), AS_THE_HOST);
        if !iptables {
            show_firewall_programs(&host);
        }
        let made = rules(&host);
        assert_eq!(made.iter().any(|rule| rule.contains("masq_checks")), !iptables, "{made:?}");
        assert_eq!(made.iter().any(|rule| rule.contains("CNI-")), iptables, "{made:?}");
        if !iptables {
            hide_firewall_programs(&host);
        }
        del(&host, &conf, &result, &pod);
        if !iptables {
            show_firewall_programs(&host);
        }
        assert_eq!(rules(&host), [""; 0]);
    }
}

/// Reference defect 7: the two share a chain, and the first DEL emptied it.
#[test]
fn two_interfaces_of_a_container_keep_their_masquerade_apart() {
    for backend in BACKENDS {
        for (first, second) in [("eth0", "eth1"), ("eth1", "eth0")] {
            let host = Host::new();
            let internet = host.internet();
            let conf = with(&masqueraded(backend), json!({"isDefaultGateway": false, "isGateway": true}));
            let pod = host.pod();
            let bridge = host.plugin("bridge");
            let results = ["eth0", "eth1"].map(|ifname| bridge.add(&conf, &pod, ifname).success());
            let prev = |ifname: &str| with_prev_result(&conf, &results[usize::from(ifname == "eth1")]);
            bridge.del(prev(first), &pod, first).success();
            bridge.check(prev(second), &pod, second).success();
            pod.run(&format!("ip route add default via 10.1.0.1 dev {second}"));
            pod.run(&format!("ip -6 route add default via fd00:1::1 dev {second}"));
            assert_eq!(seen(&pod, &internet.listen()), AS_THE_HOST, "{backend}, {first} deleted");
            bridge.del(prev(second), &pod, second).success();
            assert_eq!(rules(&host), [""; 0], "{backend}, {first} deleted first");
        }
    }
}

/// A pod that is gone without a DEL, and its successor has its name: what the two left goes with one DEL.
#[test]
fn rules_of_an_earlier_life_go_with_those_of_the_next() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let conf = masqueraded(backend);
        let mut first = host.pod();
        let bridge = host.plugin("bridge").env("CNI_CONTAINERID", first.id());
        bridge.add(&conf, &first, "eth0").success();
        first.destroy();
        let second = host.pod();
        let result = bridge.add(&conf, &second, "eth0").success();
        bridge.check(with_prev_result(&conf, &result), &second, "eth0").success();
        assert_eq!(seen(&second, &internet.listen()), AS_THE_HOST, "{backend}");
        bridge.del(with_prev_result(&conf, &result), &second, "eth0").success();
        assert_eq!(rules(&host), [""; 0], "{backend}");
    }
}
