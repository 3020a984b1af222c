//! ingressPolicy, by packets: two bridges, three pods and an outside that knows the way to them, in both families, with
//! every backend, whether the bridge calls iptables or not.

use serde_json::json;
use tests::dbus::Bus;
use tests::firewalld::{Firewalld as _, StandIn};
use tests::plugin::with_prev_result;
use tests::{Internet, Namespace, Pod};

use crate::firewall_conf::{FLAVOURS, Net, Node, addresses, net, reaches};

/// Who reaches whom.
#[derive(Debug, PartialEq, Eq)]
struct Reach {
    sibling: bool,
    other_bridge: bool,
    from_other_bridge: bool,
    from_outside: bool,
    to_outside: bool,
    from_node: bool,
    to_node: bool,
}

struct Lab {
    node: Node,
    internet: Internet,
    nets: [Net; 2],
    pods: [(Pod, [String; 2]); 3],
}

/// Two pods on the first bridge, one on the second.
fn lab(flavour: &'static str, policies: [&str; 2], br_netfilter: bool) -> Lab {
    let node = Node::new(flavour);
    node.set_br_netfilter(br_netfilter);
    let internet = node.internet();
    let nets =
        [(1, policies[0]), (2, policies[1])].map(|(number, policy)| node.net(number, json!({"ingressPolicy": policy})));
    let pods = [0, 0, 1].map(|net: usize| {
        let pod = node.host.pod();
        let result = node.add(&nets[net], &pod);
        node.check(&nets[net], &pod, &result).success();
        (pod, addresses(&result))
    });
    Lab { node, internet, nets, pods }
}

impl Lab {
    /// All questions at once: what does not answer takes its time.
    fn reach(&self) -> Reach {
        let [(a, a_address), (sibling, sibling_address), (b, b_address)] = &self.pods;
        let outside = [Internet::V4.to_owned(), Internet::V6.to_owned()];
        let gateway = ["10.1.0.1".to_owned(), "fd00:1::1".to_owned()];
        let questions: [(&Namespace, _); 8] = [
            (a, sibling_address),
            (sibling, a_address),
            (a, b_address),
            (b, a_address),
            (&self.internet, a_address),
            (a, &outside),
            (&self.node.host, a_address),
            (a, &gateway),
        ];
        let [sibling, from_sibling, other_bridge, from_other_bridge, from_outside, to_outside, from_node, to_node] =
            std::thread::scope(|scope| {
                let asked = questions.map(|(from, to)| scope.spawn(|| reaches(from, to)));
                asked.map(|answer| answer.join().unwrap())
            });
        assert_eq!(sibling, from_sibling);
        Reach { sibling, other_bridge, from_other_bridge, from_outside, to_outside, from_node, to_node }
    }

    /// One pod of each bridge comes anew, and goes: the policy is one of the bridge. Siblings that stay keep their ports.
    fn renew(&self, policy: &str) {
        for number in [1, 2] {
            let net = self.node.net(number, json!({"ingressPolicy": policy}));
            let fresh = self.node.host.pod();
            let result = self.node.add(&net, &fresh);
            self.node.check(&net, &fresh, &result).success();
            self.node.del(&net, &fresh, &result);
        }
    }
}

/// The outside and the node are answered in every policy but for what `isolated` forbids.
fn expected(sibling: bool, bridges: bool, outside: bool) -> Reach {
    Reach {
        sibling,
        other_bridge: bridges,
        from_other_bridge: bridges,
        from_outside: outside,
        to_outside: true,
        from_node: true,
        to_node: true,
    }
}

/// Side by side: what does not answer takes its time.
fn everywhere(policy: &str, reach: &Reach) {
    std::thread::scope(|scope| {
        for (flavour, br_netfilter) in FLAVOURS.into_iter().flat_map(|flavour| [(flavour, true), (flavour, false)]) {
            scope.spawn(move || {
                let lab = lab(flavour, [policy, policy], br_netfilter);
                assert_eq!(lab.reach(), *reach, "{policy}, {flavour}, br_netfilter {br_netfilter}");
            });
        }
    });
}

#[test]
fn open_is_open() {
    everywhere("open", &expected(true, true, true));
}

#[test]
fn same_bridge_keeps_other_bridges_out() {
    everywhere("same-bridge", &expected(true, false, true));
}

/// The reference's siblings talk where br_netfilter is off (its F3), and everybody outside reaches them (F2).
#[test]
fn isolated_keeps_everybody_out_but_the_node() {
    everywhere("isolated", &expected(false, false, false));
}

/// A bridge without a policy is outside, too: the reference lets its pods in.
#[test]
fn isolated_from_an_open_bridge() {
    std::thread::scope(|scope| {
        for flavour in FLAVOURS {
            scope.spawn(move || {
                let lab = lab(flavour, ["isolated", "open"], true);
                let reach = Reach { other_bridge: true, ..expected(false, false, false) };
                assert_eq!(lab.reach(), reach, "{flavour}");
            });
        }
    });
}

/// F4: the reference keeps the old policy's rules.
#[test]
fn a_change_of_policy_removes_the_rules_of_the_old_one() {
    // Side by side, as above.
    std::thread::scope(|scope| {
        for flavour in FLAVOURS {
            scope.spawn(move || {
                let lab = lab(flavour, ["isolated", "isolated"], true);
                assert_eq!(lab.reach(), expected(false, false, false), "{flavour}");
                for (policy, reach) in
                    [("same-bridge", expected(true, false, true)), ("open", expected(true, true, true))]
                {
                    lab.renew(policy);
                    // Old ports are isolated from each other still; the rules are not in the way any more.
                    let reach = Reach { sibling: false, ..reach };
                    assert_eq!(lab.reach(), reach, "{flavour} {policy}");
                }
            });
        }
    });
}

