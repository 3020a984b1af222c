//! Addresses and duplicate address detection, read back by `ip -j`.

use std::time::{Duration, Instant};

use crate::lab::{json, run, with_pod};
use hostnet::veth::{self, Veth, VethConf};
use hostnet::{Netlink, addr, link};
use libcni::types::Cidr;

fn pair(host: &mut Netlink, pod: &mut Netlink) -> Veth {
    let host_names = vec!["v".to_owned()];
    veth::create(
        host,
        pod,
        &VethConf { pod_name: "eth0", host_names, mac: None, mtu: None, master: None, network: None },
    )
    .unwrap()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

#[test]
fn added_listed_removed() {
    with_pod(|host, pod| {
        let index = pair(host, pod).pod.index;
        let all = ["10.1.2.3/24", "10.1.3.0/31", "10.1.4.1/32", "2001:db8::5/64"].map(cidr);
        for cidr in &all {
            addr::add(pod, index, cidr, true).unwrap();
        }
        let error = addr::add(pod, index, &all[0], true).unwrap_err();
        assert!(error.is_exists() && error.to_string().contains("10.1.2.3/24 to link eth0"), "{error}");
        let seen = json(pod, "ip -j addr show dev eth0");
        let seen: Vec<_> = seen[0]["addr_info"].as_array().unwrap().iter().collect();
        let text = |seen: &serde_json::Value| format!("{}/{}", seen["local"].as_str().unwrap(), seen["prefixlen"]);
        assert_eq!(seen.iter().map(|seen| text(seen)).collect::<Vec<_>>(), all.map(|cidr| cidr.to_string()));
        let broadcasts: Vec<_> = seen.iter().map(|seen| seen["broadcast"].as_str()).collect();
        assert_eq!(broadcasts, [Some("10.1.2.255"), None, None, None]);
        assert!(seen.iter().all(|seen| seen["scope"] == "global"));
        assert_eq!(seen[3]["nodad"], true);
        let listed = addr::list(pod, index).unwrap();
        assert_eq!(listed.iter().map(|address| address.cidr).collect::<Vec<_>>(), all);
        assert!(listed.iter().all(|address| address.scope == 0 && !address.dad_failed));
        for cidr in &all {
            assert!(addr::remove(pod, index, cidr).unwrap() && !addr::remove(pod, index, cidr).unwrap());
        }
        assert_eq!(addr::list(pod, index).unwrap(), []);
        assert!(addr::add(pod, 999, &all[0], true).unwrap_err().is_not_found());
    });
}

#[test]
fn only_the_links_own() {
    with_pod(|host, _| {
        run(host, "ip link add va type veth peer name vb");
        run(host, "ip addr add 10.0.0.1 peer 10.0.0.2/32 dev va");
        run(host, "ip addr add 10.0.0.9/24 dev vb");
        let index = link::get(host, "va").unwrap().unwrap().index;
        let listed = addr::list(host, index).unwrap();
        let texts = |listed: &[addr::Address]| {
            let mut texts: Vec<_> = listed.iter().map(|found| found.cidr.to_string()).collect();
            texts.sort();
            texts
        };
        assert_eq!(texts(&listed), ["10.0.0.1/32"]);
        assert_eq!(texts(&addr::list_of_others(host, index).unwrap()), ["10.0.0.9/24"]);
        assert_eq!(texts(&addr::list_of_others(host, 0).unwrap()), ["10.0.0.1/32", "10.0.0.9/24"]);
    });
}

#[test]
fn detection_is_waited_for_by_events() {
    with_pod(|host, pod| {
        let veth = pair(host, pod);
        let index = veth.pod.index;
        // Without a carrier nobody can be asked (the reference waits five seconds).
        addr::add(pod, index, &cidr("2001:db8::5/64"), false).unwrap();
        link::set_up(pod, index).unwrap();
        let begun = Instant::now();
        addr::wait_dad(pod, index, Duration::from_secs(5)).unwrap();
        assert!(begun.elapsed() < Duration::from_millis(500));

        link::set_up(host, veth.host.index).unwrap();
        let error = addr::wait_dad(pod, index, Duration::from_millis(10)).unwrap_err();
        assert!(error.to_string().contains("still tentative after 10ms"), "{error}");
        addr::wait_dad(pod, index, Duration::from_secs(10)).unwrap();
        assert!(!run(pod, "ip -6 addr show dev eth0").contains("tentative"));
        addr::add(pod, index, &cidr("2001:db8::6/64"), true).unwrap();
        assert!(!run(pod, "ip -6 addr show dev eth0").contains("tentative"));
    });
}

#[test]
fn a_duplicate_is_detected() {
    with_pod(|host, pod| {
        let veth = pair(host, pod);
        addr::add(host, veth.host.index, &cidr("2001:db8::5/64"), true).unwrap();
        link::set_up(host, veth.host.index).unwrap();
        addr::add(pod, veth.pod.index, &cidr("2001:db8::5/64"), false).unwrap();
        link::set_up(pod, veth.pod.index).unwrap();
        let error = addr::wait_dad(pod, veth.pod.index, Duration::from_secs(10)).unwrap_err();
        assert!(error.to_string().contains("2001:db8::5 is in DADFAILED state"), "{error}");
    });
}
