//! More than anybody means: a process of root takes neither the node's memory nor its time, and says what was too much.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::{Host, bins};

/// Of the processor, in seconds: what is linear takes a tenth of it, what grows with the square more than ten times as much.
const LONGEST: u64 = 4;
/// In kilobytes.
const LARGEST: u64 = 600_000;

/// A call under limits of memory and time; its exit status, none if it went beyond them, and what it printed.
fn call(host: &Host, plugin: &str, verb: &str, stdin: &[u8]) -> (Option<i32>, String) {
    let program = bins::directory().join(plugin);
    let output = host.enter(|| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {LARGEST}; ulimit -t {LONGEST}; exec {}", program.display())]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("CNI_COMMAND", verb);
        command.env("CNI_CONTAINERID", "ctr1").env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/run/netns/none");
        command.env("CNI_PATH", bins::directory());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // Whoever stops reading gets no more.
            scope.spawn(move || drop(input.write_all(stdin)));
            child.wait_with_output().unwrap()
        })
    });
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn refused(host: &Host, plugin: &str, verb: &str, stdin: &[u8], word: &str) {
    let (status, stdout) = call(host, plugin, verb, stdin);
    let beginning: String = stdout.chars().take(300).collect();
    let error: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{plugin} {verb}: {e}: {beginning}"));
    assert_eq!(status, Some(1), "{plugin} {verb}: {beginning}");
    assert!(error["code"].is_number() && error.to_string().contains(word), "{plugin} {verb} {word:?}: {beginning}");
}

fn many(count: usize, one: impl Fn(usize) -> Value) -> Value {
    Value::Array((0..count).map(one).collect())
}

fn address(number: usize) -> String {
    format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)
}

fn range(number: usize) -> Value {
    json!({"subnet": format!("10.{}.{}.{}/30", number >> 14 & 255, number >> 6 & 255, (number & 63) * 4)})
}

