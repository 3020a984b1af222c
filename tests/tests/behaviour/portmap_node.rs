//! portmap and the rest of the node: flows that are followed, 127.0.0.0/8, backends that come and go, what is not mapped,
//! GC, STATUS, damage.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::with_prev_result;
use tests::{Host, Internet, Namespace, Pod};

use crate::bridge_conf::{hide_firewall_programs, show_firewall_programs, with};
use crate::portmap_conf::{
    BACKENDS, PORT, add, addresses, both, chain, check, conf, connect, del, legacy, main_conf, mapping, nft_chain,
    result_of, rules,
};

const ADDRESSES: [&str; 2] = ["10.77.0.2/24", "fd00:77::2/64"];

/// Sends a datagram from a port of its own, which is not answered, so that the node follows the flow.
pub fn send(place: &Namespace, from: u16, to: &str, port: u16) {
    let to: std::net::IpAddr = to.parse().unwrap();
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    place.enter(|| {
        let socket = UdpSocket::bind((any, from)).unwrap();
        drop(socket.send_to(b"?", (to, port)));
    });
}

/// The flows that the node follows to a port, as the program `conntrack` lists them.
fn flows(host: &Host, port: u16) -> Vec<String> {
    let mut found = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let text = host.run(&format!("conntrack -L -f {family} -p udp --orig-port-dst {port}"));
        found.extend(text.lines().map(str::to_owned));
    }
    found
}

/// P12: the flows of this port of this node, at ADD and at DEL, and no others: not those that are forwarded, not those
/// of another protocol, port or address.
#[test]
fn flows_that_go_elsewhere_are_forgotten_and_no_others() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let pod = host.pod();
        // Follows every packet.
        host.run("nft add table inet follow");
        host.run("nft add chain inet follow every { type filter hook prerouting priority 0 ; }");
        host.run("nft add rule inet follow every ct state new counter");
        let server = pod.listen();
        let result = host.plugin("bridge").add(main_conf("bridge"), &pod, "eth0").success();
        let (v4, v6) = (Internet::HOST_V4.to_string(), Internet::HOST_V6.to_string());
        // What is sent but once must not be lost to a link that has only just come up.
        assert!(pod.pings(&v4) && pod.pings(&v6), "{backend}");
        for node in [&v4, &v6] {
            send(&internet, 4000, node, PORT); // to the port, before it is mapped
            send(&internet, 4001, node, PORT + 1); // to another port
        }
        send(&pod, 4002, Internet::V4, PORT); // forwarded, as DNS is
        send(&pod, 4002, Internet::V6, PORT);
        assert_eq!((flows(&host, PORT).len(), flows(&host, PORT + 1).len()), (4, 2), "{backend}");

        let conf = conf(backend, both(PORT, server.port()));
        let outcome = add(&host, &conf, &result, &pod);
        outcome.success();
        assert_eq!(outcome.stderr, "");
        let left = flows(&host, PORT);
        assert!(left.len() == 2 && left.iter().all(|flow| flow.contains("sport=4002")), "{backend}: {left:?}");
        assert_eq!(flows(&host, PORT + 1).len(), 2, "{backend}");

        for node in [&v4, &v6] {
            send(&internet, 4000, node, PORT); // to the pod
        }
        assert_eq!(flows(&host, PORT).len(), 4, "{backend}");
        add(&host, &conf, &result, &pod).success();
        assert_eq!(flows(&host, PORT).len(), 4, "{backend}: a second ADD leaves what is right");
        del(&host, &conf, &result, &pod);
        let left = flows(&host, PORT);
        assert!(left.len() == 2 && left.iter().all(|flow| flow.contains("sport=4002")), "{backend}: {left:?}");
    }
}

