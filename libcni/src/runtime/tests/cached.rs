//! The result cache: the reference's files, and its rules for reading them.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// What the reference writes: keys in this order, no white space, the configuration in base64.
#[test]
fn the_references_file() {
    let node = Node::new();
    let mut pod = attachment();
    pod.capability_args.insert("dns".into(), serde_json::json!({"Servers":["1.1.1.1"]}));
    let bytes = "{\"cniVersion\":\"1.0.0\",\"name\":\"net\",\"plugins\":[{\"type\":\"first\"}]}\n";
    let list = ConfList::from_bytes(bytes.as_bytes()).unwrap();
    node.runtime.add(&list, &pod).unwrap();
    let written = std::fs::read_to_string(node.cache_file()).unwrap();
    let base64 = "eyJjbmlWZXJzaW9uIjoiMS4wLjAiLCJuYW1lIjoibmV0IiwicGx1Z2lucyI6W3sidHlwZSI6ImZpcnN0In1dfQo=";
    assert_eq!(
        written,
        format!(
            "{{\"kind\":\"cniCacheV1\",\"containerId\":\"ctr\",\"config\":\"{base64}\",\"ifName\":\"eth0\",\
             \"networkName\":\"net\",\"netns\":\"/run/netns/x\",\"cniArgs\":[[\"A\",\"1\"],[\"B\",\"2\"]],\
             \"capabilityArgs\":{{\"dns\":{{\"Servers\":[\"1.1.1.1\"]}}}},\"result\":{{\"cniVersion\":\"1.0.0\",\
             \"dns\":{{\"nameservers\":[\"1.2.3.4\"]}},\"ips\":[{{\"address\":\"10.1.2.3/24\"}}]}}}}"
        )
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&node.cache_file()), mode(node.cache_file().parent().unwrap())), (0o600, 0o700));
    let left: Vec<_> = std::fs::read_dir(node.plugins.dir().join("cache")).unwrap().collect();
    assert_eq!(left.len(), 1, "a temporary file is left");

    let cached = node.runtime.cached(&list, &pod).unwrap().unwrap();
    assert_eq!((cached.attachment, cached.config), (pod.clone(), bytes.into()));
    let (version, success) = node.runtime.cached_result(&list, &pod).unwrap().unwrap();
    assert_eq!((version, success.ips.len()), (Version::V1_0_0, 1));
    pod.ifname = "eth1".parse().unwrap();
    node.runtime.add(&list, &pod).unwrap();
    let names = |id: Option<&ContainerId>| {
        let cached = node.runtime.attachments(id).unwrap();
        cached.iter().map(|one| one.attachment.ifname.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(None), ["eth0", "eth1"]);
    assert_eq!(names(Some(&"ctr".parse().unwrap())), ["eth0", "eth1"]);
    assert_eq!(names(Some(&"ct".parse().unwrap())), [""; 0]);
}

/// A path is given again; the namespace that was attached is not.
#[test]
fn an_entry_says_which_namespace_was_attached() {
    let node = Node::new();
    let pod = Attachment::new("ctr".parse().unwrap(), Some("/proc/self/ns/net".into()), "eth0".parse().unwrap());
    let gone = || node.runtime.remembered().unwrap().entries[0].netns_is_gone();
    let rewrite = |change: &dyn Fn(&mut Value)| {
        let mut entry = serde_json::from_slice(&std::fs::read(node.cache_file()).unwrap()).unwrap();
        change(&mut entry);
        write(&node.cache_file(), &entry.to_string());
    };
    node.runtime.add(&list("1.0.0", ""), &pod).unwrap();
    assert_eq!(gone(), None);
    rewrite(&|entry| entry["netnsId"]["inode"] = 1.into());
    assert_eq!(gone().as_deref(), Some("/proc/self/ns/net is another namespace now"));
    rewrite(&|entry| entry["netnsId"]["bootId"] = "x".into());
    assert_eq!(gone().as_deref(), Some("its namespace was of an earlier boot"));
    // As the reference writes it.
    rewrite(&|entry| drop(entry.as_object_mut().unwrap().remove("netnsId")));
    assert_eq!(gone(), None);
    rewrite(&|entry| entry["netns"] = "/proc/self/status".into());
    assert_eq!(gone().as_deref(), Some("/proc/self/status is no namespace any more"));
    rewrite(&|entry| entry["netns"] = "/run/netns/nowhere-at-all".into());
    assert_eq!(gone().as_deref(), Some("its namespace /run/netns/nowhere-at-all is gone"));
}

