//! A directory of leases of its own for each test, and calls of a `host-local`, ours or the reference's.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The plugin under test.
pub const OURS: &str = env!("CARGO_BIN_EXE_host-local");

/// The reference's plugin, the newest version of those that `PODWIRE_REFERENCE_DIR` names.
pub fn reference() -> PathBuf {
    let named = std::env::var_os("PODWIRE_REFERENCE_DIR").unwrap_or_else(|| "/usr/lib/cni".into());
    let dir = std::env::split_paths(&named).last().unwrap_or_default();
    let path = dir.join("host-local");
    assert!(
        path.exists(),
        "{} is missing: install containernetworking-plugins, or set PODWIRE_REFERENCE_DIR",
        path.display()
    );
    path
}

/// The reference's plugin in every version that is there: those of `PODWIRE_REFERENCE_DIR`, and under `cargo xtask test`
/// the newest.
pub fn references() -> Vec<PathBuf> {
    let named = std::env::var_os("PODWIRE_REFERENCE_DIR").unwrap_or_else(|| "/usr/lib/cni".into());
    let newest = std::env::var_os("PODWIRE_NEWEST_REFERENCE_DIR");
    let directories = std::env::split_paths(&named).chain(newest.map(PathBuf::from));
    let mut found: Vec<PathBuf> = directories.map(|dir| dir.join("host-local")).filter(|path| path.exists()).collect();
    found.dedup();
    assert!(!found.is_empty(), "install containernetworking-plugins, or set PODWIRE_REFERENCE_DIR");
    found
}

/// What a call printed.
#[derive(Debug)]
pub struct Outcome {
    pub ok: bool,
    pub json: Value,
    pub stderr: String,
}

impl Outcome {
    /// The addresses of a result, without prefix lengths.
    #[track_caller]
    pub fn addresses(&self) -> Vec<String> {
        assert!(self.ok, "{self:?}");
        let address = |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
        self.json["ips"].as_array().unwrap().iter().map(address).collect()
    }

    /// The message of an error, with its code.
    #[track_caller]
    pub fn error(&self) -> (u64, &str) {
        assert!(!self.ok, "{self:?}");
        (self.json["code"].as_u64().unwrap(), self.json["msg"].as_str().unwrap())
    }

    #[track_caller]
    pub fn succeeded(&self) {
        assert!(self.ok, "{self:?}");
    }
}

pub struct Node {
    data_dir: TempDir,
}

impl Node {
    pub fn new() -> Self {
        Self { data_dir: tempfile::tempdir().unwrap() }
    }

    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// The directory of the network that [`Node::conf`] makes.
    pub fn leases(&self) -> PathBuf {
        self.data_dir().join("net")
    }

    /// A network with these keys in `ipam`.
    pub fn conf(&self, mut ipam: Value) -> Value {
        ipam["type"] = "host-local".into();
        ipam["dataDir"] = self.data_dir().to_str().into();
        json!({ "cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": ipam })
    }

    /// A network with one range set per subnet.
    pub fn subnets(&self, subnets: &[&str]) -> Value {
        let sets: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
        self.conf(json!({ "ranges": sets }))
    }

    /// Names of the files that are leases, in the order of their addresses.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.files().iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// All files.
    pub fn files(&self) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.leases()) else { return BTreeSet::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.leases().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A file as somebody else leaves it.
    pub fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.leases()).unwrap();
        fs::write(self.leases().join(name), content).unwrap();
    }

    /// Whether the index is believed.
    pub fn sealed(&self) -> bool {
        let modified = fs::metadata(self.leases()).unwrap().modified().unwrap();
        modified == std::time::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30)
    }
}

/// One attachment of one container: `eth0` of `id`.
pub fn call(program: impl AsRef<Path>, verb: &str, id: &str, conf: &Value) -> Outcome {
    call_with(program, verb, id, conf, &[])
}

/// The same with variables that replace the usual ones.
pub fn call_with(program: impl AsRef<Path>, verb: &str, id: &str, conf: &Value, env: &[(&str, &str)]) -> Outcome {
    outcome(start(program, verb, id, conf, env).wait_with_output().unwrap())
}

pub fn start(program: impl AsRef<Path>, verb: &str, id: &str, conf: &Value, env: &[(&str, &str)]) -> Child {
    let mut child = spawn(program, verb, id, env);
    feed(&mut child, conf);
    child
}

/// A call that waits for its stdin.
pub fn spawn(program: impl AsRef<Path>, verb: &str, id: &str, env: &[(&str, &str)]) -> Child {
    let mut command = Command::new(program.as_ref());
    command.env_clear().env("CNI_COMMAND", verb).env("CNI_PATH", "/nonexistent");
    if !["GC", "STATUS"].contains(&verb) {
        command.env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/nonexistent/netns");
    }
    command.envs(env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    loop {
        match command.spawn() {
            // A script that is new, and that a test beside this one was writing when a process was forked here.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            child => return child.unwrap(),
        }
    }
}

pub fn feed(child: &mut Child, conf: &Value) {
    // One that is killed early does not read it.
    let _ = child.stdin.take().unwrap().write_all(conf.to_string().as_bytes());
}

pub fn outcome(output: Output) -> Outcome {
    let stdout = String::from_utf8(output.stdout).unwrap();
    let json = if stdout.is_empty() { Value::Null } else { serde_json::from_str(&stdout).expect(&stdout) };
    Outcome { ok: output.status.success(), json, stderr: String::from_utf8(output.stderr).unwrap() }
}

pub fn add(id: &str, conf: &Value) -> Outcome {
    call(OURS, "ADD", id, conf)
}

pub fn del(id: &str, conf: &Value) -> Outcome {
    call(OURS, "DEL", id, conf)
}

pub fn check(id: &str, conf: &Value) -> Outcome {
    call(OURS, "CHECK", id, conf)
}