/// Several ports, and one on an address; a DEL that does not know the pod's addresses.
#[test]
fn flows_to_an_address_and_to_several_ports() {
    let host = Host::new();
    let internet = host.internet();
    let pod = host.pod();
    host.run("ip address add 198.51.100.77/24 dev uplink");
    let list =
        json!([with(&mapping("udp", PORT, 80), json!({"hostIP": "198.51.100.77"})), mapping("udp", PORT + 1, 80)]);
    let conf = conf("nftables", list);
    let result = connect(&host, "bridge", &conf, &pod);
    for node in ["198.51.100.1", "198.51.100.77"] {
        for port in [PORT, PORT + 1] {
            send(&internet, 4000, node, port);
        }
    }
    host.plugin("portmap").del(&conf, &pod, "eth0").success();
    // The one to the node's other address was never this port's.
    let left = flows(&host, PORT);
    assert!(left.len() == 1 && left[0].contains("dst=198.51.100.1 "), "{left:?}");
    assert_eq!(flows(&host, PORT + 1), [""; 0]);
    let again = add(&host, &conf, &result, &pod);
    assert_eq!((again.status, again.stderr.as_str()), (Some(0), ""));
}

/// P18: the sysctl is set where it is needed, and opens nothing.
#[test]
fn the_loopback_address_stays_the_nodes_own() {
    for backend in BACKENDS {
        let host = Host::new();
        let pod = host.pod();
        let server = pod.listen();
        let conf = conf(backend, both(PORT, server.port()));
        let result = connect(&host, "bridge", &conf, &pod);
        assert_eq!(host.sysctl("net/ipv4/conf/cni0/route_localnet"), "1");
        assert!(host.asks_at("127.0.0.1", PORT).is_ok(), "{backend}");
        // Something that only the node itself is to reach; a pod sends to it all the same.
        let secret = host.enter(|| UdpSocket::bind("127.0.0.1:0").unwrap());
        secret.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let port = secret.local_addr().unwrap().port();
        pod.run("ip route add 127.0.0.1 via 10.1.0.1 src 10.1.0.2");
        let is_reached = || {
            send(&pod, 4000, "127.0.0.1", port);
            secret.recv(&mut [0; 8]).is_ok()
        };
        assert!(!is_reached(), "{backend}");
        host.run("nft delete table ip cni_localnet");
        assert!(is_reached(), "{backend}: the rule that was there is what kept it out");
        // The next ADD finds it missing.
        add(&host, &conf, &result, &pod).success();
        assert!(!is_reached(), "{backend}");
        assert!(host.asks_at("127.0.0.1", PORT).is_ok(), "{backend}");
    }
}

/// A call of portmap under strace: the programs it starts, and whether it opens a socket.
fn traced(host: &Host, verb: &str, conf: &Value) -> (Vec<String>, bool) {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (input, calls) = (file("conf", &conf.to_string()), file("calls", ""));
    let script = format!(
        "exec env CNI_COMMAND={verb} CNI_CONTAINERID=c CNI_IFNAME=eth0 CNI_NETNS=/none CNI_PATH=/none \
         strace -f -e trace=execve,socket -o {calls} {} < {input}",
        host.plugin("portmap").program().display()
    );
    host.run(&format!("sh {}", file("script", &script)));
    let calls = fs::read_to_string(calls).unwrap();
    let begun = calls.lines().filter(|line| line.ends_with("= 0")).filter_map(|line| line.split_once("execve(\""));
    let programs = begun.map(|(_, rest)| rest.split('"').next().unwrap().rsplit('/').next().unwrap().to_owned());
    // Programs that it starts open sockets, too.
    let portmap = calls.split_whitespace().next().unwrap_or_default();
    let opens = calls.lines().any(|line| line.starts_with(portmap) && line.contains("socket("));
    (programs.filter(|name| name != "portmap" && name != "env").collect(), opens)
}

