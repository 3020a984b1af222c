//! A node under load: pods come and go in random order by sixteen workers, and plugins are killed at random moments. No
//! address is ever held by two pods at once, and at the end nothing is left.
//!
//! `PODWIRE_LOAD_SECONDS=120` makes it as long as that; by default it is short. The seed is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Namespace, Outcome, Pod};

use crate::bridge_conf::{leases, links, masqueraded, with};

const PODS: usize = 200;
const WORKERS: usize = 16;
const SECONDS: u64 = 8;

/// What a pod is to its runtime.
enum Life {
    Down,
    Up(Value),
    /// A plugin was killed: nobody knows. Runtimes DEL.
    Unknown,
}

struct Slot {
    number: usize,
    pod: Pod,
    life: Life,
}

struct Node {
    host: Host,
    backend: &'static str,
    idle: Mutex<Vec<Slot>>,
    /// Who has an address, from the end of its ADD to the begin of its DEL.
    holders: Mutex<BTreeMap<IpAddr, usize>>,
    adds: AtomicUsize,
    kills: AtomicUsize,
}

/// Splitmix64: a few good enough numbers from a seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    /// One call in four has so little time, in steps of 0.1 ms.
    fn patience(&mut self) -> Option<Duration> {
        (self.throw(4) == 0).then(|| Duration::from_micros(100 * self.throw(100) as u64))
    }
}

impl Node {
    fn new(backend: &'static str) -> Self {
        let host = Host::new();
        let slot = |number| Slot { number, pod: host.pod(), life: Life::Down };
        let idle = Mutex::new((0..PODS).map(slot).collect::<Vec<Slot>>());
        let (holders, adds, kills) = (Mutex::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { host, backend, idle, holders, adds, kills }
    }

    fn bridge(&self) -> Value {
        with(&masqueraded(self.backend), json!({"cniVersion": "1.1.0", "macspoofchk": true}))
    }

    fn portmap(&self, number: usize) -> Value {
        json!({"cniVersion": "1.1.0", "name": "net", "type": "portmap", "backend": self.backend,
            "runtimeConfig": {"portMappings": [{"hostPort": 10_000 + number, "containerPort": 80, "protocol": "tcp"}]}})
    }

    /// What a call of one plugin came to; `None`: it was killed.
    fn call(&self, plugin: &str, verb: &str, conf: &Value, pod: &Pod, patience: Option<Duration>) -> Option<Outcome> {
        let plugin = self.host.plugin(plugin);
        let plugin = patience.map_or_else(|| plugin.clone(), |limit| plugin.clone().killed_after(limit));
        let outcome = match verb {
            "ADD" => plugin.add(conf, pod, "eth0"),
            "DEL" => plugin.del(conf, pod, "eth0"),
            _ => plugin.check(conf, pod, "eth0"),
        };
        if outcome.status.is_none() {
            assert!(patience.is_some(), "nobody killed it\n{outcome}");
            self.kills.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(outcome)
    }

    fn add(&self, slot: &Slot, mut patience: impl FnMut() -> Option<Duration>) -> Life {
        let Some(outcome) = self.call("bridge", "ADD", &self.bridge(), &slot.pod, patience()) else {
            return Life::Unknown;
        };
        let result = outcome.success();
        self.adds.fetch_add(1, Ordering::Relaxed);
        for address in addresses(&result) {
            let other = self.holders.lock().unwrap().insert(address, slot.number);
            assert_eq!(other, None, "{address} of pod {} was given to pod {}, too", other.unwrap_or(0), slot.number);
        }
        let mapped = with_prev_result(&self.portmap(slot.number), &result);
        match self.call("portmap", "ADD", &mapped, &slot.pod, patience()) {
            Some(outcome) => drop(outcome.success()),
            None => {
                self.release(slot);
                return Life::Unknown;
            }
        }
        Life::Up(result)
    }

    fn release(&self, slot: &Slot) {
        self.holders.lock().unwrap().retain(|_, holder| *holder != slot.number);
    }

    /// DEL in the order of a runtime: the last plugin first, with the result if it has one.
    fn del(&self, slot: &Slot, mut patience: impl FnMut() -> Option<Duration>) -> Life {
        self.release(slot);
        for (plugin, conf) in [("portmap", self.portmap(slot.number)), ("bridge", self.bridge())] {
            let conf = if let Life::Up(result) = &slot.life { with_prev_result(&conf, result) } else { conf };
            match self.call(plugin, "DEL", &conf, &slot.pod, patience()) {
                Some(outcome) => drop(outcome.success()),
                None => return Life::Unknown,
            }
        }
        Life::Down
    }

    fn check(&self, slot: &Slot) {
        let Life::Up(result) = &slot.life else { return };
        for (plugin, conf) in [("bridge", self.bridge()), ("portmap", self.portmap(slot.number))] {
            let outcome = self.call(plugin, "CHECK", &with_prev_result(&conf, result), &slot.pod, None);
            outcome.unwrap().success();
        }
    }

    fn work(&self, mut dice: Dice, until: Instant) {
        while Instant::now() < until {
            let slot = {
                let mut idle = self.idle.lock().unwrap();
                let any = dice.throw(idle.len());
                idle.swap_remove(any)
            };
            let life = match &slot.life {
                Life::Down => self.add(&slot, || dice.patience()),
                Life::Unknown => self.del(&slot, || dice.patience()),
                Life::Up(_) if dice.throw(4) == 0 => {
                    self.check(&slot);
                    self.idle.lock().unwrap().push(slot);
                    continue;
                }
                Life::Up(_) => self.del(&slot, || dice.patience()),
            };
            self.idle.lock().unwrap().push(Slot { life, ..slot });
        }
    }

    /// Looks in all pods again and again, whatever their runtimes believe of them.
    fn watch(pods: &[Namespace], until: Instant) {
        while Instant::now() < until {
            let mut seen: BTreeMap<IpAddr, (usize, Seen)> = BTreeMap::new();
            for (number, pod) in pods.iter().enumerate() {
                let now = Seen::of(pod);
                for address in now.addresses.clone() {
                    let Some((other, before)) = seen.insert(address, (number, now.clone())) else { continue };
                    let still = Seen::of(&pods[other]);
                    let at_once = still.link == before.link && still.addresses.contains(&address);
                    assert!(!at_once, "{address} is in pod {other} and in pod {number}");
                }
            }
        }
    }
}

/// A pod's interface, which is another one after each ADD, and its addresses.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    link: Option<u32>,
    addresses: BTreeSet<IpAddr>,
}

impl Seen {
    fn of(pod: &Namespace) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let (inet6, trie) = pod.enter(|| (read("if_inet6"), read("fib_trie")));
        let inet6 = inet6.lines().filter(|line| line.ends_with(" eth0"));
        let inet6 = inet6.filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u128::from_str_radix(words.next()?, 16).ok()?;
            Some((u32::from_str_radix(words.next()?, 16).ok()?, Ipv6Addr::from_bits(address)))
        });
        let inet6: Vec<(u32, Ipv6Addr)> = inet6.collect();
        let link = inet6.first().map(|(link, _)| *link);
        let inet6 = inet6.iter().map(|(_, address)| *address).filter(|address| !address.is_unicast_link_local());
        // "|-- ADDRESS", and below it "/32 host LOCAL".
        let mut inet: Option<Ipv4Addr> = None;
        let mut addresses: BTreeSet<IpAddr> = inet6.map(IpAddr::V6).collect();
        for line in trie.lines().map(str::trim_start) {
            match line.strip_prefix("|-- ") {
                Some(address) => inet = address.parse().ok(),
                None if line == "/32 host LOCAL" => {
                    addresses.extend(inet.filter(|inet| !inet.is_loopback()).map(IpAddr::V4));
                }
                None => {}
            }
        }
        Self { link, addresses }
    }
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()).collect()
}

