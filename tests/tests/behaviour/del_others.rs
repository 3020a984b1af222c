//! DEL never takes what another attachment has: whole chains, and everything that two attachments can have in common.

use serde_json::{Value, json};
use tests::Internet;

use crate::bridge_conf::with;
use crate::takeover_conf::{Life, NETWORK, Node, Suite, Way, at_once, list};

use Suite::{Ours, Theirs};

/// Another network of the same node.
const OTHER: &str = "swapped-2";

const WAYS: [Way; 3] = [
    Way { which: 0, newer: true, backend: "iptables", legacy: false },
    Way { which: 0, newer: true, backend: "iptables", legacy: true },
    Way { which: 0, newer: true, backend: "nftables", legacy: false },
];

/// Without default routes: two interfaces cannot both have them.
fn without_default(chain: &str, way: Way) -> Value {
    let mut list = list(chain, way, way.backend);
    list["plugins"][0] =
        with(&list["plugins"][0], json!({"isDefaultGateway": false, "isGateway": true, "ipam": {"routes": []}}));
    list
}

/// A node with two networks of one chain.
fn node(chain: &'static str, way: Way) -> Node {
    let node = Node::new(chain, way);
    let list = without_default(chain, way);
    node.configure(&list);
    let subnets = json!([[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]);
    let mut other = with(&list, json!({"name": OTHER}));
    other["plugins"][0] = with(&other["plugins"][0], json!({"bridge": "cni1", "ipam": {"ranges": subnets}}));
    node.configure_other(&other);
    node
}

fn routes(life: &Life, network: u8, ifname: &str) {
    life.pod.run(&format!("ip route replace default via 10.{network}.0.1 dev {ifname}"));
    life.pod.run(&format!("ip -6 route replace default via fd00:{network}::1 dev {ifname}"));
}

/// The node's port for the second attachment of a pod leads to it.
fn assert_second_works(node: &Node, life: &Life, what: &str) {
    for address in [Internet::HOST_V4, Internet::HOST_V6] {
        let asked = node.internet.asks_at(&address.to_string(), life.port + Life::SHIFT);
        assert!(asked.is_ok(), "{what}: {address}: {asked:?}");
    }
}

/// A container with a second interface: on the same network, or on another.
fn two_interfaces(chain: &'static str, way: Way, second: &str, number: u8) {
    let node = node(chain, way);
    let what = format!("{chain}, {way:?}, {second}");
    let (neighbour, life) = (node.life(0), node.life(1));
    let add = |life: &Life| {
        node.add(Ours, life);
        routes(life, 1, "eth0");
    };
    add(&neighbour);
    node.call_second("add", &neighbour, second, "eth1").success();
    add(&life);
    let before = node.facts();
    node.call_second("add", &life, second, "eth1").success();
    for _ in 0..2 {
        node.call_second("del", &life, second, "eth1").success();
        node.facts().assert_same(&before, &what);
    }
    node.call(Ours, "check", &life).success();
    node.assert_works(&life, &what);

    node.call_second("add", &life, second, "eth1").success();
    for _ in 0..2 {
        node.call(Ours, "del", &life).success();
        node.call_second("check", &life, second, "eth1").success();
    }
    routes(&life, number, "eth1");
    assert_second_works(&node, &life, &what);
    node.call_second("del", &life, second, "eth1").success();
    node.call(Ours, "check", &neighbour).success();
    node.call_second("check", &neighbour, second, "eth1").success();
    node.assert_works(&neighbour, &what);
}

#[test]
fn a_second_interface_on_the_same_network() {
    at_once(&WAYS, |way| {
        for chain in ["kubernetes", "podman"] {
            two_interfaces(chain, way, NETWORK, 1);
        }
    });
}

#[test]
fn a_second_interface_on_another_network() {
    at_once(&WAYS, |way| {
        for chain in ["kubernetes", "podman", "ptp"] {
            two_interfaces(chain, way, OTHER, 2);
        }
    });
}

/// Two networks want to give a container the same interface: the second ADD fails, and the DEL that a runtime sends after
/// it is about nothing that the first network made. The reference deletes the interface.
#[test]
fn the_same_interface_on_another_network() {
    at_once(&WAYS, |way| {
        for chain in ["kubernetes", "podman", "ptp"] {
            let node = node(chain, way);
            let what = format!("{chain}, {way:?}");
            // tuning gives the pod a MAC of which the check does not know.
            let mut list = node.list();
            list["plugins"][0]["macspoofchk"] = (!node.has("tuning")).into();
            node.configure(&list);
            let (neighbour, life) = (node.life(0), node.life(1));
            node.call_second("add", &neighbour, OTHER, "eth1").success();
            node.add(Ours, &life);
            routes(&life, 1, "eth0");
            let before = (node.facts(), life.pod.state());
            // cnitool calls DEL for what it could not ADD.
            let refused = node.call_second("add", &life, OTHER, "eth0");
            assert!(refused.status == Some(1) && refused.stderr.contains("already exists"), "{what}: {refused}");
            for _ in 0..2 {
                node.facts().assert_same(&before.0, &what);
                life.pod.state().assert_same(&before.1);
                node.call_second("del", &life, OTHER, "eth0").success();
            }
            node.call(Ours, "check", &life).success();
            node.assert_works(&life, &what);
            node.call(Ours, "del", &life).success();
            assert!(life.pod.link("eth0").is_none(), "{what}");
        }
    });
}

/// The path of a namespace is used again, and the DEL of the container that had it before comes late. The reference deletes the
/// new one's interface.
#[test]
fn a_namespace_that_another_container_has_now() {
    at_once(&WAYS, |way| {
        for chain in ["kubernetes", "podman", "ptp", "policy"] {
            let node = Node::new(chain, way);
            let life = node.life(0);
            node.add(Ours, &life);
            let before = (node.facts(), life.pod.state());
            let list = node.list();
            for plugin in list["plugins"].as_array().unwrap().iter().rev() {
                let conf = with(plugin, json!({"cniVersion": list["cniVersion"], "name": NETWORK}));
                let ours = node.host.plugin(plugin["type"].as_str().unwrap()).env("CNI_CONTAINERID", "old");
                for _ in 0..2 {
                    ours.del(&conf, &life.pod, "eth0").success();
                }
            }
            let what = format!("{chain}, {way:?}");
            node.facts().assert_same(&before.0, &what);
            life.pod.state().assert_same(&before.1);
            node.call(Ours, "check", &life).success();
            node.assert_works(&life, &what);
        }
    });
}

/// Its address, and its port of the node, are another pod's by the time that the DEL comes: of whichever suite the old pod was.
#[test]
fn an_address_that_another_pod_has_now() {
    at_once(&crate::takeover_conf::ways(), |way| {
        for (chain, suite) in
            ["kubernetes", "podman", "ptp", "policy"].into_iter().flat_map(|chain| [(chain, Ours), (chain, Theirs)])
        {
            let node = Node::new(chain, way);
            let what = format!("{chain}, {way:?}, {suite:?}");
            // host-local gives what is asked for.
            let mut list = node.list();
            list["plugins"][0]["capabilities"] = json!({"ips": true});
            node.configure(&list);
            let (neighbour, mut old, new) = (node.life(0), node.life(1), node.life(1));
            node.add(Ours, &neighbour);
            node.add(suite, &old);
            let addresses = old.addresses();
            old.die();
            node.wait_for_ends(1);
            // Somebody who cleans up frees the lease.
            for address in &addresses {
                drop(std::fs::remove_file(node.host.store().join("networks").join(NETWORK).join(address)));
            }
            node.add(Ours, &new);
            assert_eq!(new.addresses(), addresses);
            let before = node.facts();
            for _ in 0..2 {
                node.call(Ours, "del", &old).success();
                for life in [&neighbour, &new] {
                    node.call(Ours, "check", life).success();
                    node.assert_works(life, &what);
                }
            }
            let left = node.facts().since(&before);
            let came: Vec<&String> = left.iter().filter(|line| line.starts_with('+')).collect();
            assert!(came.is_empty(), "{what}: {came:#?}");
            node.call(Ours, "del", &new).success();
            let rules: Vec<String> = addresses.iter().flat_map(|address| node.facts().lines_with(address)).collect();
            assert!(rules.is_empty(), "{what}: {rules:#?}");
        }
    });
}
