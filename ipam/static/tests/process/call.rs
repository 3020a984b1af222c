//! Calls of a `static`, ours or the reference's.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The plugin under test.
pub const OURS: &str = env!("CARGO_BIN_EXE_static");

/// What a call printed.
#[derive(Debug)]
pub struct Outcome {
    pub ok: bool,
    pub json: Value,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn success(&self) -> &Value {
        assert!(self.ok, "{self:?}");
        &self.json
    }

    /// The addresses of a result, each with its gateway, if it has one.
    #[track_caller]
    pub fn ips(&self) -> Vec<(&str, Option<&str>)> {
        let ips = self.success()["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        ips.iter().map(|ip| (ip["address"].as_str().unwrap(), ip.get("gateway").and_then(Value::as_str))).collect()
    }

    /// The message of an error, with its code.
    #[track_caller]
    pub fn error(&self) -> (u64, &str) {
        assert!(!self.ok, "{self:?}");
        (self.json["code"].as_u64().unwrap(), self.json["msg"].as_str().unwrap())
    }
}

/// A network of the newest version that all speak, with this `ipam`.
pub fn conf(mut ipam: Value) -> Value {
    ipam["type"] = "static".into();
    json!({ "cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": ipam })
}

/// The same with other keys of the network: `cniVersion`, `args`, `runtimeConfig`, `prevResult`.
pub fn with(conf: &Value, keys: Value) -> Value {
    let mut conf = conf.clone();
    conf.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    conf
}

/// One call for `eth0` of a container; `args` is `CNI_ARGS`.
pub fn call(program: impl AsRef<Path>, verb: &str, conf: &Value, args: &str) -> Outcome {
    let mut command = Command::new(program.as_ref());
    command.env_clear().env("CNI_COMMAND", verb).env("CNI_PATH", "/nonexistent").env("CNI_ARGS", args);
    if !["GC", "STATUS"].contains(&verb) {
        command.env("CNI_CONTAINERID", "a").env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/nonexistent/netns");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let json = if stdout.is_empty() { Value::Null } else { serde_json::from_str(&stdout).expect(&stdout) };
    Outcome { ok: output.status.success(), json, stderr: String::from_utf8(output.stderr).unwrap() }
}

pub fn add(conf: &Value, args: &str) -> Outcome {
    call(OURS, "ADD", conf, args)
}
