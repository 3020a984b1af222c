//! STATUS: code 50 with words when the next ADD would fail for a reason that can be seen, and no word when it would not;
//! asking changes nothing. What ADD would say is asked of ADD itself.

use serde_json::{Value, json};
use tests::Host;

use crate::bridge_conf::{hide_firewall_programs, of, with};
use crate::ptp;

const SUBNETS: [&str; 2] = ["10.1.0.0/24", "fd00:1::/64"];

/// A whole network of each plugin that owns state in the kernel, for ADDs that need no plugin before.
fn network(plugin: &str, keys: Value) -> Value {
    let conf = if plugin == "bridge" { of(&SUBNETS) } else { ptp::of(&SUBNETS) };
    with(&with(&conf, json!({"cniVersion": "1.1.0"})), keys)
}

fn refused(host: &Host, plugin: &str, conf: &Value) -> String {
    let error = host.plugin(plugin).status(conf).failure();
    assert_eq!(error["code"], 50, "{plugin}: {error}");
    format!("{} {}", error["msg"].as_str().unwrap(), error["details"].as_str().unwrap_or_default())
}

#[test]
fn a_node_that_has_all_is_well_and_stays_as_it_is() {
    let host = Host::new();
    host.internet();
    let before = host.state();
    for backend in ["iptables", "nftables"] {
        for (plugin, keys) in [("bridge", json!({"macspoofchk": true, "mtu": 1400})), ("ptp", json!({"mtu": 1400}))] {
            let masqueraded = json!({"ipMasq": true, "ipMasqBackend": backend, "masqRandomFully": true});
            host.plugin(plugin).status(with(&network(plugin, keys), masqueraded)).success();
        }
        let mapped = json!({"cniVersion": "1.1.0", "name": "net", "type": "portmap", "snat": true,
            "capabilities": {"portMappings": true}, "backend": backend});
        host.plugin("portmap").status(&mapped).success();
        let firewalled = json!({"cniVersion": "1.1.0", "name": "net", "type": "firewall", "backend": backend});
        host.plugin("firewall").status(&firewalled).success();
    }
    let limited = json!({"cniVersion": "1.1.0", "name": "net", "type": "bandwidth", "ingressRate": 8000,
        "ingressBurst": 80000});
    host.plugin("bandwidth").status(&limited).success();
    assert_eq!(host.state(), before);
    host.plugin("bridge").status(network("bridge", json!({}))).success();
    assert_eq!(host.ip("link show type bridge"), json!([]), "the bridge is made by an ADD");
}

/// The programs of one backend are gone: who needs them is told so, who does not need them is not.
#[test]
fn a_backend_that_does_not_work() {
    let host = Host::new();
    hide_firewall_programs(&host);
    for plugin in ["bridge", "ptp"] {
        let masqueraded = |keys: Value| with(&network(plugin, json!({"ipMasq": true})), keys);
        let needs = masqueraded(json!({"ipMasqBackend": "iptables"}));
        let words = refused(&host, plugin, &needs);
        assert!(words.contains("iptables"), "{plugin}: {words}");
        assert_eq!(host.plugin(plugin).add(&needs, &host.pod(), "eth0").status, Some(1), "{plugin}: the truth");
        for backend in [json!({}), json!({"ipMasqBackend": "nftables"})] {
            host.plugin(plugin).status(masqueraded(backend.clone())).success();
            host.plugin(plugin).add(masqueraded(backend), &host.pod(), "eth0").success();
        }
        host.plugin(plugin).status(network(plugin, json!({"ipMasqBackend": "iptables"}))).success();
    }
}

/// `ip6tables` alone is missing: of no interest to a network without IPv6.
#[test]
fn the_ip_version_counts() {
    let host = Host::new();
    let programs = tempfile::tempdir().unwrap();
    let multi = programs.path().join("xtables-nft-multi");
    std::fs::copy("/usr/sbin/xtables-nft-multi", &multi).unwrap();
    for name in ["iptables", "iptables-restore"] {
        std::os::unix::fs::symlink(&multi, programs.path().join(name)).unwrap();
    }
    // The system's directories are looked in as well.
    hide_firewall_programs(&host);
    for (subnets, well) in [(&SUBNETS[..1], true), (&SUBNETS[1..], false), (&SUBNETS[..], false)] {
        let conf = with(&of(subnets), json!({"cniVersion": "1.1.0", "ipMasq": true, "ipMasqBackend": "iptables"}));
        let outcome = host.plugin("bridge").env("PATH", programs.path().display()).status(&conf);
        assert_eq!(outcome.status, Some(i32::from(!well)), "{subnets:?}\n{outcome}");
        if !well {
            assert_eq!(outcome.code(), 50);
            assert!(outcome.stdout.contains("ip6tables"), "{outcome}");
        }
    }
}

/// A bridge that filters by VLAN is refused or made, as this kernel has it, and STATUS says which.
#[test]
fn what_the_kernel_lacks() {
    let host = Host::new();
    let conf = network("bridge", json!({"vlan": 100}));
    let has_vlans = host.try_run("ip link add probe type bridge vlan_filtering 1").status.success();
    host.try_run("ip link delete probe");
    let outcome = host.plugin("bridge").status(&conf);
    assert_eq!(outcome.status, Some(i32::from(!has_vlans)), "{outcome}");
    if !has_vlans {
        assert_eq!(outcome.code(), 50);
    }
    let added = host.plugin("bridge").add(&conf, &host.pod(), "eth0");
    assert_eq!(added.status, Some(i32::from(!has_vlans)), "{added}");
}

#[test]
fn addresses_that_are_used_up_and_a_store_that_cannot_be_written() {
    for plugin in ["bridge", "ptp"] {
        let host = Host::new();
        let conf = with(&network(plugin, json!({})), json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/30"}]]}}));
        host.plugin(plugin).status(&conf).success();
        host.plugin(plugin).add(&conf, &host.pod(), "eth0").success();
        let words = refused(&host, plugin, &conf);
        assert!(words.contains("no IP addresses available in range set: 10.1.0.1-10.1.0.2"), "{words}");
        let unwritable = with(&conf, json!({"ipam": {"dataDir": "/proc/nowhere"}}));
        let words = refused(&host, plugin, &unwritable);
        assert!(words.contains("/proc/nowhere"), "{words}");
    }
}
