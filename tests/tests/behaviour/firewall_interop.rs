//! firewall against the reference, and many at once.

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Plugin, Pod};

use crate::bridge_conf::with;
use crate::firewall_conf::{FLAVOURS, Net, Node};
use crate::parallel::{PODS, at_once};

/// The policies that a reference knows: `isolated` came after Debian's 1.1.1.
fn policies(reference: &Plugin<'_>) -> Vec<&'static str> {
    let newer = reference.version().success()["supportedVersions"].as_array().unwrap().contains(&"1.1.0".into());
    if newer { vec!["open", "same-bridge", "isolated"] } else { vec!["open", "same-bridge"] }
}

/// Rules of table `filter` that are about an address.
fn of_address(node: &Node, address: &str) -> Vec<String> {
    let rules = ["iptables", "ip6tables"].map(|program| node.rules(program, "CNI-FORWARD")).concat();
    rules.into_iter().filter(|rule| rule.contains(&format!(" {address}/"))).collect()
}

/// Every reference with ours, each policy, both flavours, versions that the runtimes send.
fn every_pair(case: fn(node: &Node, net: &Net, ours: &Plugin<'_>, theirs: &Plugin<'_>)) {
    let references = Host::new().references("firewall").len();
    for which in 0..references {
        for flavour in ["nft", "legacy"] {
            let policies = policies(&Host::new().references("firewall")[which]);
            for (policy, version) in policies.into_iter().flat_map(|policy| [(policy, "1.0.0"), (policy, "0.4.0")]) {
                let node = Node::new(flavour);
                let mut net = node.net(1, json!({"ingressPolicy": policy, "cniVersion": version}));
                net.bridge["cniVersion"] = version.into();
                let theirs = node.with_programs(node.host.references("firewall").swap_remove(which));
                case(&node, &net, &node.firewall(), &theirs);
            }
        }
    }
}

fn attach(node: &Node, net: &Net, pod: &Pod) -> Value {
    let result = node.host.plugin("bridge").add(&net.bridge, pod, "eth0").success();
    with_prev_result(&net.firewall, &result)
}

#[test]
fn what_the_reference_added_we_check_and_delete() {
    every_pair(|node, net, ours, theirs| {
        let (first, pod) = (node.host.pod(), node.host.pod());
        let first_conf = attach(node, net, &first);
        ours.add(&first_conf, &first, "eth0").success();
        let conf = attach(node, net, &pod);
        // What is shared stays by contract, and 1.1.1 has other comments on it.
        let pods = || ["iptables", "ip6tables"].map(|program| node.rules(program, "CNI-FORWARD"));
        let before = pods();
        theirs.add(&conf, &pod, "eth0").success();
        assert_eq!(of_address(node, "10.1.0.3").len(), 2);
        let added = node.host.state();
        ours.check(&conf, &pod, "eth0").success();
        node.host.state().assert_same(&added);
        for _ in 0..2 {
            ours.del(&conf, &pod, "eth0").success();
            assert_eq!(pods(), before);
        }
        ours.check(&first_conf, &first, "eth0").success();
    });
}

/// On a node that only the reference has worked on.
#[test]
fn we_go_on_with_a_node_of_the_reference() {
    every_pair(|node, net, ours, theirs| {
        let (first, pod) = (node.host.pod(), node.host.pod());
        let first_conf = attach(node, net, &first);
        theirs.add(&first_conf, &first, "eth0").success();
        ours.check(&first_conf, &first, "eth0").success();
        // Our ADD for the same pod gives its rules an owner.
        let conf = attach(node, net, &pod);
        ours.add(&conf, &pod, "eth0").success();
        ours.check(&conf, &pod, "eth0").success();
        theirs.check(&conf, &pod, "eth0").success();
        theirs.check(&first_conf, &first, "eth0").success();
        let jumps = |chain: &str| {
            node.rules("iptables", "FORWARD").iter().filter(|rule| rule.ends_with(&format!("-j {chain}"))).count()
        };
        assert_eq!(jumps("CNI-FORWARD"), 1, "the reference's jump is ours");
        assert!(jumps("CNI-ISOLATION-STAGE-1") <= 1);
        ours.del(&first_conf, &first, "eth0").success();
        assert_eq!(of_address(node, "10.1.0.2"), [""; 0]);
        ours.check(&conf, &pod, "eth0").success();
    });
}

/// Its DEL takes its two rules; the third, which lets nobody in that was not sent to the address by the node itself,
/// goes when the address is given anew, or by GC.
#[test]
fn what_we_added_the_reference_checks_and_deletes() {
    every_pair(|node, net, ours, theirs| {
        let (first, pod) = (node.host.pod(), node.host.pod());
        let first_conf = attach(node, net, &first);
        theirs.add(&first_conf, &first, "eth0").success();
        let conf = attach(node, net, &pod);
        ours.add(&conf, &pod, "eth0").success();
        theirs.check(&conf, &pod, "eth0").success();
        theirs.del(&conf, &pod, "eth0").success();
        for address in ["10.1.0.3", "fd00:1::3"] {
            let left = of_address(node, address);
            assert!(matches!(left.as_slice(), [rule] if rule.contains("--ctstate DNAT")), "{left:?}");
        }
        theirs.check(&first_conf, &first, "eth0").success();
        // Theirs takes the address for another pod, and ours deletes that one: all of it goes.
        let other = node.host.pod();
        theirs.add(&conf, &other, "eth0").success();
        ours.check(&conf, &other, "eth0").success();
        ours.del(&conf, &other, "eth0").success();
        assert_eq!([of_address(node, "10.1.0.3"), of_address(node, "fd00:1::3")].concat(), [""; 0]);
        // Or ours takes it.
        ours.add(&conf, &pod, "eth0").success();
        theirs.del(&conf, &pod, "eth0").success();
        ours.add(&conf, &other, "eth0").success();
        ours.check(&conf, &other, "eth0").success();
        assert_eq!(of_address(node, "10.1.0.3").len(), 3);
        ours.del(&conf, &other, "eth0").success();
        assert_eq!(of_address(node, "10.1.0.3"), [""; 0]);
    });
}

/// F11: the reference's first ADDs make shared rules twice, and fail. All at once on an empty node, then all at once gone.
#[test]
fn fifty_first_adds_share_their_rules() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour);
        let net = node.net(1, json!({"ingressPolicy": "isolated"}));
        let pods: Vec<Pod> = (0..PODS).map(|_| node.host.pod()).collect();
        let confs: Vec<Value> = pods.iter().map(|pod| attach(&node, &net, pod)).collect();
        at_once(&pods, |number, pod| node.firewall().add(&confs[number], pod, "eth0").success());
        at_once(&pods, |number, pod| node.firewall().check(&confs[number], pod, "eth0").success());
        if node.is_nftables() {
            let listed = node.host.run("nft list chain inet cni_firewall forward");
            assert_eq!(listed.matches("jump").count(), 3, "{listed}");
            assert_eq!(node.host.run("nft list chain inet cni_firewall bridges").matches("br1, ").count(), 3);
        } else {
            for program in ["iptables", "ip6tables"] {
                assert_eq!(node.rules(program, "FORWARD").len(), 2, "{flavour}");
                assert_eq!(node.rules(program, "CNI-ISOLATION-STAGE-1").len(), 4, "{flavour}");
                assert_eq!(node.rules(program, "CNI-FORWARD").len(), 1 + 3 * PODS, "{flavour}");
            }
        }
        at_once(&pods, |number, pod| node.firewall().del(&confs[number], pod, "eth0").success());
        if !node.is_nftables() {
            assert_eq!(node.rules("iptables", "CNI-FORWARD").len(), 1, "{flavour}");
        }
        // DELs of ten are no hindrance to ADDs of ten others.
        let (old, new) = pods.split_at(PODS / 2);
        at_once(old, |number, pod| node.firewall().add(&confs[number], pod, "eth0").success());
        std::thread::scope(|scope| {
            scope.spawn(|| at_once(old, |number, pod| node.firewall().del(&confs[number], pod, "eth0").success()));
            at_once(new, |number, pod| node.firewall().add(&confs[PODS / 2 + number], pod, "eth0").success());
        });
        at_once(new, |number, pod| node.firewall().check(&confs[PODS / 2 + number], pod, "eth0").success());
    }
}

