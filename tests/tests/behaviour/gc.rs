//! GC of bridge and ptp: what is of this network and of no valid attachment goes, in every backend, and nothing else.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::with_prev_result;
use tests::{Host, Internet, Plugin, Pod};

use crate::bridge_conf::{leases, links, with};
use crate::masquerade_keys::PLUGINS;
use crate::portmap_conf::legacy;
use crate::refusal::write_script;
use crate::{bridge_conf, ptp};

/// `ipMasqBackend`, and whether `iptables` is the legacy one.
pub const WAYS: [(&str, bool); 3] = [("nftables", false), ("iptables", false), ("iptables", true)];

/// A network of two families, masqueraded, which shares nothing with one of another name. Number 1 or 2.
pub fn network(plugin: &str, name: &str, number: usize, backend: &str) -> Value {
    let subnets = [format!("10.{number}.0.0/24"), format!("fd00:{number}::/64")];
    let subnets: Vec<&str> = subnets.iter().map(String::as_str).collect();
    let conf = match plugin {
        "bridge" => with(&bridge_conf::of(&subnets), json!({"bridge": format!("br{number}"), "macspoofchk": true})),
        _ => ptp::of(&subnets),
    };
    with(&conf, json!({"cniVersion": "1.1.0", "name": name, "ipMasq": true, "ipMasqBackend": backend}))
}

/// A host with one plugin of ours and one backend.
pub struct Lab {
    pub host: Host,
    internet: Internet,
    plugin: &'static str,
    programs: Option<TempDir>,
}

impl Lab {
    pub fn new(plugin: &'static str, is_legacy: bool) -> Self {
        let host = Host::new();
        let internet = host.internet();
        Self { host, internet, plugin, programs: is_legacy.then(legacy) }
    }

    /// A plugin of the lab's name with the lab's programs.
    pub fn with_programs<'a>(&self, plugin: Plugin<'a>) -> Plugin<'a> {
        match &self.programs {
            Some(programs) => plugin.env("PATH", format!("{}:{}", programs.path().display(), tests::namespace::PATH)),
            None => plugin,
        }
    }

    pub fn ours(&self) -> Plugin<'_> {
        self.with_programs(self.host.plugin(self.plugin))
    }

    /// ADD of a container of this name.
    pub fn add(&self, conf: &Value, container: &str, pod: &Pod, ifname: &str) -> Value {
        self.ours().env("CNI_CONTAINERID", container).add(conf, pod, ifname).success()
    }

    pub fn check(&self, conf: &Value, result: &Value, container: &str, pod: &Pod, ifname: &str) {
        let conf = with_prev_result(conf, result);
        self.ours().env("CNI_CONTAINERID", container).check(conf, pod, ifname).success();
    }

    /// GC with these valid attachments: containers and their interfaces.
    #[track_caller]
    pub fn gc(&self, conf: &Value, valid: &[(&str, &str)]) {
        let valid: Vec<Value> = valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
        self.ours().gc(with(conf, json!({"cni.dev/valid-attachments": valid}))).success();
    }

    /// What there is but the bridges, and what only legacy's programs show.
    pub fn state(&self) -> (tests::State, String) {
        (self.host.state().without_link("br1").without_link("br2"), saved_by_legacy(&self.host))
    }

    #[track_caller]
    pub fn assert_state(&self, before: &(tests::State, String)) {
        let now = self.state();
        now.0.assert_same(&before.0);
        assert_eq!(now.1, before.1, "legacy iptables");
    }
}

