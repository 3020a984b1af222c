//! The vulnerabilities of the field, each with what an attacker would do. Where other modules ask the same already, the
//! table in `tests/README.md` says where.

use std::fs;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::dbus::Bus;
use tests::firewalld::Debian;
use tests::{Host, Internet, Namespace, Pod, frame};

use crate::bridge_conf::{dual, of, with};
use crate::portmap_conf::{BACKENDS, add, conf, connect, mapping};
use crate::portmap_node::send;

/// The attacker's address, and the prefix that nobody may believe in.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0);

/// A directory for plugins with a program beside it, and one below it, that leave a mark when they are run.
struct Trap(TempDir);

impl Trap {
    fn set() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir_all(directory.path().join("bin/sub")).unwrap();
        let mark = directory.path().join("mark");
        for place in ["evil", "bin/sub/evil"] {
            let program = directory.path().join(place);
            fs::write(&program, format!("#!/bin/sh\ntouch {}\necho '{{}}'\n", mark.display())).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(directory)
    }

    fn types(&self) -> Vec<String> {
        let absolute = self.0.path().join("evil").display().to_string();
        let mut types: Vec<String> =
            ["../evil", "sub/evil", "./sub/evil", "sub/../../evil", "..", ".", "/", "../evil\0", "evil\0/x"]
                .map(str::to_owned)
                .into();
        types.extend([format!("../../../../../../..{absolute}"), absolute]);
        types
    }

    fn path(&self) -> String {
        format!("{}:{}", self.0.path().join("bin").display(), tests::bins::directory().display())
    }

    fn assert_untouched(&self, what: &str) {
        assert!(!self.0.path().join("mark").exists(), "{what} was run");
    }
}

#[test]
fn cve_2021_20206_a_type_does_not_lead_out_of_the_directories() {
    let trap = Trap::set();
    let host = Host::new();
    let pod = host.pod();
    let before = host.state();
    for evil in trap.types() {
        for main in ["bridge", "ptp"] {
            let conf = json!({"cniVersion": "1.1.0", "name": "net", "type": main, "ipam": {"type": evil}});
            let plugin = host.plugin(main).env("CNI_PATH", trap.path());
            for outcome in [plugin.add(&conf, &pod, "eth0"), plugin.status(&conf), plugin.gc(&conf)] {
                let error = outcome.failure().to_string();
                assert!(error.contains("invalid plugin name"), "{main} {evil:?}: {error}");
            }
            drop(plugin.del(&conf, &pod, "eth0"));
            drop(plugin.check(&conf, &pod, "eth0"));
            trap.assert_untouched(&evil);
        }
    }
    // An empty one is none at all.
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "ptp", "ipam": {"type": ""}});
    host.plugin("ptp").env("CNI_PATH", trap.path()).add(&conf, &pod, "eth0").failure();
    host.state().assert_same(&before);
    assert!(pod.link("eth0").is_none());
}

#[test]
fn cve_2021_20206_a_type_in_a_list_of_cnitool() {
    let trap = Trap::set();
    let host = Host::new();
    let pod = host.pod();
    for (index, evil) in trap.types().into_iter().enumerate() {
        let lists = TempDir::new().unwrap();
        let plugins = json!([{"type": "loopback"}, {"type": evil}]);
        let list = json!({"cniVersion": "1.1.0", "name": "list", "plugins": plugins});
        fs::write(lists.path().join("1.conflist"), list.to_string()).unwrap();
        let single = json!({"cniVersion": "0.4.0", "name": "single", "type": evil});
        fs::write(lists.path().join("2.conf"), single.to_string()).unwrap();
        let cnitool = host.cnitool(lists.path()).env("CNI_PATH", trap.path());
        for network in ["list", "single"] {
            for verb in ["add", "check", "del", "gc", "status"] {
                drop(cnitool.call(verb, network, &pod));
                trap.assert_untouched(&format!("{evil:?} by {verb} {network}"));
            }
            let added = cnitool.call("add", network, &pod);
            assert!(added.status != Some(0), "{index} {network} {evil:?}\n{added}");
            assert!(added.to_string().contains("invalid plugin name"), "{evil:?}\n{added}");
        }
        drop(cnitool.run(&["validate"]));
        trap.assert_untouched(&format!("{evil:?} by validate"));
    }
}

