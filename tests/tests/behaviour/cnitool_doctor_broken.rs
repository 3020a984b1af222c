//! `cnitool doctor` where one thing is broken: it names that thing and nothing else, and when its remedy is carried out,
//! everything is well.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};
use tests::bins;

use crate::cnitool_doctor::{DUAL, Node, Report, network};
use crate::refusal::write_script;

/// One broken thing.
struct Row {
    name: &'static str,
    /// What is done to the node, or to its configuration.
    breaks: fn(&Node),
    /// The probes that say so.
    broken: &'static [&'static str],
    warn: &'static [&'static str],
    /// What the first of them says, and what it advises.
    words: &'static [&'static str],
    /// The advice carried out.
    mends: fn(&Node),
}

fn conf() -> Value {
    network("nftables", &DUAL)
}

/// The configuration with another value at a place.
fn with(place: &str, value: Value) -> Value {
    let mut conf = conf();
    *conf.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = value;
    conf
}

fn forwarded_packets_of_the_bridge_are_filtered(node: &Node) -> bool {
    node.host.enter(|| std::path::Path::new("/proc/sys/net/bridge").is_dir())
}

const FIREWALLED: &[&str] = &["neighbour-ipv4", "egress-ipv4", "host-port-ipv4"];

const ROWS: &[Row] = &[
    Row {
        name: "FORWARD drops, without our firewall plugin",
        breaks: |node| drop(node.host.run("iptables -P FORWARD DROP")),
        broken: FIREWALLED,
        warn: &[],
        words: &["dropped by policy", "ip filter FORWARD", "{ \"type\": \"firewall\" }"],
        mends: |node| {
            let mut conf = conf();
            conf["plugins"].as_array_mut().unwrap().push(json!({"type": "firewall"}));
            node.configure(&conf);
        },
    },
    Row {
        name: "legacy iptables drops",
        breaks: |node| drop(node.host.run("iptables-legacy -P FORWARD DROP")),
        broken: FIREWALLED,
        warn: &[],
        words: &["dropped by policy", "legacy iptables filter FORWARD"],
        mends: |node| drop(node.host.run("iptables-legacy -P FORWARD ACCEPT")),
    },
    Row {
        name: "a rule of somebody else's table drops",
        breaks: |node| {
            node.host.run("nft add table ip strict");
            node.host.run("nft add chain ip strict gate { type filter hook forward priority 10 ; }");
            node.host.run("nft add rule ip strict gate oifname uplink drop");
        },
        broken: &["egress-ipv4"],
        warn: &[],
        words: &["do not leave the node", "a rule does", "ip strict gate"],
        mends: |node| drop(node.host.run("nft delete table ip strict")),
    },
    Row {
        name: "forwarding is off for the way out",
        breaks: |node| {
            node.host.set_sysctl("net/ipv4/ip_forward", "1");
            node.host.set_sysctl("net/ipv4/conf/uplink/forwarding", "0");
        },
        broken: &["forwarding-ipv4"],
        warn: &[],
        words: &["net/ipv4/conf/uplink/forwarding is 0", "sysctl -w net.ipv4.conf.uplink.forwarding=1"],
        mends: |node| drop(node.host.run("sysctl -w net.ipv4.conf.uplink.forwarding=1")),
    },
    Row {
        name: "the bridge has another address",
        breaks: |node| {
            node.host.run("ip link add cni0 type bridge");
            node.host.run("ip address add 10.9.0.1/24 dev cni0");
        },
        broken: &["bridge"],
        warn: &[],
        words: &["10.9.0.1/24", "10.1.0.1/24", "ip address del 10.9.0.1/24 dev cni0"],
        mends: |node| drop(node.host.run("ip address del 10.9.0.1/24 dev cni0")),
    },
    Row {
        name: "the bridge has another address, which forceAddress would take away",
        breaks: |node| {
            node.configure(&{
                let mut conf = conf();
                conf["plugins"][0]["forceAddress"] = json!(true);
                conf
            });
            node.host.run("ip link add cni0 type bridge");
            node.host.run("ip address add 10.9.0.1/24 dev cni0");
        },
        broken: &["bridge"],
        warn: &[],
        words: &["forceAddress would take it away"],
        mends: |node| drop(node.host.run("ip address del 10.9.0.1/24 dev cni0")),
    },
    Row {
        name: "the bridge's name is another link's",
        breaks: |node| drop(node.host.run("ip link add cni0 type veth peer name other")),
        broken: &["bridge"],
        warn: &[],
        words: &["cni0 is there, but is not a bridge"],
        mends: |node| drop(node.host.run("ip link del cni0")),
    },
    Row {
        name: "the subnet is the node's own network's",
        breaks: |node| {
            node.host.run("ip link add lan type veth peer name far");
            node.host.run("ip address add 10.1.0.77/16 dev lan");
            node.host.run("ip link set far up");
            node.host.run("ip link set lan up");
        },
        broken: &["overlap"],
        warn: &[],
        words: &["10.1.0.0/24 overlaps with route 10.1.0.0/16 dev lan", "choose a range"],
        mends: |node| node.configure(&network("nftables", &["10.77.0.0/24", DUAL[1]])),
    },
    Row {
        name: "the subnet is within what lies behind a router",
        breaks: |node| drop(node.host.run("ip route add 10.0.0.0/8 via 198.51.100.2")),
        broken: &[],
        warn: &["overlap"],
        words: &["10.0.0.0/8 via 198.51.100.2 dev uplink", "choose a range"],
        mends: |node| drop(node.host.run("ip route del 10.0.0.0/8")),
    },
    Row {
        name: "another network of the directory gives out the same addresses",
        breaks: |node| {
            let mut other = conf();
            (other["name"], other["plugins"][0]["bridge"]) = (json!("other"), json!("cni1"));
            std::fs::write(node.conf_dir().join("20-other.conflist"), other.to_string()).unwrap();
        },
        broken: &[],
        warn: &["configuration", "configuration"],
        words: &["both give out the same addresses", "nobody else's"],
        mends: |node| std::fs::remove_file(node.conf_dir().join("20-other.conflist")).unwrap(),
    },
    Row {
        name: "IPv6 is switched off",
        breaks: |node| node.host.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1"),
        broken: &["ipv6"],
        warn: &[],
        words: &["net/ipv6/conf/default/disable_ipv6 is 1", "set it to 0"],
        mends: |node| node.host.set_sysctl("net/ipv6/conf/default/disable_ipv6", "0"),
    },
    Row {
        name: "IPv6 is switched off on the bridge",
        breaks: |node| {
            node.host.run("ip link add cni0 type bridge");
            node.host.set_sysctl("net/ipv6/conf/cni0/disable_ipv6", "1");
        },
        broken: &["ipv6"],
        warn: &[],
        words: &["net/ipv6/conf/cni0/disable_ipv6 is 1", "set it to 0"],
        mends: |node| node.host.set_sysctl("net/ipv6/conf/cni0/disable_ipv6", "0"),
    },
    Row {
        // As after ipv6.disable=1: there are no sysctls of it.
        name: "the kernel has no IPv6",
        breaks: |node| drop(node.host.run("mount -t tmpfs none /proc/sys/net/ipv6")),
        broken: &["ipv6"],
        warn: &[],
        words: &["the kernel has no IPv6", "boot without ipv6.disable=1"],
        mends: |node| drop(node.host.run("umount /proc/sys/net/ipv6")),
    },
    Row {
        name: "connection tracking is full",
        breaks: |node| track(node, 100),
        broken: &["conntrack"],
        warn: &[],
        words: &["flows", "raise net.netfilter.nf_conntrack_max"],
        mends: |node| drop(node.host.run(&format!("umount {TRACKED}"))),
    },
    Row {
        name: "connection tracking is nearly full",
        breaks: |node| track(node, 95),
        broken: &[],
        warn: &["conntrack"],
        words: &["nearly full", "raise net.netfilter.nf_conntrack_max"],
        mends: |node| drop(node.host.run(&format!("umount {TRACKED}"))),
    },
    Row {
        name: "forwarding would take the node's own default route away",
        breaks: |node| drop(node.host.run("ip -6 route replace default via 2001:db8:51::2 dev uplink proto ra")),
        broken: &["ipv6"],
        warn: &[],
        words: &["router advertisement", "set net/ipv6/conf/uplink/accept_ra to 2"],
        mends: |node| node.host.set_sysctl("net/ipv6/conf/uplink/accept_ra", "2"),
    },
    Row {
        name: "nobody out there knows the pods",
        breaks: |node| node.configure(&with("/plugins/0/ipMasq", json!(false))),
        broken: &["egress-ipv4", "egress-ipv6"],
        warn: &[],
        words: &["with the pod's own address", "\"ipMasq\": true"],
        mends: |node| node.configure(&conf()),
    },
    Row {
        name: "the answer comes in by another link, and reverse path filtering is strict",
        breaks: |node| {
            node.host.run(&format!("ip link add second type veth peer name eth1 netns {}", internet(node)));
            node.host.run("ip address add 192.0.2.1/24 dev second");
            node.host.run("ip link set second up");
            node.internet.run("ip address add 192.0.2.2/24 dev eth1");
            node.internet.run("ip link set eth1 up");
            node.internet.run("ip route add 198.51.100.1/32 via 192.0.2.1");
            // A question by ARP is dropped as well.
            let second = node.host.link("second").unwrap();
            let mac = second["address"].as_str().unwrap();
            node.internet.run(&format!("ip neighbour replace 192.0.2.1 lladdr {mac} dev eth1"));
            node.host.set_sysctl("net/ipv4/conf/all/rp_filter", "0");
            node.host.set_sysctl("net/ipv4/conf/second/rp_filter", "1");
        },
        broken: &["egress-ipv4"],
        warn: &[],
        words: &["comes in by second", "rp_filter is 1", "sysctl -w net/ipv4/conf/second/rp_filter=2"],
        mends: |node| drop(node.host.run("sysctl -w net/ipv4/conf/second/rp_filter=2")),
    },
    Row {
        name: "the range is used up",
        breaks: |node| {
            node.configure(&network("nftables", &["10.1.0.0/30", DUAL[1]]));
            lease(node);
        },
        broken: &["status"],
        warn: &[],
        words: &["no IP addresses available", "larger range"],
        mends: |node| node.configure(&network("nftables", &["10.1.0.0/28", DUAL[1]])),
    },
    Row {
        name: "one address is left",
        breaks: |node| node.configure(&network("nftables", &["10.1.0.0/30", DUAL[1]])),
        broken: &[],
        warn: &["add-neighbour"],
        words: &["one address left", "larger range"],
        mends: |node| node.configure(&network("nftables", &["10.1.0.0/28", DUAL[1]])),
    },
    Row {
        name: "packets are larger than the way out",
        breaks: |node| drop(node.host.run("ip link set uplink mtu 1400")),
        broken: &[],
        warn: &["mtu-ipv4", "mtu-ipv6"],
        words: &["1500", "uplink is 1400", "\"mtu\": 1400"],
        mends: |node| {
            let mut conf = conf();
            conf["plugins"][0]["mtu"] = json!(1400);
            node.configure(&conf);
        },
    },
    Row {
        name: "no way out",
        breaks: |node| drop(node.host.run("ip route del default")),
        broken: &[],
        warn: &["egress-ipv4"],
        words: &["no default route of IPv4"],
        mends: |node| drop(node.host.run("ip route add default via 198.51.100.2")),
    },
    Row {
        name: "the gateway out there answers no pings",
        breaks: |node| node.internet.set_sysctl("net/ipv4/icmp_echo_ignore_all", "1"),
        broken: &[],
        warn: &["egress-ipv4"],
        words: &["nobody answers, not even the node", "--target"],
        mends: |node| node.internet.set_sysctl("net/ipv4/icmp_echo_ignore_all", "0"),
    },
    Row {
        name: "the node answers pods no pings",
        breaks: |node| {
            node.host.run("nft add table ip shy");
            node.host.run("nft add chain ip shy gate { type filter hook input priority 10 ; }");
            node.host.run("nft add rule ip shy gate iifname cni0 meta l4proto icmp drop");
        },
        broken: &[],
        warn: &["node-ipv4", "gateway-ipv4"],
        words: &["INPUT"],
        mends: |node| drop(node.host.run("nft delete table ip shy")),
    },
    Row {
        name: "no hairpin",
        breaks: |node| node.configure(&with("/plugins/0/hairpinMode", json!(false))),
        broken: &[],
        warn: &["host-port-ipv4", "host-port-ipv6"],
        words: &["the pod itself does not reach", "\"hairpinMode\": true"],
        mends: |node| node.configure(&conf()),
    },
];