/// No process, no socket; and where nothing was ever mapped, DEL starts nothing either.
#[test]
fn without_mappings_nothing_is_started_and_nothing_opened() {
    let host = Host::new();
    let pod = host.pod();
    let before = host.state();
    for (verb, opens) in [("ADD", false), ("CHECK", false), ("DEL", true)] {
        for list in [json!(null), json!([])] {
            let conf = with_prev_result(&conf("iptables", list), &result_of(&pod, &ADDRESSES));
            assert_eq!(traced(&host, verb, &conf), (vec![], opens), "{verb}");
        }
    }
    host.state().assert_same(&before);
}

/// P13, P14: the reference starts 36 at such an ADD, 24 at its DEL.
#[test]
fn what_an_add_on_a_busy_node_starts() {
    let host = Host::new();
    let (pod, other) = (host.pod(), host.pod());
    for (backend, started) in [("iptables", vec!["iptables-restore", "ip6tables-restore"]), ("nftables", vec![])] {
        let first = conf(backend, both(PORT + 1, 80));
        add(&host, &first, &result_of(&other, &["10.77.0.3/24", "fd00:77::3/64"]), &other).success();
        let conf =
            with_prev_result(&conf(backend, both(PORT, 80)), &result_of(&pod, &["10.77.0.2/24", "fd00:77::2/64"]));
        let mut conf = conf;
        // The interface of such a result is in a namespace of any name.
        conf["prevResult"]["interfaces"][1]["sandbox"] = "/none".into();
        assert_eq!(traced(&host, "ADD", &conf).0, started, "{backend}");
        assert_eq!(traced(&host, "DEL", &conf).0, [""; 0], "{backend}");
        assert_eq!(rules(&host).iter().filter(|rule| rule.contains("8080")).count(), 0, "{backend}");
    }
}

/// P16, P17: whatever the configuration says by then, and without the programs where they are not needed.
#[test]
fn del_cleans_what_any_configuration_made() {
    for backend in BACKENDS {
        for keys in [
            json!({"backend": if backend == "iptables" { "nftables" } else { "iptables" }}),
            json!({"runtimeConfig": null}),
            json!({"runtimeConfig": {"portMappings": [{"hostPort": -1}]}}),
            json!({"backend": "foo", "markMasqBit": 99, "runtimeConfig": {"portMappings": "?"}}),
            json!({"prevResult": null}),
            json!({"prevResult": {"cniVersion": "1.0.0", "dns": {}}}),
            json!({"prevResult": 7}),
        ] {
            let host = Host::new();
            let (pod, bystander) = (host.pod(), host.pod());
            let result = result_of(&pod, &ADDRESSES);
            let conf = conf(backend, both(PORT, 80));
            add(&host, &conf, &result_of(&bystander, &["10.77.0.3/24", "fd00:77::3/64"]), &bystander).success();
            let before = rules(&host);
            add(&host, &conf, &result, &pod).success();
            let later = with(&with_prev_result(&conf, &result), keys);
            let no_programs = TempDir::new().unwrap();
            let portmap = host.plugin("portmap").env("PATH", no_programs.path().display()).without_env("CNI_NETNS");
            portmap.del(&later, &pod, "eth0").success();
            assert_eq!(rules(&host), before, "{backend} {later}");
            portmap.del(&later, &pod, "eth0").success();
        }
    }
}

#[test]
fn the_backend_is_chosen_as_the_reference_chooses() {
    for iptables in [true, false] {
        let host = Host::new();
        let internet = host.internet();
        let pod = host.pod();
        let server = pod.listen();
        let mut unset = conf("", both(PORT, server.port()));
        unset.as_object_mut().unwrap().remove("backend");
        let status = with(&unset, json!({"cniVersion": "1.1.0"}));
        if !iptables {
            hide_firewall_programs(&host);
        }
        let result = connect(&host, "bridge", &unset, &pod);
        check(&host, &unset, &result, &pod).success();
        host.plugin("portmap").status(&status).success();
        let explicit = with(&status, json!({"backend": "iptables"}));
        let outcome = host.plugin("portmap").status(&explicit);
        assert_eq!(outcome.status, Some(i32::from(!iptables)), "{outcome}");
        if !iptables {
            assert_eq!(outcome.code(), 50);
            show_firewall_programs(&host);
        }
        assert!(internet.asks_at(&Internet::HOST_V4.to_string(), PORT).is_ok());
        let made = rules(&host);
        assert_eq!(made.iter().any(|rule| rule.contains("CNI-DN-")), iptables, "{made:?}");
        del(&host, &unset, &result, &pod);
        assert_eq!(rules(&host), [""; 0]);
    }
}

