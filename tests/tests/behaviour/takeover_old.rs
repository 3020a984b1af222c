//! Nodes that have lived long: state as references before Debian's 1.1.1, and between it and the newest, wrote it.

use std::fs;

use serde_json::json;
use tests::plugin::with_prev_result;
use tests::{Host, Internet};

use crate::portmap_conf::{PORT, addresses, both, conf, main_conf, nft_chain, rules};
use crate::takeover_conf::{CHAINS, Life, NETWORK, Node, Suite, at_once, ways};

use Suite::{Ours, Theirs};

/// Before 0.8 the runtime kept the bare result, and until 2018 a lease said whose it is but not of which interface.
#[test]
fn pods_of_before_2020() {
    at_once(&ways(), |way| {
        for chain in CHAINS {
            let node = Node::new(chain, way);
            let what = format!("{chain}, {way:?}");
            let lives: Vec<Life> = (0..3).map(|number| node.life(number)).collect();
            node.add(Theirs, &lives[0]);
            let before = node.facts();
            for life in &lives[1..] {
                node.add(Theirs, life);
                let id = node.known(life).id;
                node.remember_the_result_alone(life);
                for address in life.addresses() {
                    let lease = node.host.store().join("networks").join(NETWORK).join(address);
                    if lease.exists() {
                        fs::write(lease, &id).unwrap();
                    }
                }
            }
            for life in &lives[1..] {
                node.call(Ours, "check", life).success();
            }
            for life in lives[1..].iter().chain(&lives[1..]) {
                node.call(Ours, "del", life).success();
            }
            node.facts().assert_same(&before, &what);
            node.call(Ours, "check", &lives[0]).success();
            node.assert_works(&lives[0], &what);
        }
    });
}

/// From 1.6 to 1.8 portmap's nftables had no chain for both kinds of mappings, and asked of PREROUTING's packets nothing.
#[test]
fn host_ports_in_nftables_of_1_6_to_1_8() {
    let host = Host::new();
    let internet = host.internet();
    let (old, new) = (host.pod(), host.pod());
    let (old_server, new_server) = (old.listen(), new.listen());
    let result = host.plugin("bridge").add(main_conf("bridge"), &old, "eth0").success();
    for (family, pod, node) in [("ip", 0, Internet::HOST_V4.to_string()), ("ip6", 1, Internet::HOST_V6.to_string())] {
        let pod = &addresses(&result)[pod];
        let (to, port, id) =
            (if family == "ip" { pod.clone() } else { format!("[{pod}]") }, old_server.port(), old.id());
        let text = format!(
            "table {family} cni_hostport {{
                comment \"CNI portmap plugin\";
                chain hostports {{ tcp dport {PORT} dnat to {to}:{port} comment \"{id}\"; }}
                chain hostip_hostports {{ {family} daddr {node} udp dport {PORT} dnat to {to}:{port} comment \"{id}\"; }}
                chain prerouting {{ type nat hook prerouting priority dstnat; jump hostip_hostports; jump hostports; }}
                chain output {{ type nat hook output priority -100;
                    fib daddr type local jump hostip_hostports; fib daddr type local jump hostports; }}
                chain masquerading {{ type nat hook postrouting priority srcnat;
                    {family} saddr {pod} {family} daddr {pod} masquerade comment \"{id}\"; }}
            }}"
        );
        host.enter(|| fs::write("/run/rules", text).unwrap());
        host.run("nft -f /run/rules");
    }
    let reaches = |port: u16| {
        for node in [Internet::HOST_V4, Internet::HOST_V6] {
            let asked = internet.asks_at(&node.to_string(), port);
            assert!(asked.is_ok(), "{port}: {asked:?}");
        }
    };
    reaches(PORT);
    // Our ADD beside it, and both work.
    let new_result = host.plugin("bridge").add(main_conf("bridge"), &new, "eth0").success();
    let new_conf = with_prev_result(&conf("nftables", both(PORT + 1, new_server.port())), &new_result);
    host.plugin("portmap").add(&new_conf, &new, "eth0").success();
    let alone: Vec<String> = rules(&host).into_iter().filter(|rule| !rule.contains(&old.id())).collect();
    for port in [PORT, PORT + 1] {
        reaches(port);
    }
    for _ in 0..2 {
        host.plugin("portmap").del(with_prev_result(&conf("nftables", json!([])), &result), &old, "eth0").success();
    }
    for family in ["ip", "ip6"] {
        assert_eq!(nft_chain(&host, family, "hostip_hostports"), [""; 0]);
    }
    assert_eq!(rules(&host), alone);
    host.plugin("portmap").check(&new_conf, &new, "eth0").success();
    reaches(PORT + 1);
    host.plugin("portmap").del(&new_conf, &new, "eth0").success();
    assert_eq!(rules(&host), [""; 0]);
}
