//! Chains of bridge or ptp with portmap, and what a runtime does with them: the words that portmap's tests share.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::with_prev_result;
use tests::{Host, Outcome, Pod, namespace};

use crate::bridge_conf::{dual, with};

pub use crate::bridge_masquerade::BACKENDS;

/// The port of the node in most tests.
pub const PORT: u16 = 8080;

/// A mapping of both UDP and TCP.
pub fn both(host_port: u16, container_port: u16) -> Value {
    json!([mapping("tcp", host_port, container_port), mapping("udp", host_port, container_port)])
}

pub fn mapping(protocol: &str, host_port: u16, container_port: u16) -> Value {
    json!({"hostPort": host_port, "containerPort": container_port, "protocol": protocol})
}

/// portmap with this backend and these mappings.
pub fn conf(backend: &str, mappings: Value) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "type": "portmap", "backend": backend,
        "runtimeConfig": {"portMappings": mappings}})
}

/// The pod's plugin before portmap: dual stack on a bridge, or ptp.
pub fn main_conf(kind: &str) -> Value {
    match kind {
        "ptp" => with(&crate::ptp::dual(), json!({"name": "net"})),
        _ => dual(),
    }
}

/// ADD of bridge or ptp, then of portmap; the result.
#[track_caller]
pub fn connect(host: &Host, kind: &str, conf: &Value, pod: &Pod) -> Value {
    let result = host.plugin(kind).add(main_conf(kind), pod, "eth0").success();
    let mapped = add(host, conf, &result, pod).success();
    assert_eq!(mapped, result);
    result
}

pub fn add(host: &Host, conf: &Value, result: &Value, pod: &Pod) -> Outcome {
    host.plugin("portmap").add(with_prev_result(conf, result), pod, "eth0")
}

pub fn check(host: &Host, conf: &Value, result: &Value, pod: &Pod) -> Outcome {
    host.plugin("portmap").check(with_prev_result(conf, result), pod, "eth0")
}

#[track_caller]
pub fn del(host: &Host, conf: &Value, result: &Value, pod: &Pod) {
    host.plugin("portmap").del(with_prev_result(conf, result), pod, "eth0").success();
}

/// A result of a plugin before, for rules that no packet meets.
pub fn result_of(pod: &Pod, addresses: &[&str]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"interface": 1, "address": address})).collect();
    json!({"cniVersion": "1.0.0", "ips": ips,
        "interfaces": [{"name": "veth0", "mac": "02:00:00:00:00:02"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": pod.path()}]})
}

/// The addresses of a result, without their lengths: first IPv4, then IPv6.
pub fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}

/// The rules of attachments: of iptables those that are not the same for all, of nf_tables those in the chains of attachments.
pub fn rules(host: &Host) -> Vec<String> {
    let mut found = Vec::new();
    for program in ["iptables-save", "ip6tables-save"] {
        for line in host.run(&format!("{program} -t nat")).lines() {
            if line.contains("CNI-DN-") {
                // A chain's line ends in its counters.
                let line = if line.starts_with(':') { line.split(" [").next().unwrap() } else { line };
                found.push(format!("{program}: {line}"));
            }
        }
    }
    for family in ["ip", "ip6"] {
        found.extend(nft_chain(host, family, "hostports"));
        let masquerading = nft_chain(host, family, "masquerading");
        found.extend(masquerading.into_iter().filter(|rule| !rule.contains("CNI portfwd")));
    }
    found
}

/// The rules of a chain of `cni_hostport` as `nft` prints them.
pub fn nft_chain(host: &Host, family: &str, chain: &str) -> Vec<String> {
    let output = host.try_run(&format!("nft list chain {family} cni_hostport {chain}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| line.starts_with("\t\t") && !line.contains("policy "));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// The rules of a chain of table nat, without `-A CHAIN`.
pub fn chain(host: &Host, program: &str, chain: &str) -> Vec<String> {
    let output = host.try_run(&format!("{program} -t nat -S {chain}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = format!("-A {chain} ");
    text.lines().filter_map(|line| Some(line.strip_prefix(&begin)?.to_owned())).collect()
}

/// A directory in which `iptables` is the legacy flavour.
pub fn legacy() -> TempDir {
    let directory = TempDir::new().unwrap();
    for program in ["iptables", "ip6tables"] {
        for end in ["", "-restore", "-save"] {
            let legacy = namespace::find(&format!("{program}-legacy{end}")).unwrap();
            symlink(legacy, directory.path().join(format!("{program}{end}"))).unwrap();
        }
    }
    directory
}
