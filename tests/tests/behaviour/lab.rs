//! The lab itself, proven with the reference's plugins before ours are asked anything.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tests::frame::{self, mac};
use tests::plugin::with_prev_result;
use tests::{Host, Internet, Pod};

fn dual_stack(backend: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": "lab", "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
        "ipMasq": true, "ipMasqBackend": backend,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}})
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_pod_reaches_its_gateway_its_neighbour_and_the_internet_as_the_host() {
    let host = Host::new();
    let internet = host.internet();
    let conf = dual_stack("iptables");
    let (one, two) = (host.pod(), host.pod());
    host.reference("bridge").add(&conf, &one, "eth0").success();
    host.reference("bridge").add(&conf, &two, "eth0").success();
    assert_eq!(one.addresses("eth0"), ["10.1.0.2/24", "fd00:1::2/64"]);

    for gateway in ["10.1.0.1", "fd00:1::1"] {
        assert!(one.pings(gateway), "{gateway}");
    }
    let neighbour = two.listen();
    assert_eq!(one.asks("10.1.0.3", &neighbour), Ok(address("10.1.0.2")));
    assert_eq!(one.asks("fd00:1::3", &neighbour), Ok(address("fd00:1::2")));
    let outside = internet.listen();
    assert_eq!(one.asks(Internet::V4, &outside), Ok(Internet::HOST_V4));
    assert_eq!(one.asks(Internet::V6, &outside), Ok(Internet::HOST_V6));
}

#[test]
fn without_a_masquerade_the_internet_does_not_answer() {
    let host = Host::new();
    let internet = host.internet();
    let mut conf = dual_stack("iptables");
    conf["ipMasq"] = false.into();
    let pod = host.pod();
    host.reference("bridge").add(&conf, &pod, "eth0").success();
    let outside = internet.listen();
    assert!(pod.asks(Internet::V4, &outside).is_err());
}

#[test]
fn before_equals_after_and_what_is_between_shows() {
    let host = Host::new();
    let conf = dual_stack("iptables");
    let (empty, pod) = (host.state(), host.pod());
    let pod_before = pod.state();
    let result = host.reference("bridge").add(&conf, &pod, "eth0").success();
    host.reference("bridge").check(with_prev_result(&conf, &result), &pod, "eth0").success();

    let empty = empty.without("sysctls"); // forwarding stays on
    let difference = host.state().without("sysctls").difference(&empty);
    for sign in ["+ links:", "+ addresses: cni0 10.1.0.1/24", "+ routes:", "+ nft:", "+ iptables-save: *nat :CNI-"] {
        assert!(difference.contains(sign), "{sign} is missing in\n{difference}");
    }
    assert!(difference.contains(&format!("+ files: /networks/lab/10.1.0.2: \"{}\\r\\neth0\"", pod.id())));
    assert!(!difference.contains("- "), "something went away:\n{difference}");

    host.reference("bridge").del(with_prev_result(&conf, &result), &pod, "eth0").success();
    host.state().without_link("cni0").without("sysctls").assert_same(&empty);
    assert_eq!(pod.state().difference(&pod_before), "");
}

#[test]
fn a_second_pod_leaves_the_state_of_the_first() {
    let host = Host::new();
    let conf = dual_stack("iptables");
    let (first, second) = (host.pod(), host.pod());
    host.reference("bridge").add(&conf, &first, "eth0").success();
    let before = host.state();
    host.reference("bridge").add(&conf, &second, "eth0").success();
    assert_ne!(host.state(), before);
    host.reference("bridge").del(&conf, &second, "eth0").success();
    host.state().assert_same(&before);
}

#[test]
fn our_binaries_are_found_or_built() {
    assert!(Host::new().plugin("host-local").version().success()["supportedVersions"].is_array());
}

#[test]
fn every_version_of_the_reference_runs() {
    for plugin in Host::new().references("bridge") {
        assert!(plugin.version().success()["supportedVersions"].is_array(), "{}", plugin.program().display());
    }
}

