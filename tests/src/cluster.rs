//! Two nodes, an internet behind them, and pods on the nodes: where Services are tried.
//!
//! ```text
//!                    internet
//!   198.51.100.2, 2001:db8:51::2   203.0.113.2, 2001:db8:52::2
//!            |                          |
//!         uplink .1                  uplink .1
//!         node 1  lan ---------- lan  node 2
//!           192.0.2.1, 2001:db8:2::1   192.0.2.2, 2001:db8:2::2
//!        pods 10.244.1.0/24         pods 10.244.2.0/24
//!        pods fd00:10:244:1::/64    pods fd00:10:244:2::/64
//! ```
//!
//! Each node has a route to the other's pods by `lan`, as flannel's host-gw writes it. The internet knows the nodes and
//! nothing of the pods: an answer from there proves that a node put its own address on the packet.
//!
//! Addresses come in twos, IPv4 first: `[IpAddr; 2]`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::echo::Echo;
use crate::host::Host;
use crate::kube_proxy::Endpoint;
use crate::plugin::{Plugin, with_prev_result};
use crate::pod::Pod;

/// The same thing in both families, IPv4 first.
pub type Dual = [IpAddr; 2];

/// What all pods are in: kube-proxy's `--cluster-cidr`.
pub const CLUSTER_CIDR: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

/// Which of the two iptables a node has under that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// The one that keeps its rules in `nf_tables`.
    Nft,
    /// The one that keeps them in tables of its own.
    Legacy,
}

/// Two nodes and an internet. Gone with the last handle, as every [`Host`].
#[derive(Debug)]
pub struct Cluster {
    internet: Host,
    nodes: [Node; 2],
}

/// One node.
#[derive(Debug)]
pub struct Node {
    host: Host,
    number: u8,
    /// Its address among nodes: what Kubernetes calls `InternalIP`.
    pub lan: Dual,
    /// Its address towards the internet.
    pub uplink: Dual,
    /// The internet, as this node knows it.
    pub outside: Dual,
    /// The first address of its pods' ranges: their gateway.
    pub gateway: Dual,
}

impl Cluster {
    /// Nodes that forward, without any rule.
    pub fn new(flavour: Flavour) -> Self {
        let internet = Host::new();
        let nodes = [1, 2].map(|number| Node::create(number, flavour, &internet));
        let [one, two] = &nodes;
        one.run(&format!("ip link add lan type veth peer name lan netns {}", two.net_path()));
        for (node, peer) in [(one, two), (two, one)] {
            node.connect("lan", node.lan);
            for (subnet, via) in peer.subnets().iter().zip(peer.lan) {
                node.run(&format!("ip route add {subnet} via {via}"));
            }
        }
        nodes.iter().for_each(Node::wait_for_links);
        Self { internet, nodes }
    }

    /// The nodes, by `number` less one.
    pub fn nodes(&self) -> &[Node; 2] {
        &self.nodes
    }

    /// The machine behind the nodes.
    pub fn internet(&self) -> &Host {
        &self.internet
    }

    /// FORWARD drops what no rule accepts, in both families on both nodes. What nodes and pods send to each other's nodes
    /// is accepted when it comes in by `lan`: the administrator's rule, as flannel writes it too.
    pub fn drop_forwarded(&self) {
        for node in &self.nodes {
            for program in ["iptables", "ip6tables"] {
                node.run(&format!("{program} -P FORWARD DROP"));
                node.run(&format!("{program} -A FORWARD -i lan -j ACCEPT"));
            }
        }
    }
}

impl Node {
    fn create(number: u8, flavour: Flavour, internet: &Host) -> Self {
        let n = u16::from(number);
        let (net, outside6) = if number == 1 { ([198, 51, 100], 0x51) } else { ([203, 0, 113], 0x52) };
        let uplink = |last: u8| -> Dual {
            [Ipv4Addr::new(net[0], net[1], net[2], last).into(), v6([0x2001, 0xdb8, outside6], u16::from(last))]
        };
        let node = Self {
            host: Host::new(),
            number,
            lan: [Ipv4Addr::new(192, 0, 2, number).into(), v6([0x2001, 0xdb8, 2], n)],
            uplink: uplink(1),
            outside: uplink(2),
            gateway: [
                Ipv4Addr::new(10, 244, number, 1).into(),
                Ipv6Addr::new(0xfd00, 0x10, 0x244, n, 0, 0, 0, 1).into(),
            ],
        };
        if flavour == Flavour::Legacy {
            node.host.choose_legacy();
        }
        node.run(&format!("ip link add uplink type veth peer name node-{number} netns {}", internet.net_path()));
        internet.connect(&format!("node-{number}"), node.outside);
        node.connect("uplink", node.uplink);
        for via in node.outside {
            node.run(&format!("ip route add default via {via}"));
        }
        // The lab asks many questions in a second: none shall go unrefused because the kernel counts its ICMP errors.
        node.set_sysctl("net/ipv4/icmp_ratelimit", "0");
        node.set_sysctl("net/ipv6/icmp/ratelimit", "0");
        node.set_sysctl("net/ipv4/ip_forward", "1");
        node.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        node
    }

