//! `cnitool gc` beside what lives: paths that were given again, DELs that fail, things that cannot be looked at, plugins of
//! which nobody knows what they do with a command that they do not know.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::Host;
use tests::bins;
use tests::plugin::Cnitool;

use crate::cnitool_gc::{directory, forget_namespaces, kill};

/// The addresses are no other test's.
fn network(number: usize) -> Value {
    let ipam = json!({"type": "host-local", "subnet": format!("10.79.{number}.0/24")});
    json!({"cniVersion": "1.1.0", "name": "a", "plugins": [
        {"type": "bridge", "bridge": format!("br79{number}"), "isGateway": true, "ipam": ipam}]})
}

fn leases(host: &Host) -> Vec<String> {
    let files = fs::read_dir(host.store().join("networks/a")).unwrap().flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("10."));
    names.sort();
    names
}

/// A plugin that is a script, beside ours: `CNI_PATH`.
fn with_script<'a>(cnitool: &Cnitool<'a>, programs: &Path, script: &str) -> Cnitool<'a> {
    let file = programs.join("script");
    fs::write(&file, format!("#!/bin/sh\ncat >/dev/null\n{script}\n")).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    cnitool.clone().env("CNI_PATH", format!("{}:{}", bins::directory().display(), programs.display()))
}

/// The network with one more plugin, which it had not when its pods were added.
fn chain_script(directory: &TempDir, list: &Value) {
    let mut list = list.clone();
    list["plugins"].as_array_mut().unwrap().push(json!({"type": "script"}));
    fs::write(directory.path().join("a.conflist"), list.to_string()).unwrap();
}

/// The attachments that cnitool remembers, by their containers' ids, in order, with their entries.
fn remembered(host: &Host) -> Vec<(String, PathBuf)> {
    let files = fs::read_dir(host.store().join("results")).unwrap().map(|file| file.unwrap().path());
    let of = |file: &PathBuf| {
        let name = file.file_name()?.to_str()?.strip_prefix("a-")?.strip_suffix("-eth0")?;
        Some((name.to_owned(), file.clone()))
    };
    let mut found: Vec<_> = files.filter_map(|file| of(&file)).collect();
    found.sort();
    found
}

fn forget(host: &Host, known: &[(String, PathBuf)]) {
    let newest = remembered(host).into_iter().find(|entry| !known.contains(entry)).unwrap();
    fs::remove_file(newest.1).unwrap();
}

/// The name of a namespace is given again, to a pod whose link says not whose it is. DEL of the one that is gone was handed
/// the path, and took the link of the one that lives.
#[test]
fn a_path_that_is_anothers_now_is_not_handed_to_del() {
    for reference in bins::reference_directories() {
        for arguments in [&["gc", "a"][..], &["gc", "a", "/run/netns/x"]] {
            let host = Host::new();
            let mut list = network(1);
            // Debian's reference speaks nothing later.
            list["cniVersion"] = json!("1.0.0");
            let directory = directory(&[&list]);
            let cnitool = host.cnitool(directory.path());
            let mut pods = [host.pod(), host.pod()];
            cnitool.call("add", "a", &pods[0]).success();
            let known = remembered(&host);
            cnitool.clone().env("CNI_PATH", reference.display()).call("add", "a", &pods[1]).success();
            // The second command detaches whatever is remembered.
            forget(&host, &known);
            kill(&host, &mut pods[0]);
            host.run(&format!("touch {}", pods[0].path().display()));
            host.run(&format!("mount --bind {} {}", pods[1].path().display(), pods[0].path().display()));
            let before = pods[1].addresses("eth0");
            assert!(before.contains(&"10.79.1.3/24".to_owned()), "{before:?}");

            cnitool.run(arguments).success_text();
            assert_eq!(pods[1].addresses("eth0"), before, "{arguments:?}");
            assert_eq!(leases(&host), ["10.79.1.3"], "{arguments:?}");
            host.run(&format!("umount {}", pods[0].path().display()));
        }
    }
}

