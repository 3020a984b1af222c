//! The MAC spoof check: the reference's rules, found by it and by us.
//!
//! Of the reference's checklist, "failures of delete-rule, read, delete-chains, both" are not here: it is one transaction,
//! which the kernel does or refuses as a whole.

use super::lab::*;
use std::path::Path;

use hostnet::spoof_check;
use libcni::types::Mac;

/// What the reference's two transactions amount to.
const SCRIPT: &str = r#"
add table bridge nat
add chain bridge nat PREROUTING { type filter hook prerouting priority -300; policy accept; }
add chain bridge nat cni-br-iface-ctr1-eth0
add chain bridge nat cni-br-iface-ctr1-eth0-mac
add rule bridge nat PREROUTING iifname "vethb0ee51ac" jump cni-br-iface-ctr1-eth0 comment "macspoofchk-ctr1-eth0"
add rule bridge nat cni-br-iface-ctr1-eth0 jump cni-br-iface-ctr1-eth0-mac comment "macspoofchk-ctr1-eth0"
add rule bridge nat cni-br-iface-ctr1-eth0-mac ether saddr 92:50:a8:0a:ff:95 return comment "macspoofchk-ctr1-eth0"
add rule bridge nat cni-br-iface-ctr1-eth0-mac drop comment "macspoofchk-ctr1-eth0"
"#;

const VETH: &str = "vethb0ee51ac";

fn mac() -> Mac {
    "92:50:a8:0a:ff:95".parse().unwrap()
}

#[test]
fn rules_are_the_references() {
    let wanted = ruleset_of(SCRIPT);
    in_namespace(|| {
        spoof_check::add(&ctr1(), VETH, mac()).unwrap();
        assert_eq!(ruleset(), wanted);
        spoof_check::check(&ctr1(), VETH, mac()).unwrap();
    });
}

/// The reference appends a second jump.
#[test]
fn a_repeated_add_replaces_the_first() {
    let wanted = ruleset_of(SCRIPT);
    in_namespace(|| {
        spoof_check::add(&ctr1(), "veth0000000a", "02:00:00:00:00:01".parse().unwrap()).unwrap();
        spoof_check::add(&ctr1(), VETH, mac()).unwrap();
        assert_eq!(ruleset(), wanted);
        spoof_check::check(&ctr1(), "veth0000000a", mac()).unwrap_err();
        spoof_check::check(&ctr1(), VETH, "02:00:00:00:00:01".parse().unwrap()).unwrap_err();
    });
}

#[test]
fn removed_by_comment_alone() {
    in_namespace(|| {
        let other = owner("brnet", "ctr2", "eth0");
        spoof_check::add(&other, "veth0000000a", mac()).unwrap();
        let before = ruleset();
        spoof_check::add(&ctr1(), VETH, mac()).unwrap();
        spoof_check::check(&ctr1(), VETH, mac()).unwrap();
        // As the reference leaves it after a repeated ADD.
        run(
            "nft",
            &[
                "add rule bridge nat PREROUTING iifname old jump cni-br-iface-ctr1-eth0 comment \"macspoofchk-ctr1-eth0\"",
            ],
        );
        spoof_check::remove(&ctr1()).unwrap();
        spoof_check::remove(&ctr1()).unwrap();
        assert_eq!(ruleset(), before);
        spoof_check::check(&ctr1(), VETH, mac()).unwrap_err();
        spoof_check::remove(&other).unwrap();
        assert_eq!(ruleset().len(), 2, "table and PREROUTING stay");
    });
}

#[test]
fn nothing_to_remove() {
    in_namespace(|| {
        spoof_check::remove(&ctr1()).unwrap();
        assert!(ruleset().is_empty(), "DEL makes no table");
    });
}

#[test]
fn half_of_it_is_repaired_and_removed() {
    let wanted = ruleset_of(SCRIPT);
    for script in [
        "add chain bridge nat cni-br-iface-ctr1-eth0-mac\n",
        "add chain bridge nat cni-br-iface-ctr1-eth0\nadd rule bridge nat cni-br-iface-ctr1-eth0 drop\n",
    ] {
        in_namespace(|| {
            feed("nft", &["-f", "-"], &format!("add table bridge nat\n{script}"));
            spoof_check::add(&ctr1(), VETH, mac()).unwrap();
            let mut wanted = wanted.clone();
            wanted.sort_by_key(ToString::to_string);
            assert_eq!(sorted_ruleset(), wanted);
        });
        in_namespace(|| {
            feed("nft", &["-f", "-"], &format!("add table bridge nat\n{script}"));
            spoof_check::remove(&ctr1()).unwrap();
            assert_eq!(ruleset().len(), 1);
        });
    }
}

#[test]
fn fifty_at_once() {
    in_namespace(|| {
        std::thread::scope(|scope| {
            for pod in 0..50 {
                scope.spawn(move || {
                    let owner = owner("brnet", &format!("pod{pod}"), "eth0");
                    let veth = format!("veth{pod}");
                    spoof_check::add(&owner, &veth, mac()).unwrap();
                    spoof_check::check(&owner, &veth, mac()).unwrap();
                    spoof_check::remove(&owner).unwrap();
                });
            }
        });
        assert_eq!(ruleset().len(), 2);
    });
}

#[test]
fn mixed_with_the_reference() {
    references().iter().for_each(|dir| mixed_with(dir));
}

fn mixed_with(dir: &Path) {
    in_namespace(|| {
        with_pod(|pod| {
            let keys = r#""macspoofchk":true,"#;
            let (status, result) = reference_bridge(dir, "ADD", pod, keys);
            assert_eq!(status, Some(0), "{result}");
            let interfaces = result["interfaces"].as_array().unwrap();
            let veth = interfaces.iter().find_map(|link| link["name"].as_str().filter(|name| name.starts_with("veth")));
            let mac = interfaces.iter().find(|link| link["name"] == "eth0").and_then(|link| link["mac"].as_str());
            let (veth, mac) = (veth.unwrap(), mac.unwrap().parse().unwrap());
            let theirs = sorted_ruleset();
            spoof_check::check(&ctr1(), veth, mac).unwrap();
            spoof_check::remove(&ctr1()).unwrap();
            assert_eq!(ruleset().len(), 2, "their ADD, our DEL");
            spoof_check::add(&ctr1(), veth, mac).unwrap();
            assert_eq!(sorted_ruleset(), theirs);
            let (status, result) = reference_bridge(dir, "DEL", pod, keys);
            assert_eq!((status, ruleset().len()), (Some(0), 2), "our ADD, their DEL: {result}");
        });
    });
}
