//! The log of calls in a file: a line for each, whole, with what an operator asks for. What may stand where is said in
//! README.md, "The log".

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Plugin, Pod};

use crate::bridge_conf::{leases, links, masqueraded, with};
use crate::parallel::{PODS, at_once};
use crate::{bridge_conf, ptp};

/// Where plugins on the host see the file; the test sees it in the host's store.
const FILE: &str = "/var/lib/cni/log";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn file(host: &Host) -> PathBuf {
    host.store().join("log")
}

/// A plugin that logs, called as kubelet's runtime calls it.
pub fn logging<'a>(host: &'a Host, name: &str, target: &str) -> Plugin<'a> {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=1-2;TOKEN=secret";
    host.plugin(name).env("PODWIRE_LOG", target).env("CNI_ARGS", args).env("TRACEPARENT", TRACE)
}

/// The lines since the last call of this.
fn lines(host: &Host) -> Vec<Value> {
    let text = fs::read_to_string(file(host)).unwrap_or_default();
    let _ = fs::remove_file(file(host));
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    assert!(!text.contains("secret"), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The lines of an attachment, the one of its IPAM plugin first, if it has one; what stands in all of them is as it was given.
#[track_caller]
fn of_attachment(host: &Host, verb: &str, plugin: &str, ipam: Option<&str>, pod: &Pod) -> Vec<Value> {
    let lines = lines(host);
    let plugins: Vec<&str> = lines.iter().map(|line| line["plugin"].as_str().unwrap()).collect();
    assert_eq!(plugins, ipam.into_iter().chain([plugin]).collect::<Vec<_>>());
    for line in &lines {
        let expected = json!({"verb": verb, "network": "net", "container": pod.id(), "interface": "eth0",
            "netns": pod.path().display().to_string(), "traceparent": TRACE,
            "pod": {"namespace": "default", "name": "web-0", "uid": "1-2"}});
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(line[key], *value, "{key} of {line}");
        }
        assert_times(line);
    }
    if let [ipam, asked] = lines.as_slice() {
        assert_eq!(ipam["ppid"], asked["pid"]);
        // In an ADD it works beside, and is waited for at the end.
        let waited = if verb == "ADD" { &asked["ms"] } else { &asked["steps"]["ipam"] };
        assert!(waited.as_f64() >= ipam["ms"].as_f64(), "{asked} {ipam}");
    }
    lines
}

/// A step within another has its name before a slash, and the others together take no longer than the call.
#[track_caller]
fn assert_times(line: &Value) {
    let time = line["time"].as_str().unwrap();
    assert!(time.len() == 30 && time.ends_with('Z') && time.starts_with("20"), "{time}");
    let steps = line["steps"].as_object().into_iter().flatten();
    let outer: f64 = steps.filter(|(name, _)| !name.contains('/')).map(|(_, ms)| ms.as_f64().unwrap()).sum();
    assert!(outer <= line["ms"].as_f64().unwrap() + 0.01, "{line}");
}

#[track_caller]
fn assert_steps(line: &Value, expected: &[&str]) {
    for step in expected {
        assert!(line["steps"][step].is_number(), "no {step} in {line}");
    }
}

/// What of an ADD is timed by its own name.
#[test]
fn each_call_of_a_main_plugin_has_a_line_with_its_steps() {
    for (name, of, conf) in [
        ("bridge", &["netlink", "bridge", "veth", "spoof check", "gateway"][..], bridge_conf::v4()),
        ("ptp", &["netlink", "veth", "gateway"], ptp::of(&["10.1.0.0/24"])),
    ] {
        for (backend, program) in [("nftables", None), ("iptables", Some("masquerade/iptables-restore"))] {
            let keys = json!({"cniVersion": "1.1.0", "ipMasq": true, "ipMasqBackend": backend, "macspoofchk": true});
            let (host, conf) = (Host::new(), with(&conf, keys));
            let (pod, plugin) = (host.pod(), logging(&host, name, FILE));
            let result = plugin.add(&conf, &pod, "eth0").success();
            let add = of_attachment(&host, "ADD", name, Some("host-local"), &pod);
            assert_steps(&add[0], &["lock", "allocate"]);
            assert_steps(&add[1], of);
            assert_steps(&add[1], &["ipam", "addresses", "masquerade", "carrier"]);
            assert_steps(&add[1], program.as_slice());
            assert_eq!((&add[0]["ips"], &add[1]["ips"]), (&json!(["10.1.0.2/24"]), &json!(["10.1.0.2/24"])));

            let conf = with_prev_result(&conf, &result);
            plugin.check(&conf, &pod, "eth0").success();
            of_attachment(&host, "CHECK", name, Some("host-local"), &pod);
            plugin.del(&conf, &pod, "eth0").success();
            let del = of_attachment(&host, "DEL", name, Some("host-local"), &pod);
            assert_steps(&del[0], &["lock", "release"]);
            assert_steps(&del[1], &["masquerade", "veth", "ipam", "nftables"]);
            for verb in ["GC", "STATUS"] {
                plugin.call_as_set(verb, with(&conf, json!({"cni.dev/valid-attachments": []}))).success();
                let lines = lines(&host);
                assert_eq!(lines.iter().map(|line| &line["plugin"]).collect::<Vec<_>>(), ["host-local", name]);
                for line in lines {
                    assert_eq!((&line["verb"], &line["network"]), (&json!(verb), &json!("net")), "{line}");
                    assert!(line.get("container").is_none() && line.get("pod").is_none(), "{line}");
                }
            }
            plugin.version().success();
            assert_eq!(lines(&host)[0]["verb"], "VERSION");
        }
    }
}

/// portmap, firewall, tuning and bandwidth behind bridge; static under it; loopback alone.
#[test]
fn each_call_of_the_others_has_a_line_with_its_steps() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(
        &bridge_conf::layer2(),
        json!({"cniVersion": "1.1.0", "isGateway": true, "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}}),
    );
    let before = logging(&host, "bridge", FILE).add(&conf, &pod, "eth0").success();
    of_attachment(&host, "ADD", "bridge", Some("static"), &pod);
    for (name, keys, steps) in [
        (
            "portmap",
            json!({"backend": "nftables", "runtimeConfig": {"portMappings":
            [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}]}}),
            &["netlink", "port mappings", "route_localnet", "conntrack"][..],
        ),
        (
            "portmap",
            json!({"backend": "iptables", "runtimeConfig": {"portMappings":
            [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}),
            &["port mappings/lock", "port mappings/iptables-restore"],
        ),
        ("firewall", json!({"backend": "iptables"}), &["lock", "rules", "rules/iptables-restore"]),
        ("firewall", json!({"backend": "nftables", "ingressPolicy": "isolated"}), &["lock", "isolation", "rules"]),
        (
            "tuning",
            json!({"sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400}),
            &["netlink", "sysctls", "backup", "attributes"],
        ),
        (
            "bandwidth",
            json!({"ingressRate": 1_000_000, "ingressBurst": 1_000_000, "egressRate": 1_000_000, "egressBurst": 1_000_000}),
            &["netlink", "shaper", "ifb", "redirect"],
        ),
    ] {
        let conf = with(&json!({"cniVersion": "1.1.0", "name": "net", "type": name, "prevResult": before}), keys);
        let plugin = logging(&host, name, FILE);
        plugin.add(&conf, &pod, "eth0").success();
        let line = of_attachment(&host, "ADD", name, None, &pod).remove(0);
        assert_steps(&line, steps);
        assert_eq!(line["ips"], json!(["10.1.0.2/24"]));
        plugin.check(&conf, &pod, "eth0").success();
        of_attachment(&host, "CHECK", name, None, &pod);
        plugin.del(&conf, &pod, "eth0").success();
        of_attachment(&host, "DEL", name, None, &pod);
        for verb in ["GC", "STATUS"] {
            plugin.call_as_set(verb, &conf).success();
            let lines = lines(&host);
            assert_eq!((lines.len(), &lines[0]["verb"], &lines[0]["plugin"]), (1, &json!(verb), &json!(name)));
        }
    }
    let (conf, plugin) =
        (json!({"cniVersion": "1.0.0", "name": "net", "type": "loopback"}), logging(&host, "loopback", FILE));
    plugin.add(&conf, &pod, "eth0").success();
    assert_steps(&of_attachment(&host, "ADD", "loopback", None, &pod)[0], &["netlink"]);
    plugin.del(&conf, &pod, "eth0").success();
    of_attachment(&host, "DEL", "loopback", None, &pod);
}

/// An error is in the line with all that the runtime is told, and the undoing of what went before it is a step.
#[test]
fn a_failed_add_says_why_and_what_its_undoing_took() {
    let host = Host::new();
    let pod = host.pod();
    host.run("ip link add cni0 type bridge");
    host.run("ip address add 10.7.0.1/24 dev cni0");
    let error = logging(&host, "bridge", FILE).add(bridge_conf::v4(), &pod, "eth0").failure();
    let lines = lines(&host);
    let calls: Vec<_> = lines.iter().map(|line| [&line["plugin"], &line["verb"]]).collect();
    assert_eq!(calls, [["host-local", "ADD"], ["host-local", "DEL"], ["bridge", "ADD"]]);
    assert_eq!((&lines[2]["error"]["code"], &lines[2]["error"]["msg"]), (&error["code"], &error["msg"]));
    assert_steps(&lines[2], &["undo", "undo/release the lease"]);
    assert_times(&lines[2]);
    assert!(lines[2].get("ips").is_none() && lines[1].get("error").is_none(), "{lines:#?}");
    assert!(leases(&host).is_empty() && links(&host, "veth").is_empty());
}

/// What the undoing could not take back is an operator's to know.
#[test]
fn what_could_not_be_undone_is_noted() {
    let host = Host::new();
    let pod = host.pod();
    host.run("ip link add cni0 type bridge");
    host.run("ip address add 10.7.0.1/24 dev cni0");
    let directory = tempfile::TempDir::new().unwrap();
    let lease = r#"[ $CNI_COMMAND = DEL ] && exit 3; echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24"}]}'"#;
    crate::refusal::write_script(&directory.path().join("fake"), lease);
    let conf = with(&bridge_conf::v4(), json!({"ipam": {"type": "fake"}}));
    let bridge = logging(&host, "bridge", FILE).env("CNI_PATH", directory.path().display());
    bridge.add(&conf, &pod, "eth0").failure();
    let line = lines(&host).remove(0);
    assert!(line["notes"][0].as_str().unwrap().starts_with("undo: release the lease: "), "{line}");
}

/// Whatever is refused before the work begins is a call, too.
#[test]
fn calls_that_are_refused_have_lines() {
    let host = Host::new();
    let pod = host.pod();
    let conf = bridge_conf::v4();
    for (variable, value, stdin, code) in [
        ("CNI_IFNAME", "a:b", conf.to_string(), 4),
        ("CNI_COMMAND", "add", conf.to_string(), 4),
        ("CNI_PATH", "", conf.to_string(), 4),
        ("X", "", "{".to_owned(), 6),
        ("X", "", with(&conf, json!({"cniVersion": "9.9.9"})).to_string(), 1),
        ("X", "", with(&conf, json!({"vlan": 5000})).to_string(), 7),
    ] {
        let error = logging(&host, "bridge", FILE).env(variable, value).add(&stdin, &pod, "eth0").failure();
        let lines = lines(&host);
        assert_eq!((lines.len(), &error["code"]), (1, &json!(code)), "{variable} {value} {stdin}");
        for key in ["code", "msg", "details"] {
            assert_eq!(lines[0]["error"].get(key), error.get(key), "{key} of {}", lines[0]);
        }
    }
}

#[test]
fn fifty_at_once_write_whole_lines() {
    let host = Host::new();
    let conf = masqueraded("nftables");
    let pods: Vec<Pod> = (0..PODS).map(|_| host.pod()).collect();
    at_once(&pods, |_, pod| logging(&host, "bridge", FILE).add(&conf, pod, "eth0").success());
    let lines = lines(&host);
    assert_eq!(lines.len(), 2 * PODS);
    for pod in &pods {
        let of_pod: Vec<_> = lines.iter().filter(|line| line["container"] == pod.id()).collect();
        assert_eq!(of_pod.iter().map(|line| &line["plugin"]).collect::<Vec<_>>(), ["host-local", "bridge"]);
        assert_eq!(of_pod[0]["ips"], of_pod[1]["ips"]);
    }
}

/// A step that waits says so: the time that others had the lock.
#[test]
fn a_wait_for_a_lock_is_seen() {
    let host = Host::new();
    let pod = host.pod();
    let store = host.store().join("networks/net");
    fs::create_dir_all(&store).unwrap();
    let held = fs::File::create(store.join("lock")).unwrap();
    held.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| logging(&host, "bridge", FILE).add(bridge_conf::v4(), &pod, "eth0").success());
        std::thread::sleep(std::time::Duration::from_millis(400));
        held.unlock().unwrap();
    });
    let waited = lines(&host)[0]["steps"]["lock"].as_f64().unwrap();
    assert!(waited > 50.0, "{waited}");
}

#[test]
fn the_file_is_for_root_alone_and_grows() {
    let host = Host::new();
    let pod = host.pod();
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "loopback"});
    for count in 1..=3 {
        logging(&host, "loopback", FILE).add(&conf, &pod, "eth0").success();
        assert_eq!(fs::read_to_string(file(&host)).unwrap().lines().count(), count);
    }
    assert_eq!(fs::metadata(file(&host)).unwrap().mode() & 0o7777, 0o600);
    // logrotate makes the next one as its configuration says.
    fs::rename(file(&host), host.store().join("log.1")).unwrap();
    fs::write(file(&host), "").unwrap();
    logging(&host, "loopback", FILE).add(&conf, &pod, "eth0").success();
    assert_eq!(fs::read_to_string(file(&host)).unwrap().lines().count(), 1);
    assert_eq!(fs::read_to_string(host.store().join("log.1")).unwrap().lines().count(), 3);
}

