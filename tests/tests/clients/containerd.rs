//! containerd, the daemon: started, restarted, ended with the sandbox.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tests::Namespace;
use tests::sandbox::{self, wait_for};

use crate::node::{ARCHIVE, IMAGE, Node};

pub const SOCKET: &str = "/run/containerd/containerd.sock";
const CONF: &str = "/etc/containerd/config.toml";
const LOG: &str = "/run/containerd.log";

/// A running containerd.
pub struct Containerd {
    daemon: Child,
    /// `containerd 1.6.20`.
    pub version: String,
}

impl Containerd {
    /// Starts it with the CRI plugin as Kubernetes uses it; the image is there for both of its users.
    pub fn start(node: &Node<'_>) -> Self {
        fs::create_dir_all("/etc/containerd").unwrap();
        fs::write(CONF, configuration()).unwrap();
        let daemon = Self::spawn();
        let version = node.run("ctr --address /run/containerd/containerd.sock version");
        let server = version.split("Server:").nth(1).unwrap_or(&version);
        let number = server.lines().find_map(|line| line.trim().strip_prefix("Version:")).unwrap_or(server);
        let version = format!("containerd {}", number.trim());
        sandbox::tell(&version);
        for namespace in ["default", "k8s.io"] {
            node.run(&format!("ctr --namespace {namespace} image import --no-unpack {ARCHIVE}"));
        }
        Self { daemon, version }
    }

    fn spawn() -> Child {
        drop(fs::remove_file(SOCKET));
        let log = File::options().create(true).append(true).open(LOG).unwrap();
        let mut command = Command::new("containerd");
        command.args(["--config", CONF]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = command.spawn().expect("run containerd");
        wait_for("containerd to listen", || {
            if let Some(status) = daemon.try_wait().unwrap() {
                panic!("containerd ended: {status}\n{}", Self::log());
            }
            let answer = Command::new("ctr").args(["--connect-timeout", "1s", "version"]).output().unwrap();
            if answer.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&answer.stderr).into_owned()) }
        });
        daemon
    }

    /// As after a crash: the containers go on.
    pub fn restart(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = Self::spawn();
    }

    /// What it has to say, for a test that failed.
    pub fn log() -> String {
        fs::read_to_string(LOG).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", Self::log());
        }
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

/// The network namespace of a process in a container.
pub fn namespace_of(node: &Node<'_>, pid: &str) -> Namespace {
    node.at(&Path::new("/proc").join(pid).join("ns/net"))
}

/// Version 2 of the configuration, which 2.x still takes. The snapshotter copies, because a container's root may be on
/// any file system; and root in a container of CI may not lower what the kernel's OOM killer thinks of a process.
fn configuration() -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[debug]
level = "warn"
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
"#
    )
}