#[test]
fn the_legacy_flavour() {
    let host = Host::new();
    let internet = host.internet();
    let (pod, neighbour) = (host.pod(), host.pod());
    let server = pod.listen();
    let path = legacy();
    let portmap = host.plugin("portmap").env("PATH", path.path().display());
    let result = host.plugin("bridge").add(main_conf("bridge"), &pod, "eth0").success();
    host.plugin("bridge").add(main_conf("bridge"), &neighbour, "eth0").success();
    let known = with_prev_result(&conf("iptables", both(PORT, server.port())), &result);
    for _ in 0..2 {
        portmap.add(&known, &pod, "eth0").success();
        portmap.check(&known, &pod, "eth0").success();
    }
    for node in [Internet::HOST_V4, Internet::HOST_V6] {
        assert!(internet.asks_at(&node.to_string(), PORT).is_ok());
        assert!(neighbour.asks_at(&node.to_string(), PORT).is_ok());
    }
    assert!(host.asks_at("127.0.0.1", PORT).is_ok());
    assert_eq!(chain(&host, "iptables-legacy", "CNI-HOSTPORT-DNAT").len(), 2);
    // Whichever flavour is `iptables` by then.
    host.plugin("portmap").del(&known, &pod, "eth0").success();
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        assert_eq!(chain(&host, program, "CNI-HOSTPORT-DNAT"), [""; 0]);
        assert!(!host.run(&format!("{program} -t nat -S")).contains("CNI-DN-"));
    }
}

#[test]
fn gc_removes_what_is_of_no_valid_attachment_of_its_network() {
    for backend in BACKENDS {
        let host = Host::new();
        let pods = [host.pod(), host.pod(), host.pod()];
        let conf = with(&conf(backend, both(PORT, 80)), json!({"cniVersion": "1.1.0"}));
        let of_other = with(&conf, json!({"name": "other"}));
        for (number, (pod, conf)) in pods.iter().zip([&conf, &conf, &of_other]).enumerate() {
            let result =
                result_of(pod, &[&format!("10.77.0.{}/24", number + 2), &format!("fd00:77::{}/64", number + 2)]);
            add(&host, conf, &result, pod).success();
        }
        let of = |number: usize| -> Vec<String> {
            let (v4, v6) = (format!("10.77.0.{}:", number + 2), format!("fd00:77::{}]", number + 2));
            rules(&host).into_iter().filter(|rule| rule.contains(&v4) || rule.contains(&v6)).collect()
        };
        let gc = |keys: Value| host.plugin("portmap").gc(with(&conf, keys)).success();
        let all = rules(&host);
        gc(json!({}));
        assert_eq!(rules(&host), all, "{backend}: nobody said what is valid");
        gc(json!({"cni.dev/valid-attachments": [{"containerID": pods[0].id(), "ifname": "eth0"}]}));
        assert_eq!((of(0).len(), of(1).len(), of(2).len()), (4, 0, 4), "{backend}");
        gc(json!({"cni.dev/valid-attachments": [{"containerID": pods[0].id(), "ifname": "eth1"}]}));
        assert_eq!((of(0).len(), of(2).len()), (0, 4), "{backend}");
        gc(json!({"name": "other", "cni.dev/valid-attachments": []}));
        assert_eq!(rules(&host), [""; 0], "{backend}");
    }
}

