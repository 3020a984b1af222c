//! `cnitool gc` beside pods of the reference that live, and of which rules alone speak: the runtime's cache is elsewhere, the
//! addresses are written, and the reference's links do not say whose they are. Their rules were removed, and nothing was said.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::Cnitool;
use tests::{Host, Outcome, Pod, bins, namespace};

use crate::cnitool_gc::{directory, kill};
use crate::mixed_pairs::wait_for_duplicate_detection;
use crate::portmap_conf::legacy;
use crate::takeover_conf::{Way, at_once, ways};
use crate::takeover_facts::Facts;

/// Where the runtime remembers.
const ELSEWHERE: &str = "/var/lib/cni/elsewhere";

/// The addresses are no other test's.
fn network(name: &str, backend: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": name, "plugins": [
        {"type": "bridge", "bridge": "br81", "isGateway": true, "ipMasq": true, "ipMasqBackend": backend, "macspoofchk": true,
            "ipam": {"type": "static"}, "capabilities": {"ips": true}},
        {"type": "portmap", "backend": backend, "capabilities": {"portMappings": true}}]})
}

/// A node with a network of written addresses.
struct Node {
    host: Host,
    directory: TempDir,
    legacy: Option<TempDir>,
    name: String,
    way: Way,
    /// Of the third part of the addresses.
    number: usize,
}

impl Node {
    fn new(name: &str, way: Way, number: usize) -> Self {
        let (host, directory) = (Host::new(), directory(&[&network(name, way.backend)]));
        Self { host, directory, legacy: way.legacy.then(legacy), name: name.to_owned(), way, number }
    }

    fn ours(&self) -> Cnitool<'_> {
        let programs = self.legacy.as_ref().map(|programs| format!("{}:", programs.path().display()));
        let path = programs.unwrap_or_default() + namespace::PATH;
        self.host.cnitool(self.directory.path()).env("PATH", path)
    }

    fn theirs(&self) -> Cnitool<'_> {
        self.ours().env("CNI_PATH", bins::reference_directories()[self.way.which].display())
    }

    /// So that no cache that gc knows of has the pod.
    fn call(&self, tool: &Cnitool<'_>, verb: &str, pod: &Pod, address: usize, port: u16) -> Outcome {
        let ips = [format!("10.81.{}.{address}/24", self.number), format!("fd00:81:{}::{address}/64", self.number)];
        let mapping = json!({"hostPort": port, "containerPort": 80, "protocol": "tcp"});
        let tool = tool.clone().env("CAP_ARGS", json!({"ips": ips, "portMappings": [mapping]}));
        tool.run(&[verb, &self.name, &pod.path().display().to_string(), "--cache-dir", ELSEWHERE])
    }

    fn add(&self, tool: &Cnitool<'_>, pod: &Pod, address: usize, port: u16) {
        self.call(tool, "add", pod, address, port).success();
        wait_for_duplicate_detection(&self.host);
    }

    fn facts(&self) -> Facts {
        Facts::of(&self.host, &["br81"])
    }

    /// The id that cnitool gave a pod.
    fn id(&self, pod: &Pod) -> String {
        let netns = pod.path().display().to_string();
        let files = fs::read_dir(self.host.store().join("elsewhere/results")).unwrap().flatten();
        let mut entries = files.map(|file| serde_json::from_slice::<Value>(&fs::read(file.path()).unwrap()).unwrap());
        let entry = entries.find(|entry| entry["netns"] == netns.as_str()).unwrap();
        entry["containerId"].as_str().unwrap().to_owned()
    }

    /// Lines with a word, without the ports that the reference has in nftables: they do not say of which network they are.
    fn lines_with(&self, word: &str) -> Vec<String> {
        let mut lines = self.facts().lines_with(word);
        lines.retain(|line| !line.contains("cni_hostport") && !line.contains("elsewhere"));
        lines
    }
}

#[test]
fn pods_of_which_rules_alone_speak() {
    at_once(&ways(), |way| {
        // All at once: a tool that looks at all namespaces sees the others'.
        let node =
            Node::new("a", way, 4 * way.which + 2 * usize::from(way.legacy) + usize::from(way.backend == "nftables"));
        let mut pods = [node.host.pod(), node.host.pod(), node.host.pod()];
        node.add(&node.theirs(), &pods[0], 2, 8102);
        node.add(&node.theirs(), &pods[1], 3, 8103);
        let both = node.facts();
        let found = node.ours().run(&["ipam", "check", "a", "--json"]).success();
        assert_eq!(found["findings"], json!([]), "{way:?}");
        let dry = node.ours().run(&["gc", "a", "--dry-run", "--json"]).success();
        let done = node.ours().run(&["gc", "a", "--json"]).success();
        for report in [dry, done] {
            assert_eq!((&report["networks"][0]["remove"], &report["networks"][0]["errors"]), (&json!([]), &json!([])));
        }
        node.facts().assert_same(&both, &format!("{way:?}: two that live"));

        // One dies, and a pod of ours gets its address: that the address lives shows nothing of the dead one.
        let (alive, dead) = (node.id(&pods[0]), node.id(&pods[1]));
        let of_alive = node.lines_with(&alive);
        assert!(!of_alive.is_empty() && !node.lines_with(&dead).is_empty(), "{way:?}");
        kill(&node.host, &mut pods[1]);
        node.add(&node.ours(), &pods[2], 3, 8104);
        let gone = node.ours().run(&["gc", "a"]);
        let text = gone.success_text();
        assert!(text.lines().any(|line| line.starts_with("a: removed rule ")) || way.legacy, "{way:?}: {text}");
        assert!(!text.contains("would") && !text.contains("nothing to remove"), "{way:?}: {text}");
        assert_eq!(node.lines_with(&dead), [""; 0], "{way:?}");
        assert_eq!(node.lines_with("dport 8103"), [""; 0], "{way:?}");
        assert_eq!(node.lines_with("dports 8103"), [""; 0], "{way:?}");
        assert_eq!(node.lines_with(&alive), of_alive, "{way:?}");
        node.call(&node.ours(), "check", &pods[2], 3, 8104).success();
        node.call(&node.ours(), "check", &pods[0], 2, 8102).success();
    });
}

/// A comment in nftables has 128 bytes, and the container may be behind them: it cannot be named among what is valid.
#[test]
fn a_rule_whose_owner_is_cut_off() {
    for way in ways().into_iter().filter(|way| way.backend == "nftables") {
        let name = "a".repeat(60);
        let node = Node::new(&name, way, 20 + way.which);
        let mut pod = node.host.pod();
        node.add(&node.theirs(), &pod, 2, 8102);
        let before = node.facts();
        for arguments in [&["gc", &name][..], &["gc", &name, "--dry-run"]] {
            let refused = node.ours().run(arguments);
            assert!(refused.status == Some(1) && refused.stdout.contains("can be named"), "{refused}");
            node.facts().assert_same(&before, "gc");
        }
        assert_eq!(node.ours().run(&["ipam", "check", &name]).status, Some(2));
        kill(&node.host, &mut pod);
        node.ours().run(&["gc", &name]).success_text();
        assert_eq!(node.lines_with("cni_plugins_masquerade\",\"chain\":\"masq_checks\""), [""; 0]);
    }
}
