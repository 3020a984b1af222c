//! The verbs, on a list of two plugins.

use std::time::Instant;

use super::*;
use crate::plugin;

fn fails(verb: &str, error: &str) -> String {
    format!("if [ $CNI_COMMAND = {verb} ]; then echo '{error}'; exit 1; fi; [ $CNI_COMMAND != ADD ] || echo '{RESULT}'")
}

#[test]
fn add_check_del() {
    let node = Node::new();
    let (list, pod) = (list("1.0.0", ""), attachment());
    let (version, success) = node.runtime.add(&list, &pod).unwrap();
    assert_eq!((version, success.ips[0].address.to_string()), (Version::V1_0_0, "10.1.2.4/24".into()));
    assert_eq!(success.dns.nameservers, ["1.2.3.4"]);
    for (name, value) in [
        ("CNI_CONTAINERID", "ctr"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "A=1;B=2"),
        ("CNI_PATH", node.plugins.dir().to_str().unwrap()),
    ] {
        assert_eq!(node.plugins.var("second", "ADD", name).as_deref(), Some(value));
    }
    assert_eq!(node.plugins.stdin("first", "ADD"), r#"{"cniVersion":"1.0.0","name":"net","type":"first","a":1}"#);
    assert_eq!(node.request("second", "ADD")["prevResult"]["ips"][0]["address"], "10.1.2.3/24");

    node.runtime.check(&list, &pod).unwrap();
    for plugin in ["first", "second"] {
        assert_eq!(node.request(plugin, "CHECK")["prevResult"]["ips"][0]["address"], "10.1.2.4/24");
        assert!(node.request(plugin, "CHECK").get("kind").is_none());
    }
    node.runtime.del(&list, &pod).unwrap();
    assert_eq!(node.request("first", "DEL")["prevResult"]["ips"][0]["address"], "10.1.2.4/24");
    assert!(!node.cache_file().exists());
    node.runtime.del(&list, &pod).unwrap();
    assert!(node.request("first", "DEL").get("prevResult").is_none());
    let order = [
        "first ADD",
        "second ADD",
        "first CHECK",
        "second CHECK",
        "second DEL",
        "first DEL",
        "second DEL",
        "first DEL",
    ];
    assert_eq!(node.plugins.calls(), order);
}

/// Weakness 3 of the reference: ADD leaves what the plugins before the failing one made.
#[test]
fn a_failed_add_is_undone() {
    let node = Node::new();
    node.plugins.create("second", &fails("ADD", r#"{"code":11,"msg":"later"}"#));
    let error = node.runtime.add(&list("1.0.0", ""), &attachment()).unwrap_err();
    assert_eq!(error.code(), Code::TRY_AGAIN_LATER);
    assert_eq!(error.to_string(), r#"plugin type="second" name="two" failed (add): later"#);
    assert_eq!(node.plugins.calls(), ["first ADD", "second ADD", "second DEL", "first DEL"]);
    assert_eq!(node.request("first", "DEL")["prevResult"]["ips"][0]["address"], "10.1.2.3/24");
    assert!(!node.cache_file().exists());

    // Every plugin is asked, and what fails is told.
    node.plugins.create("second", "echo '{\"msg\":\"no\"}'; exit 1");
    let error = node.runtime.add(&list("1.0.0", ""), &attachment()).unwrap_err();
    assert!(error.details().contains(r#"DEL after the failed ADD failed too: plugin type="second""#), "{error}");
    assert_eq!(node.plugins.calls(), ["first ADD", "second ADD", "second DEL", "first DEL"]);

    // But nothing is told twice.
    node.plugins.create("second", "echo '{\"code\":7,\"msg\":\"bad mtu\"}'; exit 1");
    let error = node.runtime.add(&list("1.0.0", ""), &attachment()).unwrap_err();
    let expected =
        r#"plugin type="second" name="two" failed (add): bad mtu; DEL after the failed ADD failed with the same error"#;
    assert_eq!(error.to_string(), expected);
    node.plugins.calls();

    // What is no result is a failure too; an unpublished version is one.
    for result in ["", "[]", r#"{"cniVersion":"0.4567.0"}"#] {
        node.plugins.create("second", &format!("[ $CNI_COMMAND != ADD ] || echo '{result}'"));
        let error = node.runtime.add(&list("1.0.0", ""), &attachment()).unwrap_err();
        assert!(
            error.msg().starts_with(r#"plugin type="second" name="two" failed (add): failed to read"#)
                || result.is_empty()
        );
        assert_eq!(node.plugins.calls().len(), 4);
    }
}

/// A second ADD of an attachment that works must not take it down.
#[test]
fn a_failed_second_add_leaves_the_first_alone() {
    let node = Node::new();
    node.runtime.add(&list("1.0.0", ""), &attachment()).unwrap();
    let remembered = std::fs::read(node.cache_file()).unwrap();
    node.plugins.create("first", &fails("ADD", r#"{"code":999,"msg":"eth0 already exists"}"#));
    node.plugins.calls();
    let error = node.runtime.add(&list("1.0.0", ""), &attachment()).unwrap_err();
    assert!(error.details().starts_with("not undone: an earlier ADD"), "{error}");
    assert_eq!(node.plugins.calls(), ["first ADD"]);
    assert_eq!(std::fs::read(node.cache_file()).unwrap(), remembered);
}

#[test]
fn nothing_begins_that_cannot_end() {
    let node = Node::new();
    std::fs::remove_file(node.plugins.dir().join("second")).unwrap();
    let dir = node.plugins.dir().display();
    let missing = format!(r#"failed to find plugin "second" in path [{dir}]"#);
    let error = node.runtime.add(&list("1.0.0", ""), &attachment()).unwrap_err();
    assert_eq!(error.to_string(), format!(r#"plugin type="second" name="two" failed (add): {missing}"#));
    let error = node.runtime.del(&list("1.0.0", ""), &attachment()).unwrap_err();
    assert_eq!(error.to_string(), format!(r#"plugin type="second" name="two" failed (delete): {missing}"#));
    assert_eq!(node.plugins.calls(), [""; 0]);
    assert_eq!(node.runtime.check(&list("1.0.0", ""), &attachment()).unwrap_err().msg(), missing);
    let node = Node::new();
    let error = node.runtime.add(&list("1.2.0", ""), &attachment()).unwrap_err();
    assert_eq!((error.code(), error.msg()), (Code::INCOMPATIBLE_VERSION, "incompatible CNI versions"));
    assert_eq!(node.plugins.calls(), [""; 0]);
    let empty = ConfList::from_bytes(br#"{"name":"net"}"#).unwrap();
    assert!(node.runtime.add(&empty, &attachment()).unwrap_err().msg().contains("has no plugins"));
    // But what is there can be removed.
    node.runtime.del(&list("1.2.0", ""), &attachment()).unwrap();
}

#[test]
fn a_result_that_cannot_be_kept_is_undone() {
    let node = Node::new();
    write(&node.plugins.dir().join("cache"), "a file");
    let error = node.runtime.add(&list("1.0.0", ""), &attachment()).unwrap_err();
    assert_eq!(error.code(), Code::IO_FAILURE);
    assert!(error.msg().starts_with("failed to cache the result in "), "{error}");
    assert_eq!(node.plugins.calls(), ["first ADD", "second ADD", "second DEL", "first DEL"]);
}

/// Weakness 10 of the reference: the next plugin gets a version that it need not understand.
#[test]
fn results_are_passed_on_in_the_configurations_version() {
    let node = Node::new();
    let old = r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.9.0.2/16"}}"#;
    node.plugins.create("first", &format!("[ $CNI_COMMAND != ADD ] || echo '{old}'"));
    node.plugins.create("second", &format!("[ $CNI_COMMAND != ADD ] || echo '{old}'"));
    let (version, _) = node.runtime.add(&list("1.0.0", ""), &attachment()).unwrap();
    assert_eq!(version, Version::V0_2_0);
    let passed = node.request("second", "ADD")["prevResult"].clone();
    assert_eq!(passed.to_string(), r#"{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/16"}]}"#);
    node.runtime.check(&list("1.0.0", ""), &attachment()).unwrap();
    assert_eq!(node.request("first", "CHECK")["prevResult"], passed);
}

#[test]
fn a_plugin_of_the_first_version() {
    let node = Node::new();
    let result = r#"{"ip4":{"ip":"10.9.0.2/16"}}"#;
    node.plugins.create("first", &format!("[ $CNI_COMMAND != ADD ] || echo '{result}'"));
    let list = ConfList::from_single(br#"{"name":"net","type":"first"}"#).unwrap();
    let (version, success) = node.runtime.add(&list, &attachment()).unwrap();
    assert_eq!((version, success.ips.len()), (Version::V0_1_0, 1));
    assert_eq!(node.plugins.stdin("first", "ADD"), r#"{"cniVersion":"","name":"net","type":"first"}"#);
    node.runtime.del(&list, &attachment()).unwrap();
    assert!(node.request("first", "DEL").get("prevResult").is_none());
}

#[test]
fn versions_decide_about_check_and_prev_result() {
    let node = Node::new();
    let old = list("0.3.1", "");
    node.runtime.add(&old, &attachment()).unwrap();
    node.plugins.calls();
    let error = node.runtime.check(&old, &attachment()).unwrap_err();
    assert!(error.msg().contains("does not support the CHECK command"), "{error}");
    assert_eq!(node.plugins.calls(), [""; 0]);
    node.runtime.del(&old, &attachment()).unwrap();
    assert!(node.request("first", "DEL").get("prevResult").is_none());

    let newer = list("0.4.0", "");
    node.runtime.add(&newer, &attachment()).unwrap();
    node.runtime.check(&newer, &attachment()).unwrap();
    assert_eq!(node.request("first", "CHECK")["prevResult"]["cniVersion"], "0.4.0");
    node.plugins.calls();
    node.runtime.check(&list("1.0.0", r#","disableCheck":true"#), &attachment()).unwrap();
    assert_eq!(node.plugins.calls(), [""; 0]);
    assert!(node.runtime.check(&list("0.3.1", r#","disableCheck":true"#), &attachment()).is_err());
}

#[test]
fn the_first_error_ends_check_and_del() {
    let node = Node::new();
    let list = list("1.0.0", "");
    node.runtime.add(&list, &attachment()).unwrap();
    for name in ["first", "second"] {
        node.plugins.create(name, "echo '{\"code\":120,\"msg\":\"no\"}'; exit 1");
    }
    node.plugins.calls();
    let error = node.runtime.check(&list, &attachment()).unwrap_err();
    assert_eq!((error.code(), error.to_string()), (Code(120), "no; plugin type=\"first\"".into()));
    let error = node.runtime.del(&list, &attachment()).unwrap_err();
    assert_eq!(error.to_string(), r#"plugin type="second" name="two" failed (delete): no"#);
    assert_eq!(node.plugins.calls(), ["first CHECK", "second DEL"]);
    assert!(node.cache_file().exists());
}

#[test]
fn capabilities_reach_add_check_and_del() {
    let node = Node::new();
    let text = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"first","capabilities":{"mac":true}},
        {"type":"second"}]}"#;
    let list = ConfList::from_bytes(text.as_bytes()).unwrap();
    let mut pod = attachment();
    pod.capability_args.insert("mac".into(), "02:00:00:00:00:01".into());
    node.runtime.add(&list, &pod).unwrap();
    node.runtime.check(&list, &pod).unwrap();
    node.runtime.del(&list, &pod).unwrap();
    for verb in ["ADD", "CHECK", "DEL"] {
        assert_eq!(node.request("first", verb)["runtimeConfig"]["mac"], "02:00:00:00:00:01", "{verb}");
        assert!(node.request("second", verb).get("runtimeConfig").is_none(), "{verb}");
    }
}

#[test]
fn validate_asks_the_plugins() {
    let node = Node::new();
    let answer = |versions: &str| format!(r#"echo '{{"cniVersion":"1.0.0","supportedVersions":[{versions}]}}'"#);
    node.plugins.create("first", &answer(r#""0.1.0","1.0.0""#));
    node.plugins.create("second", &answer(r#""0.1.0","1.0.0""#));
    let text = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"first","capabilities":{"a":true,"b":false}},
        {"type":"second","capabilities":{"c":true,"a":true}}]}"#;
    let capabilities = node.runtime.validate(&ConfList::from_bytes(text.as_bytes()).unwrap()).unwrap();
    assert_eq!(capabilities.into_iter().collect::<Vec<_>>(), ["a", "c"]);
    // None is 0.1.0.
    node.runtime.validate(&list("", "")).unwrap();
    let error = node.runtime.validate(&list("1.1.0", "")).unwrap_err().to_string();
    for plugin in ["first", "second"] {
        assert!(error.contains(&format!("plugin {plugin} does not support config version \"1.1.0\"")), "{error}");
    }
    std::fs::remove_file(node.plugins.dir().join("first")).unwrap();
    assert!(node.runtime.validate(&list("1.0.0", "")).unwrap_err().msg().starts_with("failed to find plugin"));
    assert!(node.runtime.versions("first").is_err());
}

#[test]
fn gc_keeps_what_is_valid() {
    let node = Node::new();
    let list = list("1.1.0", "");
    node.runtime.add(&list, &attachment()).unwrap();
    let other = ConfList::from_bytes(br#"{"cniVersion":"1.1.0","name":"other","plugins":[{"type":"first"}]}"#).unwrap();
    node.runtime.add(&other, &attachment()).unwrap();
    node.plugins.calls();
    node.runtime.gc(&super::list("1.1.0", r#","disableGC":true"#), Some(&[])).unwrap();
    assert_eq!(node.plugins.calls(), [""; 0]);

    let valid = plugin::Attachment { container_id: "ctr".into(), ifname: "eth0".into() };
    node.runtime.gc(&list, Some(&[valid])).unwrap();
    assert_eq!(node.plugins.calls(), ["first GC", "second GC"]);
    assert_eq!(node.request("first", "GC")["cni.dev/valid-attachments"][0]["containerID"], "ctr");
    assert_eq!(node.plugins.var("first", "GC", "CNI_CONTAINERID").as_deref(), Some(""));

    node.runtime.gc(&list, Some(&[])).unwrap();
    assert_eq!(node.plugins.calls(), ["second DEL", "first DEL", "first GC", "second GC"]);
    assert_eq!(node.plugins.var("first", "DEL", "CNI_ARGS").as_deref(), Some("A=1;B=2"));
    assert_eq!(node.request("first", "GC")["cni.dev/valid-attachments"], serde_json::json!([]));
    assert!(!node.cache_file().exists());
    assert_eq!(node.runtime.attachments(None).unwrap().len(), 1);

    // Without a list nothing is valid for us, and the plugins are not told anything.
    node.runtime.gc(&other, None).unwrap();
    assert!(node.request("first", "GC").get("cni.dev/valid-attachments").is_none());
    assert_eq!(node.runtime.attachments(None).unwrap().len(), 0);
    // Before 1.1.0 there is no verb.
    node.plugins.calls();
    node.runtime.gc(&super::list("1.0.0", ""), Some(&[])).unwrap();
    assert_eq!(node.plugins.calls(), [""; 0]);
}

/// A path that leads nowhere, and one that leads to the namespace the plugins are in: whoever has it next is not taken for
/// the container.
#[test]
fn gc_does_not_hand_on_a_path_that_leads_elsewhere() {
    let node = Node::new();
    for netns in ["/run/netns/x", "/proc/self/ns/net"] {
        let attachment = Attachment { netns: Some(netns.into()), ..attachment() };
        node.runtime.add(&list("1.1.0", ""), &attachment).unwrap();
        node.runtime.gc(&list("1.1.0", ""), Some(&[])).unwrap();
        assert_eq!(node.plugins.var("first", "DEL", "CNI_NETNS").as_deref(), Some(""), "{netns}");
        assert_eq!(node.plugins.var("first", "DEL", "CNI_IFNAME").as_deref(), Some("eth0"));
    }
}

/// Who does not announce a dry run is not asked: it may take any command for DEL.
#[test]
fn a_dry_run_asks_only_who_announces_it() {
    let node = Node::new();
    let script = |more: &str| {
        let version = format!(r#"{{"cniVersion":"1.1.0"{more},"supportedVersions":["1.1.0"]}}"#);
        let plan = r#"{"dryRun":{"changes":["x"]}}"#;
        format!("if [ $CNI_COMMAND = VERSION ]; then echo '{version}'; else echo '{plan}'; fi")
    };
    node.plugins.create("first", &script(r#","podwireDryRun":true"#));
    node.plugins.create("second", &script(r#","podwireDryRun":"yes""#));
    for verb in ["DEL", "GC"] {
        let (plan, errors) = match verb {
            "DEL" => node.runtime.del_dry_run(&list("1.1.0", ""), &attachment()),
            _ => node.runtime.gc_dry_run(&list("1.1.0", ""), &[]),
        };
        assert_eq!((plan.changes.len(), plan.silent.len(), errors.len()), (1, 1, 0), "{plan:?}");
        assert!(plan.silent.iter().all(|why| why.starts_with("second: ")), "{plan:?}");
        let asked = format!("first PODWIRE_DRY_RUN_{verb}");
        assert_eq!(node.plugins.calls(), ["first VERSION", &asked, "second VERSION"]);
    }
}

/// Weakness 5 of the reference: the error is swallowed; and what fails does not keep the rest.
#[test]
fn gc_tells_and_frees_nothing_it_does_not_know() {
    let node = Node::new();
    let list = list("1.1.0", "");
    node.runtime.add(&list, &attachment()).unwrap();
    node.plugins.create("second", &fails("DEL", r#"{"code":120,"msg":"no"}"#));
    node.plugins.create("first", &fails("GC", r#"{"code":121,"msg":"neither"}"#));
    node.plugins.calls();
    let error = node.runtime.gc(&list, Some(&[])).unwrap_err().to_string();
    assert!(error.starts_with("failed to delete stale attachment ctr eth0: plugin type=\"second\""), "{error}");
    assert!(error.ends_with("; failed to GC plugin first: neither"), "{error}");
    assert_eq!(node.plugins.calls(), ["second DEL", "first GC", "second GC"]);
    assert!(node.cache_file().exists());

    std::fs::remove_dir_all(node.plugins.dir().join("cache/results")).unwrap();
    write(&node.plugins.dir().join("cache/results"), "a file");
    let error = node.runtime.gc(&list, Some(&[])).unwrap_err();
    assert!(error.msg().starts_with("cannot read the cached results in "), "{error}");
    assert_eq!(node.plugins.calls(), [""; 0]);
}

/// An entry that cannot be read was passed over: its container was not detached, and the plugins were told that it is gone.
#[test]
fn gc_keeps_what_an_unreadable_entry_may_be_of() {
    let node = Node::new();
    let list = list("1.1.0", "");
    node.runtime.add(&list, &attachment()).unwrap();
    let broken = node.cache_file().with_file_name("net-a-b-eth0");
    write(&broken, "{");
    write(&node.cache_file().with_file_name("other-a-eth0"), "{");
    node.plugins.calls();
    let valid = |id: &str| plugin::Attachment { container_id: id.into(), ifname: "eth0".into() };
    let error = node.runtime.gc(&list, Some(&[valid("x")])).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read the cached result {}", broken.display())), "{error}");
    assert!(!error.contains("other-a-eth0"), "{error}");
    // The rest is still done.
    assert_eq!(node.plugins.calls(), ["second DEL", "first DEL", "first GC", "second GC"]);
    let told = node.request("first", "GC")["cni.dev/valid-attachments"].clone();
    let told: Vec<&str> = told.as_array().unwrap().iter().map(|one| one["containerID"].as_str().unwrap()).collect();
    assert_eq!(told, ["x", "a", "a-b"]);
    assert!(broken.exists());
    // Whose runtime says that it is valid needs no looking after.
    node.runtime.gc(&list, Some(&[valid("a-b")])).unwrap();
}

#[test]
fn status() {
    let node = Node::new();
    node.runtime.status(&list("1.0.0", "")).unwrap();
    assert_eq!(node.plugins.calls(), [""; 0]);
    node.runtime.status(&list("1.1.0", "")).unwrap();
    assert_eq!(node.plugins.calls(), ["first STATUS", "second STATUS"]);
    node.plugins.create("first", &fails("STATUS", r#"{"code":50,"msg":"no"}"#));
    let error = node.runtime.status(&list("1.1.0", "")).unwrap_err();
    assert_eq!((error.code(), error.msg()), (Code::NOT_AVAILABLE, "no"));
    assert_eq!(node.plugins.calls(), ["first STATUS"]);
}

#[test]
fn every_verb_has_a_deadline() {
    let node = Node::new();
    node.plugins.create_bare("first", "exec sleep 60");
    node.plugins.create_bare("second", "exec sleep 60");
    let runtime = node.runtime.clone().with_deadline(Duration::from_millis(50));
    let (list, pod) = (list("1.1.0", ""), attachment());
    let started = Instant::now();
    for outcome in [
        runtime.add(&list, &pod).map(drop),
        runtime.check(&list, &pod),
        runtime.del(&list, &pod),
        runtime.gc(&list, None),
        runtime.status(&list),
        runtime.versions("first").map(drop),
        runtime.validate(&list).map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains("netplugin failed with no error message: killed: "), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// A result without an address is one in every version, as long as no other version is asked for: the reference
/// caches it and passes it on.
#[test]
fn an_empty_result_of_the_first_versions() {
    let node = Node::new();
    for (version, result) in [
        ("", "{}"),
        ("0.1.0", "null"),
        ("0.2.0", r#"{"cniVersion":"0.2.0","dns":{}}"#),
        // Of a plugin that answers in its own version, whatever it is asked in.
        ("", r#"{"cniVersion":"0.4.0","dns":{}}"#),
    ] {
        node.plugins.create("first", &format!("[ $CNI_COMMAND != ADD ] || echo '{result}'"));
        node.plugins.create("second", &format!("[ $CNI_COMMAND != ADD ] || echo '{result}'"));
        let (_, success) = node.runtime.add(&list(version, ""), &attachment()).unwrap();
        assert_eq!(success, Success::default());
        node.runtime.del(&list(version, ""), &attachment()).unwrap();
    }
}

#[test]
fn a_deadline_may_be_as_long_as_there_is() {
    let node = Node::new();
    let runtime = node.runtime.clone().with_deadline(Duration::MAX);
    runtime.add(&list("1.0.0", ""), &attachment()).unwrap();
}
