//! A pod may have a directory of ours mounted, and put links where our files are: nothing outside is read, written or
//! removed, and the error names the file. And whatever we make is for root's eyes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Host, Outcome, Pod};

use crate::bridge_conf::{masqueraded, v4, with};
use crate::portmap_conf::{BACKENDS, add, both, conf as portmap};
use crate::tuning_conf::{conf as tuning, everything, pod_with_eth0};

/// What must stay as it is: a file and a directory of somebody else, and a name that is free.
struct Outside {
    directory: TempDir,
    before: Vec<String>,
}

impl Outside {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("secret"), "10.1.0.200").unwrap();
        fs::create_dir(directory.path().join("place")).unwrap();
        for name in ["10.1.0.9", "shadow", "ctr9_eth0.json"] {
            fs::write(directory.path().join("place").join(name), "theirs").unwrap();
        }
        let before = picture(directory.path());
        Self { directory, before }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    #[track_caller]
    fn assert_same(&self, what: &str) {
        assert_eq!(picture(self.directory.path()), self.before, "{what}");
    }
}

/// Every file below a directory with its content.
fn picture(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            lines.push(path.display().to_string());
            lines.extend(picture(&path));
        } else {
            lines.push(format!("{}: {:?}", path.display(), fs::read_to_string(&path).unwrap_or_default()));
        }
    }
    lines.sort();
    lines
}

/// host-local's directory of network `net`, with one link in it. Links to a file, to a directory, and to nothing yet.
#[test]
fn host_local_follows_no_link() {
    for name in ["lock", ".owners", ".lease", "last_reserved_ip.0", "10.1.0.2"] {
        for to in ["secret", "place", "free"] {
            let outside = Outside::new();
            let host = Host::new();
            let leases = host.store().join("networks/net");
            fs::create_dir_all(&leases).unwrap();
            symlink(outside.at(to), leases.join(name)).unwrap();
            let pod = host.pod();
            let what = format!("{name} -> {to}");
            let conf = with(&v4(), json!({"cniVersion": "1.1.0"}));
            let bridge = host.plugin("bridge");
            let added = bridge.add(&conf, &pod, "eth0");
            outside.assert_same(&what);
            match added.status {
                // What is not needed is passed over: the address is taken, the others are free.
                Some(0) => assert_eq!(name == "10.1.0.2", pod.addresses("eth0") == ["10.1.0.3/24"], "{what}"),
                _ => assert!(added.failure().to_string().contains(&format!("/networks/net/{name}")), "{what}\n{added}"),
            }
            drop(bridge.status(&conf));
            drop(bridge.del(&conf, &pod, "eth0"));
            drop(bridge.gc(with(&conf, json!({"cni.dev/valid-attachments": []}))));
            outside.assert_same(&what);
            // The administrator removes the link, and all is as ever.
            drop(fs::remove_file(leases.join(name)));
            bridge.add(&conf, &pod, "eth0").success();
            bridge.del(&conf, &pod, "eth0").success();
        }
    }
}

/// The network's own directory; and above it a link is the administrator's choice.
#[test]
fn host_locals_directory_is_a_directory() {
    let outside = Outside::new();
    let host = Host::new();
    fs::create_dir_all(host.store().join("networks")).unwrap();
    symlink(outside.at("place"), host.store().join("networks/net")).unwrap();
    let pod = host.pod();
    let conf = with(&v4(), json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}));
    let bridge = host.plugin("bridge");
    for (verb, outcome) in [
        ("ADD", bridge.add(&conf, &pod, "eth0")),
        ("STATUS", bridge.status(&conf)),
        ("GC", bridge.gc(&conf)),
        ("DEL", bridge.del(&conf, &pod, "eth0")),
    ] {
        let error = outcome.failure().to_string();
        assert!(error.contains("/networks/net") && error.contains("symbolic link"), "{verb}: {error}");
        outside.assert_same(verb);
    }
    fs::remove_file(host.store().join("networks/net")).unwrap();
    fs::remove_dir(host.store().join("networks")).unwrap();
    let disk = TempDir::new().unwrap();
    symlink(disk.path(), host.store().join("networks")).unwrap();
    bridge.add(&conf, &pod, "eth0").success();
    assert!(disk.path().join("net/10.1.0.2").is_file());
}