/// The same where the entry does not say which namespace it had: the interface in there is another's. One that has its own is
/// handed over, by its address or, without any, by the interface's.
#[test]
fn a_path_without_a_namespace_vouches_for_nothing() {
    for (reference, has_addresses) in
        bins::reference_directories().into_iter().flat_map(|one| [(one.clone(), true), (one, false)])
    {
        let host = Host::new();
        let mut list = network(8);
        list["cniVersion"] = json!("1.0.0");
        if !has_addresses {
            list["plugins"][0] = json!({"type": "bridge", "bridge": "br798"});
        }
        let directory = directory(&[&list]);
        let cnitool = host.cnitool(directory.path()).env("CNI_PATH", reference.display());
        let mut pods = [host.pod(), host.pod(), host.pod()];
        cnitool.call("add", "a", &pods[0]).success();
        cnitool.call("add", "a", &pods[2]).success();
        let known = remembered(&host);
        cnitool.call("add", "a", &pods[1]).success();
        // The command detaches whatever is remembered.
        forget(&host, &known);
        forget_namespaces(&host);
        kill(&host, &mut pods[0]);
        host.run(&format!("touch {}", pods[0].path().display()));
        host.run(&format!("mount --bind {} {}", pods[1].path().display(), pods[0].path().display()));

        let dry = cnitool.run(&["gc", "a", "/run/netns/x", "--dry-run", "--json"]).success();
        assert_eq!(dry["networks"][0]["detach"].as_array().unwrap().len(), 2, "{dry}");
        cnitool.run(&["gc", "a", "/run/netns/x"]).success_text();
        assert!(pods[1].link("eth0").is_some(), "{has_addresses}: its link is another's");
        assert!(pods[2].link("eth0").is_none(), "{has_addresses}: its link is its own");
        assert_eq!(remembered(&host).len(), 0);
        host.run(&format!("umount {}", pods[0].path().display()));
    }
}

/// GC of the plugins was told, after a DEL that failed, that nobody is there: the address was free while all else was left.
#[test]
fn who_could_not_be_detached_keeps_the_address() {
    let host = Host::new();
    let directory = directory(&[&network(2)]);
    let programs = TempDir::new().unwrap();
    let flag = programs.path().join("fails");
    fs::write(&flag, "").unwrap();
    let answer = r#"echo '{"cniVersion":"1.1.0","code":11,"msg":"not now"}'"#;
    let script = format!("[ $CNI_COMMAND = DEL ] && [ -e {} ] && {{ {answer}; exit 1; }}\nexit 0", flag.display());
    let cnitool = with_script(&host.cnitool(directory.path()), programs.path(), &script);
    let mut pod = host.pod();
    cnitool.call("add", "a", &pod).success();
    chain_script(&directory, &network(2));
    kill(&host, &mut pod);

    let outcome = cnitool.run(&["gc", "a", "--json"]);
    assert!(outcome.status == Some(1) && outcome.stdout.contains("not now"), "{outcome}");
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["networks"][0]["detach"], json!([]), "{outcome}");
    assert_eq!(report["networks"][0]["remove"], json!([]), "what is left is not said to be removed: {outcome}");
    assert_eq!(leases(&host), ["10.79.2.2"]);
    fs::remove_file(flag).unwrap();
    cnitool.run(&["gc", "a"]).success_text();
    assert_eq!(leases(&host), [""; 0]);
}

/// While one is detached the other comes back: its link is there, and says so.
#[test]
fn each_is_judged_when_its_turn_comes() {
    let host = Host::new();
    let directory = directory(&[&network(3)]);
    let mut pods = [host.pod(), host.pod()];
    let cnitool = host.cnitool(directory.path());
    for pod in &pods {
        cnitool.call("add", "a", pod).success();
    }
    let ids: Vec<String> = remembered(&host).into_iter().map(|(id, _)| id).collect();
    let shown = host.ip("link show");
    let mut aliases = shown.as_array().unwrap().iter().filter_map(|link| link["ifalias"].as_str());
    let alias = aliases.find(|alias| alias.contains(&ids[1])).unwrap();
    for pod in &mut pods {
        kill(&host, pod);
    }
    let programs = TempDir::new().unwrap();
    let script = format!(
        "[ $CNI_COMMAND = DEL ] && [ $CNI_CONTAINERID = {} ] && ip link add again type veth && ip link set again alias '{alias}'\nexit 0",
        ids[0]
    );
    let cnitool = with_script(&cnitool, programs.path(), &script);
    chain_script(&directory, &network(3));
    let report = cnitool.run(&["gc", "a", "--json"]).success();
    let detached = report["networks"][0]["detach"].as_array().unwrap();
    assert!(detached.len() == 1 && detached[0]["container"] == ids[0], "{report}");
    assert!(host.link("again").is_some());
    assert_eq!(leases(&host).len(), 1);
}

