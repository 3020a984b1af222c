//! A node of pods with whole chains, driven through a runtime's cache, whose suite is swapped: the words that the tests
//! of the takeover share.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use tempfile::TempDir;
use tests::plugin::Cnitool;
use tests::{Echo, Host, Internet, Outcome, Pod, bins, namespace};

use crate::bridge_conf::{links, of, with};
use crate::mixed_pairs::{is_newer, nft_alone, wait_for_duplicate_detection};
use crate::portmap_conf::legacy;
use crate::ptp;
use crate::takeover_facts::Facts;

/// The name of the network, everywhere.
pub const NETWORK: &str = "swapped";
/// The port of the node that leads to the first pod; the next one's is one more.
pub const PORT: u16 = 8000;

/// Chains as they are in use: Kubernetes', podman's (at its version), ptp's, and one with written addresses, a policy
/// and sysctls.
pub const CHAINS: [&str; 4] = ["kubernetes", "podman", "ptp", "policy"];

/// One reference, and where the node's rules are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which of the references.
    pub which: usize,
    /// It is newer than 1.1.1.
    pub newer: bool,
    pub backend: &'static str,
    pub legacy: bool,
}

/// Every reference that is there, with every backend that it knows.
pub fn ways() -> Vec<Way> {
    let host = Host::new();
    let references = host.references("bridge");
    let of_one = |(which, reference)| {
        let newer = is_newer(&reference);
        let way = move |backend, legacy| Way { which, newer, backend, legacy };
        let all = [way("iptables", false), way("iptables", true), way("nftables", false)];
        all.into_iter().filter(move |way| newer || way.backend == "iptables")
    };
    references.into_iter().enumerate().flat_map(of_one).collect()
}

/// Runs a story for each way, all at once: most of their time is waiting.
pub fn at_once(ways: &[Way], story: impl Fn(Way) + Sync) {
    thread::scope(|scope| {
        for way in ways {
            let story = &story;
            scope.spawn(move || story(*way));
        }
    });
}

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    Ours,
    Theirs,
}

/// The configuration list of a chain.
pub fn list(chain: &str, way: Way, backend: &str) -> Value {
    let egress = json!({"ipMasq": true, "ipMasqBackend": backend, "hairpinMode": true});
    let bridge = with(&of(&["10.1.0.0/24", "fd00:1::/64"]), egress.clone());
    let portmap = json!({"type": "portmap", "backend": backend, "capabilities": {"portMappings": true}});
    let bandwidth = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
    let tuning = json!({"type": "tuning", "capabilities": {"mac": true}, "mtu": 1400});
    let (version, plugins) = match chain {
        "kubernetes" => ("1.0.0", vec![bridge, portmap, bandwidth]),
        "podman" => ("0.4.0", vec![bridge, portmap, json!({"type": "firewall"}), tuning]),
        "ptp" => ("1.0.0", vec![with(&ptp::dual(), egress), portmap, bandwidth]),
        _ => {
            let mut written = bridge;
            written["ipam"] = json!({"type": "static"});
            written["capabilities"] = json!({"ips": true});
            // 1.1.1 has no `isolated`.
            let policy = if way.newer { "isolated" } else { "same-bridge" };
            let sysctl = json!({"net.ipv4.conf.all.log_martians": "1"});
            let tuning = with(&tuning, json!({"sysctl": sysctl, "promisc": true, "allmulti": true}));
            ("1.0.0", vec![written, json!({"type": "firewall", "ingressPolicy": policy}), tuning])
        }
    };
    let plugins: Vec<Value> = plugins.into_iter().map(without_what_the_list_says).collect();
    json!({"cniVersion": version, "name": NETWORK, "plugins": plugins})
}

fn without_what_the_list_says(mut plugin: Value) -> Value {
    let keys = plugin.as_object_mut().unwrap();
    keys.remove("cniVersion");
    keys.remove("name");
    plugin
}

/// A pod, what the runtime says of it, and its server.
pub struct Life {
    pub pod: Pod,
    pub server: Option<Echo>,
    pub port: u16,
    number: usize,
    container_port: u16,
}

/// What is known of a pod beside the pod: its id, and its addresses while it lived.
pub struct Known {
    pub id: String,
    pub addresses: Vec<String>,
}

impl Life {
    /// So much higher is what a pod's second attachment has.
    pub const SHIFT: u16 = 100;

    /// CAP_ARGS: the same at every call, as a runtime's.
    fn capabilities(&self, shift: u16) -> String {
        let (number, port) = (self.number + 2 + usize::from(shift), self.container_port);
        let mapping = |protocol| json!({"hostPort": self.port + shift, "containerPort": port, "protocol": protocol});
        let rate = json!({"ingressRate": 50_000_000, "ingressBurst": 5_000_000,
            "egressRate": 50_000_000, "egressBurst": 5_000_000});
        json!({"portMappings": [mapping("tcp"), mapping("udp")], "bandwidth": rate,
            "mac": format!("02:00:00:00:00:{number:02x}"),
            "ips": [format!("10.1.0.{number}/24"), format!("fd00:1::{number:x}/64")]})
        .to_string()
    }

