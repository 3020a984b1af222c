//! What is announced where one announcement fails: what a neighbour remembers, by `ip -j`.

use std::time::{Duration, Instant};

use crate::lab::{json, run, with_pod};
use hostnet::link::Link;
use hostnet::{Netlink, addr, announcement, link, veth};
use libcni::types::IpConfig;

const OLD: &str = "02:00:00:00:00:01";

/// A pair that is up; `fd00::5` is the pod's, and its neighbour remembers another MAC for it.
fn remembered(host: &mut Netlink, pod: &mut Netlink) -> Link {
    let host_names = vec!["v".to_owned()];
    let conf = veth::VethConf { pod_name: "eth0", host_names, mac: None, mtu: None, master: None, network: None };
    let pair = veth::create(host, pod, &conf).unwrap();
    addr::add(host, pair.host.index, &"fd00::1/64".parse().unwrap(), true).unwrap();
    addr::add(pod, pair.pod.index, &"fd00::5/64".parse().unwrap(), true).unwrap();
    link::set_up(host, pair.host.index).unwrap();
    link::set_up(pod, pair.pod.index).unwrap();
    veth::wait_up(host, &pair).unwrap();
    run(host, &format!("ip neighbour add fd00::5 lladdr {OLD} dev v nud stale"));
    pair.pod
}

fn ips(cidrs: &[&str]) -> Vec<IpConfig> {
    let one = |cidr: &&str| IpConfig {
        address: cidr.parse().unwrap(),
        gateway: None,
        interface: None,
        extra: Default::default(),
    };
    cidrs.iter().map(one).collect()
}

/// The kernel hears it in its own time.
fn wait_for(host: &Netlink, mac: &str) {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let known = json(host, "ip -j neighbour show fd00::5 dev v");
        if known.pointer("/0/lladdr").is_some_and(|lladdr| lladdr == mac) {
            return;
        }
        assert!(Instant::now() < end, "{known}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address that the pod does not have cannot be announced.
#[test]
fn the_first_failure_does_not_silence_the_rest() {
    with_pod(|host, pod| {
        let link = remembered(host, pod);
        let error = announcement::send(pod, &link, &ips(&["fd00::4/64", "fd00::5/64"])).unwrap_err();
        assert!(error.to_string().contains("announce the addresses of eth0"), "{error}");
        wait_for(host, &link.mac.unwrap().to_string());
    });
}

/// That of IPv4 is the kernel's, on a MAC that is set; it refuses one that is a group's.
#[test]
fn ipv4_does_not_silence_ipv6() {
    with_pod(|host, pod| {
        let link = remembered(host, pod);
        let link = Link { mac: Some("03:00:00:00:00:05".parse().unwrap()), ..link };
        let error = announcement::send(pod, &link, &ips(&["10.1.0.5/24", "fd00::5/64"])).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EADDRNOTAVAIL), "{error}");
        wait_for(host, "03:00:00:00:00:05");
    });
}
