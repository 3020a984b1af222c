//! A network namespace and the mount namespace it is looked at from, both held by open files.
//!
//! Work is done in a namespace by a thread that moves there and ends: no `unsafe`, no fork, and a process started by
//! such a thread is born in the namespace.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use crate::echo;

/// Where Debian keeps the programs; the caller's PATH may lack the directories for root.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A network namespace with a mount namespace. Cloning copies the handle, not the namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    net: Arc<File>,
    mnt: Arc<File>,
}

impl Namespace {
    /// New network and mount namespaces, `lo` up; `prepare` runs inside to lay out the mounts (propagation is private).
    pub(crate) fn create(prepare: impl FnOnce() + Send) -> Self {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("the lab needs root (or a user namespace): unshare network and mount namespace");
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("make / private");
            prepare();
            run("ip link set lo up");
            Self::of_this_thread()
        })
    }

    /// A new network namespace seen from the same mount namespace, bound to `path` there. Its `lo` is down.
    pub(crate) fn create_beside(&self, path: &Path) -> Self {
        self.enter(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare network namespace");
            File::create_new(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
            let none: Option<&str> = None;
            mount(Some("/proc/thread-self/ns/net"), path, none, MsFlags::MS_BIND, none)
                .unwrap_or_else(|e| panic!("bind the namespace to {}: {e}", path.display()));
            Self::of_this_thread()
        })
    }

    fn of_this_thread() -> Self {
        let open = |which| {
            let path = format!("/proc/thread-self/ns/{which}");
            Arc::new(File::open(&path).unwrap_or_else(|e| panic!("open {path}: {e}")))
        };
        Self { net: open("net"), mnt: open("mnt") }
    }

    /// Where another mount namespace finds the network namespace, while this process lives.
    pub(crate) fn net_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// Runs `f` inside, in a thread of its own; a panic there goes on here.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            self.settle();
            f()
        })
    }

    /// Moves the calling thread here for good.
    fn settle(&self) {
        // Threads share their working directory; whoever changes the mount namespace must not.
        unshare(CloneFlags::CLONE_FS).expect("unshare the working directory");
        setns(self.mnt.as_fd(), CloneFlags::CLONE_NEWNS).expect("enter the mount namespace");
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
    }

    /// Runs a command line (split at white space) inside and returns its standard output; panics when it fails.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        assert!(output.status.success(), "{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command line inside, whatever its exit status.
    pub fn try_run(&self, line: &str) -> Output {
        self.enter(|| execute(line))
    }

    /// `ip -j ...`: the oracle. No output is an empty list.
    #[track_caller]
    pub fn ip(&self, arguments: &str) -> Value {
        let text = self.run(&format!("ip -j {arguments}"));
        if text.trim().is_empty() {
            return Value::Array(Vec::new());
        }
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("ip -j {arguments}: {e}: {text}"))
    }

    /// The one link of that name as `ip -j -d link` shows it, or None.
    pub fn link(&self, name: &str) -> Option<Value> {
        let all = self.ip("-d link show");
        all.as_array()?.iter().find(|link| link["ifname"] == name).cloned()
    }

    /// The addresses of a link, as `10.1.0.2/24`, without the link-local ones. None when there is no such link.
    pub fn addresses(&self, name: &str) -> Vec<String> {
        let all = self.ip("address show");
        let mut found = Vec::new();
        for link in all.as_array().into_iter().flatten().filter(|link| link["ifname"] == name) {
            for address in link["addr_info"].as_array().into_iter().flatten().filter(|a| a["scope"] != "link") {
                found.push(format!("{}/{}", address["local"].as_str().unwrap_or_default(), address["prefixlen"]));
            }
        }
        found
    }

    /// A sysctl by its path below /proc/sys (`net/ipv4/ip_forward`), without the newline.
    #[track_caller]
    pub fn sysctl(&self, key: &str) -> String {
        self.enter(|| {
            let text = std::fs::read_to_string(format!("/proc/sys/{key}"));
            text.unwrap_or_else(|e| panic!("sysctl {key}: {e}")).trim_end().to_owned()
        })
    }

    /// Sets a sysctl.
    #[track_caller]
    pub fn set_sysctl(&self, key: &str, value: &str) {
        self.enter(|| {
            std::fs::write(format!("/proc/sys/{key}"), value).unwrap_or_else(|e| panic!("sysctl {key}={value}: {e}"));
        });
    }

    /// Asks whatever echo server answers at this address and port, over UDP and TCP, which source address it sees; panics
    /// when the two differ. Err when there was no answer within four seconds.
    pub fn asks_at(&self, address: &str, port: u16) -> Result<IpAddr, String> {
        let address: IpAddr = address.parse().unwrap_or_else(|e| panic!("address {address}: {e}"));
        self.enter(|| echo::ask(address, port))
    }

    /// Whether one ICMP echo is answered within two seconds. The address may be of either family.
    pub fn pings(&self, address: &str) -> bool {
        // The first packet of a link may be lost to a neighbour entry in the making: three, 0.2 s apart.
        self.try_run(&format!("ping -n -q -c 3 -i 0.2 -W 2 {address}")).status.success()
    }
}

/// A number no other object of this process has; with the process id it is unique on the machine.
pub(crate) fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Runs a command line where the calling thread is; panics when it fails.
pub(crate) fn run(line: &str) {
    let output = execute(line);
    assert!(output.status.success(), "{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Where a program is, or None when it is not installed.
pub fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|directory| Path::new(directory).join(program)).find(|path| path.is_file())
}

fn execute(line: &str) -> Output {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program to run");
    let mut command = Command::new(program);
    command.args(words).env("PATH", PATH).stdin(Stdio::null());
    command.output().unwrap_or_else(|e| panic!("run {program} (`cargo xtask test` installs what is missing): {e}"))
}

fn in_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(f).join() {
        Ok(value) => value,
        Err(payload) => panic::resume_unwind(payload),
    })
}
