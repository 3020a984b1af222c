//! The iptables that keeps its rules in tables of its own.

use std::os::unix::fs::symlink;

use hostnet::masquerade::{self, Backend};

use super::lab::*;

/// Makes `iptables` the legacy one.
pub fn legacy(dir: &std::path::Path) {
    for version in ["iptables", "ip6tables"] {
        for suffix in ["", "-restore", "-save"] {
            symlink("/usr/sbin/xtables-legacy-multi", dir.join(format!("{version}{suffix}"))).unwrap();
        }
    }
}

#[test]
fn rules_are_added_checked_kept_and_removed() {
    if !in_process_with_programs("iptables_legacy::rules_are_added_checked_kept_and_removed", legacy) {
        return;
    }
    in_namespace(|| {
        let (eth0, eth1) = (ctr1(), owner("brnet", "ctr1", "eth1"));
        let (first, second) = (cidrs(&["10.1.2.14/24", "2001:db8:1::e/64"]), cidrs(&["10.1.2.15/24"]));
        let names = || std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap();
        masquerade::remove(&eth0, &[]).unwrap();
        assert_eq!(names(), "", "DEL makes no table");

        masquerade::add(&eth0, Some(Backend::Iptables), &PLAIN, &first).unwrap();
        masquerade::add(&eth0, None, &PLAIN, &first).unwrap();
        masquerade::add(&eth1, None, &PLAIN, &second).unwrap();
        assert_eq!(names(), "nat\n");
        assert!(ruleset().is_empty(), "nothing in nf_tables");
        let comment = r#"-m comment --comment "name: \"brnet\" id: \"ctr1\"""#;
        let chain = "CNI-2fbf118d4cafd020f013271b";
        let wanted = vec![
            format!(":{chain} - [0:0]"),
            format!("-A POSTROUTING -s 10.1.2.14/32 {comment} -j {chain}"),
            format!("-A POSTROUTING -s 10.1.2.15/32 {comment} -j {chain}"),
            format!("-A {chain} -d 10.1.2.0/24 {comment} -j ACCEPT"),
            format!("-A {chain} ! -d 224.0.0.0/4 {comment} -j MASQUERADE"),
            format!(":{chain} - [0:0]"),
            format!("-A POSTROUTING -s 2001:db8:1::e/128 {comment} -j {chain}"),
            format!("-A {chain} -d 2001:db8:1::/64 {comment} -j ACCEPT"),
            format!("-A {chain} ! -d ff00::/8 {comment} -j MASQUERADE"),
        ];
        assert_eq!(iptables_nat(), wanted);
        masquerade::check(&eth0, None, &PLAIN, &first).unwrap();

        masquerade::remove(&eth0, &[second[0].addr()]).unwrap();
        masquerade::check(&eth1, Some(Backend::Iptables), &PLAIN, &second).unwrap();
        masquerade::check(&eth0, Some(Backend::Iptables), &PLAIN, &first).unwrap_err();
        masquerade::remove(&eth1, &[]).unwrap();
        masquerade::remove(&eth1, &[]).unwrap();
        assert_eq!(iptables_nat(), Vec::<String>::new());
    });
}

/// The flavour may have changed since ADD: what the one keeps is found beside the other.
#[test]
fn rules_of_both_flavours_are_removed_whichever_is_called_iptables() {
    for flavour in ["legacy", "nft"] {
        in_namespace(|| {
            let chain = ctr1().iptables_chain();
            let rules =
                format!("*nat\n-N {chain}\n-A {chain} -j ACCEPT\n-A POSTROUTING -s 10.1.2.14 -j {chain}\nCOMMIT\n");
            feed(&format!("iptables-{flavour}-restore"), &["--noflush"], &rules);
            masquerade::remove(&ctr1(), &[]).unwrap();
            let left = run(&format!("iptables-{flavour}-save"), &["-t", "nat"]);
            assert!(!left.contains("CNI-"), "{flavour}: {left}");
        });
    }
}
