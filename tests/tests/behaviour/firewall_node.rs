//! firewall on nodes as they are: an `iptables` that is a script, a legacy table without programs, another backend in
//! between.

use serde_json::json;
use tempfile::TempDir;
use tests::Pod;
use tests::dbus::Bus;
use tests::firewalld::{Firewalld as _, StandIn};
use tests::plugin::with_prev_result;

use crate::bridge_conf::with;
use crate::firewall_conf::{FLAVOURS, Node, addresses, net, reaches};

/// A directory whose `iptables` are scripts that choose a flavour, as kube-proxy's and k3s's images have them.
fn scripts(flavour: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    for program in ["iptables", "iptables-restore", "ip6tables", "ip6tables-restore"] {
        let line = format!("exec /usr/sbin/xtables-{flavour}-multi {program} \"$@\"");
        crate::refusal::write_script(&directory.path().join(program), &line);
    }
    directory
}

/// A script's name does not say where it keeps its rules. What it has made just now is not the other flavour's.
#[test]
fn an_iptables_that_is_a_script() {
    for flavour in ["nft", "legacy"] {
        let node = Node::new(flavour);
        let programs = scripts(flavour);
        let firewall = || node.host.plugin("firewall").env("PATH", programs.path().display());
        let nets = [1, 2].map(|number| node.net(number, json!({"ingressPolicy": "same-bridge"})));
        let pods: [Pod; 2] = [node.host.pod(), node.host.pod()];
        let results = [0, 1].map(|index: usize| {
            let result = node.host.plugin("bridge").add(&nets[index].bridge, &pods[index], "eth0").success();
            firewall().add(with_prev_result(&nets[index].firewall, &result), &pods[index], "eth0").success()
        });
        for (index, result) in results.iter().enumerate() {
            firewall().check(with_prev_result(&nets[index].firewall, result), &pods[index], "eth0").success();
        }
        assert!(!reaches(&pods[0], &addresses(&results[1])), "{flavour}");
        let made = node.host.state();
        firewall().add(with_prev_result(&nets[1].firewall, &results[1]), &pods[1], "eth0").success();
        node.host.state().assert_same(&made);
        for (index, result) in results.iter().enumerate() {
            firewall().del(with_prev_result(&nets[index].firewall, result), &pods[index], "eth0").success();
        }
        assert_eq!(node.rules("iptables", "CNI-FORWARD").len(), 1, "{flavour}");
        assert_eq!(node.rules("ip6tables", "CNI-FORWARD").len(), 1, "{flavour}");
    }
}

/// A container that brings its own iptables (kube-proxy's) made legacy tables on a node that has no programs for them.
#[test]
fn legacy_tables_on_a_node_without_iptables() {
    for policy in ["open", "isolated"] {
        let node = Node::new("nftables");
        for program in ["iptables", "ip6tables"] {
            node.host.run(&format!("{program}-legacy -t filter -A FORWARD -i nowhere -j ACCEPT"));
            node.host.run(&format!("{program}-legacy -t nat -A POSTROUTING -o nowhere -j ACCEPT"));
        }
        node.host.run("mount --bind /dev/null /usr/sbin/xtables-nft-multi");
        node.host.run("mount --bind /dev/null /usr/sbin/xtables-legacy-multi");
        let mut net = node.net(1, json!({"cniVersion": "1.1.0", "ingressPolicy": policy}));
        net.bridge = with(&net.bridge, json!({"cniVersion": "1.1.0", "ipMasq": true, "ipMasqBackend": "nftables"}));
        let pod = node.host.pod();
        let result = node.add(&net, &pod);
        node.check(&net, &pod, &result).success();
        let portmap = json!({"cniVersion": "1.1.0", "name": "net1", "type": "portmap", "backend": "nftables",
            "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
        let portmap = with_prev_result(&portmap, &result);
        node.host.plugin("portmap").add(&portmap, &pod, "eth0").success();
        node.host.plugin("portmap").del(&portmap, &pod, "eth0").success();
        node.del(&net, &pod, &result);
        node.firewall().gc(with(&net.firewall, json!({"cni.dev/valid-attachments": []}))).success();
    }
}

/// F8: a runtime asks again after firewalld came up. DEL takes the source as well as the rules.
#[test]
fn a_pod_that_was_added_before_firewalld_came() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour);
        let net = net(1, json!({}));
        let pod = node.host.pod();
        let result = node.host.plugin("bridge").add(&net.bridge, &pod, "eth0").success();
        let before = with_prev_result(&node.net(1, json!({})).firewall, &result);
        node.firewall().add(before, &pod, "eth0").success();
        let bus = Bus::start(&node.host);
        let firewalld = StandIn::start(&bus);
        let conf = with_prev_result(&net.firewall, &result);
        node.firewall().add(&conf, &pod, "eth0").success();
        assert_eq!(firewalld.sources("trusted").len(), 2);
        node.firewall().del(&conf, &pod, "eth0").success();
        assert_eq!(firewalld.sources("trusted"), [""; 0], "{flavour}");
    }
}