/// What is wrong with the log keeps no pod from starting; it is said, once, where runtimes look.
#[test]
fn a_target_that_cannot_be_written_fails_no_call() {
    let host = Host::new();
    let pod = host.pod();
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "loopback"});
    let store = |name: &str| host.store().join(name);
    fs::write(store("shadow"), "root:*:1::::::\n").unwrap();
    fs::write(store("list.conflist"), conf.to_string()).unwrap();
    symlink("/var/lib/cni/shadow", store("link")).unwrap();
    symlink("/var/lib/cni/new", store("dangling")).unwrap();
    let before = host.state();
    for (target, why) in [
        ("/var/lib/cni/missing/log", "No such file or directory"),
        ("/var/lib/cni", "Is a directory"),
        ("/var/lib/cni/link", "it is a symbolic link"),
        ("/var/lib/cni/dangling", "it is a symbolic link"),
        ("/var/lib/cni/shadow", "not a log of ours"),
        ("/var/lib/cni/list.conflist", "not a log of ours"),
        ("/dev/full", "it is not a regular file"),
        ("relative/log", "expected an absolute path"),
        ("journal", "/run/systemd/journal/socket: No such file or directory"),
    ] {
        let outcome = logging(&host, "loopback", target).add(&conf, &pod, "eth0");
        outcome.success();
        assert_eq!(outcome.stderr.lines().count(), 1, "{target}: {outcome}");
        assert!(outcome.stderr.starts_with("log: ") && outcome.stderr.contains(why), "{target}: {outcome}");
    }
    host.state().assert_same(&before);
}

