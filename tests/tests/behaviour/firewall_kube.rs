//! firewall beside kube-proxy: a Service without endpoints is refused at once, and what a Service or a published port
//! sends to a pod passes where FORWARD drops. The reference fails at both.

use std::io::ErrorKind;

use serde_json::json;
use tests::Internet;

use crate::firewall_conf::{FLAVOURS, Node, connect, reaches};

/// The filter chains that kube-proxy writes (iptables mode), with a Service that has no endpoints.
fn kube_proxy(service: &str, reject: &str) -> String {
    format!(
        "*filter\n:KUBE-FORWARD - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-PROXY-FIREWALL - [0:0]\n\
         -I FORWARD 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n\
         -I FORWARD 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I FORWARD 1 -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -I FORWARD 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A KUBE-SERVICES -d {service} -p tcp -m comment --comment \"default/web has no endpoints\" -m tcp --dport 80 -j REJECT --reject-with {reject}\n\
         COMMIT\n"
    )
}

const SERVICES: [(&str, &str, &str); 2] =
    [("iptables", "10.96.0.10", "icmp-port-unreachable"), ("ip6tables", "fd00:96::10", "icmp6-port-unreachable")];

fn write_kube_proxy(node: &Node) {
    for (program, service, reject) in SERVICES {
        node.restore(program, &kube_proxy(service, reject));
    }
}

fn target(rule: &str) -> &str {
    rule.rsplit(' ').next().unwrap()
}

#[test]
fn a_service_without_endpoints_is_refused_at_once() {
    for flavour in FLAVOURS {
        for first in ["kube-proxy", "firewall"] {
            let node = Node::new(flavour);
            node.internet();
            let net = node.net(1, json!({"ingressPolicy": "same-bridge"}));
            let pod = node.host.pod();
            if first == "kube-proxy" {
                write_kube_proxy(&node);
                node.add(&net, &pod);
            } else {
                node.add(&net, &pod);
                write_kube_proxy(&node);
            }
            for target in ["10.96.0.10:80", "[fd00:96::10]:80"] {
                let outcome = connect(&pod, target);
                assert_eq!(outcome, Err(ErrorKind::ConnectionRefused), "{flavour}, {first} first, {target}");
            }
        }
    }
}

/// The defect is there: the reference's jump in front accepts what kube-proxy would refuse. Our ADD moves it.
#[test]
fn a_jump_of_the_reference_before_kube_proxys_is_moved() {
    for flavour in ["nft", "legacy"] {
        for version in 0..Node::new(flavour).host.references("firewall").len() {
            let node = Node::new(flavour);
            node.internet();
            let net = node.net(1, json!({}));
            write_kube_proxy(&node);
            let first = node.host.pod();
            let result = node.host.plugin("bridge").add(&net.bridge, &first, "eth0").success();
            let conf = tests::plugin::with_prev_result(&net.firewall, &result);
            let theirs = node.with_programs(node.host.references("firewall").swap_remove(version));
            theirs.add(&conf, &first, "eth0").success();
            assert_ne!(connect(&first, "10.96.0.10:80"), Err(ErrorKind::ConnectionRefused), "the defect is there");
            node.check(&net, &first, &result).success();

            let second = node.host.pod();
            let added = node.add(&net, &second);
            node.check(&net, &second, &added).success();
            for (pod, target) in [(&first, "10.96.0.10:80"), (&second, "10.96.0.10:80"), (&second, "[fd00:96::10]:80")]
            {
                assert_eq!(connect(pod, target), Err(ErrorKind::ConnectionRefused), "{flavour}");
            }
            let forward = node.rules("iptables", "FORWARD");
            assert_eq!(target(forward.last().unwrap()), "CNI-FORWARD");
            assert_eq!(forward.len(), 5);
        }
    }
}

/// Whoever was there first: policies before everything, kube-proxy's chains, then ours, then the rest.
#[test]
fn the_order_of_forward() {
    for flavour in ["nft", "legacy"] {
        for first in ["kube-proxy", "firewall"] {
            let node = Node::new(flavour);
            let net = node.net(1, json!({"ingressPolicy": "isolated"}));
            node.iptables("iptables -A FORWARD -i uplink -j ACCEPT");
            if first == "firewall" {
                node.add(&net, &node.host.pod());
            }
            write_kube_proxy(&node);
            let pod = node.host.pod();
            let result = node.add(&net, &pod);
            node.check(&net, &pod, &result).success();
            let forward = node.rules("iptables", "FORWARD");
            assert_eq!(
                forward.iter().map(|rule| target(rule)).collect::<Vec<_>>(),
                [
                    "CNI-ISOLATION-STAGE-1",
                    "KUBE-PROXY-FIREWALL",
                    "KUBE-FORWARD",
                    "KUBE-SERVICES",
                    "KUBE-EXTERNAL-SERVICES",
                    "CNI-FORWARD",
                    "ACCEPT"
                ],
                "{flavour}, {first} first"
            );
            // And the next ADD moves nothing.
            let before = node.host.state();
            node.firewall().add(tests::plugin::with_prev_result(&net.firewall, &result), &pod, "eth0").success();
            node.host.state().assert_same(&before);
        }
    }
}

/// hostPort and NodePort with policy Local rewrite the destination to the pod and keep the source.
#[test]
fn what_was_rewritten_to_a_pod_passes_where_forward_drops() {
    for flavour in ["nft", "legacy"] {
        let node = Node::new(flavour);
        let internet = node.internet();
        let net = node.net(1, json!({}));
        let pod = node.host.pod();
        let result = node.host.plugin("bridge").add(&net.bridge, &pod, "eth0").success();
        for (program, host, to, protocol) in [
            ("iptables", Internet::HOST_V4.to_string(), "10.1.0.2", "icmp"),
            ("ip6tables", Internet::HOST_V6.to_string(), "fd00:1::2", "icmpv6"),
        ] {
            node.iptables(&format!("{program} -P FORWARD DROP"));
            node.iptables(&format!(
                "{program} -t nat -A PREROUTING -i uplink -d {host} -p {protocol} -j DNAT --to-destination {to}"
            ));
        }
        let published = [Internet::HOST_V4.to_string(), Internet::HOST_V6.to_string()];
        assert!(!reaches(&internet, &published), "{flavour}: FORWARD drops");
        node.firewall().add(tests::plugin::with_prev_result(&net.firewall, &result), &pod, "eth0").success();
        assert!(reaches(&internet, &published), "{flavour}");
        assert!(!reaches(&internet, &["10.1.0.2".to_owned(), "fd00:1::2".to_owned()]), "{flavour}: to the pod itself");
    }
}