fn advertisement() -> Vec<u8> {
    frame::router_advertisement(frame::mac("02:00:00:00:00:99"), ROUTER, PREFIX)
}

/// What a node or a pod took from an advertisement: routes, addresses.
fn believed(place: &Namespace) -> Vec<String> {
    let mut taken = Vec::new();
    for question in ["ip -6 route show table all", "ip -6 address show"] {
        let text = place.run(question);
        let lines =
            text.lines().map(str::trim).filter(|line| line.contains("proto ra") || line.contains("2001:db8:bad:"));
        taken.extend(lines.map(str::to_owned));
    }
    taken
}

fn eager(host: &Host) {
    for of in ["all", "default"] {
        host.set_sysctl(&format!("net/ipv6/conf/{of}/accept_ra"), "2");
    }
}

/// So that the test does not pass because nobody would have believed it.
#[test]
fn the_advertisement_of_these_tests_is_a_good_one() {
    let host = Host::new();
    eager(&host);
    let attacker = host.pod();
    host.run(&format!("ip link add victim type veth peer name eth0 netns {}", attacker.name()));
    attacker.run("ip link set eth0 up");
    host.run("ip link set victim up");
    for _ in 0..100 {
        attacker.send_frame("eth0", &advertisement());
        std::thread::sleep(Duration::from_millis(50));
        if believed(&host).len() > 2 {
            return;
        }
    }
    panic!("{:?}", believed(&host));
}

/// A pod sends from the moment it has an interface. On clusters without any IPv6 of their own, too.
#[test]
fn cve_2020_10749_no_router_advertisement_of_a_pod_is_believed() {
    for main in ["bridge", "ptp"] {
        for (what, subnets) in [("IPv4 alone", &["10.1.0.0/24"][..]), ("dual", &["10.1.0.0/24", "fd00:1::/64"])] {
            let host = Host::new();
            eager(&host);
            let conf = match main {
                "ptp" => crate::ptp::of(subnets),
                _ => of(subnets),
            };
            let before = believed(&host);
            let pod = host.pod();
            let (outcome, first) =
                frame::flood(&pod, "eth0", &advertisement(), || host.plugin(main).add(&conf, &pod, "eth0"));
            outcome.success();
            let ((), then) =
                frame::flood(&pod, "eth0", &advertisement(), || std::thread::sleep(Duration::from_secs(1)));
            assert!(then > 100, "{first} and {then} were sent");
            assert_eq!(believed(&host), before, "{main}, {what}, after {first} and {then}");
            // The bridge was there before the second pod, and perhaps somebody set it so.
            if main == "bridge" {
                host.set_sysctl("net/ipv6/conf/cni0/accept_ra", "2");
                let second = host.pod();
                let (outcome, _) =
                    frame::flood(&second, "eth0", &advertisement(), || host.plugin(main).add(&conf, &second, "eth0"));
                outcome.success();
                frame::flood(&second, "eth0", &advertisement(), || std::thread::sleep(Duration::from_millis(300)));
                assert_eq!(host.sysctl("net/ipv6/conf/cni0/accept_ra"), "0");
            }
        }
    }
}

