//! containerd driven as kubelet drives it: CRI over gRPC.

use std::collections::HashMap;
use std::thread;

use serde_json::Value;
use tests::sandbox::run_inside;
use tests::{Internet, Namespace, Sandbox};

use crate::containerd::{Containerd, namespace_of};
use crate::cri_api::{Cri, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PodStatus, PortMapping};
use crate::node::{Node, dual_stack};

const SERVED: u16 = 8080;
const HOST_PORT: u16 = 30080;

/// What kubelet sends for a pod of that name; a host port is mapped for TCP and UDP, and such a pod has its rates
/// limited as well.
fn pod(name: &str, host_port: Option<u16>) -> PodSandboxConfig {
    let mapped = host_port.into_iter().flat_map(|port| {
        [0, 1].map(|protocol| PortMapping {
            protocol,
            container_port: SERVED.into(),
            host_port: port.into(),
            host_ip: String::new(),
        })
    });
    let rates = ["ingress", "egress"].map(|way| (format!("kubernetes.io/{way}-bandwidth"), "100M".to_owned()));
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: format!("/var/log/pods/{name}"),
        port_mappings: mapped.collect(),
        annotations: if host_port.is_some() { rates.into() } else { HashMap::new() },
        linux: Some(LinuxPodSandboxConfig { cgroup_parent: "/kubepods".to_owned() }),
    }
}

/// A pod in one namespace: what its runtime says of it is what the kernel says.
fn wired(node: &Node<'_>, status: &PodStatus) -> Namespace {
    let network = namespace_of(node, &status.pid);
    let in_kernel = network.addresses("eth0");
    let in_kernel: Vec<_> = in_kernel.iter().map(|address| address.split('/').next().unwrap()).collect();
    assert_eq!(status.addresses, in_kernel);
    assert_eq!(status.addresses.len(), 2, "dual stack: {status:?}");
    network
}

fn at_once<'a>(ids: impl Iterator<Item = &'a String>, work: impl Fn(&str) + Sync) {
    let work = &work;
    thread::scope(|scope| ids.for_each(|id| drop(scope.spawn(move || work(id)))));
}

/// Twenty pods at once come and go; every one has addresses of its own.
fn twenty_at_once(node: &Node<'_>, cri: &Cri) {
    let made: Vec<(String, PodStatus)> = thread::scope(|scope| {
        let starting: Vec<_> = (0..20)
            .map(|number| {
                scope.spawn(move || {
                    let id = cri.run(&pod(&format!("many-{number}"), Some(31000 + number))).unwrap();
                    let status = cri.pod(&id);
                    (id, status)
                })
            })
            .collect();
        starting.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut addresses: Vec<_> = made.iter().flat_map(|(_, status)| status.addresses.clone()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 40, "no address twice, two a pod: {addresses:?}");
    for (_, status) in &made {
        wired(node, status);
    }
    // Each is stopped twice at once: containerd's DELs of one pod run beside each other.
    let ids = || made.iter().map(|(id, _)| id);
    at_once(ids().chain(ids()), |id| cri.stop(id).unwrap());
    at_once(ids(), |id| cri.remove(id).unwrap());
}

fn story(sandbox: &Sandbox, name: &str, version: &str) {
    let node = Node::new(sandbox);
    node.configure(&dual_stack(version));
    let mut containerd = Containerd::start(&node);
    let cri = Cri::new();
    cri.wait_until_ready();
    let first = cri.run(&pod("first", Some(HOST_PORT))).unwrap();
    let address = cri.pod(&first).addresses.swap_remove(0);
    cri.stop(&first).unwrap();
    cri.remove(&first).unwrap();
    let before = node.state("cni0");
    for trace in [&first[..12], &address] {
        assert!(!before.to_string().contains(trace), "{trace} is left of the first pod:\n{before}");
    }

    let [mapped, other] = [pod("mapped", Some(HOST_PORT)), pod("other", None)].map(|pod| cri.run(&pod).unwrap());
    let network = wired(&node, &cri.pod(&mapped));
    let beside = wired(&node, &cri.pod(&other));
    let served = node.serve(&network, SERVED);
    node.assert_egress(&network);
    node.assert_host_port(HOST_PORT, &network, &beside);

    // 100 Mbit/s are 12 500 000 bytes a second; into the pod at its veth, out of it at an ifb.
    let shaped = node.run("tc -j qdisc show");
    let shaped: Value = serde_json::from_str(&shaped).unwrap();
    let rates = shaped.as_array().unwrap().iter().filter(|qdisc| qdisc["kind"] == "tbf");
    assert_eq!(rates.map(|qdisc| qdisc["options"]["rate"].clone()).collect::<Vec<_>>(), [12_500_000, 12_500_000]);

    // Started by one containerd, stopped by the next.
    containerd.restart();
    cri.wait_until_ready();
    assert_eq!(wired(&node, &cri.pod(&mapped)).addresses("eth0"), network.addresses("eth0"));
    drop(served);
    // kubelet does that, too: at once, and again.
    thread::scope(|scope| {
        [(); 2].map(|()| scope.spawn(|| cri.stop(&mapped).unwrap())).map(|stop| stop.join().unwrap())
    });
    cri.stop(&mapped).unwrap();
    cri.remove(&mapped).unwrap();
    assert!(node.internet.asks_at(&Internet::HOST_V4.to_string(), HOST_PORT).is_err(), "the host port is closed");
    cri.remove(&other).unwrap();

    node.record(name, &containerd.version);
    twenty_at_once(&node, &cri);
    assert_nothing_left(&node);
    drop(containerd);
    node.state("cni0").assert_same(&before);
    node.assert_all_succeeded();
}

/// No namespace, and of the files that plugins and the runtime keep, none of a pod.
fn assert_nothing_left(node: &Node<'_>) {
    let namespaces: Vec<_> =
        std::fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name()).collect();
    let of_pods = namespaces.iter().filter(|name| name.to_string_lossy().starts_with("cni-"));
    assert_eq!(of_pods.count(), 0, "{namespaces:?}");
    assert_eq!(node.state("cni0").section("files"), Vec::<&str>::new());
}

#[test]
#[ignore = "cargo xtask test fetches containerd"]
fn pods_of_kubelet_are_wired_and_leave_nothing() {
    run_inside(&["stable"], |sandbox| story(sandbox, "containerd", "1.0.0"));
}

/// It also asks for STATUS, and takes version 1.1.0.
#[test]
#[ignore = "cargo xtask test fetches containerd"]
fn pods_of_the_newest_containerd_are_wired_and_leave_nothing() {
    run_inside(&["sid", "stable"], |sandbox| story(sandbox, "newest-containerd", "1.1.0"));
}
