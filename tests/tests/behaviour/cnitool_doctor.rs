//! `cnitool doctor` on nodes where everything works: it says so, and everything is as it was. On nodes where one thing is
//! broken: `cnitool_doctor_broken`.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::Outcome;
use tests::{Host, Internet};

/// A node with a network and an internet.
pub struct Node {
    pub host: Host,
    pub internet: Internet,
    conf: TempDir,
}

impl Node {
    /// Forwarding is off, as on a node before its first pod.
    pub fn new(conf: &Value) -> Self {
        let host = Host::new();
        let internet = host.internet();
        settle(&host);
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            host.set_sysctl(&format!("net/{key}"), "0");
        }
        for key in ["iptables", "ip6tables"] {
            if host.enter(|| Path::new("/proc/sys/net/bridge").is_dir()) {
                host.set_sysctl(&format!("net/bridge/bridge-nf-call-{key}"), "1");
            }
        }
        let node = Self { host, internet, conf: tempfile::tempdir().unwrap() };
        node.configure(conf);
        node
    }

    pub fn configure(&self, conf: &Value) {
        std::fs::write(self.conf_dir().join("10-net.conflist"), conf.to_string()).unwrap();
    }

    pub fn conf_dir(&self) -> &Path {
        self.conf.path()
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.host.cnitool(self.conf_dir()).run(&[&["doctor"], arguments].concat())
    }

    /// What it reports as JSON.
    #[track_caller]
    pub fn report(&self) -> Report {
        let outcome = self.run(&["--json"]);
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}\n{outcome}"));
        let healthy = report["healthy"] == true;
        assert_eq!(outcome.status, Some(i32::from(!healthy)), "{outcome}");
        Report(report)
    }

    /// The state without what stays by contract and what a second run of any pod changes.
    pub fn state(&self) -> tests::State {
        self.host.state()
    }
}

/// Waits until the kernel is done with the addresses of the way out: it adds routes when it is, which depend on forwarding.
fn settle(host: &Host) {
    tests::sandbox::wait_for("the addresses of uplink", || {
        let tentative = host.run("ip -6 -o address show dev uplink tentative");
        if tentative.trim().is_empty() { Ok(()) } else { Err(tentative) }
    });
}

/// A report as JSON.
pub struct Report(pub Value);

impl Report {
    pub fn probes(&self) -> &[Value] {
        self.0["probes"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The names of the probes with that verdict.
    pub fn with(&self, verdict: &str) -> Vec<&str> {
        let probes = self.probes().iter().filter(|probe| probe["verdict"] == verdict);
        probes.map(|probe| probe["probe"].as_str().unwrap()).collect()
    }

    /// The verdict, the detail and the remedy of a probe.
    #[track_caller]
    pub fn of(&self, name: &str) -> (&str, String) {
        let probe = self.probes().iter().find(|probe| probe["probe"] == name);
        let probe = probe.unwrap_or_else(|| panic!("no probe {name} in {:#}", self.0));
        let text = |key: &str| probe[key].as_str().unwrap_or_default();
        (text("verdict"), format!("{} -> {}", text("detail"), text("remedy")))
    }

    #[track_caller]
    pub fn assert_healthy(&self) {
        assert!(self.with("broken").is_empty() && self.with("warn").is_empty(), "{:#}", self.0);
    }
}

/// A bridge with a chain, of these subnets.
pub fn network(backend: &str, subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    json!({"cniVersion": "1.0.0", "name": "net", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "ipMasq": true,
         "ipMasqBackend": backend, "ipam": {"type": "host-local", "ranges": ranges}},
        {"type": "portmap", "backend": backend, "capabilities": {"portMappings": true}},
    ]})
}

pub const DUAL: [&str; 2] = ["10.1.0.0/24", "fd00:1::/64"];

/// Probes of one IP version that ask by packets.
const PACKETS: [&str; 6] = ["node", "gateway", "neighbour", "egress", "mtu", "host-port"];

#[test]
fn a_healthy_node() {
    for backend in ["nftables", "iptables"] {
        for subnets in [&DUAL[..], &DUAL[..1]] {
            let node = Node::new(&network(backend, subnets));
            let before = node.state();
            let report = node.report();
            report.assert_healthy();
            let ok = report.with("ok");
            for version in &["ipv4", "ipv6"][..subnets.len()] {
                for probe in PACKETS {
                    assert!(ok.contains(&format!("{probe}-{version}").as_str()), "{probe}-{version}: {:#}", report.0);
                }
            }
            for probe in ["configuration", "bridge", "overlap", "status", "add", "check", "del", "left-behind"] {
                assert!(ok.contains(&probe), "{probe}: {:#}", report.0);
            }
            let (_, way) = report.of("egress-ipv4");
            assert!(way.contains(Internet::V4) && way.contains(&Internet::HOST_V4.to_string()), "{way}");
            unchanged(&node, &before);
            assert_eq!(node.host.sysctl("net/ipv4/ip_forward"), "0");
        }
    }
}

/// What portmap and iptables leave after any pod is left after these, too; nothing of it names them, and a second run adds
/// nothing.
pub fn unchanged(node: &Node, before: &tests::State) {
    const RULES: [&str; 3] = ["nft", "iptables-save", "ip6tables-save"];
    let without_rules =
        |state: &tests::State| RULES.iter().fold(state.clone(), |state, section| state.without(section));
    let after = node.state();
    without_rules(&after).assert_same(&without_rules(before));
    assert!(!after.to_string().contains("podwire-doctor"), "{after}");
    assert!(!node.host.enter(|| Path::new("/run/podwire-doctor").exists()));
    node.report();
    node.state().assert_same(&after);
}