/// The documents that are known to be hard, each of 1 to 3 MB: what there is much of, whom it is for, at which key.
fn documents() -> Vec<(&'static str, &'static [&'static str], &'static str, Value)> {
    const ALL: &[&str] = &["host-local", "static", "bridge", "ptp", "tuning", "firewall", "portmap", "bandwidth"];
    let keys: serde_json::Map<_, _> = (0..60_000).map(|n| (format!("net.k{n}"), json!("1"))).collect();
    let leases = |ranges: Value| json!({"type": "host-local", "dataDir": "/run/leases", "ranges": ranges});
    let routes = many(40_000, |n| json!({"dst": format!("{}/32", address(n))}));
    let ips = many(30_000, |n| json!({"address": format!("{}/32", address(n))}));
    vec![
        ("keys", ALL, "x", Value::Object(keys.clone())),
        ("keys of prevResult", &["tuning"], "prevResult", Value::Object(keys.clone())),
        ("keys of dns", &["static"], "dns", Value::Object(keys.clone())),
        ("sysctls", &["tuning"], "sysctl", Value::Object(keys)),
        ("range sets", &["host-local"], "ipam", leases(many(40_000, |n| json!([range(n)])))),
        ("ranges of a set", &["host-local"], "ipam", leases(json!([many(40_000, range)]))),
        ("addresses", &["tuning", "portmap"], "prevResult", json!({"cniVersion": "1.0.0", "ips": ips})),
        ("routes", &["static"], "ipam", json!({"addresses": [{"address": "10.1.0.2/24"}], "routes": routes})),
        ("requested addresses", &["host-local"], "args", json!({"cni": {"ips": many(80_000, |n| address(n).into())}})),
        ("VLANs", &["bridge"], "vlanTrunk", many(80_000, |n| json!({"id": n % 4094 + 1}))),
        ("networks", &["bridge"], "nonMasqueradeCIDRs", many(60_000, |n| format!("{}/32", address(n * 2)).into())),
        ("numbers", &["bridge"], "x", many(1_000_000, |_| json!(1))),
        ("empty objects", &["bridge"], "x", many(700_000, |_| json!({}))),
        ("text", &["bridge"], "bridge", "x".repeat(3_500_000).into()),
        ("text in the name", &["bridge"], "name", "x".repeat(3_500_000).into()),
    ]
}

/// Whether it is refused is another question.
#[test]
fn what_is_large_is_quick() {
    let host = Host::new();
    for (what, plugins, key, value) in documents() {
        let ipam = json!({"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": "/run/leases"});
        let mut document = json!({"cniVersion": "1.1.0", "name": "net", "ipam": ipam});
        document[key] = value;
        let text = document.to_string();
        assert!(text.len() < 4 << 20, "{what}: {} bytes", text.len());
        for plugin in plugins {
            for verb in ["ADD", "DEL"] {
                let (status, stdout) = call(&host, plugin, verb, text.as_bytes());
                let beginning: String = stdout.chars().take(300).collect();
                assert!(matches!(status, Some(0 | 1)), "{plugin} {verb} with many {what}: {status:?} {beginning}");
            }
        }
    }
    let pairs = many(30_000, |n| json!({"containerID": format!("c{n}"), "ifname": "eth0"}));
    let text = json!({"cniVersion": "1.1.0", "name": "net", "ipam": {"dataDir": "/run/leases"},
        "cni.dev/valid-attachments": pairs});
    for plugin in ["host-local", "tuning", "firewall", "portmap", "bandwidth"] {
        let (status, stdout) = call(&host, plugin, "GC", text.to_string().as_bytes());
        assert_eq!((status, stdout.as_str()), (Some(0), ""), "{plugin}");
    }
}

/// Beside another pod with as many, twice, and after it: a transaction of nf_tables is one datagram, which was too long from
/// 240 rules on, and each port was looked for in every rule of the others.
#[test]
fn many_ports_are_quick() {
    for backend in ["nftables", "iptables"] {
        let host = Host::new();
        let conf = |network: usize| {
            let ports =
                many(2000, |n| json!({"hostPort": network * 10_000 + n, "containerPort": 80, "protocol": "tcp"}));
            let ips = json!([{"address": format!("10.0.0.{network}/24")}, {"address": format!("fd00::{network}/64")}]);
            json!({"cniVersion": "1.0.0", "name": format!("net{network}"), "backend": backend,
                "runtimeConfig": {"portMappings": ports}, "prevResult": {"cniVersion": "1.0.0", "ips": ips}})
            .to_string()
        };
        for (verb, network) in
            [("ADD", 1), ("ADD", 2), ("ADD", 1), ("CHECK", 1), ("CHECK", 2), ("DEL", 2), ("CHECK", 1), ("DEL", 1)]
        {
            let (status, stdout) = call(&host, "portmap", verb, conf(network).as_bytes());
            let beginning: String = stdout.chars().take(300).collect();
            assert_eq!(status, Some(0), "{backend} {verb} {network}: {beginning}");
        }
    }
}

/// Each address was looked for in every rule, and the removal of their rules was one datagram that was too long.
#[test]
fn many_addresses_are_quick() {
    for backend in ["nftables", "iptables"] {
        let host = Host::new();
        let ips = many(2000, |n| json!({"address": format!("{}/32", address(n + 1))}));
        let conf = json!({"cniVersion": "1.0.0", "name": "net", "backend": backend,
            "prevResult": {"cniVersion": "1.0.0", "ips": ips}})
        .to_string();
        let rules = || host.run("nft list ruleset").lines().filter(|line| line.contains("10.0.0.9 ")).count();
        for (verb, left) in [("ADD", true), ("CHECK", true), ("ADD", true), ("DEL", false), ("DEL", false)] {
            let (status, stdout) = call(&host, "firewall", verb, conf.as_bytes());
            let beginning: String = stdout.chars().take(300).collect();
            assert_eq!(status, Some(0), "{backend} {verb}: {beginning}");
            assert_eq!(rules() > 0, left, "{backend} {verb}");
        }
    }
}

#[test]
fn what_is_too_much_is_refused_in_words() {
    let host = Host::new();
    let plugins = ["host-local", "static", "bridge", "ptp", "tuning", "firewall", "portmap", "bandwidth", "loopback"];
    for plugin in plugins {
        let mut large = br#"{"cniVersion":"1.0.0","name":"net","x":""#.to_vec();
        large.resize(10_000_000, b'x');
        refused(&host, plugin, "ADD", &large, "more than 4 MiB");
        refused(&host, plugin, "DEL", &large, "more than 4 MiB");
        refused(&host, plugin, "ADD", &b"{\"x\":".repeat(100_000), "recursion limit");
        refused(&host, plugin, "ADD", &b"[".repeat(500_000), "recursion limit");
        refused(&host, plugin, "DEL", &b"[{\"a\":".repeat(100_000), "recursion limit");
        // Nothing, and half of something.
        refused(&host, plugin, "ADD", b"", "EOF");
        refused(&host, plugin, "ADD", br#"{"cniVersion":"1.0.0","name":"ne"#, "EOF");
    }
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24",
        "dataDir": "/run/leases", "resolvConf": "/dev/zero"}});
    refused(&host, "host-local", "ADD", conf.to_string().as_bytes(), "resolvConf");
    let ranges: Vec<Value> =
        (0..5000).map(|n| json!([{"subnet": format!("10.{}.{}.0/24", n >> 8, n & 255)}])).collect();
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "ipam": {"type": "host-local", "ranges": ranges}});
    refused(&host, "host-local", "ADD", conf.to_string().as_bytes(), "5000 address ranges");
}

/// Nobody at either end: no stdin at all, a stdout that is closed or full.
#[test]
fn without_anybody_to_talk_to() {
    let host = Host::new();
    let conf = host.store().join("conf");
    let text = json!({"cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": {"type": "host-local",
        "subnet": "10.1.0.0/24"}});
    fs::write(&conf, text.to_string()).unwrap();
    let program = bins::directory().join("host-local").display().to_string();
    let conf = format!("{}/conf", Host::STORE);
    for (ends, expected) in [
        ("<&-", 1),
        ("</dev/null", 1),
        ("</run", 1),
        (&*format!("<{conf} >&-"), 0),
        (&*format!("<{conf} >/dev/full"), 1),
        (&*format!("<{conf} 2>&-"), 0),
    ] {
        let script = format!(
            "CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_IFNAME=eth0 CNI_NETNS=/none CNI_PATH=/none timeout 10 {program} {ends}"
        );
        let status = host.enter(|| {
            let mut command = Command::new("sh");
            command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().unwrap().code()
        });
        assert_eq!(status, Some(expected), "{ends}");
    }
}
