//! `cnitool validate`: where a finding is, what it says, and the exit status.

use std::path::Path;

use crate::node::Node;

/// A node with the plugins that `validate` knows.
fn node_to_validate() -> Node {
    let node = Node::new();
    let names =
        ["bandwidth", "bridge", "firewall", "host-local", "loopback", "other", "portmap", "ptp", "static", "tuning"];
    for name in names {
        node.plugin(name, "");
    }
    node
}

const GOOD: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "good",
  "plugins": [
    {"type": "bridge", "isGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}},
    {"type": "other", "whatever": 1}
  ]
}
"#;

#[test]
fn a_good_configuration() {
    let node = node_to_validate();
    node.conf("10-good.conflist", GOOD);
    let summary = "files checked: 1, errors: 0, warnings: 0";
    assert_eq!(node.validate(&[], &[]), (0, vec![summary.to_owned()]));
    let file = node.path("conf/10-good.conflist");
    assert_eq!(node.validate(&[("NETCONFPATH", "/nowhere")], &[file.to_str().unwrap()]), (0, vec![summary.into()]));
    // A warning alone is no failure, and spelling in another case is no mistake.
    node.conf(
        "10-good.conflist",
        &GOOD.replace("isGateway", "ISGATEWAY").replace("\"ISG", "\"addIf\": \"true\", \"ISG"),
    );
    let (status, lines) = node.validate(&[], &[]);
    let unknown = "10-good.conflist:5:24: warning: unknown key \"addIf\" of bridge, which is ignored";
    assert_eq!((status, lines[0].as_str()), (0, unknown));
}

