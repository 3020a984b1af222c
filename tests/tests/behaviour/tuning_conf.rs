//! Configurations of tuning, the interface that it finds, and what that looks like: the words that its tests share.

use serde_json::{Value, json};
use tests::{Host, Pod};

use crate::bridge_conf::with;

/// The versions that have interfaces in their results.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A pod with an `eth0`, which a plugin before tuning has made.
pub fn pod_with_eth0(host: &Host) -> Pod {
    let pod = host.pod();
    add_eth0(&pod);
    pod
}

pub fn add_eth0(pod: &Pod) {
    pod.run("ip link add eth0 type veth peer name peer0");
    pod.run("ip link set eth0 address 02:00:00:00:00:01 mtu 1450 txqueuelen 900");
}

/// A configuration of a version with these keys, and the result of the plugin before.
pub fn at(version: &str, pod: &Pod, keys: Value) -> Value {
    let conf = json!({"cniVersion": version, "name": "net", "type": "tuning", "prevResult": before(version, pod)});
    with(&conf, keys)
}

/// At 1.0.0.
pub fn conf(pod: &Pod, keys: Value) -> Value {
    at("1.0.0", pod, keys)
}

/// What the plugin before said: host's end, pod's end, an address.
pub fn before(version: &str, pod: &Pod) -> Value {
    let mut ip = json!({"interface": 1, "address": "10.1.0.2/24", "gateway": "10.1.0.1"});
    let mut result = json!({"cniVersion": version, "interfaces": [
        {"name": "veth12345678", "mac": "02:00:00:00:00:02"},
        {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": pod.path()}]});
    if version < "1.0.0" {
        ip["version"] = "4".into();
        result["dns"] = json!({});
    }
    result["ips"] = json!([ip]);
    result
}

/// What `ip` says of eth0: MAC, MTU, promiscuous, all multicast, queue length.
pub fn attributes(pod: &Pod) -> (String, u64, bool, bool, u64) {
    let link = pod.link("eth0").expect("an eth0");
    let flag = |name: &str| link["flags"].as_array().unwrap().contains(&name.into());
    // `ip` leaves out a queue length of 0.
    let number = |key: &str| link[key].as_u64().unwrap_or(0);
    (pod.mac("eth0"), number("mtu"), flag("PROMISC"), flag("ALLMULTI"), number("txqlen"))
}

/// As [`add_eth0`] leaves it.
pub fn untouched() -> (String, u64, bool, bool, u64) {
    ("02:00:00:00:00:01".to_owned(), 1450, false, false, 900)
}

/// Everything that can be tuned.
pub fn everything() -> Value {
    json!({"mac": "02:00:00:00:00:aa", "promisc": true, "mtu": 1400, "allmulti": true, "txQLen": 20000})
}

/// As [`everything`] makes it.
pub fn tuned() -> (String, u64, bool, bool, u64) {
    ("02:00:00:00:00:aa".to_owned(), 1400, true, true, 20000)
}

/// The files below a directory of the host, sorted, without that directory.
pub fn files(host: &Host, directory: &str) -> Vec<String> {
    let found = host.run(&format!("find {directory} -type f -printf %P\\n"));
    let mut names: Vec<String> = found.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// The text of the reference's file for that pod's eth0 in a directory of the host; None when there is none.
pub fn backup(host: &Host, pod: &Pod, directory: &str) -> Option<String> {
    let path = format!("{directory}/{}_eth0.json", pod.id());
    host.enter(|| std::fs::read_to_string(path).ok())
}
