//! Links, veth pairs and bridges, read back by `ip -j`.

use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Space, json, run, with_pod};
use hostnet::bridge::{self, BridgeConf, Port};
use hostnet::link::OperState;
use hostnet::veth::{self, VethConf};
use hostnet::{Netlink, Owner, link, sysctl};

fn owner(container: &str) -> Owner {
    Owner { network: "net".parse().unwrap(), container: container.parse().unwrap(), ifname: "eth0".parse().unwrap() }
}

fn plain(names: &[&str]) -> VethConf<'static, Vec<String>> {
    let host_names = names.iter().map(|&name| name.to_owned()).collect();
    VethConf { pod_name: "eth0", host_names, mac: None, mtu: None, master: None }
}

const BR0: BridgeConf<'static> = BridgeConf { name: "br0", mtu: None, vlan_filtering: false };

#[test]
fn a_pair_is_born_whole() {
    with_pod(|host, pod| {
        let (bridge, _) = bridge::ensure(host, &BR0).unwrap();
        let mac = "02:42:ac:11:00:02".parse().unwrap();
        let conf = VethConf {
            pod_name: "eth0",
            host_names: veth::host_names(&owner("c1")),
            mac: Some(mac),
            mtu: Some(1400),
            master: Some(bridge.index),
        };
        let pair = veth::create(host, pod, &conf).unwrap();
        let (host_end, pod_end) = (
            &json(host, &format!("ip -d -j link show {}", pair.host.name))[0],
            &json(pod, "ip -d -j link show eth0")[0],
        );
        for (end, link) in [(host_end, &pair.host), (pod_end, &pair.pod)] {
            assert_eq!((&end["mtu"], &end["linkinfo"]["info_kind"]), (&1400.into(), &"veth".into()));
            assert_eq!((&end["ifname"], &end["ifindex"]), (&link.name.as_str().into(), &link.index.into()));
            assert_eq!(end["address"], link.mac.unwrap().to_string());
            assert!(!end["flags"].as_array().unwrap().contains(&"UP".into()) && !link.up);
        }
        assert_eq!((&host_end["master"], pair.host.master), (&"br0".into(), Some(bridge.index)));
        assert_eq!((&pod_end["address"], pair.pod.mac), (&"02:42:ac:11:00:02".into(), Some(mac)));
        assert_ne!(host_end["address"], pod_end["address"]);
        assert_eq!((pair.host.parent, pair.pod.parent), (Some(pair.pod.index), Some(pair.host.index)));
        assert_eq!(
            sysctl::get(host, &format!("net/ipv6/conf/{}/accept_ra", pair.host.name)).unwrap().as_deref(),
            Some("0")
        );

        // Removing either end removes both.
        assert!(link::remove(pod, "eth0").unwrap() && !link::remove(pod, "eth0").unwrap());
        assert_eq!(link::get(host, &pair.host.name).unwrap(), None);
        assert!(!link::remove_by_index(host, pair.host.index).unwrap());
    });
}

#[test]
fn host_names_are_like_the_references_and_the_owners_own() {
    let names: Vec<_> = veth::host_names(&owner("c1")).collect();
    assert_eq!(names, veth::host_names(&owner("c1")).collect::<Vec<_>>());
    let mut all = [names, veth::host_names(&owner("c2")).collect()].concat();
    for name in &all {
        let digits = name.strip_prefix("veth").unwrap();
        assert!(
            digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{name}"
        );
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20);
}

/// Reference defect 19: it looks for the clash in the pod, and reports the wrong name.
#[test]
fn names_that_are_taken() {
    with_pod(|host, pod| {
        run(host, "ip link add taken type veth peer name b");
        let pair = veth::create(host, pod, &plain(&["taken", "free"])).unwrap();
        assert_eq!(pair.host.name, "free");
        let error = veth::create(host, pod, &plain(&["other"])).unwrap_err();
        assert!(
            error.is_exists() && error.to_string().contains("container interface \"eth0\" already exists in "),
            "{error}"
        );
        assert_eq!(link::get(host, "other").unwrap(), None);
        link::remove(pod, "eth0").unwrap();
        let error = veth::create(host, pod, &plain(&["taken", "b"])).unwrap_err();
        assert!(error.to_string().contains("no name is free"), "{error}");
    });
}