fn internet(node: &Node) -> String {
    let name = node.host.run("ip netns list");
    name.split_whitespace().find(|word| word.contains("internet")).expect("the internet's name").to_owned()
}

const TRACKED: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// So many hundredths of the flows that there may be. How many that are is a matter of the whole machine, and not touched:
/// the node is shown another count.
fn track(node: &Node, hundredths: u64) {
    // The kernel's part that counts them is there from now on.
    node.host.run("conntrack -C");
    let most: u64 = node.host.sysctl("net/netfilter/nf_conntrack_max").parse().unwrap();
    std::fs::write(node.host.store().join("count"), format!("{}\n", most * hundredths / 100)).unwrap();
    node.host.run(&format!("mount --bind {}/count {TRACKED}", tests::Host::STORE));
}

/// A lease of a pod of somebody else.
fn lease(node: &Node) {
    let directory = node.host.store().join("networks/net");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("10.1.0.2"), "somebody\r\neth0").unwrap();
}

fn run(row: &Row) {
    let node = Node::new(&conf());
    (row.breaks)(&node);
    let before = node.state();
    let report = node.report();
    let mut broken = row.broken.to_vec();
    if !forwarded_packets_of_the_bridge_are_filtered(&node) {
        broken.retain(|probe| !probe.starts_with("neighbour") && *probe != "host-port-ipv4");
    }
    assert_eq!(
        (report.with("broken"), report.with("warn")),
        (broken.clone(), row.warn.to_vec()),
        "{}: {:#}",
        row.name,
        report.0
    );
    let first = broken.first().or(row.warn.first()).unwrap();
    let (_, said) = report.of(first);
    for word in row.words {
        assert!(said.contains(word), "{}: {word:?} is not in {said}", row.name);
    }
    let rules = ["nft", "iptables-save", "ip6tables-save"];
    let strip = |state: &tests::State| rules.iter().fold(state.clone(), |state, section| state.without(section));
    let difference = strip(&node.state()).difference(&strip(&before));
    assert!(difference.is_empty(), "{}:\n{difference}", row.name);

    (row.mends)(&node);
    let report = node.report();
    assert!(report.with("broken").is_empty() && report.with("warn").is_empty(), "{}: {:#}", row.name, report.0);
}