fn saved_by_legacy(host: &Host) -> String {
    let saved = host.run("iptables-legacy-save") + &host.run("ip6tables-legacy-save");
    let lines = saved.lines().filter(|line| line.starts_with("-A") || line.starts_with(":CNI-"));
    lines.map(|line| line.split(" [").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// Two networks whose names begin alike.
#[test]
fn what_is_of_no_valid_attachment_of_the_network_goes() {
    for plugin in PLUGINS {
        for (backend, is_legacy) in WAYS {
            let lab = Lab::new(plugin, is_legacy);
            let (a, ab) = (network(plugin, "a", 1, backend), network(plugin, "ab", 2, backend));
            let pods = [lab.host.pod(), lab.host.pod(), lab.host.pod()];
            let none = lab.state();
            let kept = lab.add(&a, "keep", &pods[0], "eth0");
            let others = lab.add(&ab, "c", &pods[1], "eth0");
            let before = lab.state();
            lab.add(&a, "gone", &pods[2], "eth0");
            let after = lab.state();

            lab.ours().gc(&a).success();
            lab.assert_state(&after);
            lab.gc(&a, &[("keep", "eth0"), ("gone", "eth0"), ("../x", "eth0")]);
            lab.assert_state(&after);
            lab.gc(&a, &[("keep", "eth0"), ("c", "eth0")]);
            lab.assert_state(&before);
            assert!(pods[2].link("eth0").is_none(), "the lease is gone, so the address is, from a pod that lives");
            lab.check(&a, &kept, "keep", &pods[0], "eth0");
            lab.check(&ab, &others, "c", &pods[1], "eth0");

            // Of an interface that the container has no more.
            lab.gc(&a, &[("keep", "eth1")]);
            assert!(pods[0].link("eth0").is_none() && pods[1].link("eth0").is_some());
            lab.check(&ab, &others, "c", &pods[1], "eth0");
            lab.gc(&network(plugin, "abc", 1, backend), &[]);
            lab.check(&ab, &others, "c", &pods[1], "eth0");
            lab.gc(&a, &[]);
            lab.gc(&ab, &[]);
            lab.assert_state(&none);
        }
    }
}

/// Their chain in iptables is one: its name is a hash of `abc` for both. It stays for the other network's container, with
/// what is in it, and without what led there from the address that is free again.
#[test]
fn a_chain_that_two_networks_share() {
    for (backend, is_legacy) in &WAYS[1..] {
        let lab = Lab::new("ptp", *is_legacy);
        let (a, ab) = (network("ptp", "a", 1, backend), network("ptp", "ab", 2, backend));
        let pods = [lab.host.pod(), lab.host.pod()];
        let none = lab.state();
        lab.add(&a, "bc", &pods[0], "eth0");
        let result = lab.add(&ab, "c", &pods[1], "eth0");
        lab.gc(&a, &[]);
        let echo = lab.internet.listen();
        for (there, node) in [(Internet::V4, Internet::HOST_V4), (Internet::V6, Internet::HOST_V6)] {
            assert_eq!(pods[1].asks(there, &echo), Ok(node));
        }
        lab.check(&ab, &result, "c", &pods[1], "eth0");
        let jumps = |state: &(tests::State, String)| format!("{}{}", state.0, state.1).contains("-s 10.1.0.2/32");
        assert!(!jumps(&lab.state()));
        lab.gc(&ab, &[]);
        lab.assert_state(&none);
    }
}

/// With iptables the two share a chain: it stays, and with it the masquerade, while one of them is valid.
#[test]
fn two_interfaces_of_a_container() {
    for plugin in PLUGINS {
        for (backend, is_legacy) in WAYS {
            let lab = Lab::new(plugin, is_legacy);
            let mut conf = network(plugin, "a", 1, backend);
            conf["ipam"]["routes"] = json!([]);
            conf["isDefaultGateway"] = json!(false);
            conf["isGateway"] = json!(true);
            let pod = lab.host.pod();
            let none = lab.state();
            let first = lab.add(&conf, "c", &pod, "eth0");
            let before = lab.state();
            lab.add(&conf, "c", &pod, "eth1");
            lab.gc(&conf, &[("c", "eth0")]);
            assert!(pod.link("eth1").is_none() && leases(&lab.host).len() == 2, "{plugin} {backend}");
            lab.check(&conf, &first, "c", &pod, "eth0");
            if backend == "nftables" {
                lab.assert_state(&before);
            }
            lab.gc(&conf, &[("d", "eth0")]);
            lab.assert_state(&none);
        }
    }
}

/// The namespace is gone, the plugin was not told.
#[test]
fn of_a_pod_that_died() {
    for plugin in PLUGINS {
        for (backend, is_legacy) in WAYS {
            let lab = Lab::new(plugin, is_legacy);
            let conf = network(plugin, "a", 1, backend);
            let mut pod = lab.host.pod();
            let none = lab.state();
            lab.add(&conf, "c", &pod, "eth0");
            pod.destroy();
            lab.gc(&conf, &[]);
            lab.gc(&conf, &[]);
            lab.assert_state(&none);
        }
    }
}

/// Things of others that look like ours, or of which nobody can say whose they are.
#[test]
fn what_is_of_others_stays() {
    for plugin in PLUGINS {
        let lab = Lab::new(plugin, false);
        let host = &lab.host;
        // Aliases like ours on links with other names, or of another kind.
        let links_of_others = r#"
            ip link add mine type veth peer name theirs
            ip link set mine alias "a c eth0"
            ip link add veth01234567 type bridge
            ip link set veth01234567 alias "a c eth0"
        "#;
        // Another network's of a similar name, and what is no name of a network.
        let rules_of_others = r#"
            for program in iptables ip6tables iptables-legacy ip6tables-legacy; do
                nat="$program -t nat"
                $nat -N MINE
                $nat -A MINE -m comment --comment 'name: "a" id: "c"' -j ACCEPT
                $nat -A POSTROUTING -m comment --comment 'name: "a" id: "c"' -j MINE
                $nat -A POSTROUTING -o mine -j MASQUERADE
                $nat -N CNI-0123456789abcdef01234567
                $nat -N CNI-HOSTPORT-MASQ
                $nat -A POSTROUTING -j CNI-HOSTPORT-MASQ
                $nat -N CNI-0123456789abcdef01234568
                $nat -A POSTROUTING -m comment --comment 'name: "aa" id: "c"' -j CNI-0123456789abcdef01234568
                $nat -A POSTROUTING -m comment --comment 'name: "a" id: "c" too' -j CNI-0123456789abcdef01234568
                $nat -A POSTROUTING -j CNI-0123456789abcdef01234568
            done
            nft add table inet cni_plugins_masquerade
            nft add chain inet cni_plugins_masquerade masq_checks
            for comment in '' 'comment "mine"' 'comment "1f40fc92da241694"'; do
                nft "add rule inet cni_plugins_masquerade masq_checks ip saddr 10.9.9.9 masquerade $comment"
            done
        "#;
        shell(host, links_of_others);
        shell(host, rules_of_others);
        let before = lab.state();
        lab.gc(&network(plugin, "a", 1, "nftables"), &[]);
        lab.assert_state(&before);
        assert!(links(host, "veth").contains(&"mine".to_owned()));
    }
}

/// Until the host's end has an alias, its MAC is the mark of its network; a bridge of somebody else, without a MAC of its
/// own, has that of its port.
#[test]
fn a_bridge_that_wears_a_ports_mark() {
    let host = Host::new();
    host.run("ip link add cni0 type bridge");
    let (pod, conf) = (host.pod(), with(&bridge_conf::layer2(), json!({"cniVersion": "1.1.0"})));
    host.plugin("bridge").add(&conf, &pod, "eth0").success();
    let [end] = links(&host, "veth").try_into().unwrap();
    // As an ADD leaves it that is killed.
    shell(&host, &format!("ip link set {end} alias ''"));
    assert_eq!(host.link("cni0").unwrap()["address"], host.link(&end).unwrap()["address"]);
    host.plugin("bridge").gc(with(&conf, json!({"cni.dev/valid-attachments": []}))).success();
    assert!(links(&host, "veth").is_empty() && host.link("cni0").is_some());
}

/// Runs commands in a shell of the host's: they have quotes.
fn shell(host: &Host, commands: &str) {
    let directory = TempDir::new().unwrap();
    let script = directory.path().join("script");
    write_script(&script, &format!("set -e\n{commands}"));
    host.run(&script.display().to_string());
}

/// A reference that was killed leaves a chain to which nothing jumps: its rules say whose it is.
#[test]
fn a_chain_that_nothing_leads_to() {
    let lab = Lab::new("ptp", false);
    let host = &lab.host;
    for program in ["iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy"] {
        host.run(&format!("{program} -t nat -N CNI-HOSTPORT-MASQ")); // and with it the table
    }
    let before = lab.state();
    let commands = r#"
        for program in iptables ip6tables iptables-legacy ip6tables-legacy; do
            $program -t nat -N CNI-0123456789abcdef01234567
            $program -t nat -A CNI-0123456789abcdef01234567 -m comment --comment 'name: "a" id: "c"' -j MASQUERADE
            $program -t nat -N CNI-0123456789abcdef01234568
            $program -t nat -A CNI-0123456789abcdef01234568 -m comment --comment 'name: "ab" id: "c"' -j MASQUERADE
        done
    "#;
    shell(host, commands);
    let both = lab.state();
    lab.gc(&network("ptp", "a", 1, "iptables"), &[("c", "eth7")]);
    lab.assert_state(&both);
    lab.gc(&network("ptp", "a", 1, "iptables"), &[]);
    assert_ne!(lab.state(), both);
    lab.gc(&network("ptp", "ab", 1, "iptables"), &[]);
    lab.assert_state(&before);
}

/// Where there is nothing, no program is started; nor for what iptables keeps in nf_tables.
#[test]
fn no_process() {
    for plugin in PLUGINS {
        let lab = Lab::new(plugin, false);
        let directory = TempDir::new().unwrap();
        let started = directory.path().join("started");
        for program in ["iptables", "ip6tables", "nft"] {
            for end in ["", "-restore", "-save", "-legacy", "-legacy-restore"] {
                let script = directory.path().join(format!("{program}{end}"));
                write_script(&script, &format!("echo $0 >> {}; exit 1", started.display()));
            }
        }
        let conf = network(plugin, "a", 1, "iptables");
        let alone = lab.host.plugin(plugin).env("PATH", directory.path().display());
        let none = lab.state();
        let pod = lab.host.pod();
        for _ in 0..2 {
            alone.gc(with(&conf, json!({"cni.dev/valid-attachments": []}))).success();
            lab.assert_state(&none);
            lab.add(&conf, "c", &pod, "eth0");
        }
        assert!(!started.exists(), "{}", fs::read_to_string(&started).unwrap());
    }
}

/// An IPAM plugin that writes down what it is asked.
fn with_ipam(directory: &TempDir, exit: &str) -> String {
    let script = format!("cat > {0}/stdin; echo $CNI_COMMAND >> {0}/calls; {exit}", directory.path().display());
    write_script(&directory.path().join("written"), &script);
    directory.path().display().to_string()
}

#[test]
fn ipam_is_told_the_same_and_its_error_comes_with_the_rest_done() {
    for plugin in PLUGINS {
        let lab = Lab::new(plugin, false);
        let conf = network(plugin, "a", 1, "nftables");
        let pod = lab.host.pod();
        lab.add(&conf, "c", &pod, "eth0");
        let directory = TempDir::new().unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        let asked = with(&conf, json!({"ipam": {"type": "written"}}));
        lab.ours().env("CNI_PATH", with_ipam(&directory, "exit 0")).gc(&asked).success();
        assert_eq!((read("calls").as_str(), read("stdin").contains("cni.dev")), ("GC\n", false), "no list is no list");
        assert!(pod.link("eth0").is_some());

        let asked = with(&asked, json!({"cni.dev/valid-attachments": [{"containerID": "d", "ifname": "eth0"}]}));
        let fails = r#"echo '{"cniVersion":"1.1.0","code":121,"msg":"no store"}'; exit 1"#;
        let ours = lab.ours().env("CNI_PATH", with_ipam(&directory, fails));
        let error = ours.gc(&asked).failure();
        assert!(error["msg"].as_str().unwrap().contains("no store"), "{error}");
        assert_eq!(read("calls"), "GC\nGC\n");
        let stdin: Value = serde_json::from_str(&read("stdin")).unwrap();
        assert_eq!(stdin, asked);
        assert!(pod.link("eth0").is_none() && bridge_conf::rules(&lab.host).is_empty());
    }
    // Layer 2 has none to tell.
    let host = Host::new();
    let layer2 = with(&bridge_conf::layer2(), json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}));
    host.plugin("bridge").gc(layer2).success();
}