    /// Its addresses, without their lengths.
    pub fn addresses(&self) -> Vec<String> {
        let all = self.pod.addresses("eth0");
        all.iter().map(|address| address.split('/').next().unwrap().to_owned()).collect()
    }

    /// The namespace goes, and with it the server's sockets, which would hold it.
    pub fn die(&mut self) {
        self.server = None;
        self.pod.destroy();
    }
}

/// A node with one network, and an internet behind it.
pub struct Node {
    pub host: Host,
    pub internet: Internet,
    pub way: Way,
    net_d: TempDir,
    legacy: Option<TempDir>,
    nft_alone: TempDir,
    /// Our programs but one, where that is missing.
    missing: Mutex<Option<TempDir>>,
}

impl Node {
    pub fn new(chain: &'static str, way: Way) -> Self {
        let host = Host::new();
        let internet = host.internet();
        let net_d = TempDir::new().unwrap();
        let node = Self {
            host,
            internet,
            way,
            net_d,
            legacy: way.legacy.then(legacy),
            nft_alone: nft_alone(),
            missing: Mutex::default(),
        };
        node.configure(&list(chain, way, way.backend));
        node
    }

    /// Another configuration, and other programs, from now on.
    pub fn change(&mut self, chain: &str, way: Way) {
        self.way = way;
        self.legacy = way.legacy.then(legacy);
        self.configure(&list(chain, way, way.backend));
    }