/// Where ip6tables cannot do anything, GC has nothing to complain of.
#[test]
fn gc_on_a_node_without_ip6tables() {
    let host = Host::new();
    let pod = host.pod();
    let bin = TempDir::new().unwrap();
    for program in ["iptables", "iptables-restore"] {
        let real = tests::namespace::find(program).unwrap();
        std::os::unix::fs::symlink(real, bin.path().join(program)).unwrap();
    }
    for program in ["ip6tables", "ip6tables-restore"] {
        crate::refusal::write_script(&bin.path().join(program), "echo no >&2; exit 3");
    }
    let portmap = host.plugin("portmap").env("PATH", bin.path().display());
    let conf = with(&conf("iptables", both(PORT, 80)), json!({"cniVersion": "1.1.0"}));
    portmap.add(with_prev_result(&conf, &result_of(&pod, &ADDRESSES[..1])), &pod, "eth0").success();
    portmap.gc(with(&conf, json!({"cni.dev/valid-attachments": []}))).success();
    assert_eq!(rules(&host), [""; 0]);
}

/// Damage that the reference's CHECK does not see: values, order, what is shared, extra rules.
#[test]
fn check_finds_what_is_broken() {
    type Damage = fn(&Host);
    let iptables: [(&str, Damage); 8] = [
        ("CNI-HOSTPORT-SETMARK", |host| drop(host.run("iptables -t nat -F CNI-HOSTPORT-SETMARK"))),
        ("PREROUTING", |host| drop(host.run("iptables -t nat -F PREROUTING"))),
        ("OUTPUT", |host| drop(host.run("ip6tables -t nat -F OUTPUT"))),
        ("POSTROUTING", |host| drop(host.run("iptables -t nat -F POSTROUTING"))),
        ("MASQ", |host| drop(host.run("iptables -t nat -F CNI-HOSTPORT-MASQ"))),
        ("CNI-HOSTPORT-DNAT", |host| drop(host.run("iptables -t nat -F CNI-HOSTPORT-DNAT"))),
        ("CNI-DN-", |host| {
            let chains = host.run("iptables -t nat -S");
            let name = chains.lines().find_map(|line| line.strip_prefix("-N CNI-DN-")).unwrap();
            host.run(&format!(
                "iptables -t nat -I CNI-DN-{name} -p tcp --dport 8080 -j DNAT --to-destination 10.77.0.9:80"
            ));
        }),
        ("route_localnet", |host| host.set_sysctl("net/ipv4/conf/cni0/route_localnet", "0")),
    ];
    let nftables: [(&str, Damage); 6] = [
        ("hostports", |host| drop(host.run("nft flush chain ip cni_hostport hostports"))),
        ("hostports", |host| drop(host.run("nft flush chain ip6 cni_hostport hostports"))),
        ("masquerading", |host| drop(host.run("nft flush chain ip cni_hostport masquerading"))),
        ("prerouting", |host| drop(host.run("nft flush chain ip cni_hostport prerouting"))),
        ("output", |host| drop(host.run("nft flush chain ip6 cni_hostport output"))),
        ("hostports_all", |host| drop(host.run("nft flush chain ip cni_hostport hostports_all"))),
    ];
    let all =
        iptables.iter().map(|damage| ("iptables", damage)).chain(nftables.iter().map(|damage| ("nftables", damage)));
    for (backend, (word, damage)) in all {
        let host = Host::new();
        let pod = host.pod();
        let conf = conf(backend, both(PORT, 80));
        let result = connect(&host, "bridge", &conf, &pod);
        check(&host, &conf, &result, &pod).success();
        damage(&host);
        let before = host.state();
        let error = check(&host, &conf, &result, &pod).failure();
        assert!(error["msg"].as_str().unwrap().contains(word), "{backend}: {word} is not in {error}");
        host.state().assert_same(&before);
        add(&host, &conf, &result, &pod).success();
        check(&host, &conf, &result, &pod).success();
    }
}