/// The key is in what the IPAM plugin reads, too.
#[test]
fn the_key_counts_more_than_the_variable_and_reaches_the_ipam_plugin() {
    let host = Host::new();
    let pods = [host.pod(), host.pod(), host.pod()];
    // A configuration makes none here.
    logging(&host, "loopback", FILE).version().success();
    let add = |key: Value, pod: &Pod| {
        let conf = with(&bridge_conf::v4(), json!({"log": key}));
        logging(&host, "bridge", "/var/lib/cni/other").add(&conf, pod, "eth0").success();
    };
    add(FILE.into(), &pods[0]);
    assert_eq!(lines(&host).len(), 3);
    assert!(!host.store().join("other").exists());
    add("off".into(), &pods[1]);
    assert!(lines(&host).is_empty() && !host.store().join("other").exists());
    add(Value::Null, &pods[2]);
    assert_eq!(fs::read_to_string(host.store().join("other")).unwrap().lines().count(), 2);
}

/// Whoever may write a configuration (Multus reads it from Kubernetes) need not be somebody who may make files on the node:
/// /etc/ld.so.preload and a file of cron mean something wherever they come from.
#[test]
fn a_configuration_makes_no_file_but_below_the_logs() {
    let host = Host::new();
    let pod = host.pod();
    host.run("mount -t tmpfs -o mode=755 logs /var/log");
    host.enter(|| {
        fs::create_dir("/var/log/pods").unwrap();
        fs::write("/var/log/other.log", "Nov 21 boot\n").unwrap();
        symlink("/var/lib/cni", "/var/log/way").unwrap();
        symlink("/var/lib/cni/new", "/var/log/link").unwrap();
        fs::write("/var/lib/cni/empty", "").unwrap();
    });
    let before = host.state();
    let add = |target: &str| {
        let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "loopback", "log": target});
        let outcome = host.plugin("loopback").add(&conf, &pod, "eth0");
        outcome.success();
        outcome
    };
    for (target, why) in [
        ("/var/lib/cni/new", "a configuration makes logs below /var/log alone"),
        ("/var/lib/cni/empty", "it is empty; a configuration begins logs below /var/log alone"),
        ("/var/log/../lib/cni/new", "a configuration makes logs below /var/log alone"),
        ("/var/log/pods/../../lib/cni/new", "a configuration makes logs below /var/log alone"),
        ("/var/logs", "a configuration makes logs below /var/log alone"),
        ("/var/log", "Is a directory"),
        ("/var/log/", "Is a directory"),
        ("/var/log/pods", "Is a directory"),
        ("/var/log/missing/new", "No such file or directory"),
        ("/var/log/way/new", "Not a directory"),
        ("/var/log/link", "it is a symbolic link"),
        ("/var/log/other.log", "not a log of ours"),
    ] {
        let outcome = add(target);
        assert!(outcome.stderr.starts_with("log: ") && outcome.stderr.contains(why), "{target}: {outcome}");
    }
    host.state().assert_same(&before);
    for target in ["/var/log/podwire.log", "/var/log/pods/net.log", "/var//log/./pods/net2.log"] {
        for count in 1..=2 {
            assert_eq!(add(target).stderr, "", "{target}");
            let text = host.enter(|| fs::read_to_string(target)).unwrap();
            assert_eq!(text.lines().count(), count, "{target}");
        }
        let mode = host.enter(|| fs::metadata(target)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600, "{target}");
    }
    // Elsewhere, what the node has begun.
    logging(&host, "loopback", FILE).version().success();
    assert_eq!(add(FILE).stderr, "");
    assert_eq!(lines(&host).len(), 2);
}

