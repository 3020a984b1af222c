//! A refusal: bad input for a built binary, what must come of it, and how that is judged.
//!
//! Where the specification has a code for a case (1 version, 4 environment, 6 decoding, 7 configuration; 8 is the
//! reference's), that code is demanded; where it has none, 999 is what the reference says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Host, Outcome, Pod, bins};

use crate::bridge_conf::{v4, with};

pub const VERSION: &[u64] = &[1];
pub const ENVIRONMENT: &[u64] = &[4];
pub const DECODING: &[u64] = &[6];
pub const CONFIG: &[u64] = &[7];
pub const OWN_NETNS: &[u64] = &[8];
/// A failure the specification has no code for: internal, I/O, or one that may pass.
pub const FAILED: &[u64] = &[999, 5, 11];
/// A delegate that does not speak the protocol: undecodable, or the reference's 0.
pub const DELEGATE: &[u64] = &[6, 999, 0];
/// A value of JSON that is text but not what it should be: libraries differ in where they notice.
pub const TEXT: &[u64] = &[6, 7];

/// One line of the table.
pub struct Row {
    /// What is bad about it.
    pub what: &'static str,
    codes: &'static [u64],
    /// What the message or its details must contain: the key, or the value.
    word: &'static str,
    plugin: &'static str,
    verb: &'static str,
    ifname: &'static str,
    stdin: String,
    env: Vec<(&'static str, Option<&'static str>)>,
    fake: Option<&'static str>,
    prepare: fn(&Host, &Pod),
}

/// A row of an ADD of bridge; what is bad about it is said by the methods.
pub fn row(what: &'static str, codes: &'static [u64], word: &'static str) -> Row {
    Row {
        what,
        codes,
        word,
        plugin: "bridge",
        verb: "ADD",
        ifname: "eth0",
        stdin: v4().to_string(),
        env: Vec::new(),
        fake: None,
        prepare: |_, _| (),
    }
}

impl Row {
    pub fn stdin(self, text: &str) -> Self {
        Self { stdin: text.to_owned(), ..self }
    }

    /// These keys over those of a good configuration.
    pub fn keys(self, keys: Value) -> Self {
        let stdin = with(&v4(), keys).to_string();
        Self { stdin, ..self }
    }

    /// host-local with this `ipam`, in place of the good one.
    pub fn ipam(self, keys: Value) -> Self {
        let mut conf = v4();
        conf["ipam"] = with(&json!({"type": "host-local"}), keys);
        Self { stdin: conf.to_string(), ..self }
    }

    pub fn plugin(self, plugin: &'static str) -> Self {
        Self { plugin, ..self }
    }

    pub fn verb(self, verb: &'static str) -> Self {
        Self { verb, ..self }
    }

    pub fn ifname(self, ifname: &'static str) -> Self {
        Self { ifname, ..self }
    }

    pub fn env(mut self, key: &'static str, value: &'static str) -> Self {
        self.env.push((key, Some(value)));
        self
    }

    pub fn without(mut self, key: &'static str) -> Self {
        self.env.push((key, None));
        self
    }

    /// The IPAM plugin is a shell script.
    pub fn fake(self, script: &'static str) -> Self {
        let row = self.keys(json!({"ipam": {"type": "fake", "timeoutSeconds": 1}}));
        Self { fake: Some(script), ..row }
    }

    pub fn prepare(self, prepare: fn(&Host, &Pod)) -> Self {
        Self { prepare, ..self }
    }

    fn call(&self, host: &Host, pod: &Pod, fakes: &Path) -> Outcome {
        let path = format!("{}:{}", fakes.display(), bins::directory().display());
        let mut plugin = host.plugin(self.plugin).env("CNI_PATH", path);
        for (key, value) in &self.env {
            plugin = match value {
                Some(value) => plugin.env(key, value),
                None => plugin.without_env(key),
            };
        }
        match self.verb {
            "ADD" => plugin.add(&self.stdin, pod, self.ifname),
            "DEL" => plugin.del(&self.stdin, pod, self.ifname),
            "CHECK" => plugin.check(&self.stdin, pod, self.ifname),
            "GC" => plugin.gc(&self.stdin),
            "STATUS" => plugin.status(&self.stdin),
            verb => plugin.env("CNI_COMMAND", verb).add(&self.stdin, pod, self.ifname),
        }
    }

    /// What is wrong with how it was refused; empty when nothing is.
    pub fn run(&self) -> Vec<String> {
        let host = Host::new();
        let pod = host.pod();
        let fakes = TempDir::new().unwrap();
        if let Some(script) = self.fake {
            write_script(&fakes.path().join("fake"), script);
        }
        (self.prepare)(&host, &pod);
        let before = (host.state(), pod.state(), files(&host));
        let outcome = self.call(&host, &pod, fakes.path());
        let mut wrong = self.judge(&outcome);
        let changed = [host.state().difference(&before.0), pod.state().difference(&before.1)].concat();
        if !changed.is_empty() {
            wrong.push(format!("it changed something:\n{changed}"));
        }
        if files(&host) != before.2 {
            wrong.push(format!("files before: {}\nfiles after: {}", before.2, files(&host)));
        }
        if !wrong.is_empty() {
            wrong.push(outcome.to_string());
        }
        wrong
    }

    fn judge(&self, outcome: &Outcome) -> Vec<String> {
        let mut wrong = Vec::new();
        if outcome.status != Some(1) {
            wrong.push("the exit status is not 1".to_owned());
        }
        let error: Value = match serde_json::from_str(&outcome.stdout) {
            Ok(error) => error,
            Err(error) => {
                wrong.push(format!("stdout is not one JSON document: {error}"));
                return wrong;
            }
        };
        if !error["cniVersion"].is_string() || error["msg"].as_str().is_none_or(str::is_empty) {
            wrong.push("cniVersion or msg is missing".to_owned());
        }
        if !error["code"].as_u64().is_some_and(|code| self.codes.contains(&code)) {
            wrong.push(format!("the code is not of {:?}", self.codes));
        }
        let text = format!("{} {}", error["msg"].as_str().unwrap_or(""), error["details"].as_str().unwrap_or(""));
        if !text.contains(self.word) {
            wrong.push(format!("the message does not contain {:?}", self.word));
        }
        wrong
    }
}

/// Leases and whatever else is in the store, seen from where the plugin sees it (something may be mounted there).
fn files(host: &Host) -> String {
    host.run(
        "find /var/lib/cni -type f -not -name lock -not -name .owners -not -name last_reserved_ip.* -printf %p:%s\\n",
    )
}

pub fn write_script(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