    /// Why the reference's DEL fails: its masquerade in nftables beside iptables 1.8.9.
    pub fn del_defect(&self) -> Option<&'static str> {
        (self.way.backend == "nftables" && self.has("firewall")).then_some("iptables")
    }

    /// Puts a configuration in the place of the one before.
    pub fn configure(&self, list: &Value) {
        fs::write(self.net_d.path().join("10.conflist"), list.to_string()).unwrap();
    }

    /// One of another network beside it.
    pub fn configure_other(&self, list: &Value) {
        fs::write(self.net_d.path().join("20.conflist"), list.to_string()).unwrap();
    }

    pub fn list(&self) -> Value {
        serde_json::from_slice(&fs::read(self.net_d.path().join("10.conflist")).unwrap()).unwrap()
    }

    /// A pod with a server, and a port of the node for it.
    pub fn life(&self, number: usize) -> Life {
        self.life_at(number, PORT + u16::try_from(number).unwrap())
    }

    pub fn life_at(&self, number: usize, port: u16) -> Life {
        let pod = self.host.pod();
        let server = pod.listen();
        Life { pod, container_port: server.port(), server: Some(server), port, number }
    }

    /// Where the node's programs are. The reference's DEL with nftables asks iptables for a chain that it never made, and
    /// takes iptables 1.8.9's answer for a failure: it has nft alone, unless its firewall needs iptables.
    fn programs(&self, suite: Suite) -> String {
        match &self.legacy {
            Some(legacy) => format!("{}:{}", legacy.path().display(), namespace::PATH),
            None if suite == Suite::Theirs && self.way.backend == "nftables" && !self.has("firewall") => {
                self.nft_alone.path().display().to_string()
            }
            None => namespace::PATH.to_owned(),
        }
    }

    pub fn has(&self, plugin: &str) -> bool {
        self.list()["plugins"].as_array().unwrap().iter().any(|conf| conf["type"] == plugin)
    }

    fn tool(&self, suite: Suite) -> Cnitool<'_> {
        let directory: PathBuf = match suite {
            Suite::Ours => match &*self.missing.lock().unwrap() {
                Some(others) => others.path().to_owned(),
                None => bins::directory(),
            },
            Suite::Theirs => bins::reference_directories().swap_remove(self.way.which),
        };
        let tool = self.host.cnitool(self.net_d.path()).env("CNI_PATH", directory.display());
        tool.env("PATH", self.programs(suite))
    }

    /// A verb of the whole chain, as a runtime calls it: what ADD returned is in the cache.
    pub fn call(&self, suite: Suite, verb: &str, life: &Life) -> Outcome {
        self.tool(suite).env("CAP_ARGS", life.capabilities(0)).call(verb, NETWORK, &life.pod)
    }

    /// A verb of ours for a pod's second attachment.
    pub fn call_second(&self, verb: &str, life: &Life, network: &str, ifname: &str) -> Outcome {
        let tool = self.tool(Suite::Ours).env("CAP_ARGS", life.capabilities(Life::SHIFT)).env("CNI_IFNAME", ifname);
        tool.call(verb, network, &life.pod)
    }

    #[track_caller]
    pub fn add(&self, suite: Suite, life: &Life) {
        self.call(suite, "add", life).success();
        wait_for_duplicate_detection(&self.host);
    }

    /// GC of every plugin of the list by us, with these pods valid, as a runtime's that remembers no other.
    #[track_caller]
    pub fn gc(&self, valid: &[&Life]) {
        let list = self.list();
        let valid: Vec<Value> =
            valid.iter().map(|life| json!({"containerID": self.id(life), "ifname": "eth0"})).collect();
        for plugin in list["plugins"].as_array().unwrap() {
            let keys = json!({"cniVersion": "1.1.0", "name": NETWORK, "cni.dev/valid-attachments": valid});
            let name = plugin["type"].as_str().unwrap();
            let ours = self.host.plugin(name).env("PATH", self.programs(Suite::Ours));
            ours.gc(with(plugin, keys)).success();
        }
    }

    /// The file in which the runtime remembers a pod.
    fn remembered(&self, life: &Life) -> (PathBuf, Value) {
        let netns = life.pod.path().display().to_string();
        let files = fs::read_dir(self.host.store().join("results")).unwrap();
        let read = |path: PathBuf| Some((path.clone(), serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok()?));
        let mut all = files.filter_map(|file| read(file.ok()?.path()));
        all.find(|(_, entry)| entry["netns"] == netns.as_str()).expect("the runtime remembers it")
    }

    /// The id that the runtime gave it.
    fn id(&self, life: &Life) -> String {
        self.remembered(life).1["containerId"].as_str().unwrap().to_owned()
    }

    /// To be asked while it is there.
    pub fn known(&self, life: &Life) -> Known {
        Known { id: self.id(life), addresses: life.addresses() }
    }

    /// A word of every rule that masquerades a pod.
    pub fn masquerade_of(&self, pod: &Known) -> String {
        if self.way.backend == "nftables" {
            return pod.id.clone();
        }
        let hash = Sha512::digest(format!("{NETWORK}{}", pod.id));
        hash.iter().take(12).fold("CNI-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
    }

    /// The runtime loses what it remembered of a pod.
    pub fn forget(&self, life: &Life) {
        fs::remove_file(self.remembered(life).0).unwrap();
    }

    /// The result that it remembers is another.
    pub fn remember(&self, life: &Life, result: Value) {
        let (path, mut entry) = self.remembered(life);
        entry["result"] = result;
        fs::write(path, entry.to_string()).unwrap();
    }

    /// The whole file is the result.
    pub fn remember_the_result_alone(&self, life: &Life) {
        let (path, entry) = self.remembered(life);
        fs::write(path, entry["result"].to_string()).unwrap();
    }

    /// The power failed while it was written.
    pub fn damage_memory(&self, life: &Life) {
        let (path, entry) = self.remembered(life);
        let text = entry.to_string();
        fs::write(path, &text[..text.len() / 2]).unwrap();
    }

    /// From now on one program of ours is not installed; or it is again.
    pub fn without_program(&self, name: &str, missing: bool) {
        *self.missing.lock().unwrap() = missing.then(|| {
            let directory = TempDir::new().unwrap();
            let programs = fs::read_dir(bins::directory()).unwrap().map(|program| program.unwrap());
            for program in programs.filter(|program| program.file_name() != name) {
                std::os::unix::fs::symlink(program.path(), directory.path().join(program.file_name())).unwrap();
            }
            directory
        });
    }

    /// What there is, but the bridges themselves.
    pub fn facts(&self) -> Facts {
        Facts::of(&self.host, &["cni0", "cni1"])
    }

    /// Packets: the internet reaches the pod at the node's port, the pod the internet as the node, in both families.
    #[track_caller]
    pub fn assert_works(&self, life: &Life, what: &str) {
        if self.has("portmap") {
            for node in [Internet::HOST_V4, Internet::HOST_V6] {
                let asked = self.internet.asks_at(&node.to_string(), life.port);
                assert!(asked.is_ok(), "{what}: {node} port {}: {asked:?}", life.port);
            }
        }
        let outside = self.internet.listen();
        for (there, node) in [(Internet::V4, Internet::HOST_V4), (Internet::V6, Internet::HOST_V6)] {
            assert_eq!(life.pod.asks(there, &outside), Ok(node), "{what}");
        }
    }

    /// The host's ends of pods' links.
    pub fn ends(&self) -> Vec<String> {
        let mut ends = links(&self.host, "veth");
        ends.retain(|end| end != "uplink");
        ends
    }

    /// The youngest link of a kind, or host's end.
    pub fn newest(&self, kind: &str) -> String {
        let mut all = links(&self.host, kind);
        all.retain(|link| link != "uplink");
        all.pop().unwrap()
    }

    pub fn newest_end(&self) -> String {
        self.newest("veth")
    }

    /// The kernel takes the links of a namespace away some time after it.
    pub fn wait_for_ends(&self, number: usize) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.ends().len() != number && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.ends().len(), number);
    }
}