/// In three parts, to run side by side.
fn part(number: usize) {
    for row in ROWS.iter().skip(number).step_by(3) {
        run(row);
    }
}

#[test]
fn one_thing_is_broken_1() {
    part(0);
}

#[test]
fn one_thing_is_broken_2() {
    part(1);
}

#[test]
fn one_thing_is_broken_3() {
    part(2);
}

/// Somebody has switched forwarding off under pods that are there; no pod is made that would switch it on for a moment.
#[test]
fn forwarding_is_switched_off_under_pods() {
    let node = Node::new(&conf());
    let pod = node.host.pod();
    node.host.cnitool(node.conf_dir()).call("add", "net", &pod).success();
    node.host.set_sysctl("net/ipv4/ip_forward", "0");
    let report = node.report();
    assert_eq!(report.with("broken"), ["forwarding-ipv4"], "{:#}", report.0);
    assert!(report.of("forwarding-ipv4").1.contains("1 pods are on the bridge"));
    assert_eq!(node.host.sysctl("net/ipv4/ip_forward"), "0");
    node.host.set_sysctl("net/ipv4/ip_forward", "1");
    node.report().assert_healthy();
}

/// Services do not work between pods of one bridge without `br_netfilter`: said where kube-proxy is, and not elsewhere.
#[test]
fn bridged_packets_and_kube_proxy() {
    let node = Node::new(&conf());
    if !forwarded_packets_of_the_bridge_are_filtered(&node) {
        return;
    }
    node.host.set_sysctl("net/bridge/bridge-nf-call-iptables", "0");
    node.report().assert_healthy();
    node.host.run("iptables -t nat -N KUBE-SERVICES");
    let report = node.report();
    assert_eq!((report.with("broken"), report.with("warn")), (vec![], vec!["services-ipv4"]), "{:#}", report.0);
    assert!(report.of("services-ipv4").1.contains("sysctl -w net.bridge.bridge-nf-call-iptables=1"));
    node.host.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    node.report().assert_healthy();
}