/// All of it, and then what is left is removed one by one, or by one GC.
fn under_load(backend: &'static str, by_gc: bool) {
    let node = Node::new(backend);
    // What stays by contract is there after the first pod: the bridge, forwarding, chains that all pods share.
    let slot = Slot { number: PODS, pod: node.host.pod(), life: Life::Down };
    let first = Slot { life: node.add(&slot, || None), ..slot };
    assert!(matches!(node.del(&first, || None), Life::Down));
    let before = node.host.state();
    let seconds = std::env::var("PODWIRE_LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let seed = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    println!("seed {seed}");
    let until = Instant::now() + Duration::from_secs(seconds);
    let pods: Vec<Namespace> = node.idle.lock().unwrap().iter().map(|slot| slot.pod.clone()).collect();
    thread::scope(|scope| {
        for worker in 0..WORKERS as u64 {
            let node = &node;
            scope.spawn(move || node.work(Dice(seed.wrapping_add(worker)), until));
        }
        scope.spawn(|| Node::watch(&pods, until));
    });
    let (adds, kills) = (node.adds.load(Ordering::Relaxed), node.kills.load(Ordering::Relaxed));
    println!("{adds} pods were added, {kills} calls were killed");
    assert!(adds > PODS / 4 && kills > PODS / 20, "too little was tried");

    let slots = std::mem::take(&mut *node.idle.lock().unwrap());
    if by_gc {
        collect(&node, &slots);
    }
    for slot in &slots {
        node.check(slot);
        if !by_gc || matches!(slot.life, Life::Up(_)) {
            assert!(matches!(node.del(slot, || None), Life::Down));
        }
        assert!(slot.pod.link("eth0").is_none(), "{} has an interface", slot.pod.name());
    }
    node.host.state().assert_same(&before);
}

/// The runtime has lost those it does not know, and says which are left.
fn collect(node: &Node, slots: &[Slot]) {
    let valid = slots.iter().filter(|slot| matches!(slot.life, Life::Up(_)));
    let valid: Vec<Value> = valid.map(|slot| json!({"containerID": slot.pod.id(), "ifname": "eth0"})).collect();
    for (plugin, conf) in [("portmap", node.portmap(0)), ("bridge", node.bridge())] {
        let conf = with(&conf, json!({"cni.dev/valid-attachments": valid}));
        node.host.plugin(plugin).gc(conf).success();
    }
    assert_eq!((leases(&node.host).len(), links(&node.host, "veth").len()), (2 * valid.len(), valid.len()));
}

#[test]
fn nothing_is_left_and_nothing_given_twice_iptables() {
    under_load("iptables", false);
}

#[test]
fn nothing_is_left_and_nothing_given_twice_nftables() {
    under_load("nftables", true);
}
