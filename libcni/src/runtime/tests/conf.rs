//! Loading of configurations.

use super::*;

fn refusal(text: &str) -> (Code, String) {
    let error = ConfList::from_bytes(text.as_bytes()).unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn a_list_from_bytes() {
    let text = r#"{"CNIVERSION":"1.0.0","Name":"net","disableCheck":"TRUE","disableGC":true,"loadOnlyInlinedPlugins":"false",
        "plugins":[{"z":1,"type":"bridge","a":12345678901234567890123,"capabilities":{"portMappings":true,"dns":false}},
                   {"type":"portmap","name":"p"}]}"#;
    let list = ConfList::from_bytes(text.as_bytes()).unwrap();
    assert_eq!((list.name().as_str(), list.version_text()), ("net", "1.0.0"));
    assert!(list.disable_check() && list.disable_gc() && !list.load_only_inlined());
    assert_eq!(list.bytes(), text.as_bytes());
    let types: Vec<&str> = list.plugins().iter().map(PluginConf::plugin_type).collect();
    assert_eq!(types, ["bridge", "portmap"]);
    assert_eq!(list.plugins()[0].capabilities(), ["portMappings"]);
    let keys: Vec<&String> = list.plugins()[0].object().keys().collect();
    assert_eq!(keys, ["z", "type", "a", "capabilities"]);
    assert_eq!(list.plugins()[1].name(), Some("p"));
}