/// A published port lets others in: what was rewritten to the pod passes, unasked traffic to its address does not.
#[test]
fn a_published_port_of_an_isolated_pod_is_open() {
    for flavour in FLAVOURS {
        let lab = lab(flavour, ["isolated", "isolated"], true);
        for (program, host, pod, protocol) in [
            ("iptables", Internet::HOST_V4.to_string(), "10.1.0.2", "icmp"),
            ("ip6tables", Internet::HOST_V6.to_string(), "fd00:1::2", "icmpv6"),
        ] {
            let rule = format!("-t nat -A PREROUTING -i uplink -d {host} -p {protocol} -j DNAT --to-destination {pod}");
            lab.node.iptables(&format!("{program} {rule}"));
            // Neighbour discovery goes to multicast addresses, and is not rewritten.
            assert!(lab.internet.pings(&host), "{flavour} {program}");
            assert!(!lab.internet.pings(pod), "{flavour} {program}");
            let hits = lab.node.iptables(&format!("{program} -t nat -L PREROUTING -n -v -x"));
            assert!(!hits.contains("       0        0 DNAT"), "{hits}");
        }
    }
}

/// F5: the reference re-inserts its jump in front of the policies', and what comes from a pod is accepted there.
#[test]
fn policies_stay_in_front_when_a_jump_was_lost() {
    for flavour in ["nft", "legacy"] {
        let lab = lab(flavour, ["same-bridge", "same-bridge"], true);
        for program in ["iptables", "ip6tables"] {
            let jump =
                lab.node.rules(program, "FORWARD").into_iter().find(|rule| rule.ends_with("-j CNI-FORWARD")).unwrap();
            // As the reference leaves it: in front.
            let text = format!(
                "*filter\n{}\n{}\nCOMMIT\n",
                jump.replacen("-A", "-D", 1),
                jump.replacen("-A FORWARD", "-I FORWARD 1", 1)
            );
            lab.node.restore(program, &text);
        }
        let [_, _, (b, _)] = &lab.pods;
        assert!(reaches(b, &lab.pods[0].1), "{flavour}: the defect is there");
        let fresh = lab.node.host.pod();
        let result = lab.node.add(&lab.nets[0], &fresh);
        lab.node.check(&lab.nets[0], &fresh, &result).success();
        assert!(!reaches(b, &lab.pods[0].1), "{flavour}");
    }
}

/// What any backend drops is dropped: when the node's backend is another one, the policy's old rules go.
#[test]
fn a_change_of_backend_removes_the_rules_of_the_old_one() {
    for (old, new) in
        [("nft", "nftables"), ("legacy", "nftables"), ("nftables", "nft"), ("legacy", "nft"), ("nft", "legacy")]
    {
        let lab = lab(old, ["same-bridge", "same-bridge"], true);
        let [_, _, (b, _)] = &lab.pods;
        assert!(!reaches(b, &lab.pods[0].1), "{old}");
        // The same host with other programs.
        let node = lab.node.with_flavour(new);
        for number in [1, 2] {
            node.add(&node.net(number, json!({})), &node.host.pod());
        }
        assert!(reaches(b, &lab.pods[0].1), "{old}, then {new}");
    }
}

/// firewalld knows no bridges: beside it a policy is rules of iptables, and the pods' own rules are none.
#[test]
fn a_policy_beside_firewalld() {
    let node = Node::new("nft");
    let internet = node.internet();
    let bus = Bus::start(&node.host);
    let firewalld = StandIn::start(&bus);
    let net = net(1, json!({"ingressPolicy": "isolated"}));
    let (one, two) = (node.host.pod(), node.host.pod());
    let results = [&one, &two].map(|pod| node.add(&net, pod));
    assert_eq!(firewalld.sources("trusted").len(), 4);
    assert_eq!(node.rules("iptables", "FORWARD").len(), 1);
    assert!(!reaches(&one, &addresses(&results[1])) && !reaches(&internet, &addresses(&results[0])));
    assert!(reaches(&one, &[Internet::V4.to_owned(), Internet::V6.to_owned()]));
    node.check(&net, &one, &results[0]).success();
    let port = results[0]["interfaces"][1]["name"].as_str().unwrap();
    node.host.run(&format!("ip link set {port} type bridge_slave isolated off"));
    node.check(&net, &one, &results[0]).failure();
    node.host.run(&format!("ip link set {port} type bridge_slave isolated on"));
    node.check(&net, &one, &results[0]).success();
    for stage in [2, 1] {
        node.iptables(&format!("iptables -D CNI-ISOLATION-STAGE-{stage} 1"));
        node.check(&net, &one, &results[0]).failure();
        node.firewall().add(with_prev_result(&net.firewall, &results[0]), &one, "eth0").success();
        node.check(&net, &one, &results[0]).success();
    }
    for (pod, result) in [(&one, &results[0]), (&two, &results[1])] {
        node.del(&net, pod, result);
    }
    assert_eq!(firewalld.sources("trusted"), [""; 0]);
}
