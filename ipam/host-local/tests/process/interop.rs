//! Both suites on one directory. The expected values are the reference's own behaviour.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::node::{Node, OURS, call, call_with, outcome, reference, start};

fn pairs() -> [(PathBuf, PathBuf); 2] {
    [(reference(), OURS.into()), (OURS.into(), reference())]
}

#[test]
fn one_adds_the_other_checks_and_deletes() {
    for (first, second) in pairs() {
        let node = Node::new();
        let conf = node.subnets(&["10.1.2.0/24", "2001:db8:0:0:1::/80"]);
        let addresses = call(&first, "ADD", "a", &conf).addresses();
        call(&first, "ADD", "b", &conf).succeeded();
        call(&second, "CHECK", "a", &conf).succeeded();
        assert_eq!(call(&second, "ADD", "c", &conf).addresses()[0], "10.1.2.4", "round robin goes on");
        call(&second, "DEL", "a", &conf).succeeded();
        assert!(!call(&first, "CHECK", "a", &conf).ok && !call(&second, "CHECK", "a", &conf).ok);
        addresses.iter().for_each(|address| assert!(!node.files().contains(address), "{address}"));
        for (program, id) in [(&first, "c"), (&second, "b")] {
            call(program, "CHECK", id, &conf).succeeded();
            call(program, "DEL", id, &conf).succeeded();
        }
        assert!(node.addresses().is_empty());
    }
}

/// Every file that the reference knows, byte for byte. (Leases are of mode 0600 as in the reference's later
/// versions; 1.1.1 makes them 0644.)
#[test]
fn files_are_the_same() {
    let files = |program: &Path| {
        let node = Node::new();
        let conf = node.subnets(&["10.1.2.0/24", "2001:db8:0:2:0:0:1:0/112", "2001:db8:0:1:0:0:0:0/64"]);
        call(program, "ADD", "a", &conf).succeeded();
        call_with(program, "ADD", "b", &conf, &[("CNI_ARGS", "IP=10.1.2.200")]).succeeded();
        let known: BTreeSet<String> = node.files().into_iter().filter(|name| name != ".owners").collect();
        known.into_iter().map(|name| (node.read(&name), name)).collect::<Vec<_>>()
    };
    assert_eq!(files(Path::new(OURS)), files(&reference()));
}

#[test]
fn results_are_the_same() {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let result = |program: &Path| {
            let node = Node::new();
            let mut conf = node.subnets(&["10.1.2.0/24", "2001:db8::/64"]);
            conf["cniVersion"] = version.into();
            conf["ipam"]["routes"] =
                serde_json::json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0", "gw": "2001:db8::9" }]);
            let mut json = call(program, "ADD", "a", &conf).json;
            // The Go types of the time print an empty object where there is nothing to say; libcni decides that.
            if json["dns"] == serde_json::json!({}) {
                json.as_object_mut().unwrap().remove("dns");
            }
            json
        };
        assert_eq!(result(Path::new(OURS)), result(&reference()), "{version}");
    }
}

#[test]
fn both_at_once_give_distinct_addresses() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24", "2001:db8::/64"]);
    let theirs = reference();
    let program = |n: usize| if n % 2 == 0 { Path::new(OURS) } else { &theirs };
    let started: Vec<_> = (0..50).map(|n| start(program(n), "ADD", &format!("c{n}"), &conf, &[])).collect();
    let outcomes: Vec<_> = started.into_iter().map(|child| outcome(child.wait_with_output().unwrap())).collect();
    let given: BTreeSet<String> = outcomes.iter().flat_map(|outcome| outcome.addresses()).collect();
    assert_eq!(given.len(), 100);
    assert_eq!(node.addresses().len(), 100);
    // Each is deleted by the other suite, again at once.
    let started: Vec<_> = (0..50).map(|n| start(program(n + 1), "DEL", &format!("c{n}"), &conf, &[])).collect();
    started.into_iter().for_each(|child| outcome(child.wait_with_output().unwrap()).succeeded());
    assert!(node.addresses().is_empty());
    assert!(!node.files().contains(".lease"));
}

#[test]
fn leases_of_before_2018() {
    for (first, second) in pairs() {
        let node = Node::new();
        let conf = node.subnets(&["10.1.2.0/24"]);
        node.write("10.1.2.9", "dummy");
        call(&first, "CHECK", "dummy", &conf).succeeded();
        let refused = call(&second, "ADD", "dummy", &conf);
        assert!(
            refused.error().1.contains("10.1.2.9 has been allocated to dummy, duplicate allocation is not allowed")
        );
        call(&first, "DEL", "dummy", &conf).succeeded();
        assert!(node.addresses().is_empty());
    }
}

/// What a killed process of ours leaves does not disturb the reference.
#[test]
fn the_reference_passes_our_remains() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    call(OURS, "ADD", "a", &conf).succeeded();
    node.write(".lease", "b\r\neth0");
    assert_eq!(call(reference(), "ADD", "b", &conf).addresses(), ["10.1.2.3"]);
    call(reference(), "CHECK", "b", &conf).succeeded();
    call(reference(), "DEL", "b", &conf).succeeded();
    assert!(!node.files().contains(".lease") && !node.files().contains("10.1.2.3"));
    call(reference(), "CHECK", "a", &conf).succeeded();
    assert_eq!(call(OURS, "ADD", "a", &conf).addresses(), ["10.1.2.2"]);
}