#[test]
fn without_arguments_their_keys_are_left_out() {
    let node = Node::new();
    let pod = Attachment::new("ctr".parse().unwrap(), None, "eth0".parse().unwrap());
    node.runtime.add(&list("1.0.0", ""), &pod).unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(node.cache_file()).unwrap()).unwrap();
    let keys: Vec<&String> = written.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["kind", "containerId", "config", "ifName", "networkName", "result"]);
}

/// CHECK fails on what it cannot read, DEL never does (weakness 4 of the reference: an unknown kind is an empty result).
#[test]
fn files_that_are_none_of_ours() {
    let node = Node::new();
    let list = list("1.0.0", "");
    let v1 = |more: &str| {
        format!(r#"{{"kind":"cniCacheV1","containerId":"ctr","config":"","ifName":"eth0","networkName":"net"{more}}}"#)
    };
    for text in [
        "".to_owned(),
        "{".into(),
        "null".into(),
        "{}".into(),
        "[]".into(),
        r#"{"kind":"cniCacheV2","result":{}}"#.into(),
        v1(""),
        v1(r#","result":[]"#),
        v1(r#","result":{},"netns":7"#),
        v1(r#","result":{"cniVersion":"0.4567.0"}"#),
        v1(r#","result":{"cniVersion":"1.0.0","ips":7}"#),
        r#"{"cniVersion":"0.4567.0"}"#.into(),
    ] {
        write(&node.cache_file(), &text);
        // A result of a version or shape that we do not know is well-formed; whoever wants the configuration gets it.
        let well_formed = text.contains(r#""result":{"cniVersion""#);
        assert_eq!(node.runtime.cached(&list, &attachment()).is_ok(), well_formed, "{text}");
        assert!(node.runtime.check(&list, &attachment()).is_err(), "{text}");
        assert_eq!(node.plugins.calls(), [""; 0]);
        node.runtime.del(&list, &attachment()).unwrap();
        assert_eq!(node.plugins.calls(), ["second DEL", "first DEL"], "{text}");
        assert!(node.request("first", "DEL").get("prevResult").is_none());
        assert!(!node.cache_file().exists());
    }
    // No file, and something that cannot be opened, are no result.
    for _ in 0..2 {
        assert_eq!(node.runtime.cached_result(&list, &attachment()).unwrap(), None);
        assert!(node.runtime.cached(&list, &attachment()).unwrap().is_none());
        node.runtime.check(&list, &attachment()).unwrap();
        std::fs::create_dir_all(node.cache_file()).unwrap();
    }
    assert_eq!(node.runtime.attachments(None).unwrap().len(), 0);
}

#[test]
fn a_bare_result_is_of_the_time_before_kinds() {
    let node = Node::new();
    let list = list("1.0.0", "");
    write(&node.cache_file(), r#"{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.2/8"}],"dns":{}}"#);
    node.runtime.check(&list, &attachment()).unwrap();
    let expected = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/8"}]}"#;
    assert_eq!(node.request("second", "CHECK")["prevResult"].to_string(), expected);
    assert!(node.runtime.cached(&list, &attachment()).unwrap_err().msg().contains("only the result was kept"));
    node.runtime.del(&list, &attachment()).unwrap();
    assert_eq!(node.request("second", "DEL")["prevResult"].to_string(), expected);
    assert!(!node.cache_file().exists());
}

/// Weakness 4 of the reference: (net, a-b) and (net-a, b) share a file name.
#[test]
fn anothers_entry_is_not_ours() {
    let node = Node::new();
    let conf = |name: &str| {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"first"}}]}}"#);
        ConfList::from_bytes(text.as_bytes()).unwrap()
    };
    let pod = |id: &str| Attachment::new(id.parse().unwrap(), None, "eth0".parse().unwrap());
    node.runtime.add(&conf("net-a"), &pod("b")).unwrap();
    assert_eq!(node.runtime.cached_result(&conf("net"), &pod("a-b")).unwrap(), None);
    let error = node.runtime.add(&conf("net"), &pod("a-b")).unwrap_err();
    assert!(error.msg().ends_with("another attachment has that file"), "{error}");
    node.runtime.del(&conf("net"), &pod("a-b")).unwrap();
    assert!(node.runtime.cached_result(&conf("net-a"), &pod("b")).unwrap().is_some());
}