/// A service at the node's port. Its address is the node's own where a balancer or IPVS put it there; then iptables' rules
/// decide by their order. A chain of nftables has the reference's priority, which is that of iptables and of kube-proxy, so
/// there the chain that was made last is asked first: another suite's ADD would fail if ours had any other.
#[test]
fn cve_2019_9946_a_host_port_does_not_take_the_packets_of_a_service() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        if backend == "iptables" {
            host.run("ip address add 10.96.0.1/32 dev lo");
        }
        let (behind, thief, client) = (host.pod(), host.pod(), host.pod());
        let bridge = with(&dual(), json!({"ipMasq": true, "ipMasqBackend": backend}));
        for pod in [&behind, &client] {
            host.plugin("bridge").add(&bridge, pod, "eth0").success();
        }
        let service = behind.listen();
        let port = service.port();
        let to = behind.addresses("eth0")[0].replace("/24", "");
        host.run("iptables -t nat -N KUBE-SERVICES");
        for protocol in ["tcp", "udp"] {
            host.run(&format!(
                "iptables -t nat -A KUBE-SERVICES -d 10.96.0.1/32 -p {protocol} --dport {port} -j DNAT --to {to}:{port}"
            ));
        }
        for from in ["PREROUTING", "OUTPUT"] {
            host.run(&format!("iptables -t nat -I {from} -j KUBE-SERVICES"));
        }
        let list = json!([mapping("tcp", port, 9), mapping("udp", port, 9)]);
        connect(&host, "bridge", &conf(backend, list), &thief);
        for (place, who) in [(&*client, "a pod"), (&*host, "the node")] {
            assert!(place.asks_at("10.96.0.1", port).is_ok(), "{backend}: {who}");
        }
        drop(internet);
    }
}

/// Packets through the node to the same port elsewhere are not the node's.
#[test]
fn cve_2025_67499_a_host_port_takes_nothing_that_passes_through() {
    for backend in BACKENDS {
        for on in ["", "0.0.0.0", "::", "198.51.100.1", "2001:db8:51::1"] {
            let host = Host::new();
            let internet = host.internet();
            let outside = internet.listen();
            let (pod, client) = (host.pod(), host.pod());
            let port = outside.port();
            let mut list = json!([mapping("tcp", port, 9), mapping("udp", port, 9)]);
            for mapping in list.as_array_mut().unwrap() {
                mapping["hostIP"] = on.into();
            }
            let conf = conf(backend, list);
            let main = with(&dual(), json!({"ipMasq": true, "ipMasqBackend": backend}));
            host.plugin("bridge").add(&main, &client, "eth0").success();
            let result = host.plugin("bridge").add(&main, &pod, "eth0").success();
            add(&host, &conf, &result, &pod).success();
            for (place, who) in [(&*client, "a pod"), (&*pod, "the pod itself"), (&*host, "the node")] {
                assert_eq!(place.asks_at(Internet::V4, port), Ok(Internet::HOST_V4), "{backend} {on:?}: {who}");
                assert_eq!(place.asks_at(Internet::V6, port), Ok(Internet::HOST_V6), "{backend} {on:?}: {who}");
            }
        }
    }
}

/// From beside the node, not from a pod: that one is asked in `portmap_node`. Somebody else may have set the sysctl there.
#[test]
fn cve_2020_8558_a_neighbour_on_the_wire_does_not_reach_the_loopback_address() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let secret = host.enter(|| UdpSocket::bind("127.0.0.1:0").unwrap());
        secret.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let port = secret.local_addr().unwrap().port();
        let is_reached = || {
            send(&internet, 4000, "127.0.0.1", port);
            secret.recv(&mut [0; 8]).is_ok()
        };
        let pod = host.pod();
        connect(&host, "bridge", &conf(backend, json!([mapping("tcp", 8080, 80)])), &pod);
        host.set_sysctl("net/ipv4/conf/uplink/route_localnet", "1");
        internet.run("ip address del 127.0.0.1/8 dev lo");
        internet.run("ip route add 127.0.0.1/32 via 198.51.100.1 src 198.51.100.2");
        assert!(!is_reached(), "{backend}");
        host.run("nft delete table ip cni_localnet");
        assert!(is_reached(), "{backend}: the rule that was there is what kept it out");
    }
}

/// The rules of the node that are ours, in our tables and in iptables'.
fn ours(host: &Host) -> Vec<String> {
    let mut text = String::new();
    for table in host.run("nft list tables").lines().filter(|table| table.contains(" cni_")) {
        text += &host.run(&format!("nft list {table}"));
    }
    for program in ["iptables-save", "ip6tables-save"] {
        let rules = host.run(program);
        text.extend(rules.lines().filter(|line| line.contains("CNI-")).map(|line| format!("{line}\n")));
    }
    text.lines().map(str::to_owned).collect()
}

