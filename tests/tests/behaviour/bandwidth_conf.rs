//! Configurations of bandwidth, the veth that it finds, and what `tc` says of it: the words that its tests share.

use serde_json::{Value, json};
use tests::{Host, Namespace, Outcome, Pod};

use crate::bridge_conf::with;

/// The versions that the plugin speaks.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What nobody but a runtime with nothing to say asks for: containerd's burst.
pub const CONTAINERD_BURST: u64 = 4_294_967_295;

/// A pod with an `eth0`, the other end of which is `end` on the host; both are up.
pub fn pod_with_veth(host: &Host, end: &str) -> Pod {
    let pod = host.pod();
    add_veth(host, &pod, end, "eth0");
    pod
}

pub fn add_veth(host: &Host, pod: &Pod, end: &str, ifname: &str) {
    host.run(&format!("ip link add {end} mtu 1400 type veth peer name {ifname} netns {}", pod.name()));
    host.run(&format!("ip link set {end} up"));
    pod.run(&format!("ip link set {ifname} mtu 1400 up"));
}

/// 8 and 16 Mbit/s.
pub fn both() -> Value {
    json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 16_000_000, "egressBurst": 1_600_000})
}

pub fn ingress() -> Value {
    json!({"ingressRate": 8_000_000, "ingressBurst": 800_000})
}

pub fn egress() -> Value {
    json!({"egressRate": 16_000_000, "egressBurst": 1_600_000})
}

/// A configuration of a version with these keys, and the result of the plugin before, which made `end`.
pub fn at(version: &str, pod: &Pod, end: &str, keys: Value) -> Value {
    let conf = json!({"cniVersion": version, "name": "net", "type": "bandwidth",
        "prevResult": before(version, pod, end)});
    with(&conf, keys)
}

/// At 1.1.0, behind `host0`.
pub fn conf(pod: &Pod, keys: Value) -> Value {
    at("1.1.0", pod, "host0", keys)
}

/// What the plugin before said: host's end, pod's end, an address.
pub fn before(version: &str, pod: &Pod, end: &str) -> Value {
    let mut ip = json!({"interface": 1, "address": "10.1.0.2/24"});
    let mut result = json!({"cniVersion": version, "interfaces": [
        {"name": end, "mac": "02:00:00:00:00:02"},
        {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": pod.path()}]});
    if version < "1.0.0" {
        ip["version"] = "4".into();
        result["dns"] = json!({});
    }
    result["ips"] = json!([ip]);
    result
}

/// The name of the ifb in a result.
pub fn ifb_of(result: &Value) -> String {
    let interfaces = result["interfaces"].as_array().unwrap();
    interfaces.last().unwrap()["name"].as_str().unwrap().to_owned()
}

/// A shaper as `tc` shows it: bytes a second, bytes that may wait, bytes that may go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shaper {
    pub rate: u64,
    pub limit: u64,
    pub burst: u64,
}

/// What an agent that filters does: this kernel has no action that drops, so it sends packets where nobody listens.
pub fn drop_filter(host: &Host, hook: &str, priority: u32) {
    if host.link("sink0").is_none() {
        host.run("ip link add sink0 type veth peer name sink1");
        host.run("ip link set sink0 up");
        host.run("ip link set sink1 up");
    }
    host.run(&format!(
        "tc filter add dev host0 {hook} prio {priority} protocol ip u32 match ip dst 10.9.0.0/16 action mirred egress redirect dev sink0"
    ));
}

/// The shaper at the root of a link.
#[track_caller]
pub fn shaper(host: &Host, link: &str) -> Option<Shaper> {
    let all = qdiscs(host, link);
    let tbf = all.iter().find(|qdisc| qdisc["kind"] == "tbf")?;
    assert_eq!((&tbf["root"], &tbf["handle"]), (&true.into(), &"1:".into()), "{tbf}");
    let number = |key: &str| tbf["options"][key].as_u64().unwrap();
    Some(Shaper { rate: number("rate"), limit: number("limit"), burst: number("burst") })
}

/// What 8 Mbit/s and 16 Mbit/s are to be, from the reference's arithmetic: 25 ms of the rate, and the burst.
pub fn of_ingress() -> Option<Shaper> {
    Some(Shaper { rate: 1_000_000, limit: 125_000, burst: 100_000 })
}

pub fn of_egress() -> Option<Shaper> {
    Some(Shaper { rate: 2_000_000, limit: 250_000, burst: 200_000 })
}

/// The qdiscs of a link, as `tc -raw -j` shows them.
pub fn qdiscs(host: &Namespace, link: &str) -> Vec<Value> {
    list(host, &format!("tc -raw -j qdisc show dev {link}"))
}

/// The kinds of them.
pub fn kinds(host: &Namespace, link: &str) -> Vec<String> {
    qdiscs(host, link).iter().map(|qdisc| qdisc["kind"].as_str().unwrap().to_owned()).collect()
}

/// Where the filters send what comes into a link; "*" is a link that is gone. Those of [`drop_filter`] do not count.
pub fn redirects(host: &Namespace, link: &str) -> Vec<String> {
    let filters = list(host, &format!("tc -j filter show dev {link} ingress"));
    let to = filters.iter().filter_map(|filter| {
        let action = filter["options"]["actions"].as_array()?.iter().find(|action| action["kind"] == "mirred")?;
        assert_eq!((&action["mirred_action"], &action["direction"]), (&"redirect".into(), &"egress".into()));
        assert_eq!(action["control_action"]["type"], "stolen");
        Some(action["to_dev"].as_str()?.to_owned())
    });
    to.filter(|to| to != "sink0").collect()
}

/// Everything of traffic control on a host, to compare.
pub fn traffic_control(host: &Host) -> String {
    let mut text = host.run("tc -raw qdisc show");
    for link in host.ip("link show").as_array().unwrap() {
        let link = link["ifname"].as_str().unwrap();
        for hook in ["ingress", "egress"] {
            text += &host.run(&format!("tc filter show dev {link} {hook}"));
        }
    }
    // Numbers that the kernel counts up.
    let is_fact = |line: &&str| !line.trim().starts_with("index ");
    text.lines().filter(is_fact).collect::<Vec<_>>().join("\n")
}

#[track_caller]
pub fn add(host: &Host, conf: &Value, pod: &Pod) -> Value {
    host.plugin("bandwidth").add(conf, pod, "eth0").success()
}

#[track_caller]
pub fn check(host: &Host, conf: &Value, result: &Value, pod: &Pod) -> Outcome {
    host.plugin("bandwidth").check(tests::plugin::with_prev_result(conf, result), pod, "eth0")
}

fn list(place: &Namespace, line: &str) -> Vec<Value> {
    let text = place.run(line);
    let value: Value = serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{line}: {e}: {text}"));
    value.as_array().unwrap().clone()
}
