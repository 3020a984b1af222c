//! podman with `network_backend = "cni"`: every command is a process that reads the lists, runs VERSION on every plugin
//! and calls them by itself.

use std::fs;
use std::path::Path;

use tests::sandbox::{self, run_inside};
use tests::{Internet, Namespace};

use crate::node::{ARCHIVE, IMAGE, Node};

const SERVED: u16 = 8080;
const HOST_PORT: u16 = 30081;
/// Asked for by `--ip` and `--mac-address`.
const ADDRESS: &str = "10.89.0.77";
const MAC: &str = "02:00:0a:59:00:4d";

/// The backend, and what podman can do without systemd and on any file system. runc is what Debian's containerd brings.
const CONTAINERS_CONF: &str = r#"[containers]
log_driver = "k8s-file"
[network]
network_backend = "cni"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;
const STORAGE_CONF: &str = r#"[storage]
driver = "vfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"#;

/// podman is no daemon: nothing has to be started. Returns its version.
fn install(node: &Node<'_>) -> String {
    fs::write("/etc/containers/containers.conf", CONTAINERS_CONF).unwrap();
    fs::write("/etc/containers/storage.conf", STORAGE_CONF).unwrap();
    let version = node.run("podman --version").trim().to_owned();
    sandbox::tell(&version);
    node.run(&format!("podman load --quiet --input {ARCHIVE}"));
    version
}

/// `podman run -d`; the network namespace of the container.
fn start(node: &Node<'_>, name: &str, options: &str) -> Namespace {
    node.run(&format!("podman run --detach --name {name} {options} {IMAGE}"));
    let pid = node.run(&format!("podman inspect --format {{{{.State.Pid}}}} {name}"));
    node.at(&Path::new("/proc").join(pid.trim()).join("ns/net"))
}

fn remove(node: &Node<'_>, name: &str) {
    node.run(&format!("podman rm --force --time 0 {name}"));
}

/// The address of a link in 10.x/24, as podman's networks here have them.
fn v4(pod: &Namespace, link: &str) -> String {
    let addresses = pod.addresses(link);
    let found = addresses.iter().find_map(|address| Some(address.strip_suffix("/24")?.to_owned()));
    found.unwrap_or_else(|| panic!("{link}: {addresses:?}"))
}

/// A network without a way out, for a container that has another one already.
fn second_network(node: &Node<'_>, web: &Namespace) {
    let hidden = start(node, "hidden", "--network inner");
    node.run("podman network connect inner web");
    let there = v4(web, "eth1");
    let served = node.serve(web, 0);
    assert_eq!(hidden.asks_at(&there, served.port()), Ok(v4(&hidden, "eth0").parse().unwrap()));
    assert!(!hidden.pings(Internet::V4), "an internal network leads to the internet");
    assert_eq!(hidden.ip("route show default").as_array().unwrap().len(), 0);

    node.run("podman network disconnect inner web");
    assert!(web.link("eth1").is_none(), "disconnected, and still there");
    node.assert_egress(web);
    remove(node, "hidden");
}

#[test]
#[ignore = "cargo xtask test fetches podman"]
fn containers_of_podman_are_wired_and_leave_nothing() {
    run_inside(&["stable"], |sandbox| {
        let node = Node::new(sandbox);
        let version = install(&node);
        node.run("podman network create --ipv6 --subnet 10.89.0.0/24 --subnet fd00:89::/64 front");
        node.run("podman network create --internal --subnet 10.90.0.0/24 inner");
        let written = fs::read_to_string("/etc/cni/net.d/front.conflist").unwrap();
        for plugin in ["bridge", "portmap", "firewall", "tuning"] {
            assert!(written.contains(&format!("\"type\": \"{plugin}\"")), "podman wrote another network:\n{written}");
        }
        let mapped = format!("--publish {HOST_PORT}:{SERVED}/tcp --publish {HOST_PORT}:{SERVED}/udp");
        start(&node, "first", &format!("--network front,inner {mapped}"));
        remove(&node, "first");
        let before = node.state("cni-podman1").without_link("cni-podman2");
        assert_eq!(before.section("files"), Vec::<&str>::new());

        let web = start(&node, "web", &format!("--network front {mapped} --ip {ADDRESS} --mac-address {MAC}"));
        let peer = start(&node, "peer", "--network front");
        assert_eq!(v4(&web, "eth0"), ADDRESS);
        assert_eq!(web.link("eth0").unwrap()["address"], MAC);
        let served = node.serve(&web, SERVED);
        assert_eq!(peer.asks_at(ADDRESS, SERVED), Ok(v4(&peer, "eth0").parse().unwrap()));
        node.assert_host_port(HOST_PORT, &web, &peer);
        node.assert_egress(&peer);
        second_network(&node, &web);

        drop(served);
        remove(&node, "web");
        remove(&node, "peer");
        node.state("cni-podman1").without_link("cni-podman2").assert_same(&before);
        node.run("podman network rm front inner");
        for bridge in ["cni-podman1", "cni-podman2"] {
            assert!(node.link(bridge).is_none(), "podman removes the bridge of a network");
        }
        node.record("podman", &version);
        node.assert_all_succeeded();
    });
}