/// A pipe that nobody writes to must not stop the node.
#[test]
fn host_local_waits_for_no_pipe() {
    for name in ["lock", ".owners", "last_reserved_ip.0", "10.1.0.2"] {
        let host = Host::new();
        let leases = host.store().join("networks/net");
        fs::create_dir_all(&leases).unwrap();
        host.run(&format!("mkfifo {}/networks/net/{name}", Host::STORE));
        let pod = host.pod();
        let added = host.plugin("bridge").add(v4(), &pod, "eth0");
        assert!(added.status.is_some(), "{name}: it waited until it was killed");
        drop(host.plugin("bridge").del(v4(), &pod, "eth0"));
    }
}

fn tune(host: &Host, pod: &Pod, verb: &str) -> Outcome {
    let conf = with(&tuning(pod, everything()), json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}));
    let plugin = host.plugin("tuning");
    match verb {
        "ADD" => plugin.add(&conf, pod, "eth0"),
        "DEL" => plugin.del(&conf, pod, "eth0"),
        "GC" => plugin.gc(&conf),
        _ => plugin.status(&conf),
    }
}

#[test]
fn tuning_follows_no_link() {
    let backup = |pod: &Pod| format!("{}_eth0.json", pod.id());
    type Name = fn(&str) -> String;
    let places: [(&str, Name); 6] = [
        ("the backup", |file| file.to_owned()),
        ("the backup of the network", |file| format!("networks/net/{file}")),
        ("an unfinished one", |file| format!("networks/net/{file}.tmp")),
        ("STATUS's", |_| "networks/net/status.tmp".to_owned()),
        ("the network", |_| "networks/net".to_owned()),
        ("the networks", |_| "networks".to_owned()),
    ];
    for (what, name) in places {
        for to in ["secret", "place", "free"] {
            let outside = Outside::new();
            let host = Host::new();
            let pod = pod_with_eth0(&host);
            let link = Path::new("/run/cni/tuning").join(name(&backup(&pod)));
            host.enter(|| {
                fs::create_dir_all(link.parent().unwrap()).unwrap();
                symlink(outside.at(to), &link).unwrap();
            });
            for verb in ["STATUS", "ADD", "GC", "DEL"] {
                let outcome = tune(&host, &pod, verb);
                assert!(outcome.status.is_some(), "{what} {verb}");
                outside.assert_same(&format!("{what} -> {to}: {verb}\n{outcome}"));
            }
        }
    }
}

#[test]
fn locks_are_no_links() {
    for (plugin, lock) in [("portmap", "/run/cni/portmap.lock"), ("firewall", "/run/cni/firewall.lock")] {
        let outside = Outside::new();
        let host = Host::new();
        let pod = host.pod();
        host.enter(|| {
            fs::create_dir_all("/run/cni").unwrap();
            symlink(outside.at("free"), lock).unwrap();
        });
        let result = host.plugin("bridge").add(v4(), &pod, "eth0").success();
        let mut conf = portmap("iptables", both(8080, 80));
        conf["type"] = plugin.into();
        conf["prevResult"] = result;
        let outcome = host.plugin(plugin).add(&conf, &pod, "eth0");
        outside.assert_same(&format!("{lock}\n{outcome}"));
        assert!(outcome.to_string().contains(lock), "{outcome}");
    }
}

/// Of files that a store has, their modes; nobody but root.
fn modes(directory: &Path, wrong: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.permissions().mode() & 0o077 != 0 && !meta.is_symlink() {
            wrong.push(format!("{} {:o}", path.display(), meta.permissions().mode()));
        }
        if meta.is_dir() {
            modes(&path, wrong);
        }
    }
}

/// With the umask of a careless runtime.
#[test]
fn files_are_for_root_alone() {
    for backend in BACKENDS {
        let host = Host::new();
        let pod = host.pod();
        let main: Value = masqueraded(backend);
        let result = host.plugin("bridge").add(&main, &pod, "eth0").success();
        add(&host, &portmap(backend, both(8080, 80)), &result, &pod).success();
        for (plugin, keys) in [("firewall", json!({"backend": backend})), ("tuning", json!({"mtu": 1400}))] {
            let conf = with(&json!({"cniVersion": "1.0.0", "name": "net", "prevResult": result}), keys);
            host.plugin(plugin).add(&conf, &pod, "eth0").success();
        }
        let lists = TempDir::new().unwrap();
        let list = json!({"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "loopback"}]});
        fs::write(lists.path().join("1.conflist"), list.to_string()).unwrap();
        host.cnitool(lists.path()).env("CNI_IFNAME", "lo").call("add", "other", &pod).success();
        let mut wrong = Vec::new();
        modes(&host.store(), &mut wrong);
        host.enter(|| modes(Path::new("/run/cni"), &mut wrong));
        assert_eq!(wrong, [""; 0], "{backend}");
    }
}