#[test]
fn what_the_kernel_refuses_it_explains() {
    with_pod(|host, pod| {
        for mtu in [65536, 67] {
            let error = veth::create(host, pod, &VethConf { mtu: Some(mtu), ..plain(&["v"]) }).unwrap_err();
            assert_eq!(error.to_string(), format!("create veth pair eth0 of mtu {mtu}: Invalid argument"));
        }
        let (bridge, _) = bridge::ensure(host, &BR0).unwrap();
        for (mtu, why) in [(65536, "mtu greater than device maximum"), (67, "mtu less than device minimum")] {
            let error = link::set_mtu(host, bridge.index, mtu).unwrap_err();
            assert!(error.to_string().contains(&format!("Invalid argument (kernel: {why})")), "{error}");
        }
        link::remove_by_index(host, bridge.index).unwrap();
        let multicast = Some("01:00:5e:00:00:01".parse().unwrap());
        assert!(veth::create(host, pod, &VethConf { mac: multicast, ..plain(&["v"]) }).is_err());
        assert!(veth::create(host, pod, &VethConf { master: Some(999), ..plain(&["v"]) }).is_err());
        assert_eq!((link::list(host).unwrap().len(), link::list(pod).unwrap().len()), (1, 1));
    });
}

#[test]
fn links_are_changed() {
    with_pod(|host, pod| {
        let pair = veth::create(host, pod, &plain(&["v"])).unwrap();
        let index = pair.host.index;
        assert_eq!(link::get_by_index(host, index).unwrap().unwrap(), pair.host);
        assert!(link::list(host).unwrap().contains(&pair.host));
        link::set_up(host, index).unwrap();
        link::set_promisc(host, index, true).unwrap();
        link::set_mtu(host, index, 1300).unwrap();
        link::set_allmulti(host, index, true).unwrap();
        link::set_txqlen(host, index, 0).unwrap();
        link::set_mac(host, index, "02:00:00:00:00:09".parse().unwrap()).unwrap();
        let seen = &json(host, "ip -j link show v")[0];
        assert_eq!((&seen["mtu"], &seen["address"]), (&1300.into(), &"02:00:00:00:00:09".into()));
        let flags = seen["flags"].as_array().unwrap();
        assert!(["UP", "PROMISC", "ALLMULTI"].iter().all(|flag| flags.contains(&(*flag).into())), "{flags:?}");
        assert!(seen["txqlen"].as_u64().unwrap_or_default() == 0, "{seen}");
        let seen = link::get(host, "v").unwrap().unwrap();
        assert!(seen.up && seen.promisc && !seen.carrier && !seen.running && seen.oper != OperState::Up, "{seen:?}");
        assert!(seen.allmulti && seen.txqlen == 0, "{seen:?}");
        link::set_promisc(host, index, false).unwrap();
        link::set_allmulti(host, index, false).unwrap();
        link::set_txqlen(host, index, 77).unwrap();
        assert_eq!(json(host, "ip -j link show v")[0]["txqlen"], 77);
        link::set_down(host, index).unwrap();
        link::rename(host, index, "w").unwrap();
        assert!(link::rename(host, index, "lo").unwrap_err().is_exists());
        let seen = link::get(host, "w").unwrap().unwrap();
        assert!(
            !seen.up && !seen.promisc && !seen.allmulti && seen.txqlen == 77 && link::get(host, "v").unwrap().is_none()
        );
        assert_eq!(link::get(host, "a-name-longer-than-fifteen").unwrap(), None);
        run(host, "ip link property add dev w altname a-name-longer-than-fifteen");
        assert_eq!(link::get(host, "a-name-longer-than-fifteen").unwrap().unwrap().index, index);
        assert!(link::set_up(host, 999).unwrap_err().is_not_found());
    });
}

