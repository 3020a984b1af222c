//! What real clients called, called again: the environment and the input of every plugin, in order, as the tests with
//! the clients themselves wrote them down (`cargo xtask test --clients --record`, files in `recorded/`).
//!
//! Of a call only that is replaced which is another's on every machine: the path of the network namespace, CNI_PATH, and
//! the results of earlier calls in `prevResult`. A namespace that its runtime had removed (CNI_NETNS is empty) is removed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::{Host, Pod, bins};

/// Once through a recording. Pods are found by their container ids.
struct Replay<'a> {
    host: &'a Host,
    pods: HashMap<String, Pod>,
    /// The last result of an attachment: container, interface, network.
    results: HashMap<[String; 3], Value>,
}

impl<'a> Replay<'a> {
    fn new(host: &'a Host) -> Self {
        Self { host, pods: HashMap::new(), results: HashMap::new() }
    }

    fn call(&mut self, call: &Value) {
        let (plugin, verb) = (text(&call["plugin"]), text(&call["env"]["CNI_COMMAND"]));
        let container = text(&call["env"]["CNI_CONTAINERID"]);
        let conf = &call["stdin"];
        let attachment = [container.clone(), text(&call["env"]["CNI_IFNAME"]), text(&conf["name"])];
        let mut program = self.host.plugin(&plugin);
        for (key, value) in call["env"].as_object().unwrap() {
            program = program.env(key, text(value));
        }
        program = program.env("CNI_PATH", bins::directory().display());
        let about_a_pod = ["ADD", "CHECK", "DEL"].contains(&verb.as_str());
        if about_a_pod {
            program = program.env("CNI_NETNS", self.netns(&container, &text(&call["env"]["CNI_NETNS"])));
        }
        let conf = self.with_our_result(conf, &attachment);
        let outcome = program.call_as_set(&verb, &conf);
        assert_eq!(outcome.status, Some(0), "{call}\nwith {conf}\n{outcome}");
        if verb == "ADD" {
            let result = outcome.success();
            self.assert_addresses(&container, &attachment[1], &result);
            self.results.insert(attachment, result);
        } else if verb == "DEL" {
            outcome.success();
        }
    }

    /// The path to give for the recorded one; an empty one says that the namespace is gone.
    fn netns(&mut self, container: &str, recorded: &str) -> String {
        if recorded.is_empty() {
            if let Some(mut pod) = self.pods.remove(container) {
                pod.destroy();
            }
            return String::new();
        }
        let pod = self.pods.entry(container.to_owned()).or_insert_with(|| self.host.pod());
        pod.path().display().to_string()
    }

    /// A recorded prevResult that says something is replaced by what our own plugins said. An empty one stays: runtimes
    /// send it after they forgot.
    fn with_our_result(&self, conf: &Value, attachment: &[String; 3]) -> Value {
        let mut conf = conf.clone();
        if conf["prevResult"].get("interfaces").is_some() {
            conf["prevResult"] = self.results[attachment].clone();
        }
        conf
    }

    fn assert_addresses(&self, container: &str, ifname: &str, result: &Value) {
        let said = result["ips"].as_array().into_iter().flatten().map(|ip| text(&ip["address"]));
        let mut said: Vec<String> = said.collect();
        let mut there = self.pods[container].addresses(ifname);
        said.sort();
        there.sort();
        if ifname != "lo" {
            assert_eq!(said, there, "the addresses of {ifname}");
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn recording(name: &str) -> (String, Vec<Value>) {
    let directory: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour/recorded");
    let written = fs::read(directory.join(format!("{name}.json"))).unwrap();
    let mut recording: Value = serde_json::from_slice(&written).unwrap();
    let Value::Array(calls) = recording["calls"].take() else { panic!("{name} has no calls") };
    (text(&recording["client"]), calls)
}

/// Twice: what the first pods of a node leave for all that follow (bridges, chains without a pod) is there the second
/// time, and nothing else may come.
fn replay(name: &str) -> Vec<Value> {
    let (client, calls) = recording(name);
    let host = Host::new();
    host.internet();
    let once = || {
        let mut replay = Replay::new(&host);
        calls.iter().for_each(|call| replay.call(call));
        drop(replay);
        host.state()
    };
    let first = once();
    assert_eq!(first.section("files"), Vec::<&str>::new(), "{client}");
    once().assert_same(&first);
    calls
}

/// Whether there is a DEL that a client sends after it forgot: no namespace, no result.
fn has_late_del(calls: &[Value]) -> bool {
    calls.iter().any(|call| {
        let is_del = call["env"]["CNI_COMMAND"] == "DEL" && call["env"]["CNI_NETNS"] == "";
        is_del && call["stdin"]["prevResult"].get("interfaces").is_none()
    })
}

#[test]
fn calls_of_containerd() {
    let calls = replay("containerd");
    assert!(has_late_del(&calls), "record it again: StopPodSandbox twice");
    let ports = calls.iter().find_map(|call| call["stdin"]["runtimeConfig"]["portMappings"].get(0));
    assert!(ports.unwrap().get("HostPort").is_some(), "containerd spells its keys as Go does");
}

#[test]
fn calls_of_the_newest_containerd() {
    let calls = replay("newest-containerd");
    assert!(has_late_del(&calls), "record it again: StopPodSandbox twice");
    assert!(calls.iter().any(|call| call["env"]["CNI_COMMAND"] == "STATUS"));
}

#[test]
fn calls_of_ctr() {
    let calls = replay("ctr");
    assert!(calls.iter().all(|call| call["env"]["CNI_COMMAND"] != "DEL" || call["env"]["CNI_NETNS"] == ""));
}

#[test]
fn calls_of_podman() {
    let calls = replay("podman");
    assert!(calls.iter().any(|call| call["env"]["CNI_COMMAND"] == "VERSION"));
    assert!(calls.iter().any(|call| text(&call["env"]["CNI_ARGS"]).contains("MAC=")));
}
