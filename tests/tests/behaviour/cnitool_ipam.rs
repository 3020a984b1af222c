//! `cnitool ipam list` and `check`: who has which address, what shows it, and what does not fit. The pods are real, of ours
//! and of the reference; what is wrong with a node is made by hand.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tests::plugin::{Cnitool, Outcome};
use tests::{Host, Pod};

use crate::cnitool_gc::{directory, kill};

/// A bridge network of its own subnet.
fn network(name: &str, number: usize) -> Value {
    json!({"cniVersion": "1.0.0", "name": name, "plugins": [{"type": "bridge", "bridge": format!("br{number}"), "isGateway": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": format!("10.78.{number}.0/24"), "rangeEnd": format!("10.78.{number}.20")}]]}}]})
}

fn read(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}\n{outcome}"))
}

/// What is listed of an address: its state, and why.
#[track_caller]
fn listed(cnitool: &Cnitool, network: &str, address: &str) -> (String, String, Value) {
    let list = cnitool.run(&["ipam", "list", network, "--json"]).success();
    let rows = list["addresses"].as_array().unwrap();
    let row = rows.iter().find(|row| row["address"] == address).unwrap_or_else(|| panic!("no {address} in {list}"));
    let text = |key: &str| row[key].as_str().unwrap().to_owned();
    (text("state"), text("why"), row.clone())
}

/// The kinds that check finds, with what to do.
fn found(cnitool: &Cnitool, network: &str) -> Vec<(String, String)> {
    let outcome = cnitool.run(&["ipam", "check", network, "--json"]);
    let report = read(&outcome);
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(outcome.status, Some(i32::from(!findings.is_empty())), "{outcome}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings.iter().map(|one| (text(&one["kind"]), text(&one["advice"]))).collect()
}

fn kinds(cnitool: &Cnitool, network: &str) -> Vec<String> {
    found(cnitool, network).into_iter().map(|(kind, _)| kind).collect()
}

/// A lease by hand, of so long ago.
fn lease(host: &Host, network: &str, address: &str, content: &str, age: Duration) -> PathBuf {
    let directory = host.store().join("networks").join(network);
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join(address);
    fs::write(&file, content).unwrap();
    let then = SystemTime::now().checked_sub(age).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(then).unwrap();
    file
}

const HOUR: Duration = Duration::from_secs(3600);
/// Longer than any machine runs.
const AGES: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

#[test]
fn pods_of_ours_and_of_the_reference() {
    let mut makers = vec![None];
    makers.extend(tests::bins::reference_directories().into_iter().map(Some));
    for maker in makers {
        let host = Host::new();
        let directory = directory(&[&network("a", 1)]);
        let mut cnitool = host.cnitool(directory.path());
        let with = maker.as_ref().map_or(cnitool.clone(), |maker| cnitool.clone().env("CNI_PATH", maker.display()));
        let empty = cnitool.run(&["ipam", "list", "a"]);
        assert!(empty.stdout.starts_with("no addresses are given out\n") && empty.status == Some(0), "{empty}");
        let mut pods = [host.pod(), host.pod()];
        for pod in &pods {
            with.call("add", "a", pod).success();
        }
        let (state, why, row) = listed(&cnitool, "a", "10.78.1.2");
        assert_eq!((state.as_str(), row["interface"].as_str()), ("alive", Some("eth0")), "{why}");
        let shows = if maker.is_some() { pods[0].path().display().to_string() } else { "veth".to_owned() };
        assert!(why.contains(&shows), "{why}");
        assert!(
            row["container"].as_str().unwrap().starts_with("cnitool-") && row["ageSeconds"].as_u64().unwrap() < 600
        );
        assert_eq!(row["file"], "/var/lib/cni/networks/a/10.78.1.2");
        assert_eq!(kinds(&cnitool, "a"), [""; 0]);

        kill(&host, &mut pods[1]);
        let (state, why, _) = listed(&cnitool, "a", "10.78.1.3");
        let path = pods[1].path().display().to_string();
        assert_eq!((state.as_str(), why.contains(&path) && why.contains("is gone")), ("stale", true), "{why}");
        assert_eq!(listed(&cnitool, "a", "10.78.1.2").0, "alive");
        let list = cnitool.run(&["ipam", "list", "--json"]).success();
        // .2 to .20: .1 is the gateway's.
        let range = json!({"network": "a", "range": list["ranges"][0]["range"], "size": 19, "used": 2, "free": 17});
        assert_eq!(list["ranges"], json!([range]));
        let findings = found(&cnitool, "a");
        let expected = [("lease-stale", "cnitool gc a"), ("cache-stale", "cnitool gc a")];
        assert_eq!(findings, expected.map(|(kind, advice)| (kind.to_owned(), advice.to_owned())));

        // The table has a line for each, whatever its width.
        let table = cnitool.run(&["ipam", "list", "a"]).success_text().to_owned();
        assert!(table.lines().next().unwrap().starts_with("NETWORK  ADDRESS"), "{table}");
        assert!(table.contains("10.78.1.3") && table.contains("stale: a runtime remembers it"), "{table}");
        cnitool = with;
        cnitool.run(&["gc", "a"]).success_text();
        assert_eq!(kinds(&cnitool, "a"), [""; 0]);
        cnitool.call("del", "a", &pods[0]).success();
    }
}

/// Rows 1, 2 and 5 of what operators ask: the files that fill a range, and whether they may go.
#[test]
fn leases_of_nobody() {
    let host = Host::new();
    let directory = directory(&[&network("a", 2)]);
    let cnitool = host.cnitool(directory.path());
    let unknown = lease(&host, "a", "10.78.2.2", "gone\r\neth0", HOUR);
    lease(&host, "a", "10.78.2.3", "new\r\neth0", Duration::ZERO);
    lease(&host, "a", "10.78.2.4", "old\r\neth0", AGES);
    lease(&host, "a", "10.78.2.5", "of-before-2018", AGES);
    lease(&host, "a", "10.78.2.6", "", HOUR);
    fs::create_dir(host.store().join("networks/a/10.78.2.7")).unwrap();
    lease(&host, "a", "10.78.2.200", "outside\r\neth0", HOUR);
    for (address, state, why) in [
        ("10.78.2.2", "unknown", "no cache entry of any runtime, no link, and no namespace has it"),
        ("10.78.2.3", "unknown", "its ADD may still be at work"),
        ("10.78.2.4", "stale", "written before the last boot"),
        ("10.78.2.5", "unknown", "no cache entry of any runtime"),
        ("10.78.2.6", "stale", "the file is empty"),
        ("10.78.2.7", "unknown", "it is no regular file"),
    ] {
        let (found, reason, _) = listed(&cnitool, "a", address);
        assert!(found == state && reason.contains(why), "{address}: {found}: {reason}");
    }
    let findings = found(&cnitool, "a");
    let count = |wanted: &str| findings.iter().filter(|(kind, _)| kind == wanted).count();
    let counts = ["lease-unknown", "lease-stale", "lease-empty", "lease-unreadable", "lease-outside"].map(count);
    assert_eq!((counts, findings.len()), ([3, 1, 1, 1, 1], 7), "{findings:?}");
    let advice = format!("remove /var/lib/cni/networks/a/{}", unknown.file_name().unwrap().display());
    assert!(findings.iter().any(|(_, what)| what.contains(&advice)), "{findings:?}");

    // What is certain goes; what is not stays.
    let report = cnitool.run(&["gc", "a", "--dry-run", "--json"]).success();
    let named: Vec<&str> =
        report["networks"][0]["remove"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(named.len() == 2 && named[0].contains("10.78.2.6") && named[1].contains("10.78.2.4"), "{report}");
    cnitool.run(&["gc", "a"]).success_text();
    let left = fs::read_dir(host.store().join("networks/a"))
        .unwrap()
        .flatten()
        .map(|file| file.file_name().into_string().unwrap());
    let mut left: Vec<String> = left.filter(|name| name.starts_with("10.")).collect();
    left.sort();
    assert_eq!(left, ["10.78.2.2", "10.78.2.200", "10.78.2.3", "10.78.2.5", "10.78.2.7"]);
}

/// A path is no namespace: a name that was given again, and the number of a process that is another's now.
#[test]
fn paths_that_lead_elsewhere() {
    let host = Host::new();
    let directory = directory(&[&network("a", 3)]);
    let cnitool = host.cnitool(directory.path());
    let pods = [host.pod(), host.pod(), host.pod()];
    let path = |pod: &Pod| pod.path().display().to_string();
    cnitool.call("add", "a", &pods[0]).success();
    cnitool.call("add", "a", &pods[1]).success();
    // Ours names the namespace.
    pods[0].run("ip link del eth0");
    host.run(&format!("mount --bind {} {}", path(&pods[2]), path(&pods[0])));
    let (state, why, _) = listed(&cnitool, "a", "10.78.3.2");
    assert!(state == "stale" && why.contains("is another namespace now"), "{state}: {why}");
    // The reference's does not; but the node's own namespace is no pod's.
    let entries = || fs::read_dir(host.store().join("results")).unwrap().flatten().map(|file| file.path());
    for file in entries() {
        let mut entry: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(entry.as_object_mut().unwrap().remove("netnsId").is_some(), "{entry}");
        if entry["netns"] == path(&pods[1]).as_str() {
            entry["netns"] = json!("/proc/self/ns/net");
        }
        fs::write(&file, entry.to_string()).unwrap();
    }
    let (state, why, _) = listed(&cnitool, "a", "10.78.3.2");
    assert!(state == "unknown" && why.contains("is there, and does not have it"), "{state}: {why}");
    // Its link still lives.
    assert_eq!(listed(&cnitool, "a", "10.78.3.3").0, "alive");
    pods[1].run("ip link del eth0");
    let (state, why, _) = listed(&cnitool, "a", "10.78.3.3");
    assert!(state == "stale" && why.contains("is the node's own namespace now"), "{state}: {why}");
}

#[test]
fn pods_without_a_lease_and_addresses_twice() {
    let host = Host::new();
    let directory = directory(&[&network("a", 4), &network("b", 5)]);
    let cnitool = host.cnitool(directory.path());
    let pods = [host.pod(), host.pod()];
    for pod in &pods {
        cnitool.call("add", "a", pod).success();
    }
    assert_eq!(kinds(&cnitool, "a"), [""; 0]);
    fs::remove_file(host.store().join("networks/a/10.78.4.2")).unwrap();
    assert_eq!(kinds(&cnitool, "a"), ["pod-without-lease"]);
    let content = fs::read_to_string(host.store().join("networks/a/10.78.4.3")).unwrap();
    lease(&host, "a", "10.78.4.2", &content, Duration::ZERO);
    assert_eq!(kinds(&cnitool, "a"), ["pod-without-lease"]);
    // Another network gives out the same.
    lease(&host, "b", "10.78.4.3", "x\r\neth0", Duration::ZERO);
    let kinds_of_b = kinds(&cnitool, "b");
    assert!(
        kinds_of_b.contains(&"lease-twice".to_owned()) && kinds_of_b.contains(&"lease-outside".to_owned()),
        "{kinds_of_b:?}"
    );
    // Somebody gave a pod the other's address.
    pods[1].run("ip addr add 10.78.4.2/24 dev eth0");
    for file in fs::read_dir(host.store().join("results")).unwrap().flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        fs::write(file.path(), text.replace("10.78.4.3/24", "10.78.4.2/24")).unwrap();
    }
    assert!(kinds(&cnitool, "a").contains(&"address-twice".to_owned()));
}

/// ifb links that the bandwidth plugin of the reference left, and what does not belong to it.
#[test]
fn links_that_nothing_uses() {
    let host = Host::new();
    let directory = directory(&[&network("a", 6)]);
    let cnitool = host.cnitool(directory.path());
    host.run("ip link add ifb7 type ifb");
    assert_eq!(kinds(&cnitool, "a"), [""; 0]);
    host.run("ip link add bwp0123456789ab type ifb");
    let findings = found(&cnitool, "a");
    assert_eq!(findings, [("ifb-idle".to_owned(), "ip link del bwp0123456789ab".to_owned())]);
}

#[test]
fn what_cannot_be_looked_at_is_said() {
    let host = Host::new();
    let directory = directory(&[&network("a", 7)]);
    fs::write(directory.path().join("b.conflist"), "{").unwrap();
    let cnitool = host.cnitool(directory.path());
    for command in ["list", "check"] {
        let outcome = cnitool.run(&["ipam", command]);
        assert!(outcome.status == Some(2) && outcome.stderr.contains("b.conflist"), "{outcome}");
    }
    lease(&host, "a", "10.78.7.2", "", HOUR);
    assert_eq!(cnitool.run(&["ipam", "check"]).status, Some(1), "what is found comes first");
    fs::write(host.store().join("results"), "").unwrap();
    assert_eq!(cnitool.run(&["ipam", "check"]).status, Some(2), "without the cache nothing is known");
}