/// A node that runs: the bridge and forwarding are there, and stay.
#[test]
fn a_node_with_pods() {
    let conf = network("nftables", &DUAL);
    let node = Node::new(&conf);
    let pod = node.host.pod();
    node.host.cnitool(node.conf_dir()).call("add", "net", &pod).success();
    let before = node.state();
    let report = node.report();
    report.assert_healthy();
    unchanged(&node, &before);
    assert!(node.host.link("cni0").is_some() && node.host.sysctl("net/ipv4/ip_forward") == "1");
    node.host.cnitool(node.conf_dir()).call("check", "net", &pod).success();
}

/// The network is the one that a runtime takes: the first by name. Another can be named.
#[test]
fn the_network_that_kubelet_takes() {
    let node = Node::new(&network("nftables", &DUAL[..1]));
    let mut other = network("nftables", &["10.2.0.0/24"]);
    (other["name"], other["plugins"][0]["bridge"]) = (json!("other"), json!("cni1"));
    std::fs::write(node.conf_dir().join("20-other.conflist"), other.to_string()).unwrap();
    assert_eq!(node.report().0["network"], "net");
    let outcome = node.run(&["other"]);
    assert_eq!(outcome.status, Some(0), "{outcome}");
    assert!(outcome.stdout.starts_with("network other (") && outcome.stdout.contains("10.2.0."), "{outcome}");
    let outcome = node.run(&["third"]);
    assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(2), ""), "{outcome}");
    assert!(outcome.stderr.contains("third") && outcome.stderr.lines().count() == 1, "{outcome}");
}

/// A network in which the node has no address, and one without a bridge.
#[test]
fn other_kinds_of_networks() {
    let layer2 = json!({"cniVersion": "1.0.0", "name": "l2", "plugins": [{"type": "bridge", "bridge": "br-l2"}]});
    let ptp = json!({"cniVersion": "1.1.0", "name": "ptp", "plugins": [
        {"type": "ptp", "ipMasq": true, "ipMasqBackend": "nftables",
         "ipam": {"type": "host-local", "ranges": [[{"subnet": DUAL[0]}], [{"subnet": DUAL[1]}]],
                  "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
        {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}]});
    // Pods in the node's own network, on a bridge that its link is a port of.
    let lan = json!({"cniVersion": "1.0.0", "name": "lan", "plugins": [
        {"type": "bridge", "bridge": "br-lan", "ipam": {"type": "host-local", "dataDir": "/var/lib/cni/lan", "ranges":
            [[{"subnet": "198.51.100.0/24", "rangeStart": "198.51.100.100", "gateway": Internet::V4}]],
            "routes": [{"dst": "0.0.0.0/0"}]}}]});
    let node = Node::new(&lan);
    for line in [
        "ip link add br-lan type bridge",
        "ip address flush dev uplink",
        "ip link set uplink master br-lan",
        "ip link set br-lan up",
        "ip address add 198.51.100.1/24 dev br-lan",
        "ip route replace default via 198.51.100.2",
    ] {
        node.host.run(line);
    }
    let before = node.state();
    let report = node.report();
    report.assert_healthy();
    assert!(report.of("egress-ipv4").1.contains("answer") && report.of("neighbour-ipv4").0 == "ok", "{:#}", report.0);
    unchanged(&node, &before);

    for conf in [layer2, ptp] {
        let node = Node::new(&conf);
        let before = node.state();
        node.report().assert_healthy();
        unchanged(&node, &before);
    }
}

/// A gateway that pods cannot ask, as those of router advertisements are; and somebody else whom they can.
#[test]
fn a_link_local_gateway_and_a_target() {
    let node = Node::new(&network("nftables", &DUAL));
    node.internet.run("ip address add fe80::51/64 dev eth0 nodad");
    node.internet.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    node.host.run("ip -6 route replace default via fe80::51 dev uplink");
    let report = node.report();
    report.assert_healthy();
    let (verdict, way) = report.of("egress-ipv6");
    assert!(verdict == "ok" && way.contains("are answered") && way.contains(&Internet::HOST_V6.to_string()), "{way}");

    let outcome = node.run(&["--json", "--target", Internet::V6, "--target", "198.51.100.99"]);
    let report = Report(serde_json::from_str(&outcome.stdout).unwrap());
    assert_eq!(report.of(&format!("target-{}", Internet::V6)).0, "ok");
    let (verdict, said) = report.of("target-198.51.100.99");
    assert!(verdict == "broken" && said.contains("nobody is there"), "{said}");
}

/// The examples that this kernel can run and that need nothing of their surroundings.
#[test]
fn the_examples_raise_no_alarm() {
    for example in [
        "bridge",
        "bridge-dual-stack",
        "bridge-layer2",
        "bridge-nftables",
        "bridge-no-masquerade-to-cluster",
        "kubernetes",
        "kubernetes-nftables",
        "podman",
        "ptp",
    ] {
        let file = tests::bins::root().join(format!("conf-examples/{example}.conflist"));
        let conf: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        Node::new(&conf).report().assert_healthy();
    }
}
