//! `cnitool gc` where the node cannot be seen as a whole: in a container, in a pod's network, behind other mounts, without the
//! right to look. What was not seen counted as gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Host, Pod, bins, namespace};

use crate::cnitool_gc::{directory, kill};

/// The addresses are no other test's.
fn network(number: usize) -> Value {
    let ipam = json!({"type": "host-local", "subnet": format!("10.80.{number}.0/24")});
    // Debian's reference speaks nothing later.
    json!({"cniVersion": "1.0.0", "name": "a", "plugins": [
        {"type": "bridge", "bridge": format!("br80{number}"), "isGateway": true, "ipam": ipam}]})
}

/// cnitool behind other programs: `unshare ...`, `nsenter ...`.
fn command(before: &str, conf_dir: &TempDir, arguments: &[&str]) -> Command {
    let words: Vec<&str> = before.split(' ').collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(bins::directory().join("cnitool")).args(arguments).env_clear();
    command.env("PATH", namespace::PATH).env("CNI_PATH", bins::directory()).env("NETCONFPATH", conf_dir.path());
    command.stdin(Stdio::null());
    command
}

fn on(host: &Host, before: &str, conf_dir: &TempDir, arguments: &[&str]) -> Output {
    let mut command = command(before, conf_dir, arguments);
    host.enter(|| command.output().unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// It refuses to remove anything, and says why; what changes nothing is done, with the same words.
#[track_caller]
fn assert_refused(host: &Host, before: &str, conf_dir: &TempDir, words: &str) {
    let state = host.state();
    let refused = on(host, before, conf_dir, &["gc", "a"]);
    let text = said(&refused);
    assert!(refused.status.code() == Some(1) && text.contains(words), "{before}: {text}");
    for arguments in [&["gc", "a", "--dry-run"][..], &["ipam", "list", "a"], &["ipam", "check", "a"]] {
        let looked = on(host, before, conf_dir, arguments);
        let warning = String::from_utf8_lossy(&looked.stderr);
        assert!(warning.starts_with("warning: ") && warning.contains(words), "{before} {arguments:?}: {warning}");
        assert_ne!(looked.stdout, b"", "{before} {arguments:?}");
    }
    host.state().assert_same(&state);
}

fn results(host: &Host) -> Vec<String> {
    let files = fs::read_dir(host.store().join("results")).unwrap().flatten();
    files.map(|file| file.path().display().to_string()).collect()
}

/// A pod with `hostNetwork` and without `hostPID`. Nothing may be removed of the machine that runs this, so that the only
/// plugin is a script, which says how it is called.
#[test]
fn the_nodes_network_without_its_processes() {
    if !Path::new("/proc/sys/net/core/netdev_max_backlog").exists() {
        return; // The tests run in a container: there is no way to the node's own network.
    }
    let programs = TempDir::new().unwrap();
    let (calls, script) = (programs.path().join("calls"), programs.path().join("script"));
    fs::write(&script, format!("#!/bin/sh\ncat >/dev/null\necho $CNI_COMMAND >>{}\n", calls.display())).unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let list = json!({"cniVersion": "1.1.0", "name": "podwire-view", "plugins": [{"type": "script"}]});
    let directory = directory(&[&list]);
    let cache = programs.path().display().to_string();
    let run = |arguments: &[&str]| {
        let arguments = [arguments, &["--cache-dir", &cache]].concat();
        let mut command = command("unshare --pid --fork --mount-proc", &directory, &arguments);
        command.env("CNI_PATH", programs.path()).output().unwrap()
    };
    let refused = run(&["gc", "podwire-view"]);
    let text = said(&refused);
    assert!(refused.status.code() == Some(1) && text.contains("hostNetwork without hostPID"), "{text}");
    assert!(!calls.exists(), "{}", fs::read_to_string(&calls).unwrap());
    let dry = run(&["gc", "podwire-view", "--dry-run"]);
    assert!(dry.status.success() && String::from_utf8_lossy(&dry.stderr).contains("hostNetwork"), "{}", said(&dry));
}

/// `nsenter --net=POD`: the namespace is known by the cache, by the address that the cache has, or by a lease.
#[test]
fn the_network_of_a_pod() {
    let mut makers = vec![bins::directory()];
    makers.extend(bins::reference_directories());
    for maker in makers {
        let host = Host::new();
        let directory = directory(&[&network(1)]);
        let cnitool = host.cnitool(directory.path());
        let mut pods = [host.pod(), host.pod(), host.pod()];
        for pod in &pods {
            cnitool.clone().env("CNI_PATH", maker.display()).call("add", "a", pod).success();
        }
        kill(&host, &mut pods[1]);
        let enter = |pod: &Pod| format!("nsenter --net={}", pod.path().display());
        assert_refused(&host, &enter(&pods[0]), &directory, "this network namespace is that of container cnitool-");
        // The cache is lost.
        for file in results(&host) {
            fs::remove_file(file).unwrap();
        }
        assert_refused(&host, &enter(&pods[2]), &directory, "this network namespace is that of container cnitool-");
        // The node itself.
        let output = on(&host, "env", &directory, &["gc", "a"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    }
}

/// A container with the node's processes and not its mounts: where a runtime has named namespaces is not there.
#[test]
fn other_mounts_than_the_nodes() {
    for reference in bins::reference_directories() {
        let host = Host::new();
        let mut list = network(2);
        // Nothing has an address, and the reference's links do not say whose they are.
        list["plugins"][0] = json!({"type": "bridge", "bridge": "br802"});
        let directory = directory(&[&list]);
        let cnitool = host.cnitool(directory.path()).env("CNI_PATH", reference.display());
        let mut pods = [host.pod(), host.pod()];
        for pod in &pods {
            cnitool.call("add", "a", pod).success();
        }
        kill(&host, &mut pods[1]);
        let mut witness = host.enter(|| Command::new("sleep").arg("60").spawn().unwrap());
        let script = directory.path().join("behind");
        fs::write(&script, "#!/bin/sh\nmount -t tmpfs none /run/netns && exec \"$@\"\n").unwrap();
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let before = format!("unshare --mount {}", script.display());
        let output = on(&host, &before, &directory, &["gc", "a", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        assert_eq!(report["networks"][0]["detach"].as_array().unwrap().len(), 1, "{report}");
        assert_eq!(results(&host).len(), 1);
        witness.kill().unwrap();
        witness.wait().unwrap();
        host.cnitool(directory.path()).call("check", "a", &pods[0]).success();
    }
}

/// Root without the capability: the processes are there, and their namespaces were passed over in silence.
#[test]
fn no_right_to_look() {
    let host = Host::new();
    let directory = directory(&[&network(3)]);
    let mut pod = host.pod();
    host.cnitool(directory.path()).call("add", "a", &pod).success();
    kill(&host, &mut pod);
    let state = host.state();
    let output = on(&host, "setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace", &directory, &["gc", "a"]);
    assert!(output.status.code() == Some(1) && said(&output).contains("CAP_SYS_PTRACE"), "{}", said(&output));
    host.state().assert_same(&state);
}
