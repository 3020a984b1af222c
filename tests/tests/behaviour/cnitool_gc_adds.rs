//! `cnitool gc` beside ADDs that are at work: a pod of which nobody has heard yet keeps its link, its address and its rules.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tests::plugin::{Cnitool, with_prev_result};
use tests::{Host, Pod};

use crate::bridge_conf::with;
use crate::cnitool_gc::directory;
use crate::portmap_conf::mapping;

const PODS: usize = 40;
/// ADDs at a time.
const AT_ONCE: usize = 4;

/// The addresses are no other test's.
fn network(backend: &str, number: usize) -> Value {
    let ipam = json!({"type": "host-local", "subnet": format!("10.76.{number}.0/24")});
    json!({"cniVersion": "1.1.0", "name": "a", "plugins": [
        {"type": "bridge", "bridge": "br76", "isGateway": true, "ipMasq": true, "ipMasqBackend": backend, "ipam": ipam},
        {"type": "portmap", "backend": backend, "capabilities": {"portMappings": true}},
        {"type": "firewall", "backend": backend}]})
}

/// A pod, what a runtime hands to each plugin for it, and the result of its ADD.
struct Added {
    pod: Pod,
    host_port: u16,
    chain: Vec<Value>,
    result: Result<Value, String>,
}

impl Added {
    fn new(host: &Host, network: &Value, host_port: u16) -> Self {
        let common = json!({"cniVersion": "1.1.0", "name": "a",
            "runtimeConfig": {"portMappings": [mapping("tcp", host_port, 80)]}});
        let chain = network["plugins"].as_array().unwrap().iter().map(|plugin| with(plugin, common.clone())).collect();
        Self { pod: host.pod(), host_port, chain, result: Ok(Value::Null) }
    }

    /// ADD of each plugin, as a runtime that has not written its cache yet.
    fn add(&mut self, host: &Host) {
        for conf in &self.chain {
            let Ok(last) = &self.result else { return };
            let plugin = conf["type"].as_str().unwrap();
            let conf = if last.is_null() { conf.clone() } else { with_prev_result(conf, last) };
            let outcome = host.plugin(plugin).add(&conf, &self.pod, "eth0");
            let failed = || format!("ADD of {plugin}: {outcome}\n");
            self.result = if outcome.status == Some(0) { Ok(outcome.success()) } else { Err(failed()) };
        }
    }

    /// What it has not, a line each. `rules` is what a tool lists.
    fn misses(&self, host: &Host, rules: &str) -> String {
        let result = match &self.result {
            Ok(result) => result,
            Err(error) => return error.clone(),
        };
        let with_length = result["ips"][0]["address"].as_str().unwrap();
        let address = with_length.split('/').next().unwrap();
        let mut misses = String::new();
        if !self.pod.addresses("eth0").contains(&with_length.to_owned()) {
            misses += &format!("{address}: eth0 with it\n");
        }
        if !host.store().join("networks/a").join(address).exists() {
            misses += &format!("{address}: the lease\n");
        }
        let is_its = |line: &&str| line.split([' ', '/', ':', ',']).any(|word| word == address);
        let its: Vec<&str> = rules.lines().filter(is_its).collect();
        // Of bridge from it, of portmap to it, of firewall both.
        if its.len() < 3 || !its.iter().any(|rule| rule.contains(&self.host_port.to_string())) {
            misses += &format!("{address}: rules; there are {its:?}\n");
        }
        for conf in &self.chain {
            let plugin = conf["type"].as_str().unwrap();
            let check = host.plugin(plugin).check(with_prev_result(conf, result), &self.pod, "eth0");
            if check.status != Some(0) {
                misses += &format!("{address}: CHECK of {plugin}: {check}\n");
            }
        }
        misses
    }
}

/// ADDs of all pods, some at once, beside a GC that begins again when it ends. Between two lots one GC ends: ADDs that
/// overlap for all the time would leave it no moment.
fn add_beside_gc(host: &Host, cnitool: &Cnitool<'_>, pods: &mut [Added]) {
    let (done, collections) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                cnitool.run(&["gc", "a"]).success_text();
                collections.fetch_add(1, Ordering::Relaxed);
            }
        });
        for some in pods.chunks_mut(AT_ONCE) {
            thread::scope(|scope| some.iter_mut().for_each(|pod| drop(scope.spawn(|| pod.add(host)))));
            let before = collections.load(Ordering::Relaxed);
            while collections.load(Ordering::Relaxed) == before && !collector.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn gc_takes_nothing(backend: &str, number: usize) {
    let host = Host::new();
    let network = network(backend, number);
    let directory = directory(&[&network]);
    let mut pods: Vec<Added> = (9000..).take(PODS).map(|port| Added::new(&host, &network, port)).collect();
    add_beside_gc(&host, &host.cnitool(directory.path()), &mut pods);

    let rules = host.run(if backend == "iptables" { "iptables-save" } else { "nft list ruleset" });
    let misses: String = pods.iter().map(|pod| pod.misses(&host, &rules)).collect();
    assert!(misses.is_empty(), "of {PODS} pods some miss:\n{misses}");
}

#[test]
fn gc_takes_nothing_from_pods_whose_add_is_at_work_iptables() {
    gc_takes_nothing("iptables", 1);
}

#[test]
fn gc_takes_nothing_from_pods_whose_add_is_at_work_nftables() {
    gc_takes_nothing("nftables", 2);
}
