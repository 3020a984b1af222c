//! What a network may say beside `ipMasq`: the rules are those that `nft` and iptables themselves would write.

use hostnet::masquerade::{self, Backend, Policy};
use libcni::types::Cidr;

use super::lab::*;

const ADDRS: [&str; 2] = ["10.1.2.14/24", "2001:db8:1::e/64"];
const CHAIN: &str = "CNI-2fbf118d4cafd020f013271b";

fn policy(exempt: &[&str], sources: &[&str], random_fully: bool) -> Policy {
    let exempt = exempt.iter().map(|text| text.parse::<Cidr>().unwrap().network()).collect();
    Policy { exempt, sources: sources.iter().map(|text| text.parse().unwrap()).collect(), random_fully }
}

/// Each with what `nft` is told after the pod's own network, for the two of [`ADDRS`].
fn policies() -> Vec<(Policy, [&'static str; 2])> {
    vec![
        (PLAIN, ["masquerade"; 2]),
        (policy(&[], &[], true), ["masquerade fully-random"; 2]),
        (policy(&["10.0.0.0/8"], &[], false), ["ip daddr != 10.0.0.0/8 masquerade", "masquerade"]),
        (
            policy(&["10.9.0.0/20", "2001:db8::/33"], &[], true),
            ["ip daddr != 10.9.0.0/20 masquerade fully-random", "ip6 daddr != 2001:db8::/33 masquerade fully-random"],
        ),
        (
            policy(
                &["192.168.0.0/16", "10.0.0.0/8", "240.0.0.0/4", "fd00::/8", "ff00::/8", "2001:db8::/32"],
                &[],
                false,
            ),
            [
                "ip daddr != { 10.0.0.0/8, 192.168.0.0/16, 240.0.0.0/4 } masquerade",
                "ip6 daddr != { 2001:db8::/32, fd00::/8, ff00::/8 } masquerade",
            ],
        ),
        (
            policy(&["10.0.0.0/8", "10.7.0.0/16", "11.0.0.0/8", "12.0.0.0/8", "192.0.2.7/32"], &[], false),
            ["ip daddr != { 10.0.0.0-12.255.255.255, 192.0.2.7 } masquerade", "masquerade"],
        ),
        (policy(&[], &["192.0.2.1", "2001:db8::1"], false), ["snat ip to 192.0.2.1", "snat ip6 to 2001:db8::1"]),
        (
            policy(&["10.0.0.0/8", "172.16.0.0/12"], &["192.0.2.1"], true),
            ["ip daddr != { 10.0.0.0/8, 172.16.0.0/12 } snat ip to 192.0.2.1 fully-random", "masquerade fully-random"],
        ),
    ]
}

const FRAME: &str = r#"
add table inet cni_plugins_masquerade { comment "Masquerading for plugins from github.com/containernetworking/plugins" ; }
add chain inet cni_plugins_masquerade masq_checks { comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet" ; }
add chain inet cni_plugins_masquerade postrouting { type nat hook postrouting priority 100 ; }
add rule inet cni_plugins_masquerade postrouting ip daddr == 224.0.0.0/4  return
add rule inet cni_plugins_masquerade postrouting ip6 daddr == ff00::/8  return
add rule inet cni_plugins_masquerade postrouting goto masq_checks
"#;

fn script([v4, v6]: [&str; 2]) -> String {
    let mut script = FRAME.to_owned();
    for (what, rest) in [
        ("ip saddr 10.1.2.14 ip daddr != 10.1.2.0/24", v4),
        ("ip6 saddr 2001:db8:1::e ip6 daddr != 2001:db8:1::/64", v6),
    ] {
        script.push_str(&format!(
            "add rule inet cni_plugins_masquerade masq_checks {what} {rest} \
             comment \"bb82bb83e4c2720d-7883a6f9ce71eedb, net: brnet, if: eth0, id: ctr1\"\n"
        ));
    }
    script
}

#[test]
fn the_nftables_rules_are_those_of_nft() {
    for (policy, rest) in policies() {
        let wanted = ruleset_of(&script(rest));
        in_namespace(|| {
            let addrs = cidrs(&ADDRS);
            masquerade::add(&ctr1(), Some(Backend::Nftables), &policy, &addrs).unwrap();
            assert_eq!(ruleset(), wanted, "{policy:?}");
            // As nft restores it after a reboot.
            let saved = run("nft", &["list", "ruleset"]);
            feed("nft", &["-f", "-"], &format!("flush ruleset\n{saved}"));
            masquerade::check(&ctr1(), Some(Backend::Nftables), &policy, &addrs).unwrap();
            masquerade::remove(&ctr1(), &[]).unwrap();
            assert!(
                !ruleset().iter().any(|object| object.to_string().contains("id: ctr1") || object.get("set").is_some())
            );
        });
    }
}

#[test]
fn what_nft_made_is_checked_and_what_differs_is_noticed() {
    for (index, (_, rest)) in policies().iter().enumerate() {
        in_namespace(|| {
            feed("nft", &["-f", "-"], &script(*rest));
            differs_from_all_others(index, Backend::Nftables);
        });
    }
}

/// The state is that of one policy: its CHECK passes, and that of every other one does not.
fn differs_from_all_others(index: usize, backend: Backend) {
    for (other, (policy, _)) in policies().iter().enumerate() {
        let outcome = masquerade::check(&ctr1(), Some(backend), policy, &cidrs(&ADDRS));
        assert_eq!(outcome.is_ok(), other == index, "made {index}, checked {other}: {outcome:?}");
    }
}

fn iptables_are_checked_and_removed() {
    let all = policies();
    for (index, (policy, _)) in all.iter().enumerate() {
        in_namespace(|| {
            masquerade::add(&ctr1(), Some(Backend::Iptables), policy, &cidrs(&ADDRS)).unwrap();
            differs_from_all_others(index, Backend::Iptables);
            masquerade::remove(&ctr1(), &[]).unwrap();
            assert_eq!(iptables_nat(), [""; 0]);
        });
    }
    in_namespace(|| {
        let (policy, _) = &all[7];
        masquerade::add(&ctr1(), Some(Backend::Iptables), policy, &cidrs(&ADDRS)).unwrap();
        let comment = r#"-m comment --comment "name: \"brnet\" id: \"ctr1\"""#;
        let exempt = "-m comment --comment nonMasqueradeCIDRs -j ACCEPT";
        let wanted = [
            format!(":{CHAIN} - [0:0]"),
            format!("-A POSTROUTING -s 10.1.2.14/32 {comment} -j {CHAIN}"),
            format!("-A {CHAIN} -d 10.1.2.0/24 {comment} -j ACCEPT"),
            format!("-A {CHAIN} -d 10.0.0.0/8 {exempt}"),
            format!("-A {CHAIN} -d 172.16.0.0/12 {exempt}"),
            format!("-A {CHAIN} ! -d 224.0.0.0/4 {comment} -j SNAT --to-source 192.0.2.1 --random-fully"),
            format!(":{CHAIN} - [0:0]"),
            format!("-A POSTROUTING -s 2001:db8:1::e/128 {comment} -j {CHAIN}"),
            format!("-A {CHAIN} -d 2001:db8:1::/64 {comment} -j ACCEPT"),
            format!("-A {CHAIN} ! -d ff00::/8 {comment} -j MASQUERADE --random-fully"),
        ];
        assert_eq!(iptables_nat(), wanted);
        // As iptables restores it after a reboot.
        let saved = run("iptables-save", &["-t", "nat"]);
        feed("iptables-restore", &[], &saved);
        masquerade::check(&ctr1(), Some(Backend::Iptables), policy, &cidrs(&ADDRS)).unwrap();
    });
}

#[test]
fn the_iptables_rules_are_checked_and_removed() {
    iptables_are_checked_and_removed();
}

#[test]
fn the_rules_of_legacy_iptables_are_checked_and_removed() {
    let test = "masquerade_policy::the_rules_of_legacy_iptables_are_checked_and_removed";
    if in_process_with_programs(test, super::iptables_legacy::legacy) {
        iptables_are_checked_and_removed();
    }
}

/// The chain that two interfaces share says what the newest ADD found; the other's own network stays in it.
#[test]
fn the_newest_add_decides_for_the_chain_of_two_interfaces() {
    in_namespace(|| {
        let (eth0, eth1, backend) = (ctr1(), owner("brnet", "ctr1", "eth1"), Some(Backend::Iptables));
        let (first, second) = (cidrs(&["10.1.2.14/24"]), cidrs(&["10.7.2.15/24"]));
        let (old, new) = (policy(&["10.0.0.0/8", "192.168.0.0/16"], &[], false), policy(&["10.0.0.0/8"], &[], true));
        masquerade::add(&eth0, backend, &old, &first).unwrap();
        masquerade::add(&eth1, backend, &new, &second).unwrap();
        masquerade::check(&eth0, backend, &new, &first).unwrap();
        masquerade::check(&eth1, backend, &new, &second).unwrap();
        masquerade::check(&eth0, backend, &old, &first).unwrap_err();
        let chain =
            iptables_nat().into_iter().filter(|rule| rule.starts_with(&format!("-A {CHAIN}"))).collect::<Vec<_>>();
        assert_eq!(chain.len(), 4, "{chain:?}");
        assert!(chain[3].ends_with("-j MASQUERADE --random-fully"), "{chain:?}");
        masquerade::remove(&eth0, &[second[0].addr()]).unwrap();
        masquerade::check(&eth1, backend, &new, &second).unwrap();
        masquerade::remove(&eth1, &[]).unwrap();
        assert_eq!(iptables_nat(), [""; 0]);
    });
}

/// The reference's defect: the exemption of the second network stands behind the rule that masquerades.
#[test]
fn a_second_network_of_a_pod_is_exempt_too() {
    in_namespace(|| {
        let addrs = cidrs(&["10.1.2.14/24", "10.7.2.14/24"]);
        masquerade::add(&ctr1(), Some(Backend::Iptables), &PLAIN, &addrs).unwrap();
        let rules = iptables_nat();
        let position = |text: &str| rules.iter().position(|rule| rule.contains(text)).unwrap();
        assert!(position("-d 10.7.2.0/24") < position("MASQUERADE"), "{rules:?}");
        masquerade::check(&ctr1(), Some(Backend::Iptables), &PLAIN, &addrs).unwrap();
    });
}

/// A rule that somebody put behind the one that changes the packets does nothing.
#[test]
fn an_exemption_behind_the_masquerade_is_none() {
    in_namespace(|| {
        let (wanted, addrs) = (policy(&["10.0.0.0/8"], &[], false), cidrs(&ADDRS[..1]));
        masquerade::add(&ctr1(), Some(Backend::Iptables), &wanted, &addrs).unwrap();
        let exempt: Vec<_> =
            "CHAIN -d 10.0.0.0/8 -m comment --comment nonMasqueradeCIDRs -j ACCEPT".split(' ').collect();
        for command in ["-D", "-A"] {
            let mut args = vec!["-t", "nat", command, CHAIN];
            args.extend(&exempt[1..]);
            run("iptables", &args);
            let error = masquerade::check(&ctr1(), Some(Backend::Iptables), &wanted, &addrs).unwrap_err().to_string();
            let said = if command == "-D" { "lacks the rule" } else { "not to be there" };
            assert!(error.contains(said), "{error}");
        }
    });
}

/// A thousand networks are one set, in several messages.
#[test]
fn long_lists() {
    in_namespace(|| {
        let texts: Vec<String> = (0..1500)
            .map(|n| format!("2001:db8:{n:x}::/64"))
            .chain((0..1500).map(|n| format!("10.{}.{}.0/25", n / 200, n % 200)))
            .collect();
        let many = policy(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &[], false);
        for backend in [Backend::Nftables, Backend::Iptables] {
            masquerade::add(&ctr1(), Some(backend), &many, &cidrs(&ADDRS)).unwrap();
            masquerade::check(&ctr1(), Some(backend), &many, &cidrs(&ADDRS)).unwrap();
            let mut fewer = many.clone();
            fewer.exempt.pop_last();
            masquerade::check(&ctr1(), Some(backend), &fewer, &cidrs(&ADDRS)).unwrap_err();
            masquerade::remove(&ctr1(), &[]).unwrap();
        }
    });
}
