//! The sandbox itself: whatever is done inside, nothing of it is left outside.

use std::fs;
use std::process::{Command, Stdio};

use tests::sandbox::{is_inside, run_inside, wait_for};

/// What of a sandbox could be left: mounts, control groups, links, named namespaces, files, processes.
fn traces() -> Vec<String> {
    let mut traces: Vec<String> = fs::read_to_string("/proc/self/mounts").unwrap().lines().map(str::to_owned).collect();
    for (directory, kind) in
        [("/sys/class/net", "left"), ("/run/netns", "left"), ("/run", "left"), ("/var/lib", "left")]
    {
        let names = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        traces.extend(names.filter(|name| name.starts_with(kind)).map(|name| format!("{directory}/{name}")));
    }
    let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", "left"]).output().unwrap();
    traces.extend(String::from_utf8_lossy(&groups.stdout).lines().map(str::to_owned));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("86399") {
            traces.push(command);
        }
    }
    traces
}

#[test]
fn nothing_is_left() {
    let before = traces();
    run_inside(&[], |node| {
        node.run("ip link add left0 type veth peer name left1");
        node.run("ip netns add left");
        for file in ["/run/left", "/var/lib/left"] {
            fs::write(file, "").unwrap();
        }
        fs::create_dir_all("/tmp/left").unwrap();
        node.run("mount -t tmpfs tmpfs /tmp/left");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten().filter(|entry| entry.path().is_dir()) {
            fs::create_dir(hierarchy.path().join("left")).unwrap();
        }
        // A daemon: nobody waits for it.
        let daemon = Command::new("setsid").args(["--fork", "sleep", "86399"]).stdout(Stdio::null()).status();
        assert!(daemon.unwrap().success());
        wait_for("the daemon", || {
            let all = traces();
            if all.iter().any(|trace| trace == "sleep 86399 ") { Ok(()) } else { Err(format!("{all:?}")) }
        });
    });
    if !is_inside() {
        assert_eq!(traces(), before);
    }
}

/// The panic is the one outside: inside it says something else.
#[test]
#[should_panic(expected = "in its sandbox: exit status")]
fn a_story_that_fails_is_a_test_that_fails() {
    run_inside(&[], |_| panic!("the story failed"));
}

#[test]
fn it_is_another_machine() {
    run_inside(&[], |node| {
        assert_eq!(node.run("hostname").trim(), "node");
        assert_eq!(node.run("ip -o link show").lines().count(), 1, "lo alone");
        assert_eq!(fs::read_dir("/opt/cni/bin").unwrap().count(), 0);
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let is_process = |name: String| name.parse::<u32>().is_ok();
        let count = processes.filter(|entry| is_process(entry.file_name().to_string_lossy().into_owned())).count();
        assert_eq!(count, 2, "pid 1 and this test");
    });
}
