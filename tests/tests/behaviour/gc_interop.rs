//! GC of what the reference made, in each of its versions: it has none of its own.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::Host;

use crate::bridge_conf::{links, rules, with};
use crate::gc::{Lab, WAYS, network};
use crate::mixed_pairs::{is_newer, wait_for_duplicate_detection};

/// As the reference of every version takes it.
fn theirs(conf: &Value) -> Value {
    with(conf, json!({"cniVersion": "1.0.0"}))
}

/// The kernel takes the links of a namespace away some time after it.
fn wait_for_links(host: &Host, wanted: &[String]) {
    let end = Instant::now() + Duration::from_secs(10);
    while links(host, "veth") != wanted && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(links(host, "veth"), wanted);
}

fn what_the_reference_left_goes(plugin: &'static str) {
    for which in 0..Host::new().references(plugin).len() {
        for (backend, is_legacy) in WAYS {
            let lab = Lab::new(plugin, is_legacy);
            let reference = || lab.with_programs(lab.host.references(plugin).swap_remove(which));
            if backend == "nftables" && !is_newer(&reference()) {
                continue;
            }
            let (a, ab) = (network(plugin, "a", 1, backend), network(plugin, "ab", 2, backend));
            let mut pods = [lab.host.pod(), lab.host.pod(), lab.host.pod()];
            let (none, no_links) = (lab.state(), links(&lab.host, "veth"));
            let add = |conf: &Value, container: &str, number: usize| {
                let pod = &pods[number];
                reference().env("CNI_CONTAINERID", container).add(theirs(conf), pod, "eth0").success()
            };
            let kept = add(&a, "keep", 0);
            let others = add(&ab, "c", 1);
            wait_for_duplicate_detection(&lab.host);
            let (before, two_links) = (lab.state(), links(&lab.host, "veth"));
            add(&a, "gone", 2);
            let all = rules(&lab.host);
            pods[2].destroy();
            wait_for_links(&lab.host, &two_links);
            lab.gc(&a, &[("keep", "eth0"), ("gone", "eth0")]);
            assert_eq!(rules(&lab.host), all, "{which} {backend}: it is valid, though dead");
            lab.gc(&a, &[("keep", "eth0")]);
            lab.assert_state(&before);
            lab.check(&a, &kept, "keep", &pods[0], "eth0");
            lab.check(&ab, &others, "c", &pods[1], "eth0");

            // Pods that live, and of whom nobody knows: the pairs and what checks them do not say whose they are, and go
            // with the namespaces. Both networks' rules and leases go.
            lab.gc(&a, &[]);
            lab.gc(&ab, &[]);
            let left = rules(&lab.host);
            assert!(left.iter().all(|rule| rule.contains("cni-br-iface-")), "{left:?}");
            assert_eq!(left.is_empty(), plugin == "ptp");
            pods[0].destroy();
            pods[1].destroy();
            wait_for_links(&lab.host, &no_links);
            lab.gc(&ab, &[]);
            lab.assert_state(&none);
        }
    }
}

#[test]
fn what_the_references_bridge_left_goes() {
    what_the_reference_left_goes("bridge");
}

#[test]
fn what_the_references_ptp_left_goes() {
    what_the_reference_left_goes("ptp");
}
