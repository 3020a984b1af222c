//! A pod that gets an address which another pod had a moment ago (containernetworking/plugins#756, #858): who
//! remembers the old pod's MAC, the node itself among them, must not send into the void.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::frame::{self, mac};
use tests::namespace::Namespace;
use tests::{Host, Pod};

const V4: &str = "10.1.0.5";
const V6: &str = "fd00:1::5";

fn conf(kind: &str, v4: &str, v6: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "type": kind, "bridge": "cni0", "isGateway": true,
        "args": {"cni": {"ips": [v4, v6]}},
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}})
}

/// One packet, and less than the second after which a question for the MAC is repeated.
fn is_reached(line: impl Fn(&str) -> std::process::Output, address: &str) -> bool {
    line(&format!("ping -n -q -c 1 -W 0.9 {address}")).status.success()
}

#[track_caller]
fn assert_reached(host: &Host, neighbour: &Pod, when: &str) {
    for address in [V4, V6] {
        assert!(is_reached(|line| host.try_run(line), address), "{when}: {address} from the node");
        assert!(is_reached(|line| neighbour.try_run(line), address), "{when}: {address} from a neighbour");
    }
}

/// Waits until this MAC is remembered for both addresses: a packet may take a while where much else runs, but not the
/// seconds after which the kernel doubts an entry by itself.
#[track_caller]
fn assert_remembered(place: &Namespace, mac: &str) {
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let table = place.ip("neighbour show");
        let is_known = |address| {
            let known = |entry: &Value| entry["dst"] == address && entry["lladdr"] == mac;
            table.as_array().unwrap().iter().any(known)
        };
        if is_known(V4) && is_known(V6) {
            return;
        }
        assert!(Instant::now() < end, "{mac} is not in {table}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_reused_address_is_reached_at_once_by_the_node_and_by_neighbours() {
    let host = Host::new();
    let bridge = host.plugin("bridge");
    let neighbour = host.pod();
    bridge.add(conf("bridge", "10.1.0.9", "fd00:1::9"), &neighbour, "eth0").success();
    let reused = conf("bridge", V4, V6);
    let mut before = String::new();
    // The second time the entries are a moment old, and a reply that is not wanted would be passed over ("locktime").
    for round in 0..3 {
        let pod = host.pod();
        bridge.add(&reused, &pod, "eth0").success();
        let mac = pod.mac("eth0");
        assert_ne!(mac, before);
        for place in [&*host, &*neighbour].into_iter().filter(|_| round > 0) {
            assert_remembered(place, &mac);
        }
        if round == 0 {
            // Nobody remembers anything: the first question may be lost.
            assert!([V4, V6].iter().all(|address| host.pings(address) && neighbour.pings(address)));
        }
        assert_reached(&host, &neighbour, &format!("round {round}"));
        bridge.del(&reused, &pod, "eth0").success();
        before = mac;
    }
}

/// Seen from the bridge: a gratuitous ARP request (RFC 5227, 3), and an advertisement to all nodes that says "override".
#[test]
fn a_pod_announces_both_its_addresses() {
    let host = Host::new();
    let bridge = host.plugin("bridge");
    // The bridge must be there to be watched.
    bridge.add(conf("bridge", "10.1.0.9", "fd00:1::9"), &host.pod(), "eth0").success();
    for family in ["ARP", "NA"] {
        let (pod, conf) = (host.pod(), conf("bridge", V4, V6));
        let is_it = move |frame: &[u8]| {
            let at = |range: std::ops::Range<usize>| frame.get(range).unwrap_or_default();
            let source = at(6..12);
            if family == "ARP" {
                let ours = [10, 1, 0, 5];
                at(12..14) == [8, 6]
                    && at(20..22) == [0, 1]
                    && at(22..28) == source
                    && at(28..32) == ours
                    && at(38..42) == ours
            } else {
                let ours = V6.parse::<std::net::Ipv6Addr>().unwrap().octets();
                let icmp = at(12..14) == [0x86, 0xdd] && at(20..22) == [58, 255] && at(22..38) == ours;
                icmp && at(54..55) == [136]
                    && at(58..59) == [0x20]
                    && at(62..78) == ours
                    && at(78..86) == [&[2, 1], source].concat()
            }
        };
        let seen = frame::watch(
            &host,
            "cni0",
            Duration::from_secs(2),
            || drop(bridge.add(&conf, &pod, "eth0").success()),
            is_it,
        );
        let seen = seen.unwrap_or_else(|| panic!("no {family}"));
        assert_eq!(seen[6..12], mac(&pod.mac("eth0")));
        bridge.del(&conf, &pod, "eth0").success();
    }
}

/// Its pair is new with every pod, and with it what the node remembers.
#[test]
fn a_reused_address_is_reached_at_once_with_ptp() {
    let host = Host::new();
    let ptp = host.plugin("ptp");
    let neighbour = host.pod();
    ptp.add(conf("ptp", "10.1.0.9", "fd00:1::9"), &neighbour, "eth0").success();
    let reused = conf("ptp", V4, V6);
    for round in ["the first pod", "the second"] {
        let pod = host.pod();
        ptp.add(&reused, &pod, "eth0").success();
        if round == "the first pod" {
            assert!([V4, V6].iter().all(|address| host.pings(address) && neighbour.pings(address)));
        }
        assert_reached(&host, &neighbour, round);
        ptp.del(&reused, &pod, "eth0").success();
    }
}
