//! CHECK: it finds what is damaged, names it, and mends nothing.

use serde_json::{Value, json};
use tests::Host;

use crate::bridge_conf::{add, check, with};
use crate::ports::{port, port_of, routed};

type Damage = fn(&Host, &Value);

/// What is broken, what the message must contain, and how it is broken.
const DAMAGES: &[(&str, &str, Damage)] = &[
    ("own VLAN removed", "VLAN 100", |host, result| {
        host.run(&format!("bridge vlan del dev {} vid 100", port(result)));
    }),
    ("own VLAN tagged", "VLAN 100", |host, result| {
        host.run(&format!("bridge vlan add dev {} vid 100", port(result)));
    }),
    ("VLAN of the trunk removed", "VLAN 105", |host, result| {
        host.run(&format!("bridge vlan del dev {} vid 105", port(result)));
    }),
    ("gateway's address removed", "10.1.0.1/24", |host, _| {
        host.run("ip address del 10.1.0.1/24 dev cni0.100");
    }),
    ("gateway down", "cni0.100", |host, _| drop(host.run("ip link set cni0.100 down"))),
    ("gateway in another VLAN", "VLAN 100", |host, _| {
        let port = port_of(host, "cni0.100");
        host.run(&format!("bridge vlan del dev {port} vid 100"));
        host.run(&format!("bridge vlan add dev {port} vid 7 pvid untagged"));
    }),
    ("gateway removed", "cni0.100", |host, _| drop(host.run("ip link delete cni0.100"))),
];

#[test]
#[ignore = "needs VLAN filtering: cargo xtask test runs it"]
fn damage_is_found_and_named_and_left() {
    let mut missed = Vec::new();
    let host = Host::new();
    let conf = with(&routed(&["10.1.0.0/24"]), json!({"vlanTrunk": [{"minID": 101, "maxID": 110}]}));
    for (what, named, damage) in DAMAGES {
        let pod = host.pod();
        let result = add(&host, &conf, &pod);
        check(&host, &conf, &result, &pod).success();
        damage(&host, &result);
        let before = host.state();
        let outcome = check(&host, &conf, &result, &pod);
        if outcome.status != Some(1) || !outcome.failure().to_string().contains(named) {
            missed.push(format!("{what}: {outcome}"));
        }
        host.state().assert_same(&before);
        // The next one begins anew.
        host.plugin("bridge").del(&conf, &pod, "eth0").success();
        drop(host.try_run("ip link delete cni0.100"));
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
