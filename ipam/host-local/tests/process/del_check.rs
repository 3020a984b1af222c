//! DEL, CHECK and GC.

use serde_json::json;

use crate::node::{Node, OURS, add, call, call_with, check, del, feed, spawn};

#[test]
fn del_of_what_is_not_there() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    del("nobody", &conf).succeeded();
    assert!(!node.leases().exists(), "DEL makes nothing");
    add("a", &conf).succeeded();
    del("a", &conf).succeeded();
    del("a", &conf).succeeded();
    call_with(OURS, "DEL", "nobody", &conf, &[("CNI_NETNS", "")]).succeeded();
}

#[test]
fn del_frees_one_interface_of_one_network() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    let mut other = conf.clone();
    other["name"] = "other".into();
    add("a", &conf).succeeded();
    call_with(OURS, "ADD", "a", &conf, &[("CNI_IFNAME", "eth1")]).succeeded();
    add("a", &other).succeeded();
    del("a", &conf).succeeded();
    assert_eq!(node.addresses(), ["10.1.2.3".parse().unwrap()].into());
    check("a", &other).succeeded();
    call_with(OURS, "CHECK", "a", &conf, &[("CNI_IFNAME", "eth1")]).succeeded();
}

/// A caller that has closed the answer of a DEL, which is empty, still wants it. Of an ADD it hears nothing: nothing is made.
#[test]
fn del_for_who_does_not_listen() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    let unheard = |verb: &str| {
        let mut child = spawn(OURS, verb, "a", &[]);
        drop(child.stdout.take());
        feed(&mut child, &conf);
        child.wait_with_output().unwrap().status.success()
    };
    assert!(!unheard("ADD") && node.addresses().is_empty());
    add("a", &conf).succeeded();
    assert!(unheard("DEL"));
    assert!(node.addresses().is_empty());
}

/// The reference refuses each of these, and the address stays taken for ever.
#[test]
fn del_works_under_a_broken_configuration() {
    for broken in [
        json!({}),
        json!({ "subnet": "10.1.2.0/33" }),
        json!({ "subnet": 7, "ranges": "none", "routes": {}, "resolvConf": 1 }),
        json!({ "subnet": "10.1.2.0/24", "gateway": "192.0.2.1" }),
        json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.1.2.0/24" }]] }),
    ] {
        let node = Node::new();
        add("a", &node.subnets(&["10.1.2.0/24"])).succeeded();
        let mut conf = node.conf(broken.clone());
        conf["args"] = "none".into();
        call_with(OURS, "DEL", "a", &conf, &[("CNI_ARGS", ";;")]).succeeded();
        assert!(node.addresses().is_empty(), "{broken}");
    }
}

#[test]
fn del_frees_addresses_outside_the_ranges() {
    let node = Node::new();
    add("a", &node.subnets(&["10.1.2.0/24"])).succeeded();
    del("a", &node.subnets(&["10.7.0.0/24"])).succeeded();
    assert!(node.addresses().is_empty());
}

#[test]
fn leases_without_interface_are_found() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    node.write("10.1.2.9", " dummy\n");
    check("dummy", &conf).succeeded();
    del("other", &conf).succeeded();
    assert_eq!(node.addresses().len(), 1);
    del("dummy", &conf).succeeded();
    assert!(node.addresses().is_empty());
}

#[test]
fn leases_without_interface_are_freed_last() {
    let node = Node::new();
    let conf = node.subnets(&["10.1.2.0/24"]);
    node.write("10.1.2.9", "dummy");
    node.write("10.1.2.10", "dummy\r\neth0");
    node.write("10.1.2.11", "dummy\neth0");
    del("dummy", &conf).succeeded();
    assert_eq!(node.addresses().len(), 2);
    del("dummy", &conf).succeeded();
    assert_eq!(node.addresses(), ["10.1.2.11".parse().unwrap()].into(), "LF alone never matches");
}

#[test]
fn check_compares_with_prev_result() {
    let node = Node::new();
    let mut conf = node.subnets(&["10.1.2.0/24", "2001:db8::/64"]);
    let msg = "host-local: Failed to find address added by container a";
    assert_eq!(check("a", &conf).error().1, msg);
    assert!(!node.leases().exists(), "CHECK makes nothing");
    let result = add("a", &conf);
    check("a", &conf).succeeded();
    conf["prevResult"] = result.json.clone();
    // An address of another IPAM plugin is not ours to judge.
    conf["prevResult"]["ips"].as_array_mut().unwrap().push(json!({ "address": "192.0.2.5/24" }));
    check("a", &conf).succeeded();
    std::fs::remove_file(node.leases().join("2001:db8::2")).unwrap();
    assert!(check("a", &conf).error().1.contains("2001:db8::2 of container a is not reserved"));
    node.write("2001:db8::2", "thief\r\neth0");
    assert!(check("a", &conf).error().1.contains("2001:db8::2 of container a is reserved for thief eth0"));
}

#[test]
fn check_changes_nothing() {
    let node = Node::new();
    node.write("10.1.2.9", "");
    node.write("10.1.2.10", "a\r\neth0");
    node.write(".lease", "x\r\neth0");
    node.write("lock", "");
    let before = node.files();
    let modified = std::fs::metadata(node.leases()).unwrap().modified().unwrap();
    check("a", &node.subnets(&["10.1.2.0/24"])).succeeded();
    assert_eq!(node.files(), before);
    assert_eq!(std::fs::metadata(node.leases()).unwrap().modified().unwrap(), modified);
}

/// The reference hands out such a gateway; its pods are checked and deleted as ever.
#[test]
fn check_bears_a_gateway_outside_the_subnet() {
    let node = Node::new();
    add("a", &node.subnets(&["10.1.2.0/24"])).succeeded();
    check("a", &node.conf(json!({ "subnet": "10.1.2.0/24", "gateway": "192.0.2.1" }))).succeeded();
}

#[test]
fn gc_keeps_what_is_valid() {
    let node = Node::new();
    let mut conf = node.subnets(&["10.1.2.0/24"]);
    conf["cniVersion"] = "1.1.0".into();
    for id in ["a", "b", "c"] {
        add(id, &conf).succeeded();
    }
    node.write("10.1.2.20", "old");
    // Of before 2018, without an interface: kept while any interface of the container is valid.
    node.write("10.1.2.21", "b");
    node.write("10.1.2.22", "d");
    call(OURS, "GC", "", &conf).succeeded();
    assert_eq!(node.addresses().len(), 6, "the runtime did not say what is valid");
    conf["cni.dev/valid-attachments"] = json!([
        { "containerID": "b", "ifname": "eth0" }, { "containerID": "d", "ifname": "net1" }, { "containerID": "a", "ifname": "net1" }
    ]);
    call(OURS, "GC", "", &conf).succeeded();
    let kept = ["10.1.2.3", "10.1.2.21", "10.1.2.22"].map(|address| address.parse().unwrap());
    assert_eq!(node.addresses(), kept.into(), "a has another interface by now");
    assert!(node.sealed());
    check("b", &conf).succeeded();
    assert!(!check("a", &conf).ok);
}
