//! Networks of bridge and firewall, what a runtime does with such a chain, and what the rules look like: the words that
//! firewall's tests share.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::with_prev_result;
use tests::{Host, Internet, Namespace, Outcome, Plugin, Pod};

use crate::bridge_conf::with;

/// A chain of bridge and firewall.
pub struct Net {
    pub bridge: Value,
    pub firewall: Value,
}

/// Dual stack on `br<number>`: `10.<number>.0.0/24` and `fd00:<number>::/64`.
pub fn net(number: u8, keys: Value) -> Net {
    let (name, bridge) = (format!("net{number}"), format!("br{number}"));
    let subnets =
        [format!("10.{number}.0.0/24"), format!("fd00:{number}::/64")].map(|subnet| json!([{"subnet": subnet}]));
    let bridge = json!({"cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": bridge,
        "isDefaultGateway": true, "ipam": {"type": "host-local", "ranges": subnets}});
    let firewall = json!({"cniVersion": "1.0.0", "name": name, "type": "firewall"});
    Net { bridge, firewall: with(&firewall, keys) }
}

/// What our tests say of a flavour of rules: iptables in nf_tables, legacy iptables, nf_tables without iptables.
pub const FLAVOURS: [&str; 3] = ["nft", "legacy", "nftables"];

/// A directory whose `iptables` are legacy's.
pub fn legacy_programs() -> TempDir {
    let directory = TempDir::new().unwrap();
    for program in ["iptables", "iptables-restore", "ip6tables", "ip6tables-restore"] {
        symlink("/usr/sbin/xtables-legacy-multi", directory.path().join(program)).unwrap();
    }
    directory
}

/// A directory with links to these programs, and one that only fails under each of those names.
pub fn programs(good: &[&str], bad: &[&str]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for program in good {
        symlink(Path::new("/usr/sbin").join(program), directory.path().join(program)).unwrap();
    }
    for program in bad {
        crate::refusal::write_script(&directory.path().join(program), "echo this node has no $0 >&2; exit 127");
    }
    directory
}

/// A node of a flavour, and what a runtime does on it.
#[derive(Clone)]
pub struct Node {
    pub host: Arc<Host>,
    flavour: &'static str,
    programs: Arc<TempDir>,
}

impl Node {
    pub fn new(flavour: &'static str) -> Self {
        Self { host: Arc::new(Host::new()), flavour, programs: Arc::new(legacy_programs()) }
    }

    /// The same node with other programs.
    pub fn with_flavour(&self, flavour: &'static str) -> Self {
        Self { flavour, ..self.clone() }
    }

    /// The network with this node's backend.
    pub fn net(&self, number: u8, keys: Value) -> Net {
        let backend = if self.flavour == "nftables" { "nftables" } else { "iptables" };
        net(number, with(&json!({"backend": backend}), keys))
    }

    pub fn is_nftables(&self) -> bool {
        self.flavour == "nftables"
    }

    /// A plugin that finds this node's iptables.
    pub fn with_programs<'a>(&self, plugin: Plugin<'a>) -> Plugin<'a> {
        if self.flavour == "legacy" { plugin.env("PATH", self.programs.path().display()) } else { plugin }
    }

    pub fn firewall(&self) -> Plugin<'_> {
        self.with_programs(self.host.plugin("firewall"))
    }

    /// ADD of the chain; the last result.
    #[track_caller]
    pub fn add(&self, net: &Net, pod: &Pod) -> Value {
        let result = self.host.plugin("bridge").add(&net.bridge, pod, "eth0").success();
        self.firewall().add(with_prev_result(&net.firewall, &result), pod, "eth0").success()
    }

    pub fn check(&self, net: &Net, pod: &Pod, result: &Value) -> Outcome {
        self.firewall().check(with_prev_result(&net.firewall, result), pod, "eth0")
    }

    #[track_caller]
    pub fn del(&self, net: &Net, pod: &Pod, result: &Value) {
        self.firewall().del(with_prev_result(&net.firewall, result), pod, "eth0").success();
        self.host.plugin("bridge").del(with_prev_result(&net.bridge, result), pod, "eth0").success();
    }

    /// Runs one of iptables' programs of this node.
    #[track_caller]
    pub fn iptables(&self, line: &str) -> String {
        let (program, arguments) = line.split_once(' ').unwrap();
        let flavour = if self.flavour == "legacy" { "-legacy" } else { "-nft" };
        let (name, restore) =
            program.split_once('-').map_or((program, String::new()), |(name, rest)| (name, format!("-{rest}")));
        self.host.run(&format!("{name}{flavour}{restore} {arguments}"))
    }

    /// The rules of a chain of table `filter`, as iptables prints them.
    pub fn rules(&self, program: &str, chain: &str) -> Vec<String> {
        let lines = self.iptables(&format!("{program} -S {chain}"));
        lines.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
    }

    /// Gives a text to `iptables-restore --noflush` (or ip6tables).
    pub fn restore(&self, program: &str, text: &str) {
        self.host.enter(|| fs::write("/run/rules", text).unwrap());
        self.iptables(&format!("{program}-restore --noflush /run/rules"));
    }

    /// Whether what passes from port to port of a bridge is seen by iptables.
    pub fn set_br_netfilter(&self, on: bool) {
        for key in ["iptables", "ip6tables"] {
            self.host.set_sysctl(&format!("net/bridge/bridge-nf-call-{key}"), if on { "1" } else { "0" });
        }
    }

    /// The internet, which here knows the way to the pods of the networks 1 to 3.
    pub fn internet(&self) -> Internet {
        let internet = self.host.internet();
        for number in 1..=3 {
            internet.run(&format!("ip route add 10.{number}.0.0/24 via {}", Internet::HOST_V4));
            internet.run(&format!("ip route add fd00:{number}::/64 via {}", Internet::HOST_V6));
        }
        internet
    }
}

/// Both addresses of a result, without their lengths.
pub fn addresses(result: &Value) -> [String; 2] {
    [0, 1].map(|index| result["ips"][index]["address"].as_str().unwrap().split('/').next().unwrap().to_owned())
}

/// Whether `from` is answered by both addresses; panics when the two families differ.
#[track_caller]
pub fn reaches(from: &Namespace, to: &[String; 2]) -> bool {
    let [v4, v6] = std::thread::scope(|scope| {
        let threads = [0, 1].map(|index| scope.spawn(move || from.pings(&to[index])));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(v4, v6, "IPv4 and IPv6 differ for {to:?}");
    v4
}

/// How a TCP connection ends: `Ok` when there is one.
pub fn connect(from: &Namespace, to: &str) -> Result<(), std::io::ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    from.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)).map(drop).map_err(|error| error.kind()))
}