#[test]
fn an_error_is_read_as_one() {
    let host = Host::new();
    let pod = host.pod();
    let error = host.reference("bridge").add("{", &pod, "eth0").failure();
    assert_eq!(error["code"], 6, "{error}");
    let bridge = host.reference("bridge");
    assert_eq!(bridge.clone().without_env("CNI_IFNAME").add(dual_stack("iptables"), &pod, "eth0").code(), 4);
    assert!(bridge.version().success()["supportedVersions"].is_array());
}

#[test]
fn a_destroyed_pod_is_gone_and_del_still_cleans_up() {
    let host = Host::new();
    let mut pod = host.pod();
    let mut conf = dual_stack("iptables");
    conf["ipMasq"] = false.into(); // its rules leak: a defect of the reference
    host.reference("bridge").add(&conf, &pod, "eth0").success();
    pod.destroy();
    assert!(host.enter(|| !pod.path().exists()));
    host.reference("bridge").del(&conf, &pod, "eth0").success();
    assert_eq!(host.state().section("files"), [""; 0]);
}

#[test]
fn hosts_do_not_see_each_other() {
    let (one, two) = (Host::new(), Host::new());
    let conf = dual_stack("iptables");
    let pod = one.pod();
    one.reference("bridge").add(&conf, &pod, "eth0").success();
    assert!(one.link("cni0").is_some() && two.link("cni0").is_none());
    assert_eq!(two.state().section("files"), [""; 0]);
    let pod = two.pod();
    two.reference("bridge").add(&conf, &pod, "eth0").success();
    assert_eq!(pod.addresses("eth0"), ["10.1.0.2/24", "fd00:1::2/64"]);
}

/// Whether a frame that names `secret` as ARP sender comes out of the neighbour's link.
fn arrives(from: &Pod, to: &Pod, source: [u8; 6], secret: [u8; 4]) -> bool {
    let request = frame::arp_request(source, source, secret.into(), [10, 1, 0, 3].into());
    let send = || from.send_frame("eth0", &request);
    frame::watch(to, "eth0", Duration::from_secs(1), send, move |seen| seen.get(28..32) == Some(&secret)).is_some()
}

#[test]
fn a_frame_arrives_as_it_was_sent_and_the_spoof_check_stops_a_foreign_one() {
    let host = Host::new();
    let mut conf = dual_stack("iptables");
    let foreign = mac("02:00:00:00:00:99");

    let (one, two) = (host.pod(), host.pod());
    host.reference("bridge").add(&conf, &one, "eth0").success();
    host.reference("bridge").add(&conf, &two, "eth0").success();
    assert!(arrives(&one, &two, foreign, [10, 1, 0, 77]));

    conf["macspoofchk"] = true.into();
    let three = host.pod();
    host.reference("bridge").add(&conf, &three, "eth0").success();
    assert!(arrives(&three, &two, mac(&three.mac("eth0")), [10, 1, 0, 78]), "its own MAC");
    assert!(!arrives(&three, &two, foreign, [10, 1, 0, 79]), "a foreign MAC");
}

#[test]
fn a_neighbour_advertisement_is_believed() {
    let host = Host::new();
    let conf = dual_stack("iptables");
    let (one, two) = (host.pod(), host.pod());
    host.reference("bridge").add(&conf, &one, "eth0").success();
    host.reference("bridge").add(&conf, &two, "eth0").success();
    assert!(two.pings("fd00:1::2"), "so that there is an entry to override");
    let source = mac(&one.mac("eth0"));
    let (own, lie) = ("fd00:1::2".parse().unwrap(), mac("02:00:00:00:00:99"));
    one.send_frame("eth0", &frame::neighbour_advertisement(source, own, own, lie));
    std::thread::sleep(Duration::from_millis(200));
    let neighbours = two.ip("-6 neighbour show");
    let entry = neighbours.as_array().unwrap().iter().find(|n| n["dst"] == "fd00:1::2").unwrap().clone();
    assert_eq!(entry["lladdr"], "02:00:00:00:00:99");
}
