//! Masquerade rules of both backends: the reference's to the letter, found by it and by us.
//!
//! GC is not here ("removes only what is stale", "of another network removes nothing", "an empty list removes all"): no plugin
//! of ours collects masquerade rules yet, and bridge's GC does nothing, as its README says.

use super::lab::*;
use std::path::Path;

use hostnet::masquerade::{self, Backend};

const ADDRS: [&str; 2] = ["10.1.2.14/24", "2001:db8:1::e/64"];

/// What the reference feeds to `nft` for the first pod of a node.
const NFT_SCRIPT: &str = r#"
add table inet cni_plugins_masquerade { comment "Masquerading for plugins from github.com/containernetworking/plugins" ; }
add chain inet cni_plugins_masquerade masq_checks { comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet" ; }
add chain inet cni_plugins_masquerade postrouting { type nat hook postrouting priority 100 ; }
flush chain inet cni_plugins_masquerade postrouting
add rule inet cni_plugins_masquerade postrouting ip daddr == 224.0.0.0/4  return
add rule inet cni_plugins_masquerade postrouting ip6 daddr == ff00::/8  return
add rule inet cni_plugins_masquerade postrouting goto masq_checks
"#;

fn nft_rule(version: &str, addr: &str, network: &str) -> String {
    format!(
        "add rule inet cni_plugins_masquerade masq_checks {version} saddr == {addr} {version} daddr != {network} masquerade \
         comment \"bb82bb83e4c2720d-7883a6f9ce71eedb, net: brnet, if: eth0, id: ctr1\"\n"
    )
}

/// What the reference's rules for `ctr1` and [`ADDRS`] are listed as.
fn saved_rules() -> Vec<String> {
    let chain = "CNI-2fbf118d4cafd020f013271b";
    let comment = r#"-m comment --comment "name: \"brnet\" id: \"ctr1\"""#;
    vec![
        format!(":{chain} - [0:0]"),
        format!("-A POSTROUTING -s 10.1.2.14/32 {comment} -j {chain}"),
        format!("-A {chain} -d 10.1.2.0/24 {comment} -j ACCEPT"),
        format!("-A {chain} ! -d 224.0.0.0/4 {comment} -j MASQUERADE"),
        format!(":{chain} - [0:0]"),
        format!("-A POSTROUTING -s 2001:db8:1::e/128 {comment} -j {chain}"),
        format!("-A {chain} -d 2001:db8:1::/64 {comment} -j ACCEPT"),
        format!("-A {chain} ! -d ff00::/8 {comment} -j MASQUERADE"),
    ]
}

fn add(backend: Backend, addrs: &[&str]) {
    masquerade::add(&ctr1(), Some(backend), &PLAIN, &cidrs(addrs)).unwrap();
}

#[test]
fn nftables_rules_are_the_references() {
    let script = format!(
        "{NFT_SCRIPT}{}{}{}{}",
        nft_rule("ip", "10.1.2.14", "10.1.2.0/24"),
        nft_rule("ip6", "2001:db8:1::e", "2001:db8:1::/64"),
        nft_rule("ip", "10.1.2.15", "10.1.0.0/22"),
        nft_rule("ip6", "2001:db8:1::f", "2001:db8:1::/61"),
    );
    let wanted = ruleset_of(&script);
    let ours = in_namespace(|| {
        add(Backend::Nftables, &["10.1.2.14/24", "2001:db8:1::e/64", "10.1.2.15/22", "2001:db8:1::f/61"]);
        ruleset()
    });
    assert_eq!(ours, wanted);
}

#[test]
fn iptables_rules_are_the_references() {
    in_namespace(|| {
        add(Backend::Iptables, &ADDRS);
        assert_eq!(iptables_nat(), saved_rules());
        let (v4, chain) = (iptables::new(false).unwrap(), "CNI-2fbf118d4cafd020f013271b");
        assert!(v4.chain_exists("nat", chain).unwrap());
        let listed = [v4.list("nat", "POSTROUTING").unwrap(), v4.list("nat", chain).unwrap()].concat();
        let rules = saved_rules();
        assert!(rules[1..4].iter().all(|rule| listed.contains(rule)), "{listed:?}");
    });
}

#[test]
fn added_checked_and_removed() {
    for backend in [Backend::Iptables, Backend::Nftables] {
        in_namespace(|| {
            let addrs = cidrs(&ADDRS);
            // What the first pod of a node makes and no pod takes away.
            add(backend, &ADDRS);
            masquerade::remove(&ctr1(), &[]).unwrap();
            let before = ruleset();
            masquerade::check(&ctr1(), Some(backend), &PLAIN, &addrs).unwrap_err();

            masquerade::add(&ctr1(), Some(backend), &PLAIN, &addrs).unwrap();
            masquerade::check(&ctr1(), Some(backend), &PLAIN, &addrs).unwrap();
            masquerade::check(&ctr1(), None, &PLAIN, &addrs).unwrap();
            masquerade::check(&ctr1(), None, &PLAIN, &cidrs(&["10.1.2.15/24"])).unwrap_err();
            masquerade::check(&ctr1(), Some(backend), &PLAIN, &cidrs(&["10.1.2.14/16"])).unwrap_err();
            let other = if backend == Backend::Iptables { Backend::Nftables } else { Backend::Iptables };
            masquerade::check(&ctr1(), Some(other), &PLAIN, &addrs).unwrap_err();
            masquerade::remove(&ctr1(), &[]).unwrap();
            masquerade::remove(&ctr1(), &[]).unwrap();
            assert_eq!(ruleset(), before, "{backend:?}");
        });
    }
}

#[test]
fn nothing_to_remove() {
    in_namespace(|| {
        masquerade::remove(&ctr1(), &[]).unwrap();
        assert!(ruleset().is_empty(), "DEL makes no table");
    });
}

#[test]
fn a_repeated_add_leaves_nothing_behind() {
    for backend in [Backend::Iptables, Backend::Nftables] {
        in_namespace(|| {
            add(backend, &ADDRS);
            add(backend, &ADDRS);
            add(backend, &["10.1.2.15/24"]);
            add(backend, &["10.9.2.15/24"]);
            masquerade::check(&ctr1(), Some(backend), &PLAIN, &cidrs(&ADDRS)).unwrap();
            masquerade::check(&ctr1(), Some(backend), &PLAIN, &cidrs(&["10.9.2.15/24"])).unwrap();
            masquerade::remove(&ctr1(), &[]).unwrap();
            assert!(!run("nft", &["list", "ruleset"]).contains("masquerade comment"));
            assert_eq!(iptables_nat(), Vec::<String>::new());
        });
    }
}

#[test]
fn a_repeated_iptables_add_adds_what_is_missing_and_no_more() {
    in_namespace(|| {
        add(Backend::Iptables, &ADDRS);
        add(Backend::Iptables, &ADDRS);
        assert_eq!(iptables_nat(), saved_rules());
        run("iptables", &["-t", "nat", "-F", "POSTROUTING"]);
        add(Backend::Iptables, &ADDRS);
        assert_eq!(iptables_nat(), saved_rules());
    });
}

#[test]
fn pods_do_not_touch_each_other() {
    for backend in [Backend::Iptables, Backend::Nftables] {
        in_namespace(|| {
            let (one, two) = (ctr1(), owner("brnet", "ctr2", "eth0"));
            let addrs = cidrs(&ADDRS);
            masquerade::add(&one, Some(backend), &PLAIN, &addrs).unwrap();
            let alone = ruleset();
            // The same addresses: the next pod may have them before the last one's DEL.
            masquerade::add(&two, Some(backend), &PLAIN, &addrs).unwrap();
            masquerade::remove(&two, &[]).unwrap();
            assert_eq!(ruleset(), alone, "{backend:?}");
            masquerade::check(&one, Some(backend), &PLAIN, &addrs).unwrap();
        });
    }
}

/// The reference's defect: the chain is named after network and container alone, and DEL of one
/// interface takes the other's masquerade away.
#[test]
fn two_interfaces_of_a_pod_on_one_network_share_a_chain() {
    in_namespace(|| {
        let (eth0, eth1) = (ctr1(), owner("brnet", "ctr1", "eth1"));
        let (first, second) = (cidrs(&["10.1.2.14/24"]), cidrs(&["10.1.2.15/24", "2001:db8:1::f/64"]));
        masquerade::add(&eth0, Some(Backend::Iptables), &PLAIN, &first).unwrap();
        masquerade::add(&eth1, Some(Backend::Iptables), &PLAIN, &second).unwrap();
        masquerade::remove(&eth1, &[first[0].addr()]).unwrap();
        masquerade::check(&eth0, Some(Backend::Iptables), &PLAIN, &first).unwrap();
        masquerade::check(&eth1, Some(Backend::Iptables), &PLAIN, &second).unwrap_err();
        assert!(!iptables_nat().iter().any(|rule| rule.contains("10.1.2.15") || rule.contains("2001:db8")));
        masquerade::remove(&eth0, &[]).unwrap();
        assert_eq!(iptables_nat(), Vec::<String>::new());
    });
}

/// Old versions of the reference jumped for the whole network.
#[test]
fn the_old_form_is_removed_too() {
    in_namespace(|| {
        let chain = ctr1().iptables_chain();
        let rules = format!(
            "*nat\n-N {chain}\n-A {chain} -d 10.1.2.0/24 -j ACCEPT\n-A {chain} ! -d 224.0.0.0/4 -j MASQUERADE\n\
             -A POSTROUTING -s 10.1.2.14/24 -j {chain} -m comment --comment \"old\"\n-A POSTROUTING -s 10.7.0.0/22 -j {chain}\nCOMMIT\n"
        );
        feed("iptables-restore", &["--noflush"], &rules);
        masquerade::remove(&ctr1(), &["10.1.2.15".parse().unwrap()]).unwrap();
        assert_eq!(iptables_nat().iter().filter(|rule| rule.starts_with("-A POSTROUTING")).count(), 1);
        masquerade::remove(&ctr1(), &[]).unwrap();
        assert_eq!(iptables_nat(), Vec::<String>::new());
    });
}

/// nerdctl 4117: a rule in `ip nat` that iptables cannot read made every ADD and DEL fail.
#[test]
fn rules_that_iptables_cannot_read_are_not_in_the_way() {
    in_namespace(|| {
        feed(
            "nft",
            &["-f", "-"],
            "add table ip nat\nadd chain ip nat POSTROUTING { type nat hook postrouting priority 100; }\n\
             add chain ip nat ts-postrouting\nadd rule ip nat ts-postrouting meta mark & 0xff0000 == 0x40000 masquerade\n\
             add rule ip nat POSTROUTING jump ts-postrouting\n\
             add set ip nat some { type ipv4_addr; }\nadd rule ip nat ts-postrouting ip saddr @some return\n",
        );
        let before = ruleset();
        add(Backend::Iptables, &ADDRS);
        masquerade::remove(&ctr1(), &[]).unwrap();
        assert_eq!(iptables_free(&ruleset()), iptables_free(&before));
    });
}

/// Without the table that ip6tables made on the way.
fn iptables_free(objects: &[serde_json::Value]) -> Vec<serde_json::Value> {
    let is_ip6 = |object: &serde_json::Value| object.to_string().contains("\"ip6\"");
    objects.iter().filter(|object| !is_ip6(object)).cloned().collect()
}

#[test]
fn a_flushed_table_works_again_for_the_next_pod() {
    in_namespace(|| {
        add(Backend::Nftables, &ADDRS);
        let whole = ruleset();
        run("nft", &["flush", "table", "inet", "cni_plugins_masquerade"]);
        add(Backend::Nftables, &ADDRS);
        assert_eq!(ruleset(), whole);
        run("nft", &["flush", "ruleset"]);
        add(Backend::Nftables, &ADDRS);
        assert_eq!(ruleset().len(), whole.len());
    });
}

#[test]
fn fifty_at_once() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        in_namespace(|| {
            std::thread::scope(|scope| {
                for pod in 0..50 {
                    scope.spawn(move || {
                        let owner = owner("brnet", &format!("pod{pod}"), "eth0");
                        let addrs = cidrs(&[&format!("10.1.2.{pod}/24"), &format!("2001:db8::{pod}/64")]);
                        masquerade::add(&owner, Some(backend), &PLAIN, &addrs).unwrap();
                        masquerade::check(&owner, Some(backend), &PLAIN, &addrs).unwrap();
                        if pod % 2 == 0 {
                            masquerade::remove(&owner, &[]).unwrap();
                        }
                    });
                }
            });
            if backend == Backend::Iptables {
                let jumps = iptables_nat().iter().filter(|rule| rule.starts_with("-A POSTROUTING")).count();
                assert_eq!((jumps, iptables_nat().len()), (50, 50 * 4));
                return;
            }
            let rules = nft_lines(&["list", "chain", "inet", "cni_plugins_masquerade", "masq_checks"]);
            assert_eq!(rules.iter().filter(|line| line.contains("masquerade comment")).count(), 50);
            let base = nft_lines(&["list", "chain", "inet", "cni_plugins_masquerade", "postrouting"]);
            assert_eq!(base.iter().filter(|line| line.starts_with("goto")).count(), 1);
        });
    }
}