#[test]
fn refusals_name_the_key() {
    let plugins = r#""plugins":[{"type":"x"}]"#;
    for (text, code, part) in [
        ("{".to_owned(), 6, "error parsing configuration list: EOF"),
        ("[]".into(), 6, "expected a JSON object"),
        (format!("{{{plugins}}}"), 7, "missing \"name\""),
        (format!(r#"{{"name":7,{plugins}}}"#), 7, "invalid \"name\""),
        // Weakness 6 of the reference: the name is a part of a path before it is checked.
        (format!(r#"{{"name":"../x",{plugins}}}"#), 7, "invalid characters found in network name; ../x"),
        (format!(r#"{{"name":"n","disableCheck":"yes",{plugins}}}"#), 7, "disableCheck"),
        (format!(r#"{{"name":"n","disableGC":1,{plugins}}}"#), 7, "disableGC"),
        (format!(r#"{{"name":"n","loadOnlyInlinedPlugins":"1",{plugins}}}"#), 7, "loadOnlyInlinedPlugins"),
        (r#"{"name":"n","loadOnlyInlinedPlugins":true}"#.into(), 7, "there is no \"plugins\""),
        (r#"{"name":"n","plugins":[]}"#.into(), 7, "no plugins in list"),
        (r#"{"name":"n","plugins":{}}"#.into(), 7, "invalid \"plugins\""),
        (r#"{"name":"n","plugins":[{"type":"a"},{}]}"#.into(), 7, "plugins[1]: missing 'type'"),
        (r#"{"name":"n","plugins":[{"type":""}]}"#.into(), 7, "missing 'type'"),
        (r#"{"name":"n","plugins":[7]}"#.into(), 7, "plugins[0]: expected a JSON object"),
        (r#"{"name":"n","plugins":[{"type":"a","capabilities":{"x":"true"}}]}"#.into(), 7, "capabilities.x"),
        (format!(r#"{{"name":"n","cniVersion":1,{plugins}}}"#), 7, "cniVersion"),
        (format!(r#"{{"name":"n","cniVersions":["x"],{plugins}}}"#), 7, "invalid version in \"cniVersions\": \"x\""),
        (format!(r#"{{"name":"n","cniVersions":[1],{plugins}}}"#), 7, "cniVersions"),
        (format!(r#"{{"name":"n","cniVersion":"x","cniVersions":[],{plugins}}}"#), 7, "\"x\""),
    ] {
        let (found, message) = refusal(&text);
        assert!(found == Code(code) && message.contains(part), "{text}: {found:?} {message}");
    }
}

#[test]
fn the_newest_version_we_speak_is_chosen() {
    for (keys, expected) in [
        (r#""cniVersions":["0.3.1","1.0.0","0.4.0"]"#, "1.0.0"),
        (r#""cniVersions":["1.1.0","1.2.0","2.0"]"#, "1.1.0"),
        (r#""cniVersions":["1.0.5","1.0.0"]"#, "1.0.0"),
        (r#""cniVersion":"1.2.3","cniVersions":["1.3.0"]"#, "1.2.3"),
        (r#""cniVersion":"1.0.0","cniVersions":["0.4.0"]"#, "1.0.0"),
        (r#""cniVersions":[]"#, ""),
        (r#""cniVersion":"1.2.0""#, "1.2.0"),
        (r#""x":1"#, ""),
    ] {
        let list = ConfList::from_bytes(format!(r#"{{"name":"n",{keys},"plugins":[{{"type":"a"}}]}}"#).as_bytes());
        assert_eq!(list.unwrap().version_text(), expected, "{keys}");
    }
}

#[test]
fn a_single_configuration_becomes_a_list() {
    let text = br#"{"name":"n","type":"bridge","mtu":1460,"addIf":"true"}"#;
    let list = ConfList::from_single(text).unwrap();
    assert_eq!((list.name().as_str(), list.version_text(), list.plugins().len()), ("n", "", 1));
    assert_eq!(
        String::from_utf8_lossy(list.bytes()),
        format!(r#"{{"name":"n","cniVersion":"","plugins":[{}]}}"#, String::from_utf8_lossy(text))
    );
    assert_eq!(ConfList::from_bytes(list.bytes()).unwrap().plugins()[0].object(), list.plugins()[0].object());
    for (text, part) in [(r#"{"name":"n"}"#, "missing 'type'"), ("x", "error parsing configuration"), ("{}", "")] {
        assert!(ConfList::from_single(text.as_bytes()).unwrap_err().to_string().contains(part));
    }
}

const LIST: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"first"}]}"#;

#[test]
fn drop_ins_follow_the_inlined_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("10-net.conflist");
    let types = || {
        let list = ConfList::from_file(&file)?;
        Ok(list.plugins().iter().map(|plugin| plugin.plugin_type().to_owned()).collect::<Vec<_>>().join(" "))
    };
    let refused = |types: Result<String, Error>| types.unwrap_err().to_string();
    assert!(refused(types()).starts_with("error reading "));
    write(&file, LIST);
    assert_eq!(types().unwrap(), "first");
    std::fs::create_dir(dir.path().join("net")).unwrap();
    assert_eq!(types().unwrap(), "first");
    write(&dir.path().join("net/20-b.conf"), r#"{"type":"b","name":"other","cniVersion":"0.1.0"}"#);
    write(&dir.path().join("net/10-a.conf"), r#"{"type":"a"}"#);
    write(&dir.path().join("net/10-c.json"), r#"{"type":"c"}"#);
    assert_eq!(types().unwrap(), "first a b");
    write(&file, r#"{"name":"net","loadOnlyInlinedPlugins":true,"plugins":[{"type":"first"}]}"#);
    assert_eq!(types().unwrap(), "first");
    write(&file, r#"{"name":"net"}"#);
    assert_eq!(types().unwrap(), "a b");
    // Weakness 7 of the reference: the drop-in is not named.
    write(&dir.path().join("net/20-b.conf"), "{}");
    write(&dir.path().join("net/30-d.conf"), "{");
    let message = refused(types());
    assert!(message.contains("net/20-b.conf: missing 'type'; ") && message.contains("net/30-d.conf: EOF"), "{message}");
    std::fs::remove_dir_all(dir.path().join("net")).unwrap();
    assert!(refused(types()).contains("no plugin configs found"));
}

#[test]
fn a_network_is_found_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let find = |name: &str| ConfList::from_dir(dir.path(), name);
    let missing = ConfList::from_dir(&dir.path().join("absent"), "net").unwrap_err();
    assert_eq!(missing.msg(), format!("no net configurations found in {}", dir.path().join("absent").display()));
    assert!(find("net").unwrap_err().msg().starts_with("no net configurations found in "));
    write(&dir.path().join("sub/10-net.conflist"), LIST);
    std::fs::create_dir(dir.path().join("directory.conflist")).unwrap();
    assert!(find("net").is_err());

    write(&dir.path().join("10-single.json"), r#"{"name":"single","type":"x"}"#);
    write(&dir.path().join("10-net.conf"), r#"{"name":"net","type":"x"}"#);
    assert_eq!(find("net").unwrap().plugins()[0].plugin_type(), "x");
    assert_eq!(find("single").unwrap().plugins()[0].plugin_type(), "x");
    write(&dir.path().join("90-net.conflist"), LIST);
    assert_eq!(find("net").unwrap().plugins()[0].plugin_type(), "first");
    let error = find("absent").unwrap_err();
    assert_eq!(error.to_string(), format!("no net configuration with name \"absent\" in {}", dir.path().display()));
}

/// Weakness 7 of the reference: one broken file hides all later networks.
#[test]
fn a_broken_file_does_not_hide_the_others() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("00-broken.conflist"), "{");
    write(&dir.path().join("00-list.conf"), LIST);
    write(&dir.path().join("10-net.conflist"), LIST);
    assert_eq!(ConfList::from_dir(dir.path(), "net").unwrap().name().as_str(), "net");
    let error = ConfList::from_dir(dir.path(), "absent").unwrap_err();
    assert!(error.details().contains("00-broken.conflist: ") && error.details().contains("00-list.conf: "), "{error}");
    assert!(error.details().contains("a list of plugins belongs in a file *.conflist"), "{error}");
    // But a broken file of that name is not passed over for an older one.
    write(&dir.path().join("05-net.conflist"), r#"{"name":"net","plugins":[{}]}"#);
    let error = ConfList::from_dir(dir.path(), "net").unwrap_err();
    assert!(error.msg().contains("05-net.conflist: ") && error.msg().contains("missing 'type'"), "{error}");
}