/// Nothing of it is left: neither its rules nor those of the IP version before.
#[test]
fn an_add_that_fails_is_undone() {
    let host = Host::new();
    let pod = host.pod();
    let bin = TempDir::new().unwrap();
    for program in ["iptables", "iptables-restore"] {
        let real = tests::namespace::find(program).unwrap();
        std::os::unix::fs::symlink(real, bin.path().join(program)).unwrap();
    }
    crate::refusal::write_script(&bin.path().join("ip6tables"), "echo no >&2; exit 3");
    crate::refusal::write_script(&bin.path().join("ip6tables-restore"), "echo no >&2; exit 3");
    let portmap = host.plugin("portmap").env("PATH", bin.path().display());
    let conf = with_prev_result(&conf("iptables", both(PORT, 80)), &result_of(&pod, &ADDRESSES));
    let error = portmap.add(&conf, &pod, "eth0").failure();
    assert!(error["msg"].as_str().unwrap().contains("ip6tables"), "{error}");
    assert_eq!(rules(&host), [""; 0]);
}

/// containerd's spelling, at every version.
#[test]
fn go_field_names_and_every_version() {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let host = Host::new();
        let pod = host.pod();
        let list = json!([{"HostPort": 30080, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": ""}]);
        let mut result = result_of(&pod, &["10.77.0.2/24"]);
        result["cniVersion"] = version.into();
        if version < "1.0.0" {
            result["ips"][0]["version"] = "4".into();
            result["dns"] = json!({});
        }
        if version < "0.3.0" {
            result = json!({"cniVersion": version, "ip4": {"ip": "10.77.0.2/24"}, "dns": {}});
        }
        let conf = with(&with_prev_result(&conf("nftables", list), &result), json!({"cniVersion": version}));
        assert_eq!(host.plugin("portmap").add(&conf, &pod, "eth0").success(), result, "{version}");
        assert!(
            nft_chain(&host, "ip", "hostports")
                .iter()
                .any(|rule| rule.contains("tcp dport 30080 dnat to 10.77.0.2:8080"))
        );
        host.plugin("portmap").del(&conf, &pod, "eth0").success();
        assert_eq!(rules(&host), [""; 0], "{version}");
    }
}

/// Addresses of other interfaces are not the pod's; one of which nobody says whose it is, is.
#[test]
fn ports_lead_to_the_interfaces_own_address() {
    let host = Host::new();
    let pod = host.pod();
    let mut result = result_of(&pod, &["192.0.2.9/24", "10.77.0.2/24", "10.77.0.3/24"]);
    result["ips"][0]["interface"] = 0.into();
    let conf = conf("nftables", json!([mapping("tcp", PORT, 80)]));
    add(&host, &conf, &result, &pod).success();
    let to = |address: &str| rules(&host).iter().filter(|rule| rule.contains(&format!("dnat to {address}:80"))).count();
    assert_eq!((to("192.0.2.9"), to("10.77.0.2"), to("10.77.0.3")), (0, 1, 0));
    result["ips"][0].as_object_mut().unwrap().remove("interface");
    add(&host, &conf, &result, &pod).success();
    assert_eq!((to("192.0.2.9"), to("10.77.0.2")), (1, 0));
}

/// The pod's own server is asked: many at once, over both backends, each through its port.
#[test]
fn each_pod_is_reached_through_its_port() {
    for backend in BACKENDS {
        let host = Host::new();
        let internet = host.internet();
        let pods: Vec<Pod> = (0..5).map(|_| host.pod()).collect();
        for (number, pod) in (0_u16..).zip(&pods) {
            let server = pod.listen();
            let result = connect(&host, "bridge", &conf(backend, both(8000 + number, server.port())), pod);
            for node in [Internet::HOST_V4, Internet::HOST_V6] {
                let seen = internet.asks_at(&node.to_string(), 8000 + number);
                assert!(seen.is_ok(), "{backend} {:?}: {seen:?}", addresses(&result));
            }
        }
    }
}