/// The reference's first ADDs at once: the defect is there, and our next ADD leaves one jump of each.
#[test]
fn duplicates_of_the_reference_are_removed() {
    let node = Node::new("nft");
    let net = node.net(1, json!({"ingressPolicy": "same-bridge"}));
    let pod = node.host.pod();
    let conf = attach(&node, &net, &pod);
    let theirs = node.host.references("firewall").pop().unwrap();
    theirs.add(&conf, &pod, "eth0").success();
    for rule in node.rules("iptables", "FORWARD").into_iter().chain(node.rules("iptables", "CNI-ISOLATION-STAGE-2")) {
        let (chain, words) = rule.strip_prefix("-A ").unwrap().split_once(' ').unwrap();
        node.restore("iptables", &format!("*filter\n-I {chain} 1 {words}\nCOMMIT\n"));
    }
    assert_eq!(node.rules("iptables", "FORWARD").len(), 4);
    node.firewall().add(&conf, &pod, "eth0").success();
    let forward = node.rules("iptables", "FORWARD");
    assert!(
        forward.len() == 2 && forward[0].ends_with("STAGE-1") && forward[1].ends_with("CNI-FORWARD"),
        "{forward:#?}"
    );
    let entering = |rule: &&String| rule.contains("-o br1");
    assert_eq!(node.rules("iptables", "CNI-ISOLATION-STAGE-2").iter().filter(entering).count(), 1);
    node.firewall().check(&conf, &pod, "eth0").success();
}

/// Results, as the two print them.
#[test]
fn the_results_are_the_same() {
    let node = Node::new("nft");
    for version in ["0.4.0", "1.0.0"] {
        let result = json!({"cniVersion": version, "interfaces": [{"name": "br0"}], "ips": [{"address": "10.0.0.2/24",
            "interface": 0}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.0.0.1"]}});
        let mut result = result;
        if version == "0.4.0" {
            result["ips"][0]["version"] = "4".into();
        }
        let conf = with(&node.net(1, json!({"cniVersion": version})).firewall, json!({"prevResult": result}));
        let pod = node.host.pod();
        let theirs = node.host.reference("firewall").add(&conf, &pod, "eth0").success();
        assert_eq!(node.firewall().add(&conf, &pod, "eth0").success(), theirs);
    }
}