    /// The kernel brings a veth pair and its IPv6 addresses up in its own time, also after a ping was answered. Last, where
    /// it forwards, comes the anycast route of each network: here of two links with two networks.
    fn wait_for_links(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let routes = self.run("ip -6 route show table local type anycast");
            if routes.lines().count() == 4 {
                return;
            }
            assert!(Instant::now() < deadline, "the links of node {} are not up: {routes}", self.number);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// 1 or 2.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The node itself: its plugins, its state.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where its pods are.
    pub fn subnets(&self) -> [String; 2] {
        let number = self.number;
        [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")]
    }

    /// Whether frames that this node bridges pass through iptables, once `bridge-nf-call-iptables` is 1, as Kubernetes
    /// asks of a node. A kernel without `br_netfilter` cannot.
    pub fn filters_bridged(&self, wanted: bool) -> bool {
        let value = if wanted { "1" } else { "0" };
        let keys = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];
        let is_there = self.enter(|| keys.iter().all(|key| fs::exists(format!("/proc/sys/{key}")).unwrap_or(false)));
        if is_there {
            keys.iter().for_each(|key| self.set_sysctl(key, value));
        }
        is_there && wanted
    }

    /// A pod with a server, attached by the chain of plugins that `chain` makes for it; it is told the server's port.
    #[track_caller]
    pub fn attach<'a>(&'a self, name: &str, chain: impl FnOnce(u16) -> Vec<Link<'a>>) -> Member<'a> {
        let pod = self.host.pod();
        let echo = Echo::named(&pod, name);
        let chain = chain(echo.port());
        let mut result = Value::Null;
        for (plugin, conf) in &chain {
            let conf = if result.is_null() { conf.clone() } else { with_prev_result(conf, &result) };
            result = plugin.add(&conf, &pod, "eth0").success();
        }
        let ips = result["ips"].as_array().map_or(&[][..], Vec::as_slice);
        let mut addresses = ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
        let addresses = [addresses.next(), addresses.next()].map(|found| found.expect("an address of each family"));
        Member { pod, node: self, name: name.to_owned(), addresses, echo, chain, result }
    }
}

impl std::ops::Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Host {
    /// Gives a link of the lab its addresses. Nobody else can have them: nothing waits for a test of duplicates.
    fn connect(&self, link: &str, addresses: Dual) {
        self.set_sysctl(&format!("net/ipv6/conf/{link}/accept_ra"), "0");
        self.set_sysctl(&format!("net/ipv6/conf/{link}/accept_dad"), "0");
        for (address, length) in addresses.iter().zip([24, 64]) {
            self.run(&format!("ip address add {address}/{length} dev {link}"));
        }
        self.run(&format!("ip link set {link} up"));
    }
}

/// One plugin of a chain, with its configuration.
pub type Link<'a> = (Plugin<'a>, Value);

/// A pod of the cluster, with a server that says its name.
#[derive(Debug)]
pub struct Member<'a> {
    /// The pod.
    pub pod: Pod,
    /// Its node.
    pub node: &'a Node,
    /// Its addresses.
    pub addresses: Dual,
    name: String,
    echo: Echo,
    chain: Vec<Link<'a>>,
    result: Value,
}

impl Member<'_> {
    /// Where its server is.
    pub fn server(&self, family: usize) -> SocketAddr {
        SocketAddr::new(self.addresses[family], self.echo.port())
    }

    /// As what stands behind a Service.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { node: self.node.number, addresses: self.addresses, port: self.echo.port() }
    }

    /// What a rule or file of this pod's may have in it: its id and its addresses.
    pub fn marks(&self) -> Vec<String> {
        let [v4, v6] = self.addresses;
        vec![self.pod.id(), v4.to_string(), v6.to_string()]
    }

    /// CHECK of the whole chain.
    #[track_caller]
    pub fn check(&self) {
        for (plugin, conf) in &self.chain {
            plugin.check(with_prev_result(conf, &self.result), &self.pod, "eth0").success();
        }
    }

    /// DEL of the whole chain, in reverse.
    #[track_caller]
    pub fn detach(&self) {
        for (plugin, conf) in self.chain.iter().rev() {
            plugin.del(with_prev_result(conf, &self.result), &self.pod, "eth0").success();
        }
    }

    /// What its server says when it sees this address.
    pub fn saw(&self, address: IpAddr) -> String {
        format!("{} saw {address}", self.name)
    }
}

fn v6(net: [u16; 3], last: u16) -> IpAddr {
    Ipv6Addr::new(net[0], net[1], net[2], 0, 0, 0, 0, last).into()
}
