//! ptp's CHECK: it finds what is damaged at either end, names it, and mends nothing.

use serde_json::json;
use tests::Host;

use crate::bridge_conf::with;
use crate::damage::{self, Table};
use crate::ptp::{add, check, host_end, masqueraded};

/// What is broken, what the message must contain, and how it is broken.
const ATTACHMENT: &Table = &[
    ("IPv4 address removed", "10.1.0.2/24", |_, pod, _| drop(pod.run("ip address del 10.1.0.2/24 dev eth0"))),
    ("IPv6 address removed", "fd00:1::2/64", |_, pod, _| drop(pod.run("ip address del fd00:1::2/64 dev eth0"))),
    ("default route removed", "default via 10.1.0.1", |_, pod, _| drop(pod.run("ip route del default"))),
    ("route to the subnet removed", "10.1.0.0/24", |_, pod, _| drop(pod.run("ip route del 10.1.0.0/24"))),
    ("route to the subnet on the link", "10.1.0.0/24", |_, pod, _| {
        pod.run("ip route replace 10.1.0.0/24 dev eth0");
    }),
    ("route to the gateway removed", "10.1.0.1", |_, pod, _| drop(pod.run("ip route del 10.1.0.1"))),
    ("IPv6 route to the gateway removed", "fd00:1::1", |_, pod, _| drop(pod.run("ip -6 route del fd00:1::1"))),
    ("link down", "eth0", |_, pod, _| drop(pod.run("ip link set eth0 down"))),
    ("link removed", "eth0", |_, pod, _| drop(pod.run("ip link delete eth0"))),
    ("MAC changed", "02:00:00:00:00:09", |_, pod, _| drop(pod.run("ip link set eth0 address 02:00:00:00:00:09"))),
    ("host's end down", "is down", |host, _, result| drop(host.run(&format!("ip link set {} down", host_end(result))))),
    ("host's MAC changed", "02:00:00:00:00:09", |host, _, result| {
        host.run(&format!("ip link set {} address 02:00:00:00:00:09", host_end(result)));
    }),
    ("gateway's address removed", "10.1.0.1/32", |host, _, result| {
        host.run(&format!("ip address del 10.1.0.1/32 dev {}", host_end(result)));
    }),
    ("IPv6 gateway's address removed", "fd00:1::1/128", |host, _, result| {
        host.run(&format!("ip address del fd00:1::1/128 dev {}", host_end(result)));
    }),
    ("route to the pod removed", "10.1.0.2", |host, _, _| drop(host.run("ip route del 10.1.0.2"))),
    ("IPv6 route to the pod removed", "fd00:1::2", |host, _, _| drop(host.run("ip -6 route del fd00:1::2"))),
    ("forwarding switched off", "forward", |host, _, _| host.set_sysctl("net/ipv4/ip_forward", "0")),
    ("IPv6 forwarding switched off", "forward", |host, _, _| host.set_sysctl("net/ipv6/conf/all/forwarding", "0")),
    ("lease removed", "host-local", |host, _, _| {
        for address in ["10.1.0.2", "fd00:1::2"] {
            std::fs::remove_file(host.store().join("networks/net").join(address)).unwrap();
        }
    }),
];

const OF_IPTABLES: &Table =
    &[("jumps flushed", "10.1.0.2", |host, _, _| drop(host.run("iptables -t nat -F POSTROUTING")))];

const OF_NFTABLES: &Table = &[("rules flushed", "10.1.0.2", |host, _, _| {
    host.run("nft flush chain inet cni_plugins_masquerade masq_checks");
})];

fn damaged(backend: &str, table: &Table) {
    damage::is_found("ptp", &masqueraded(backend), table);
}

#[test]
fn a_damaged_attachment_is_found() {
    damaged("nftables", ATTACHMENT);
}

#[test]
fn damaged_masquerade_rules_are_found() {
    damaged("iptables", OF_IPTABLES);
    damaged("nftables", OF_NFTABLES);
}

#[test]
fn additions_of_others_are_no_damage() {
    let host = Host::new();
    let pod = host.pod();
    let conf = with(&masqueraded("nftables"), json!({"mtu": 1400}));
    let mut result = add(&host, &conf, &pod);
    pod.run("ip address add 192.0.2.7/32 dev eth0");
    pod.run("ip route add 198.18.0.0/15 via 10.1.0.1");
    host.run(&format!("ip address add 192.0.2.8/32 dev {}", host_end(&result)));
    result["interfaces"].as_array_mut().unwrap().push(json!({"name": "net1", "sandbox": pod.path()}));
    result["ips"].as_array_mut().unwrap().push(json!({"interface": 2, "address": "198.18.0.2/24"}));
    check(&host, &conf, &result, &pod).success();
}