/// A plugin that is not there, that cannot be run, that is too old; and a node without iptables.
#[test]
fn plugins_and_programs() {
    let node = Node::new(&conf());
    let directory = tempfile::tempdir().unwrap();
    let portmap = directory.path().join("portmap");
    for name in ["bridge", "host-local"] {
        symlink(bins::directory().join(name), directory.path().join(name)).unwrap();
    }
    let report = || {
        let cnitool = node.host.cnitool(node.conf_dir()).env("CNI_PATH", directory.path().display());
        let outcome = cnitool.run(&["doctor", "--json"]);
        let report = Report(serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}\n{outcome}")));
        assert_eq!((outcome.status, report.with("broken")), (Some(1), vec!["configuration"]), "{outcome}");
        report.of("configuration").1
    };
    let said = report();
    assert!(said.contains("failed to find plugin \"portmap\"") && said.contains("install the plugin"), "{said}");
    write_script(&portmap, r#"echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}'"#);
    let said = report();
    assert!(said.contains("does not speak version 1.0.0") && said.contains("newer version"), "{said}");
    std::fs::set_permissions(&portmap, PermissionsExt::from_mode(0o644)).unwrap();
    let said = report();
    assert!(said.contains("not executable") && said.contains("make it executable"), "{said}");

    node.configure(&network("iptables", &DUAL));
    node.report().assert_healthy();
    for program in ["iptables", "ip6tables"] {
        node.host.run(&format!("mount --bind /dev/null /usr/sbin/{program}"));
    }
    let report = node.report();
    let broken = report.with("broken");
    assert_eq!(broken.len(), 1, "{:#}", report.0);
    let (_, said) = report.of(broken[0]);
    assert!(said.contains("iptables") && said.contains("choose nftables"), "{said}");
    node.configure(&conf());
    node.report().assert_healthy();
}

/// Somebody sets back what portmap needs for a port at 127.0.0.1.
#[test]
fn route_localnet_is_set_back() {
    let node = Node::new(&network("nftables", &DUAL[..1]));
    let directory = tempfile::tempdir().unwrap();
    for name in ["bridge", "host-local"] {
        symlink(bins::directory().join(name), directory.path().join(name)).unwrap();
    }
    let portmap = bins::directory().join("portmap");
    let then = "[ $CNI_COMMAND = ADD ] && echo 0 >/proc/sys/net/ipv4/conf/cni0/route_localnet; exit $status";
    write_script(&directory.path().join("portmap"), &format!("{}; status=$?; {then}", portmap.display()));
    let cnitool = node.host.cnitool(node.conf_dir()).env("CNI_PATH", directory.path().display());
    let outcome = cnitool.run(&["doctor", "--json"]);
    let report = Report(serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}\n{outcome}")));
    assert_eq!(report.with("broken"), ["check", "host-port-ipv4"], "{outcome}");
    let (_, said) = report.of("host-port-ipv4");
    for word in ["127.0.0.1", "net/ipv4/conf/cni0/route_localnet is 0", "find out who sets"] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
    node.report().assert_healthy();
}

/// What is no configuration is named, and no pod is made.
#[test]
fn configurations_that_are_broken() {
    for (text, words) in [
        (r#"{"cniVersion":"1.0.0","name":"net","plugins":["#, "EOF"),
        (r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"bridge":"cni0"}]}"#, "missing 'type'"),
        (
            r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge","ipam":{"type":"host-local","subnet":"10.1.0.5/24"}}]}"#,
            "host bits",
        ),
    ] {
        let node = Node::new(&conf());
        std::fs::write(node.conf_dir().join("10-net.conflist"), text).unwrap();
        let before = node.state();
        let report = node.report();
        assert_eq!(report.with("broken"), ["configuration"], "{text}: {:#}", report.0);
        let (_, said) = report.of("configuration");
        assert!(said.contains(words) && said.contains("10-net.conflist"), "{said}");
        node.state().assert_same(&before);
    }
}
