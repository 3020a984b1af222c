//! `cnitool doctor` that is interrupted: it takes its pods back; killed: the next one does, or `gc`.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{bins, namespace};

use crate::cnitool_doctor::{DUAL, Node, network, unchanged};

pub fn start(node: &Node) -> Child {
    start_with(node, &[])
}

pub fn start_with(node: &Node, arguments: &[&str]) -> Child {
    let directory = bins::directory();
    let mut command = Command::new(directory.join("cnitool"));
    command.arg("doctor").args(arguments).env_clear().env("PATH", namespace::PATH);
    command.env("CNI_PATH", &directory).env("NETCONFPATH", node.conf_dir());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    node.host.enter(|| command.spawn().unwrap())
}

/// Waits until its pod is being added: that is noted before.
pub fn wait_for_pod(node: &Node, doctor: &mut Child) {
    let end = Instant::now() + Duration::from_secs(20);
    let is_note = |entry: &std::fs::DirEntry| !entry.file_name().to_string_lossy().ends_with(".new");
    let notes = || std::fs::read_dir("/run/podwire-doctor").into_iter().flatten().flatten().filter(is_note).count();
    while node.host.enter(notes) == 0 {
        assert!(Instant::now() < end && doctor.try_wait().unwrap().is_none(), "it made no pod");
        sleep(Duration::from_millis(1));
    }
}

pub fn signal(doctor: &Child, signal: Signal) {
    kill(Pid::from_raw(doctor.id().cast_signed()), signal).unwrap();
}

#[test]
fn interrupted() {
    for (which, after) in [(Signal::SIGINT, 0), (Signal::SIGTERM, 100), (Signal::SIGHUP, 300)] {
        let node = Node::new(&network("nftables", &DUAL));
        // It answers nothing out there: the doctor is patient, and still at work.
        node.internet.run("ip link set eth0 down");
        let before = node.state();
        let mut doctor = start(&node);
        wait_for_pod(&node, &mut doctor);
        sleep(Duration::from_millis(after));
        signal(&doctor, which);
        let output = doctor.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{which}: {output:?}");
        assert!(stderr.contains("interrupted"), "{stderr}");
        unchanged(&node, &before);
    }
}

/// At moments of the ADD, of the questions, of the second pod.
#[test]
fn killed() {
    for after in [0, 15, 40, 80, 150, 400, 1500] {
        let node = Node::new(&network("nftables", &DUAL));
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            node.host.set_sysctl(&format!("net/{key}"), "1");
        }
        node.internet.run("ip link set eth0 down");
        let before = node.state();
        let mut doctor = start(&node);
        wait_for_pod(&node, &mut doctor);
        sleep(Duration::from_millis(after));
        signal(&doctor, Signal::SIGKILL);
        doctor.wait().unwrap();
        // A plugin that is at work goes on to its end; nobody is told of that.
        sleep(Duration::from_millis(700));
        node.internet.run("ip link set eth0 up");
        node.internet.run("ip -6 address replace 2001:db8:51::2/64 dev eth0 nodad");

        let report = node.report();
        assert!(report.with("broken").is_empty(), "after {after} ms: {:#}", report.0);
        let (verdict, said) = report.of("leftovers");
        if verdict == "warn" {
            // It was killed during the ADD: whose the bridge is nobody knows.
            assert!(said.contains("it is not known") && said.contains("ip link del cni0"), "after {after} ms: {said}");
            node.host.run("ip link del cni0");
        }
        assert!(after < 400 || verdict == "ok", "after {after} ms: {said}");
        assert!(node.host.link("cni0").is_none(), "after {after} ms");
        unchanged(&node, &before);
        node.report().assert_healthy();
    }
}

/// What is remembered of the pods, any tool that collects garbage takes.
#[test]
fn killed_and_collected() {
    let node = Node::new(&network("nftables", &DUAL));
    node.internet.run("ip link set eth0 down");
    let pod = node.host.pod();
    let cnitool = node.host.cnitool(node.conf_dir());
    // What the first pod of a node leaves, with a host port as the doctor's has.
    let mapping = r#"{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#;
    cnitool.clone().env("CAP_ARGS", mapping).call("add", "net", &pod).success();
    cnitool.call("del", "net", &pod).success();
    let before = node.state();
    let mut doctor = start(&node);
    wait_for_pod(&node, &mut doctor);
    let remembered = || std::fs::read_dir(node.host.store().join("results")).map_or(0, Iterator::count);
    while remembered() == 0 {
        sleep(Duration::from_millis(5));
    }
    signal(&doctor, Signal::SIGKILL);
    doctor.wait().unwrap();
    sleep(Duration::from_millis(700));
    cnitool.call("gc", "net", &pod).success();
    // A pod that was being added when nobody could remember it is the next doctor's.
    assert_eq!(remembered(), 0);
    node.report();
    node.state().assert_same(&before);
}
