//! portmap where the configuration, or the suite, is another than at the ADD before.

use serde_json::json;
use tests::plugin::with_prev_result;
use tests::{Host, Internet};

use crate::bridge_conf::with;
use crate::portmap_conf::{
    PORT, add, both, chain, check, conf, connect, del, legacy, main_conf, nft_chain, result_of, rules,
};

/// The rules that the other backend made would still be asked, and before the new ones where its chains are younger.
#[test]
fn a_second_add_with_the_other_backend_replaces_the_first() {
    for (first, second, flavour) in
        [("iptables", "nftables", "nft"), ("nftables", "iptables", "nft"), ("iptables", "nftables", "legacy")]
    {
        let host = Host::new();
        let internet = host.internet();
        let (pod, bystander) = (host.pod(), host.pod());
        let server = pod.listen();
        let what = format!("{first} ({flavour}), then {second}");
        let path = legacy();
        let mut portmap = host.plugin("portmap");
        if flavour == "legacy" {
            portmap = portmap.env("PATH", path.path().display());
        }
        let of_bystander = result_of(&bystander, &["10.1.0.78/24", "fd00:1::78/64"]);
        add(&host, &conf(second, both(PORT + 1, 80)), &of_bystander, &bystander).success();
        let before = rules(&host);
        let result = host.plugin("bridge").add(main_conf("bridge"), &pod, "eth0").success();
        let gone = result_of(&pod, &["10.1.0.77/24", "fd00:1::77/64"]);
        portmap.add(with_prev_result(&conf(first, both(PORT, 80)), &gone), &pod, "eth0").success();
        let conf = conf(second, both(PORT, server.port()));
        portmap.add(with_prev_result(&conf, &result), &pod, "eth0").success();
        for node in [Internet::HOST_V4, Internet::HOST_V6] {
            assert!(internet.asks_at(&node.to_string(), PORT).is_ok(), "{what}: {node}");
        }
        check(&host, &conf, &result, &pod).success();
        del(&host, &conf, &result, &pod);
        assert_eq!(rules(&host), before, "{what}");
    }
}

/// The reference's conditions are in the rule that all share. To take them from there with the first ADD after its
/// binaries were replaced would open its pods' ports to everybody.
#[test]
fn conditions_of_the_reference_hold_while_its_pods_are_there() {
    let host = Host::new();
    let Some(theirs) = host.references("portmap").into_iter().nth(1) else { return };
    let internet = host.internet();
    let (old, new) = (host.pod(), host.pod());
    let server = old.listen();
    let closed =
        with(&conf("nftables", both(PORT, server.port())), json!({"conditionsV4": ["ip saddr != 198.51.100.0/24"]}));
    let result = host.plugin("bridge").add(main_conf("bridge"), &old, "eth0").success();
    theirs.add(with_prev_result(&closed, &result), &old, "eth0").success();
    let node = Internet::HOST_V4.to_string();
    assert!(internet.asks_at(&node, PORT).is_err());

    let open = conf("nftables", both(PORT + 1, 80));
    let open_result = connect(&host, "bridge", &open, &new);
    assert!(internet.asks_at(&node, PORT).is_err(), "our ADD opened it");
    check(&host, &open, &open_result, &new).success();
    check(&host, &closed, &result, &old).success();
    del(&host, &closed, &result, &old);
    add(&host, &open, &open_result, &new).success();
    assert_eq!(nft_chain(&host, "ip", "prerouting"), ["fib daddr type local jump hostports_all"]);
}

/// An operator's own rule that leads some packets to the shared chain is not the one that leads all.
#[test]
fn a_jump_for_some_packets_is_not_ours() {
    let host = Host::new();
    let internet = host.internet();
    let pod = host.pod();
    let server = pod.listen();
    let conf = conf("iptables", both(PORT, server.port()));
    let result = connect(&host, "bridge", &conf, &pod);
    let theirs = "-i nowhere -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT";
    host.run("iptables -t nat -F PREROUTING");
    host.run(&format!("iptables -t nat -A PREROUTING {theirs}"));
    let ours = "-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT";
    for gone in [true, false] {
        if gone {
            del(&host, &conf, &result, &pod);
        }
        add(&host, &conf, &result, &pod).success();
        assert_eq!(chain(&host, "iptables", "PREROUTING"), [theirs, ours]);
        assert!(internet.asks_at(&Internet::HOST_V4.to_string(), PORT).is_ok());
        check(&host, &conf, &result, &pod).success();
    }
}

/// Behind Services (CVE-2019-9946), and before what would accept a packet that is to be masqueraded.
#[test]
fn rules_of_others_that_were_there_first() {
    let host = Host::new();
    let pod = host.pod();
    let theirs = "-s 203.0.113.0/24 -j ACCEPT";
    for from in ["PREROUTING", "OUTPUT", "POSTROUTING"] {
        host.run(&format!("iptables -t nat -A {from} {theirs}"));
    }
    add(&host, &conf("iptables", both(PORT, 80)), &result_of(&pod, &["10.77.0.2/24"]), &pod).success();
    for (from, place) in [("PREROUTING", 0), ("OUTPUT", 0), ("POSTROUTING", 1)] {
        let rules = chain(&host, "iptables", from);
        assert_eq!((rules.len(), rules[place].as_str()), (2, theirs), "{from}");
    }
}