/// One file each: where the finding is (the text that stands there, or line and column), what it says, and the file.
#[test]
fn what_is_wrong_with_a_file() {
    let plugins = |plugin: &str| format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{plugin}]}}"#);
    let ipam = |ipam: &str| plugins(&format!(r#"{{"type":"bridge","ipam":{{"type":"host-local",{ipam}}}}}"#));
    let list = "error: error parsing configuration list: ";
    for (place, expected, conf) in [
        ("3:1", "error: trailing comma".to_owned(), "{\n  \"name\": \"n\",\n}".to_owned()),
        ("1:1", "error: EOF while parsing a value".into(), String::new()),
        ("1:1", "error: expected a JSON object".into(), "[]".into()),
        (
            "\"name\"",
            format!("{list}invalid characters found in network name; a/b"),
            plugins("{\"type\":\"bridge\"}").replace("\"n\"", "\"a/b\""),
        ),
        ("{}", format!("{list}plugins[0]: missing 'type'"), plugins("{}")),
        (
            "\"disableCheck\"",
            format!("{list}invalid \"disableCheck\": expected true or false, found 7"),
            "{\"disableCheck\":7,\"name\":\"n\",\"plugins\":[{\"type\":\"x\"}]}".into(),
        ),
        (
            "\"isGatway\"",
            "warning: unknown key \"isGatway\" of bridge, which is ignored; did you mean \"isGateway\"?".into(),
            plugins(r#"{"type":"bridge","isGatway":true}"#),
        ),
        (
            "\"subnets\"",
            "warning: unknown key \"subnets\" of host-local, which is ignored; did you mean \"subnet\"?".into(),
            ipam(r#" "subnets":"10.0.0.0/8","ranges":[]"#),
        ),
        (
            "\"plugin\"",
            "warning: unknown key \"plugin\" of a network, which is ignored; did you mean \"plugins\"?".into(),
            plugins("{\"type\":\"bridge\"}").replacen('{', "{\"plugin\":1,", 1),
        ),
        (
            "\"mtu\"",
            "error: \"plugins[0].mtu\" of bridge must be a number".into(),
            plugins(r#"{"type":"bridge","mtu":"1460"}"#),
        ),
        (
            "\"log\"",
            "error: \"plugins[0].log\" of loopback must be an absolute path (of a new file: below /var/log), \"journal\" or \"off\"".into(),
            plugins(r#"{"type":"loopback","log":"var/log/podwire.log"}"#),
        ),
        (
            "\"masqSourceAddress\"",
            "error: \"plugins[0].masqSourceAddress\" of ptp must be a string or a list of strings".into(),
            plugins(r#"{"type":"ptp","masqSourceAddress":{"v4":"192.0.2.1"}}"#),
        ),
        (
            "7",
            "error: \"plugins[0].masqSourceAddress[1]\" of ptp must be a string".into(),
            plugins(r#"{"type":"ptp","masqSourceAddress":["192.0.2.1",7]}"#),
        ),
        (
            "\"nonMasqueradeCIDR\"",
            "warning: unknown key \"nonMasqueradeCIDR\" of bridge, which is ignored; did you mean \"nonMasqueradeCIDRs\"?".into(),
            plugins(r#"{"type":"bridge","nonMasqueradeCIDR":["10.0.0.0/8"]}"#),
        ),
        (
            "\"egressRate\"",
            "error: \"plugins[0].egressRate\" of bandwidth must be a number".into(),
            plugins(r#"{"type":"bandwidth","ingressRate":1000,"egressRate":"10M"}"#),
        ),
        (
            "\"mac_\"",
            "warning: unknown key \"mac_\" of tuning, which is ignored; did you mean \"mac\"?".into(),
            plugins(r#"{"type":"tuning","mac_":"02:00:00:00:00:01","sysctl":{"net.a.any":"1"}}"#),
        ),
        (
            "\"net.a\"",
            "error: \"plugins[0].sysctl.net.a\" of tuning must be a string".into(),
            plugins(r#"{"type":"tuning","sysctl":{"net.a":1}}"#),
        ),
        (
            "\"Type\"",
            "warning: the key \"plugins[0].Type\" is there twice; the last one wins".into(),
            plugins(r#"{"type":"loopbak","Type":"loopback"}"#),
        ),
        ("\"type\"", "error: failed to find plugin \"absent\" in path [BIN]".into(), plugins(r#"{"type":"absent"}"#)),
        (
            "\"type\"",
            "error: plugin \"bridge\" does not speak version 1.2.0; it speaks 0.3.1, 0.4.0, 1.0.0, 1.1.0".into(),
            plugins(r#"{"type":"bridge"}"#).replace("1.0.0", "1.2.0"),
        ),
        (
            "\"subnet\"",
            "error: \"subnet\" 10.0.0.1/24 has host bits set; the network is 10.0.0.0/24".into(),
            ipam(r#""subnet":"10.0.0.1/24""#),
        ),
        (
            "\"subnet\"",
            "error: \"subnet\" 10.0.0.0/31 is too small to allocate from".into(),
            ipam(r#""subnet":"10.0.0.0/31""#),
        ),
        ("\"subnet\"", "error: invalid \"subnet\": ".into(), ipam(r#""subnet":"10.0.0.0""#)),
        (
            "\"gateway\"",
            "error: \"gateway\" 10.1.0.1 is not in 10.0.0.0/24".into(),
            ipam(r#""subnet":"10.0.0.0/24","gateway":"10.1.0.1""#),
        ),
        (
            "\"rangeStart\"",
            "error: \"rangeStart\" 10.0.0.9 is after \"rangeEnd\" 10.0.0.5".into(),
            ipam(r#""subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.5""#),
        ),
        (
            "\"subnet\":\"10.0.0.0/24\"",
            "error: range 10.0.0.1-10.0.0.254 overlaps with 10.0.0.1-10.0.0.126 of the same network".into(),
            ipam(r#""ranges":[[{"subnet":"10.0.0.0/25"}],[{"subnet":"10.0.0.0/24"}]]"#),
        ),
        (
            "\"cniVersion\"",
            "error: unknown version \"1.0\"; known are 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0".into(),
            plugins(r#"{"type":"bridge"}"#).replace("1.0.0", "1.0"),
        ),
        (
            "\"ipam\"",
            "error: \"plugins[0].ipam\" must be an object, like {\"type\": \"host-local\"}".into(),
            plugins(r#"{"type":"other","ipam":"host-local"}"#),
        ),
        (
            "\"ipam\"",
            "warning: \"plugins[0].ipam\" has no \"type\": no address is allocated".into(),
            plugins(r#"{"type":"bridge","ipam":{"subnet":"10.0.0.0/24"}}"#),
        ),
        ("{\"rangeEnd\"", "error: this range has no \"subnet\"".into(), ipam(r#""ranges":[[{"rangeEnd":""}]]"#)),
        ("\"ipam\"", "warning: no IP ranges specified".into(), ipam(r#""routes":[]"#)),
    ] {
        let node = node_to_validate();
        node.conf("10-x.conflist", &conf);
        let (status, lines) = node.validate(&[], &[]);
        let place = conf.find(place).map_or(place.to_owned(), |index| format!("1:{}", index + 1));
        let expected = expected.replace("BIN", &node.path("bin").display().to_string());
        let line = format!("10-x.conflist:{place}: {expected}");
        assert!(lines.iter().any(|found| found.starts_with(&line)), "{conf}\nexpected {line}\nfound {lines:#?}");
        assert_eq!(status, i32::from(expected.starts_with("error")), "{lines:#?}");
    }
}

/// What bridge lets through is the MAC that it has given.
#[test]
fn a_mac_that_changes_after_the_spoof_check() {
    let list = |bridge: &str, tuning: &str| {
        format!(
            r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{{"type":"bridge"{bridge}}},{{"type":"other"}},{{"type":"tuning"{tuning}}}]}}"#
        )
    };
    let (check, mac) = (r#","macspoofchk":true"#, r#","mac":"02:00:00:00:00:01""#);
    let given = format!(r#"{check},"args":{{"cni":{{"mac":"02-00-00-00-00-01"}}}}"#);
    let of_args = r#","args":{"cni":{"mac":"02:00:00:00:00:02"}}"#;
    let asked = r#","capabilities":{"mac":true}"#;
    for (bridge, tuning, place) in [
        (check, mac, Some("mac")),
        (check, of_args, Some("args")),
        (check, asked, Some("capabilities")),
        (&given, of_args, Some("args")),
        (&given, mac, None),
        (&format!("{check}{asked}"), asked, None),
        ("", mac, None),
        (check, r#","mtu":1400"#, None),
    ] {
        let (node, conf) = (node_to_validate(), list(bridge, tuning));
        node.conf("10-x.conflist", &conf);
        let (status, lines) = node.validate(&[], &[]);
        let found: Vec<_> = lines.iter().filter(|line| line.contains("macspoofchk")).collect();
        let Some(place) = place else {
            assert!(found.is_empty(), "{conf}: {lines:#?}");
            continue;
        };
        let column = conf.rfind(&format!("\"{place}\":")).unwrap() + 1;
        let expected =
            format!("10-x.conflist:1:{column}: warning: tuning changes the MAC after \"macspoofchk\" of bridge");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{conf}\nexpected {expected}\nfound {lines:#?}");
        assert_eq!(status, 0);
    }
}

#[test]
fn versions_and_single_configurations() {
    let node = node_to_validate();
    node.conf("10-a.conf", r#"{"name":"a","type":"bridge"}"#);
    let (status, lines) = node.validate(&[], &[]);
    assert_eq!(status, 1);
    let error =
        "10-a.conf:1:13: error: plugin \"bridge\" does not speak version 0.1.0; it speaks 0.3.1, 0.4.0, 1.0.0, 1.1.0";
    assert_eq!(
        lines[..2],
        ["10-a.conf:1:1: warning: no \"cniVersion\", which means 0.1.0: no CHECK, and one address per family", error]
    );
    node.conf("10-a.conf", &GOOD.replace("good", "a"));
    let (_, lines) = node.validate(&[], &[]);
    assert!(lines[0].contains("missing 'type'; a list of plugins belongs in a file *.conflist"), "{lines:?}");
}

#[test]
fn drop_ins_are_checked_too() {
    let node = node_to_validate();
    node.conf("10-good.conflist", GOOD);
    std::fs::create_dir(node.path("conf/good")).unwrap();
    node.conf("good/10-a.conf", "{\"type\": \"loopback\",\n \"dn\": {}}").conf("good/20-b.conf", "{\"typ\": 1}");
    let (status, lines) = node.validate(&[], &[]);
    let expected = [
        "good/10-a.conf:2:2: warning: unknown key \"dn\" of loopback, which is ignored; did you mean \"dns\"?",
        "good/20-b.conf:1:1: error: missing 'type'",
    ];
    assert_eq!((status, &lines[..2]), (1, &expected.map(String::from)[..]));
}

#[test]
fn networks_are_compared() {
    let node = node_to_validate();
    node.conf("10-good.conflist", GOOD);
    node.conf("20-other.conflist", &GOOD.replace("good", "other").replace("10.1.0.0/24", "10.1.0.0/16"));
    node.conf("30-twice.conflist", &GOOD.replace("\"bridge\", \"isGateway\": true", "\"bridge\", \"bridge\": \"br1\""));
    let (status, lines) = node.validate(&[], &[]);
    let conf = "10-good.conflist";
    let column = GOOD.lines().nth(4).unwrap().find("\"subnet\"").unwrap() + 1;
    let expected = [
        format!(
            "20-other.conflist:1:1: warning: bridge \"cni0\" is also the gateway of network \"good\", with other subnets ({conf}): 10.1.0.0/24; they will fight over its address"
        ),
        format!(
            "20-other.conflist:5:{column}: warning: range 10.1.0.1-10.1.255.254 overlaps with 10.1.0.1-10.1.0.254 of network \"good\" ({conf}:5:{column}): both give out the same addresses"
        ),
        format!(
            "30-twice.conflist:3:3: warning: another network has the name \"good\": {conf}:3:3; tools that look for a name take one of them"
        ),
    ];
    assert_eq!((status, &lines[1..4]), (0, &expected[..]), "{lines:#?}");
    let first = format!("note: of 3 files containerd, and CRI-O unless it is told a name, take the first: {conf}");
    assert!(lines[0].ends_with(&first), "{lines:#?}");
}

#[test]
fn where_there_is_nothing() {
    let node = Node::new();
    let (status, lines) = node.validate(&[], &[]);
    assert_eq!(status, 1);
    assert!(lines[0].contains("error: there are no configurations"), "{lines:?}");
    let (status, lines) = node.validate(&[], &["/nowhere/x.conflist"]);
    assert_eq!(
        (status, lines[0].as_str()),
        (1, "/nowhere/x.conflist: error: cannot read it: No such file or directory (os error 2)")
    );
    if !Path::new("/opt/cni/bin").exists() {
        node.conf("10-good.conflist", GOOD);
        let (status, lines) = node.validate(&[("CNI_PATH", "")], &[]);
        assert_eq!(status, 0);
        assert!(lines[0].ends_with("there is no /opt/cni/bin, and CNI_PATH is not set: plugins were not checked"));
    }
}

/// The keys of a struct in a plugin's `src/conf.rs`, as JSON has them.
fn keys_of(file: &str, name: &str) -> Vec<String> {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)).unwrap();
    let (_, body) = source.split_once(&format!("struct {name} {{\n")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let mut keys = Vec::new();
    let mut renamed = None;
    for line in body.lines().map(str::trim) {
        if let Some(rename) = line.strip_prefix("#[serde(rename = \"") {
            renamed = rename.split('"').next().map(str::to_owned);
        } else if let Some((field, _)) = line.split_once(':').filter(|(field, _)| !field.starts_with('/')) {
            let mut words = field.trim_start_matches("pub ").trim_start_matches("r#").split('_');
            let mut key = words.next().unwrap().to_owned();
            for word in words {
                key.push_str(&word[..1].to_uppercase());
                key.push_str(&word[1..]);
            }
            keys.push(renamed.take().unwrap_or(key));
        }
    }
    assert!(keys.len() > 1, "{file} no longer has its keys in {name}: {keys:?}");
    keys
}

/// The table of keys repeats those of the plugins; one that is forgotten there would be called unknown.
#[test]
fn every_key_of_our_plugins_is_known() {
    let nulls = |keys: Vec<String>| keys.iter().map(|key| format!(",\"{key}\":null")).collect::<String>();
    let bridge = nulls(keys_of("plugins/bridge/src/conf.rs", "Raw"));
    let firewall = nulls(keys_of("plugins/firewall/src/conf.rs", "Raw"));
    let ptp = nulls(keys_of("plugins/ptp/src/conf.rs", "Raw"));
    let egress = nulls(keys_of("plugins/hostnet/src/egress.rs", "Keys"));
    let trunk = nulls(keys_of("plugins/bridge/src/conf.rs", "RawTrunk"));
    let ipam = nulls(keys_of("ipam/host-local/src/conf.rs", "RawIpam"));
    let range = nulls(keys_of("ipam/host-local/src/conf.rs", "RawRange")).replace(",\"subnet\":null", "");
    let fixed = nulls(keys_of("ipam/static/src/conf.rs", "RawIpam"));
    let address = nulls(keys_of("ipam/static/src/conf.rs", "RawAddress")).replace(",\"address\":null", "");
    let portmap = nulls(keys_of("plugins/portmap/src/conf.rs", "Raw"));
    let node = node_to_validate();
    node.conf(
        "10-all.conflist",
        &format!(
            r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{{"type":"bridge"{bridge}{egress}}},{{"type":"ptp"{ptp}{egress},"log":"/var/log/x"}},
            {{"type":"firewall"{firewall}}},{{"type":"portmap"{portmap}}},
            {{"type":"bridge","vlanTrunk":[{{"minID":1{trunk}}}],"ipam":{{"type":"host-local"{ipam}}}}},
            {{"type":"bridge","ipam":{{"type":"host-local","ranges":[[{{"subnet":"10.0.0.0/8"{range}}}]]}}}},
            {{"type":"bridge","ipam":{{"type":"static"{fixed}}}}},
            {{"type":"bridge","ipam":{{"type":"static","addresses":[{{"address":"10.0.0.1/8"{address}}}]}}}}]}}"#
        ),
    );
    let (_, lines) = node.validate(&[], &[]);
    assert!(!lines.iter().any(|line| line.contains("unknown key")), "{lines:#?}");
}