/// An ADD with a runtime that does not read what plugins say.
fn add_unheard(host: &Host, plugin: &Plugin<'_>, conf: &Value, pod: &Pod) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(plugin.program());
    command.stderr(writer);
    add_by(command, host, plugin, conf, pod)
}

/// An ADD by a command that becomes the plugin.
fn add_by(mut command: Command, host: &Host, plugin: &Plugin<'_>, conf: &Value, pod: &Pod) -> Output {
    command.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", pod.id()).env("CNI_NETNS", pod.path());
    command.env("CNI_IFNAME", "eth0").env("CNI_PATH", plugin.program().parent().unwrap()).env("PODWIRE_LOG", FILE);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    host.enter(|| {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
}

/// A warning is for whoever listens: `eprintln!` panicked, in the middle of the ADD, with nothing undone.
#[test]
fn a_warning_that_nobody_reads_fails_no_call() {
    let host = Host::new();
    // As in a container that is not privileged.
    host.run("mount --bind /proc/sys /proc/sys");
    host.run("mount -o remount,ro,bind /proc/sys");
    let unreached = json!({"cniVersion": "1.0.0", "name": "net", "type": "portmap",
        "prevResult": {"cniVersion": "1.0.0", "interfaces": [], "ips": []},
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
    for (name, conf, warning) in [
        ("bridge", bridge_conf::layer2(), "may accept router advertisements"),
        ("portmap", unreached, "no address in prevResult"),
    ] {
        let heard = logging(&host, name, FILE).add(&conf, &host.pod(), "eth0");
        heard.success();
        assert!(heard.stderr.contains(warning), "{name}: {heard}");
        let output = add_unheard(&host, &host.plugin(name), &conf, &host.pod());
        assert!(output.status.success(), "{name}: {output:?}");
        let lines = lines(&host);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        for line in lines {
            assert!(line["notes"][0].as_str().is_some_and(|note| note.contains(warning)), "{name}: {line}");
        }
    }
}

/// The result is the same with a log and without, and without one there is none.
#[test]
fn off_is_the_default_and_changes_nothing() {
    let host = Host::new();
    let pod = host.pod();
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "loopback"});
    let without = host.plugin("loopback").add(&conf, &pod, "eth0");
    without.success();
    assert_eq!(without.stderr, "");
    assert!(!file(&host).exists());
    let with = logging(&host, "loopback", FILE).add(&conf, &pod, "eth0");
    assert_eq!((with.stdout, with.stderr), (without.stdout, without.stderr));
}

/// A log that has grown beyond what a file may have (RLIMIT_FSIZE): the kernel sends SIGXFSZ, which ended the plugin with the
/// pod connected and no answer.
#[test]
fn a_file_that_may_not_grow_fails_no_call() {
    let host = Host::new();
    fs::write(file(&host), "{\"time\":\"").unwrap();
    // Twice what a file may have, in units of 512 bytes: the leases have room.
    let (limit, size) = (2048, 2048 * 1024);
    fs::File::options().write(true).open(file(&host)).unwrap().set_len(size).unwrap();
    let (pod, plugin) = (host.pod(), host.plugin("bridge"));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -f {limit}; exec \"$0\"")]).arg(plugin.program()).stderr(Stdio::piped());
    let output = add_by(command, &host, &plugin, &bridge_conf::v4(), &pod);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    assert!(stderr.contains(&format!("log: {FILE}: File too large")), "{stderr}");
    assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["ips"].is_array());
    assert_eq!(fs::metadata(file(&host)).unwrap().len(), size);
}