/// Leases that cannot be read show nobody; GC took that for nobody being there.
#[test]
fn nothing_is_removed_where_something_cannot_be_looked_at() {
    let host = Host::new();
    let file = host.store().join("no-directory");
    fs::write(&file, "").unwrap();
    let mut other = network(5);
    other["name"] = json!("b");
    other["plugins"][0]["ipam"]["dataDir"] = json!("/var/lib/cni/no-directory");
    let directory = directory(&[&network(4), &other]);
    let cnitool = host.cnitool(directory.path());
    let mut pod = host.pod();
    cnitool.call("add", "a", &pod).success();
    kill(&host, &mut pod);
    let state = host.state();
    for arguments in [&["gc"][..], &["gc", "a"], &["gc", "a", "--dry-run"]] {
        let outcome = cnitool.run(arguments);
        assert!(outcome.status == Some(1) && outcome.stderr.contains("no-directory"), "{arguments:?} {outcome}");
        host.state().assert_same(&state);
        assert_eq!(leases(&host), ["10.79.4.2"]);
    }
    // A configuration that cannot be read speaks of no container.
    fs::write(directory.path().join("b.conflist"), "{").unwrap();
    cnitool.run(&["gc", "a"]).success_text();
    assert_eq!(leases(&host), [""; 0]);
}

/// A script that takes whatever it does not know for DEL, as a plugin of the chain and of IPAM.
#[test]
fn who_announces_no_dry_run_is_not_asked_for_one() {
    let host = Host::new();
    let list = network(6);
    let directory = directory(&[&list]);
    let programs = TempDir::new().unwrap();
    let calls = programs.path().join("calls");
    let version = r#"echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'"#;
    let script = format!("echo $CNI_COMMAND >>{}\n[ $CNI_COMMAND = VERSION ] && {version}\nexit 0", calls.display());
    let cnitool = with_script(&host.cnitool(directory.path()), programs.path(), &script);
    let mut pod = host.pod();
    cnitool.call("add", "a", &pod).success();
    kill(&host, &mut pod);
    let mut foreign = list.clone();
    foreign["plugins"][0]["ipam"]["type"] = json!("script");
    chain_script(&directory, &foreign);

    let report = cnitool.run(&["gc", "a", "--dry-run", "--json"]).success();
    assert_eq!(report["networks"][0]["detach"].as_array().unwrap().len(), 1, "{report}");
    let silent = report["networks"][0]["notKnown"].as_array().unwrap();
    assert!(silent.iter().any(|why| why.as_str().unwrap().starts_with("script: ")), "{report}");
    let _ = cnitool.run(&["ipam", "check", "a"]);
    let calls = fs::read_to_string(calls).unwrap();
    assert!(calls.lines().all(|verb| verb == "VERSION"), "{calls}");
    // Each verb of the dry run, of the chain and of bridge; and the check's.
    assert!(calls.lines().count() >= 5, "{calls}");
}

/// A lease that somebody has edited: what cannot be read as one is of nobody for the one program, and was free for the other.
#[test]
fn a_lease_in_no_known_form_is_kept() {
    let host = Host::new();
    let directory = directory(&[&network(7)]);
    let cnitool = host.cnitool(directory.path());
    let pod = host.pod();
    cnitool.call("add", "a", &pod).success();
    let file = host.store().join("networks/a/10.79.7.2");
    let text = fs::read_to_string(&file).unwrap();
    for edited in [text.replace("\r\n", "\n"), format!("{text}\r\nmore"), text.replace("\r\n", "\r\n ")] {
        // A new file, as an editor makes one: a change in place is not noticed.
        fs::remove_file(&file).unwrap();
        fs::write(&file, &edited).unwrap();
        cnitool.run(&["gc", "a"]).success_text();
        assert_eq!(leases(&host), ["10.79.7.2"], "{edited:?}");
    }
    fs::remove_file(&file).unwrap();
    fs::write(&file, text).unwrap();
    cnitool.call("del", "a", &pod).success();
    assert_eq!(leases(&host), [""; 0]);
}