/// What moby lost on a reload: published ports that are closed to others, and isolated bridges. Rules of nftables stay.
/// Those of iptables are taken by firewalld itself, whoever made them (`FlushAllOnReload`): CHECK says so, and the next ADD
/// on the node brings back what pods share.
#[test]
fn cve_2025_54388_and_54410_a_reload_of_firewalld_takes_no_rule_of_ours() {
    for backend in BACKENDS {
        let host = Host::new();
        let bus = Bus::start(&host);
        let firewalld = Debian::start(&host, &bus);
        // It flushes when it starts, too, and answers before.
        firewalld.reload();
        let pod = host.pod();
        let main = with(&dual(), json!({"ipMasq": true, "ipMasqBackend": backend}));
        let result = host.plugin("bridge").add(&main, &pod, "eth0").success();
        let mut list = json!([mapping("tcp", 8080, 80)]);
        list[0]["hostIP"] = "127.0.0.1".into();
        add(&host, &conf(backend, list), &result, &pod).success();
        let firewall = json!({"cniVersion": "1.0.0", "name": "net", "type": "firewall", "backend": backend,
            "ingressPolicy": "same-bridge", "prevResult": result});
        host.plugin("firewall").add(&firewall, &pod, "eth0").success();
        let before = ours(&host);
        assert!(before.len() > 10, "{before:#?}");
        firewalld.reload();
        let checked = host.plugin("firewall").check(&firewall, &pod, "eth0");
        if backend == "nftables" {
            assert_eq!(ours(&host), before, "{backend}");
            checked.success();
        } else {
            checked.failure();
            host.plugin("firewall").add(&firewall, &pod, "eth0").success();
            host.plugin("firewall").check(&firewall, &pod, "eth0").success();
        }
    }
}

/// The addresses of a pod's interface with those of its link, and what routes of IPv6 it has.
fn ipv6_of(pod: &Pod) -> Value {
    pod.ip("-6 address show dev eth0")
}

/// What a pod of an IPv4 network believes of its neighbours is its own kernel's default, as with the reference: a bridge
/// of layer 2 may have a real router on it. That the node does not spread it is what can be promised.
#[test]
fn cve_2024_32473_a_pod_without_ipv6_is_as_the_reference_leaves_it() {
    let sysctls = |pod: &Pod| {
        ["accept_ra", "autoconf", "disable_ipv6", "forwarding"]
            .map(|key| pod.sysctl(&format!("net/ipv6/conf/eth0/{key}")))
    };
    for main in ["bridge", "ptp"] {
        let conf = match main {
            "ptp" => crate::ptp::of(&["10.1.0.0/24"]),
            _ => of(&["10.1.0.0/24"]),
        };
        let host = Host::new();
        let (one, two) = (host.pod(), host.pod());
        host.plugin(main).add(&conf, &one, "eth0").success();
        let theirs = Host::new();
        let three = theirs.pod();
        theirs.reference(main).add(&conf, &three, "eth0").success();
        assert_eq!(sysctls(&one), sysctls(&three), "{main}");
        if main == "ptp" {
            // No neighbour's frame comes here: what one pod says to all nodes ends at the node.
            host.plugin(main).add(&conf, &two, "eth0").success();
            frame::flood(&one, "eth0", &advertisement(), || std::thread::sleep(Duration::from_millis(500)));
            assert_eq!(believed(&two), [""; 0], "{}", ipv6_of(&two));
        }
    }
}

/// The plugins' directory itself is searched for the name alone; a link in it is the administrator's.
#[test]
fn a_plugin_that_is_a_link_is_run() {
    let directory = TempDir::new().unwrap();
    let program = "host-local";
    std::os::unix::fs::symlink(tests::bins::directory().join(program), directory.path().join(program)).unwrap();
    let host = Host::new();
    let pod = host.pod();
    let bridge = host.plugin("bridge").env("CNI_PATH", Path::new(directory.path()).display());
    bridge.add(dual(), &pod, "eth0").success();
}