#[test]
fn waiting_for_a_carrier() {
    with_pod(|host, pod| {
        let pair = veth::create(host, pod, &plain(&["v"])).unwrap();
        link::set_up(host, pair.host.index).unwrap();
        let error = link::wait_up(host, pair.host.index, Duration::from_millis(50)).unwrap_err();
        assert!(
            error.to_string().contains("wait for link v") && error.to_string().contains("Down after 50ms"),
            "{error}"
        );
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(100));
                link::set_up(pod, pair.pod.index).unwrap();
            });
            let up = link::wait_up(host, pair.host.index, Duration::from_secs(5)).unwrap();
            assert!(up.running && up.oper == OperState::Up);
        });
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(link::wait_up(host, 999, Duration::from_secs(1)).unwrap_err().is_not_found());
    });
}

#[test]
fn a_bridge_is_made_once() {
    with_pod(|host, _| {
        let conf = BridgeConf { mtu: Some(1400), ..BR0 };
        let (bridge, created) = bridge::ensure(host, &conf).unwrap();
        assert!(created && bridge.up && bridge.mtu == 1400 && bridge.is_kind("bridge"));
        assert_eq!(bridge::ensure(host, &conf).unwrap(), (bridge, false));
        let seen = &json(host, "ip -d -j link show br0")[0];
        assert_eq!((&seen["mtu"], &seen["linkinfo"]["info_kind"]), (&1400.into(), &"bridge".into()));
        assert_eq!(run(host, "cat /proc/sys/net/ipv6/conf/br0/accept_ra"), "0\n");
        run(host, "ip link add v type veth peer name w");
        let error = bridge::ensure(host, &BridgeConf { name: "v", ..BR0 }).unwrap_err();
        assert!(error.to_string().contains("\"v\" already exists but is not a bridge"), "{error}");
        // Reference defect 14: VLAN filtering that is not there is silently not enforced.
        let error = bridge::ensure(host, &BridgeConf { vlan_filtering: true, ..BR0 }).unwrap_err();
        assert!(error.to_string().contains("does not filter by VLAN"), "{error}");
    });
}

