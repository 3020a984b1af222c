//! Every file of conf-examples/ works as it stands: `cnitool` ADDs, CHECKs and DELs it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tests::{Host, Internet, bins};

use crate::bridge_conf::{leases, links, rules};
use crate::{chained_examples, masquerade_examples};

/// What an example promises.
struct Example {
    file: &'static str,
    network: &'static str,
    /// `None`: it makes none.
    bridge: Option<&'static str>,
    /// The first pod's addresses.
    addresses: &'static [&'static str],
    masqueraded: bool,
    /// Versions before 0.4.0 have no CHECK.
    has_check: bool,
}

const EXAMPLES: [Example; 6] = [
    Example {
        file: "bridge.conflist",
        network: "podwire-bridge",
        bridge: Some("cni0"),
        addresses: &["10.88.0.2/16"],
        masqueraded: true,
        has_check: true,
    },
    Example {
        file: "bridge-dual-stack.conflist",
        network: "podwire-dual-stack",
        bridge: Some("cni-dual0"),
        addresses: &["10.89.0.2/16", "fd00:89::2/64"],
        masqueraded: true,
        has_check: true,
    },
    Example {
        file: "bridge-nftables.conflist",
        network: "podwire-nftables",
        bridge: Some("cni-nft0"),
        addresses: &["10.90.0.2/16", "fd00:90::2/64"],
        masqueraded: true,
        has_check: true,
    },
    Example {
        file: "bridge-layer2.conflist",
        network: "podwire-layer2",
        bridge: Some("br-layer2"),
        addresses: &[],
        masqueraded: false,
        has_check: true,
    },
    Example {
        file: "rkt.conf",
        network: "rkt.kubernetes.io",
        bridge: Some("mybridge"),
        addresses: &["10.1.0.2/16"],
        masqueraded: true,
        has_check: false,
    },
    Example {
        file: "ptp.conflist",
        network: "podwire-ptp",
        bridge: None,
        addresses: &["10.91.0.2/16", "fd00:91::2/64"],
        masqueraded: true,
        has_check: true,
    },
];

/// Run where the kernel filters by VLAN (`tests/tests/vlan/gateway.rs`); here it is validated only.
const IN_THE_MACHINE: [&str; 1] = ["bridge-vlan.conflist"];

pub fn directory() -> PathBuf {
    bins::root().join("conf-examples")
}

/// All files that some test runs.
fn covered() -> impl Iterator<Item = &'static str> {
    EXAMPLES
        .iter()
        .map(|example| example.file)
        .chain(IN_THE_MACHINE)
        .chain(masquerade_examples::FILES)
        .chain(chained_examples::FILES)
}

#[test]
fn every_file_is_covered() {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.collect();
    assert_eq!(files, covered().map(str::to_owned).collect());
}

#[test]
fn every_file_is_valid() {
    let host = Host::new();
    for file in covered() {
        let path = directory().join(file);
        let outcome = host.cnitool(&directory()).run(&["validate", path.to_str().unwrap()]);
        assert_eq!(outcome.status, Some(0), "{file}\n{outcome}");
    }
    let outcome = host.cnitool(&directory()).run(&["validate"]);
    assert_eq!(outcome.status, Some(0), "{outcome}");
    assert!(outcome.to_string().contains("addIf"), "rkt's unknown key is named\n{outcome}");
}

fn attach(example: &Example) {
    let host = Host::new();
    let internet = host.internet();
    let before = host.state();
    let cnitool = host.cnitool(&directory());
    let (one, two) = (host.pod(), host.pod());
    let result: Value = cnitool.call("add", example.network, &one).success();
    cnitool.call("add", example.network, &two).success();
    assert_eq!(links(&host, "bridge"), example.bridge.as_slice());
    assert_eq!(one.addresses("eth0"), example.addresses, "{}: {result}", example.file);

    let outside = internet.listen();
    for address in example.addresses {
        let (gateway, neighbour) = (address.replace("::2/64", "::1").replace(".2/16", ".1"), two.addresses("eth0"));
        assert!(one.pings(&gateway), "{gateway}");
        let v6 = address.contains(':');
        let neighbour = neighbour.iter().find(|theirs| theirs.contains(':') == v6).unwrap();
        assert!(one.pings(neighbour.split('/').next().unwrap()), "{neighbour}");
        let (there, host_address) =
            if v6 { (Internet::V6, Internet::HOST_V6) } else { (Internet::V4, Internet::HOST_V4) };
        assert_eq!(one.asks(there, &outside), Ok(host_address), "{}", example.file);
    }
    let check = cnitool.call("check", example.network, &one);
    assert_eq!(check.status, Some(i32::from(!example.has_check)), "{}\n{check}", example.file);
    assert_eq!(
        example.masqueraded,
        rules(&host).iter().any(|rule| rule.contains("asquerade") || rule.contains("MASQUERADE"))
    );

    for pod in [&one, &two, &one] {
        cnitool.call("del", example.network, pod).success();
    }
    assert_eq!((rules(&host), leases(&host)), (vec![], vec![]), "{}", example.file);
    let rest =
        |state: tests::State| state.without_link(example.bridge.unwrap_or_default()).without("sysctls").without("nft");
    rest(host.state()).assert_same(&rest(before));
}

#[test]
fn bridge() {
    attach(&EXAMPLES[0]);
}

#[test]
fn bridge_dual_stack() {
    attach(&EXAMPLES[1]);
}

#[test]
fn bridge_nftables() {
    attach(&EXAMPLES[2]);
}

#[test]
fn bridge_layer2() {
    attach(&EXAMPLES[3]);
}

#[test]
fn rkt() {
    attach(&EXAMPLES[4]);
}

#[test]
fn ptp() {
    attach(&EXAMPLES[5]);
}