#[test]
fn the_backend_nobody_chose_is_iptables() {
    in_namespace(|| {
        masquerade::add(&ctr1(), None, &PLAIN, &cidrs(&ADDRS)).unwrap();
        assert_eq!(iptables_nat(), saved_rules());
        assert!(!run("nft", &["list", "tables"]).contains("cni_plugins_masquerade"));
    });
}

/// Where the reference made the rules and where we did: the listings are equal, and each removes the other's.
#[test]
fn mixed_with_the_reference() {
    references().iter().for_each(|dir| mixed_with(dir));
}

fn mixed_with(dir: &Path) {
    let addrs = cidrs(&ADDRS);
    for backend in [Backend::Iptables, Backend::Nftables] {
        let name = format!("{backend:?}").to_lowercase();
        let keys = format!(r#""ipMasq":true,"ipMasqBackend":"{name}","#);
        let nothing_left = |what: &str| {
            assert_eq!(iptables_nat(), Vec::<String>::new(), "{what} {backend:?}");
            assert!(!run("nft", &["list", "ruleset"]).contains("masquerade comment"), "{what} {backend:?}");
        };
        in_namespace(|| {
            with_pod(|pod| {
                let (status, result) = reference_bridge(dir, "ADD", pod, &keys);
                assert_eq!(status, Some(0), "{result}");
                let theirs = (sorted_ruleset(), iptables_nat());
                if backend == Backend::Nftables && !run("nft", &["list", "tables"]).contains("cni_plugins") {
                    return; // a reference older than ipMasqBackend
                }
                masquerade::check(&ctr1(), Some(backend), &PLAIN, &addrs).unwrap();
                masquerade::check(&ctr1(), None, &PLAIN, &addrs).unwrap();
                masquerade::remove(&ctr1(), &[]).unwrap();
                nothing_left("their ADD, our DEL");
                masquerade::add(&ctr1(), Some(backend), &PLAIN, &addrs).unwrap();
                assert_eq!((sorted_ruleset(), iptables_nat()), theirs);
                // Beside iptables 1.8.9 their DEL of nftables rules complains about iptables, having removed them.
                reference_bridge(dir, "DEL", pod, &keys);
                nothing_left("our ADD, their DEL");
            });
        });
        // Their table made by us, from nothing.
        in_namespace(|| {
            with_pod(|pod| {
                masquerade::add(&ctr1(), Some(backend), &PLAIN, &addrs).unwrap();
                masquerade::remove(&ctr1(), &[]).unwrap();
                let (status, result) = reference_bridge(dir, "ADD", pod, &keys);
                assert_eq!(status, Some(0), "{result}");
                masquerade::check(&ctr1(), None, &PLAIN, &addrs).unwrap();
            });
        });
    }
}