#[test]
fn vlan_filtering_is_never_silently_absent() {
    with_pod(|host, _| match bridge::ensure(host, &BridgeConf { name: "brv", mtu: None, vlan_filtering: true }) {
        Ok(_) => assert_eq!(json(host, "ip -d -j link show brv")[0]["linkinfo"]["info_data"]["vlan_filtering"], 1),
        Err(error) => {
            assert!(error.to_string().contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{error}");
            assert_eq!(link::get(host, "brv").unwrap(), None);
        }
    });
}

/// Reference defects 1 and 2: the bridge takes the lowest address of its ports, and none when the last is gone.
#[test]
fn a_bridge_keeps_its_address() {
    with_pod(|host, pod| {
        let (bridge, _) = bridge::ensure(host, &BR0).unwrap();
        let mac = |host: &Netlink| json(host, "ip -j link show br0")[0]["address"].as_str().unwrap().to_owned();
        assert_eq!(mac(host), bridge.mac.unwrap().to_string());
        let pair = veth::create(host, pod, &VethConf { master: Some(bridge.index), ..plain(&["v"]) }).unwrap();
        link::set_mac(host, pair.host.index, "00:00:00:00:00:01".parse().unwrap()).unwrap();
        link::set_up(host, pair.host.index).unwrap();
        assert_eq!(mac(host), bridge.mac.unwrap().to_string());
        link::remove(pod, "eth0").unwrap();
        assert_eq!(mac(host), bridge.mac.unwrap().to_string());

        // One that the reference left without an address is mended.
        run(host, "ip link add br1 type bridge");
        run(host, "ip link add x type veth peer name y");
        run(host, "ip link set x master br1");
        run(host, "ip link del x");
        assert_eq!(json(host, "ip -j link show br1")[0]["address"], "00:00:00:00:00:00");
        let (br1, created) = bridge::ensure(host, &BridgeConf { name: "br1", ..BR0 }).unwrap();
        assert!(!created && br1.mac.is_some_and(|mac| mac.bytes() != [0; 6]));
    });
}

#[test]
fn many_at_once_make_one_bridge() {
    let host = Space::new();
    let made: Vec<_> = thread::scope(|scope| {
        let one = || bridge::ensure(&mut host.netlink(), &BR0).unwrap();
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|(_, created)| *created).count(), 1);
    assert!(made.iter().all(|(bridge, _)| bridge.index == made[0].0.index && bridge.mac == made[0].0.mac));
}

#[test]
fn port_options() {
    with_pod(|host, pod| {
        let (bridge, _) = bridge::ensure(host, &BR0).unwrap();
        let pair = veth::create(host, pod, &VethConf { master: Some(bridge.index), ..plain(&["v"]) }).unwrap();
        for (hairpin, isolated) in [(true, false), (false, true), (true, true), (false, false)] {
            bridge::set_port(host, pair.host.index, &Port { hairpin, isolated }).unwrap();
            let seen = &json(host, "ip -d -j link show v")[0]["linkinfo"]["info_slave_data"];
            assert_eq!((&seen["hairpin"], &seen["isolated"]), (&hairpin.into(), &isolated.into()));
        }
        assert_eq!(bridge::vlans(host, 999).unwrap(), []);
        assert!(bridge::set_port(host, 999, &Port::default()).unwrap_err().is_not_found());
        link::set_master(host, pair.host.index, None).unwrap();
        assert_eq!(link::get(host, "v").unwrap().unwrap().master, None);
        assert!(bridge::set_port(host, pair.host.index, &Port::default()).is_err());
    });
}

/// What `NLM_F_DUMP_INTR` is for: others come and go while a list is read, and a link that was there all the time
/// is on every list.
#[test]
fn a_list_under_churn_is_whole() {
    let space = Space::new();
    let host = &mut space.netlink();
    for n in 0..150 {
        run(host, &format!("ip link add s{n} type veth peer name t{n}"));
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    let churned = thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut other = space.netlink();
            let pod = Space::new();
            let mut pod = pod.netlink();
            let mut rounds = 0;
            let deadline = Instant::now() + Duration::from_secs(60); // should the other thread panic
            while !done.load(std::sync::atomic::Ordering::Relaxed) && Instant::now() < deadline {
                veth::create(&mut other, &mut pod, &plain(&["churn"])).unwrap();
                link::remove(&mut other, "churn").unwrap();
                rounds += 1;
                // No node does nothing else; on a busy machine the lists would never come to an end.
                thread::sleep(Duration::from_millis(1));
            }
            rounds
        });
        for _ in 0..100 {
            let names: std::collections::HashSet<_> =
                link::list(host).unwrap().into_iter().map(|link| link.name).collect();
            let missing = (0..150).flat_map(|n| [format!("s{n}"), format!("t{n}")]).find(|name| !names.contains(name));
            assert_eq!(missing, None);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        churn.join().unwrap()
    });
    assert!(churned > 0);
}

/// The message has no file: it counts also where `/proc/sys` cannot be written.
#[test]
fn a_link_is_told_to_announce_its_addresses() {
    with_pod(|host, pod| {
        let pair = veth::create(host, pod, &plain(&["v"])).unwrap();
        let seen = |pod: &Netlink, ifname: &str| run(pod, &format!("cat /proc/sys/net/ipv4/conf/{ifname}/arp_notify"));
        assert_eq!(seen(pod, "eth0"), "0\n");
        link::set_arp_notify(pod, pair.pod.index).unwrap();
        assert_eq!((seen(pod, "eth0"), seen(pod, "default")), ("1\n".into(), "0\n".into()));
        assert!(link::set_arp_notify(pod, 4711).unwrap_err().is_not_found());
    });
}

/// Where the node refuses them for all links, nothing has to be written; where it does not, it is.
#[test]
fn router_advertisements_are_refused_whatever_the_default() {
    for default in ["0", "1", "2"] {
        with_pod(move |host, pod| {
            sysctl::set(host, "net/ipv6/conf/default/accept_ra", default).unwrap();
            veth::create(host, pod, &plain(&["v"])).unwrap();
            assert_eq!(run(host, "cat /proc/sys/net/ipv6/conf/v/accept_ra"), "0\n", "default {default}");
        });
    }
}
