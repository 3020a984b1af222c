//! A machine that is rebooted as often as a test likes: a call runs in a mount namespace where `/proc` tells of another
//! boot. It is the plugin alone that is told; the reference asks no one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::node::{Node, OURS, Outcome, call, call_with};

/// The file that names the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub struct Machine {
    scripts: TempDir,
    boot: u32,
    /// What else is different: words of a shell script, run before the plugin, as the plugin's process.
    twist: String,
}

impl Machine {
    pub fn new() -> Self {
        Self { scripts: tempfile::tempdir().unwrap(), boot: 1, twist: String::new() }
    }

    pub fn reboot(&mut self) {
        self.boot += 1;
    }

    pub fn twist(&mut self, script: &str) {
        script.clone_into(&mut self.twist);
    }

    /// A directory for what a twist needs.
    pub fn directory(&self) -> PathBuf {
        self.scripts.path().to_owned()
    }

    /// A program that is the plugin on this machine as it is now.
    pub fn plugin(&self) -> PathBuf {
        let id = self.directory().join("boot_id");
        fs::write(&id, format!("00000000-0000-4000-8000-{:012}\n", self.boot)).unwrap();
        let inner = self.directory().join("inner");
        // Where the machine is a container, its own /dev says nothing of the kernel's start.
        let devices = self.directory().join("devices");
        fs::create_dir_all(&devices).unwrap();
        let (id, devices, twist) = (id.display(), devices.display(), &self.twist);
        let mounts = format!("mount --bind {id} {BOOT_ID}\nmount -t devtmpfs none {devices}");
        fs::write(&inner, format!("set -e\n{mounts}\n{twist}\nexec {OURS}\n")).unwrap();
        let program = self.directory().join("host-local");
        fs::write(&program, format!("#!/bin/sh\nexec unshare -m /bin/sh {}\n", inner.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    /// The same, run by another program.
    pub fn inside(&self, runner: &str) -> PathBuf {
        let inside = self.directory().join("inside");
        fs::write(&inside, format!("#!/bin/sh\nexec {runner} {}\n", self.plugin().display())).unwrap();
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).unwrap();
        inside
    }

    pub fn add(&self, id: &str, conf: &Value) -> Outcome {
        call(self.plugin(), "ADD", id, conf)
    }

    /// ADD that asks for an address.
    pub fn ask(&self, id: &str, address: &str, conf: &Value) -> Outcome {
        call_with(self.plugin(), "ADD", id, conf, &[("CNI_ARGS", &format!("IP={address}"))])
    }

    /// A call of a version that has the verb.
    pub fn call(&self, verb: &str, id: &str, conf: &Value) -> Outcome {
        let mut conf = conf.clone();
        conf["cniVersion"] = "1.1.0".into();
        call(self.plugin(), verb, id, &conf)
    }

    /// Fills a range; the last who gets an address has the number that is returned.
    #[track_caller]
    pub fn fill(&self, prefix: &str, conf: &Value) -> Vec<String> {
        let mut given = Vec::new();
        loop {
            let outcome = self.add(&format!("{prefix}{}", given.len()), conf);
            if !outcome.ok {
                let (code, msg) = outcome.error();
                assert!(code == 999 && msg.contains("no IP addresses available"), "{outcome:?}");
                return given;
            }
            given.extend(outcome.addresses());
        }
    }
}

/// A time before any machine's boot that has a clock at all.
pub fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)
}

/// Puts the time of every lease of a node.
pub fn date(node: &Node, time: SystemTime) {
    for address in node.addresses() {
        let lease = fs::File::options().write(true).open(node.leases().join(address.to_string())).unwrap();
        lease.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    }
}