/// `cnitool gc` detaches what it remembers, and says nothing of what is valid: what it does not remember stays.
#[test]
fn by_cnitool() {
    for plugin in PLUGINS {
        for (backend, _) in &WAYS[..2] {
            let lab = Lab::new(plugin, false);
            let directory = TempDir::new().unwrap();
            for (name, number) in [("a", 1), ("ab", 2)] {
                let mut conf = network(plugin, name, number, backend);
                let list = json!({"cniVersion": conf["cniVersion"].take(), "name": name, "plugins": [conf]});
                fs::write(directory.path().join(format!("{name}.conflist")), list.to_string()).unwrap();
            }
            let cnitool = lab.host.cnitool(directory.path());
            let mut pods = [lab.host.pod(), lab.host.pod(), lab.host.pod()];
            let none = lab.state();
            lab.add(&network(plugin, "a", 1, backend), "unknown", &pods[2], "eth0");
            cnitool.call("add", "ab", &pods[1]).success();
            let before = lab.state();
            cnitool.call("add", "a", &pods[0]).success();
            pods[0].destroy();
            cnitool.call("gc", "a", &pods[1]).success();
            lab.assert_state(&before);
            cnitool.call("check", "ab", &pods[1]).success();
            cnitool.call("gc", "ab", &pods[1]).success();
            lab.gc(&network(plugin, "a", 1, backend), &[]);
            lab.assert_state(&none);
        }
    }
}
