//! A host and its pods for one test: fresh network namespaces, which vanish with the test. They need root, and a test
//! that cannot have them fails.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use hostnet::{Netlink, Netns};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// A network namespace that lives as long as this.
pub struct Space(File);

impl Space {
    pub fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (are you root?)");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap_or_else(|panic| resume_unwind(panic)))
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    pub fn netlink(&self) -> Netlink {
        Netlink::open_in(Netns::open(&self.path()).unwrap()).unwrap()
    }
}

/// Runs a test on a thread of its own, in a fresh host namespace, with a fresh pod.
pub fn with_pod(test: impl FnOnce(&mut Netlink, &mut Netlink) + Send + 'static) {
    let (host, pod) = (Space::new(), Space::new());
    let run = thread::spawn(move || {
        let netns = Netns::open(&host.path()).unwrap();
        netns.enter(|| {
            let (mut host, mut pod) = Netlink::pair(&pod.path()).unwrap();
            test(&mut host, &mut pod);
        })
    });
    run.join().unwrap_or_else(|panic| resume_unwind(panic)).unwrap();
}

/// Runs a program in a namespace and returns what it printed.
pub fn run(nl: &Netlink, command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = nl.in_netns(|| Command::new(words.next().unwrap()).args(words).output().unwrap()).unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same for `ip -j` and its kin.
pub fn json(nl: &Netlink, command: &str) -> Value {
    let text = run(nl, command);
    serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).unwrap()
}
