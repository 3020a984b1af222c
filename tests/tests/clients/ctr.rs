//! `ctr run --cni`: containerd's own client calls the plugins by itself, from its own process.

use std::process::{Child, Command, Stdio};

use tests::Namespace;
use tests::sandbox::{run_inside, wait_for};

use crate::containerd::{Containerd, namespace_of};
use crate::node::{IMAGE, Node, dual_stack};

/// A container that `ctr run` waits for.
struct Container {
    ctr: Child,
    id: &'static str,
    network: Namespace,
}

impl Container {
    fn start(node: &Node<'_>, id: &'static str) -> Self {
        let mut ctr = Command::new("ctr");
        ctr.args(["run", "--rm", "--cni", "--snapshotter", "native", IMAGE, id]);
        let ctr = ctr.stdin(Stdio::null()).spawn().unwrap();
        let pid = wait_for(&format!("container {id} to run"), || pid_of(node, id));
        Self { ctr, id, network: namespace_of(node, &pid) }
    }

    fn stop(mut self, node: &Node<'_>) {
        node.run(&format!("ctr task kill --signal SIGKILL {}", self.id));
        self.ctr.wait().unwrap();
    }
}

/// TASK PID STATUS, a line a task.
fn pid_of(node: &Node<'_>, id: &str) -> Result<String, String> {
    let listed = node.run("ctr task list");
    let mut lines = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let words = lines.find(|words| words.first() == Some(&id) && words.last() == Some(&"RUNNING"));
    words.map(|words| words[1].to_owned()).ok_or(listed.clone())
}

#[test]
#[ignore = "cargo xtask test fetches containerd"]
fn containers_of_ctr_are_wired_and_leave_nothing() {
    run_inside(&["stable"], |sandbox| {
        let node = Node::new(sandbox);
        node.configure(&dual_stack("1.0.0"));
        let containerd = Containerd::start(&node);
        let before = node.state("cni0");

        let first = Container::start(&node, "first");
        let second = Container::start(&node, "second");
        // host-local gives the first free address of each range, behind the gateway's.
        assert_eq!(first.network.addresses("eth0"), ["10.88.0.2/16", "fd00:88::2/64"]);
        assert_eq!(second.network.addresses("eth0"), ["10.88.0.3/16", "fd00:88::3/64"]);
        for gateway in ["10.88.0.1", "fd00:88::1"] {
            assert!(first.network.pings(gateway), "{gateway} does not answer");
        }
        let served = node.serve(&second.network, 0);
        for (there, here) in [("10.88.0.3", "10.88.0.2"), ("fd00:88::3", "fd00:88::2")] {
            assert_eq!(first.network.asks_at(there, served.port()), Ok(here.parse().unwrap()));
        }
        node.assert_egress(&first.network);
        drop(served);

        first.stop(&node);
        second.stop(&node);
        let client = containerd.version.replace("containerd", "ctr of containerd");
        drop(containerd);
        node.state("cni0").assert_same(&before);
        let dels = node.calls_of("bridge", "DEL");
        assert_eq!(dels.len(), 2, "{dels:#?}");
        assert!(
            dels.iter().all(|call| call["env"]["CNI_NETNS"] == ""),
            "the process is gone, so is its path: {dels:#?}"
        );
        node.assert_all_succeeded();
        node.record("ctr", &client);
    });
}
