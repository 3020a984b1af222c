//! A network namespace for each test, and the programs that read back what was written: they know
//! nothing of our code.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hostnet::Owner;
use hostnet::masquerade::Policy;
use libcni::types::Cidr;
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// The policy of a network that says nothing but `ipMasq`.
pub const PLAIN: Policy = Policy { exempt: BTreeSet::new(), sources: Vec::new(), random_fully: false };

/// Runs `test` in a network namespace of its own: it is gone when its thread is. Needs root.
pub fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (these tests run as root)");
            test()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs a program with input; panics unless it succeeds. Gives what it printed.
pub fn feed(program: &str, args: &[&str], input: &str) -> String {
    let (status, stdout, stderr) = attempt(program, args, input);
    assert!(status == Some(0), "{program} {args:?}: {status:?} {stderr} {stdout}");
    stdout
}

/// Runs a program with input; gives its exit status and what it printed.
pub fn attempt(program: &str, args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

pub fn run(program: &str, args: &[&str]) -> String {
    feed(program, args, "")
}

pub fn owner(network: &str, container: &str, ifname: &str) -> Owner {
    Owner { network: network.parse().unwrap(), container: container.parse().unwrap(), ifname: ifname.parse().unwrap() }
}

/// The owner of the rules in the reference's documentation.
pub fn ctr1() -> Owner {
    owner("brnet", "ctr1", "eth0")
}

pub fn cidrs(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What nft says there is, without handles and its own version. In the form of `nft -j list ruleset`.
pub fn ruleset() -> Vec<Value> {
    let listed: Value = serde_json::from_str(&run("nft", &["-j", "list", "ruleset"])).unwrap();
    let mut objects = listed["nftables"].as_array().unwrap().clone();
    objects.retain(|object| object.get("metainfo").is_none());
    for object in &mut objects {
        for (_, fields) in object.as_object_mut().unwrap() {
            fields.as_object_mut().unwrap().remove("handle");
        }
    }
    objects
}

/// [`ruleset`] for where it may have been made in another order.
pub fn sorted_ruleset() -> Vec<Value> {
    let mut objects = ruleset();
    objects.sort_by_key(ToString::to_string);
    objects
}

/// The ruleset that `nft` itself makes of a script, in a namespace of its own.
pub fn ruleset_of(script: &str) -> Vec<Value> {
    in_namespace(|| {
        feed("nft", &["-f", "-"], script);
        ruleset()
    })
}

/// The chains and rules of one chain or table as nft prints them, each without the white space around it.
pub fn nft_lines(args: &[&str]) -> Vec<String> {
    run("nft", args).lines().map(|line| line.trim().to_owned()).collect()
}

/// The rules of table nat, as iptables-save and ip6tables-save print them.
pub fn iptables_nat() -> Vec<String> {
    let saved = run("iptables-save", &["-t", "nat"]) + &run("ip6tables-save", &["-t", "nat"]);
    saved.lines().filter(|line| line.starts_with("-A") || line.starts_with(":CNI")).map(str::to_owned).collect()
}

/// The reference's plugins, one directory a version: `PODWIRE_REFERENCE_DIR`, or where Debian has them.
#[track_caller]
pub fn references() -> Vec<PathBuf> {
    let named = std::env::var_os("PODWIRE_REFERENCE_DIR").unwrap_or_else(|| "/usr/lib/cni".into());
    let dirs: Vec<PathBuf> = std::env::split_paths(&named).collect();
    for dir in &dirs {
        assert!(dir.join("bridge").exists(), "no reference plugins in {} (see cargo xtask test)", dir.display());
    }
    dirs
}

/// Runs the reference's bridge for [`ctr1`] with 10.1.2.14/24 and 2001:db8:1::e/64, in the current namespace.
/// Gives the exit status and the result.
pub fn reference_bridge(dir: &Path, verb: &str, pod: &Path, keys: &str) -> (Option<i32>, Value) {
    let conf = format!(
        r#"{{"cniVersion":"1.0.0","name":"brnet","type":"bridge","bridge":"br0","isGateway":true,{keys}
            "ipam":{{"type":"static","addresses":[{{"address":"10.1.2.14/24"}},{{"address":"2001:db8:1::e/64"}}]}}}}"#
    );
    let variables = [
        format!("CNI_COMMAND={verb}"),
        "CNI_CONTAINERID=ctr1".to_owned(),
        format!("CNI_NETNS={}", pod.display()),
        "CNI_IFNAME=eth0".to_owned(),
        format!("CNI_PATH={}", dir.display()),
    ];
    let bridge = dir.join("bridge").display().to_string();
    let mut args: Vec<_> = variables.iter().map(String::as_str).collect();
    args.push(&bridge);
    let (status, stdout, _) = attempt("env", &args, &conf);
    (status, serde_json::from_str(&stdout).unwrap_or_default())
}

/// Gives `test` the path of a second network namespace: the pod's.
pub fn with_pod<T>(test: impl FnOnce(&Path) -> T) -> T {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (these tests run as root)");
            let task = nix::unistd::gettid();
            ready.send(PathBuf::from(format!("/proc/{}/task/{task}/ns/net", std::process::id()))).unwrap();
            let _ = is_done.recv();
        });
        let value = test(&is_ready.recv().unwrap());
        drop(done);
        value
    })
}

/// Set in a process that [`in_process_with_programs`] started: its `PATH` begins with other programs.
const INNER: &str = "PODWIRE_TEST_INNER";

/// Runs the calling test once more, in a process of its own whose `PATH` begins with a directory that `fill` fills.
/// Gives whether this is that process: the test goes on there, and is done here.
pub fn in_process_with_programs(test: &str, fill: impl FnOnce(&Path)) -> bool {
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(INNER, "1")
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// A shell script as a program of this name.
pub fn script(dir: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    let file = dir.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}
