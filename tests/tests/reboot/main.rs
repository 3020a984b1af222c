//! A machine that is really rebooted: each test is one boot of it, in the order of their names, and the next finds the
//! leases of the last on its disk. `cargo xtask test` runs them, in a virtual machine with Debian's kernel.
//!
//! What a boot can look like to host-local otherwise is in `ipam/host-local/tests/process/boots.rs`.
#![cfg(test)] // tells clippy that the helper functions are tests too

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tests::{Host, Pod};

/// Where the disk is, by xtask's `vm.rs`.
const NETWORK: &str = "/mnt/disk/networks/net";

/// Five addresses, .2 to .6.
fn conf() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0",
        "ipam": {"type": "host-local", "subnet": "10.213.47.0/29", "dataDir": "/mnt/disk/networks"}})
}

/// A pod of that container id, wired by our bridge. Its address, or what the refusal says.
fn add(host: &Host, id: &str) -> (Pod, Result<String, String>) {
    let pod = host.pod();
    let outcome = host.plugin("bridge").env("CNI_CONTAINERID", id).add(conf(), &pod, "eth0");
    let address = if outcome.status == Some(0) {
        Ok(outcome.success()["ips"][0]["address"].as_str().unwrap().trim_end_matches("/29").to_owned())
    } else {
        Err(outcome.failure()["msg"].as_str().unwrap().to_owned())
    };
    (pod, address)
}

#[test]
#[ignore = "a boot of a virtual machine: cargo xtask test runs it"]
fn first_boot() {
    let host = Host::new();
    let pods: Vec<_> = (0..4).map(|n| add(&host, &format!("ours{n}"))).collect();
    let given: Vec<&str> = pods.iter().map(|(_, given)| given.as_deref().unwrap()).collect();
    assert_eq!(given, ["10.213.47.2", "10.213.47.3", "10.213.47.4", "10.213.47.5"]);
    let pod = host.pod();
    host.reference("bridge").env("CNI_CONTAINERID", "theirs").add(conf(), &pod, "eth0").success();
    let (_, full) = add(&host, "more");
    assert!(full.unwrap_err().contains("(5 of 5 addresses are taken)"));
    // The power fails.
}

#[test]
#[ignore = "a boot of a virtual machine: cargo xtask test runs it"]
fn second_boot() {
    let host = Host::new();
    assert!(SystemTime::now() < SystemTime::UNIX_EPOCH + Duration::from_secs(30 * 86_400), "the clock is right");
    // A container that is back; one that the reference deletes and makes anew, in 1970.
    let (_back, address) = add(&host, "ours1");
    assert_eq!(address.unwrap(), "10.213.47.3");
    let (reference, theirs) = (host.reference("bridge"), host.pod());
    reference.clone().env("CNI_CONTAINERID", "theirs").del(conf(), &theirs, "eth0").success();
    reference.env("CNI_CONTAINERID", "theirs-anew").add(conf(), &theirs, "eth0").success();
    assert_eq!(theirs.addresses("eth0"), ["10.213.47.6/29"]);

    // The network tells the time. By what the kernel says of its start now, the last lease is of before it.
    host.run("date -s 2030-01-01");
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let boot: u64 = stat.lines().find_map(|line| line.strip_prefix("btime ")).unwrap().parse().unwrap();
    let lease = fs::metadata(Path::new(NETWORK).join("10.213.47.6")).unwrap().modified().unwrap();
    assert!(lease < SystemTime::UNIX_EPOCH + Duration::from_secs(boot) - Duration::from_secs(86_400));

    let (mut pods, mut given) = (Vec::new(), Vec::new());
    let refusal = loop {
        let (pod, address) = add(&host, &format!("new{}", pods.len()));
        pods.push(pod);
        match address {
            Ok(address) => given.push(address),
            Err(refusal) => break refusal,
        }
    };
    given.sort();
    assert_eq!(given, ["10.213.47.2", "10.213.47.4", "10.213.47.5"]);
    assert!(refusal.contains("(5 of 5 addresses are taken)"), "{refusal}");
}
