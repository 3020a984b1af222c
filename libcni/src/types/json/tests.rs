//! What Go's `encoding/json` forgives, and what it does not.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Outer {
    ip_masq: bool,
    mtu: Option<u32>,
    inner: Option<Inner>,
    list: Vec<Inner>,
    free: BTreeMap<String, Value>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Inner {
    host_port: u16,
}

fn read(text: &str) -> Result<Outer, Error> {
    from_slice(text.as_bytes())
}

#[test]
fn keys_match_in_any_case_at_every_level() {
    let read = read(r#"{"IPMASQ":true,"Inner":{"HostPort":1},"LIST":[{"hostport":2},{"hostPort":3}]}"#).unwrap();
    assert!(read.ip_masq);
    assert_eq!(read.inner, Some(Inner { host_port: 1 }));
    assert_eq!(read.list, [Inner { host_port: 2 }, Inner { host_port: 3 }]);
}

#[test]
fn duplicates_unknown_keys_and_null() {
    assert_eq!(read(r#"{"mtu":1,"mtu":2}"#).unwrap().mtu, Some(2));
    assert_eq!(read(r#"{"MTU":1,"mtu":2}"#).unwrap().mtu, Some(2));
    assert_eq!(read(r#"{"mtu":1,"MTU":2}"#).unwrap().mtu, Some(2));
    assert_eq!(read(r#"{"mtu":null,"ipMasq":null,"inner":null,"list":null,"more":[1]}"#).unwrap(), Outer::default());
}

#[test]
fn keys_of_maps_are_data() {
    let free = read(r#"{"free":{"A":1,"a":{"B":2}}}"#).unwrap().free;
    assert_eq!(free.keys().collect::<Vec<_>>(), ["A", "a"]);
}

#[test]
fn refusals_name_the_key() {
    for (text, path) in [
        (r#"{"MTU":"big"}"#, "mtu"),
        (r#"{"list":[{},{"HostPort":-1}]}"#, "list[1].hostPort"),
        (r#"{"inner":[]}"#, "inner"),
        (r#"{"list":[null]}"#, "list[0]"),
        (r#"{"list":{}}"#, "list"),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(error.path(), path, "{error}");
        assert!(!error.is_syntax());
    }
    for (text, message) in [
        (r#"{"inner":"x"}"#, "inner: invalid type: string \"x\", expected an object"),
        (r#"{"inner":7}"#, "inner: invalid type: a number, expected an object"),
        ("null", "invalid type: null, expected an object"),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), message);
    }
    let error = read(r#"{"mtu":1"#).unwrap_err();
    assert!(error.is_syntax() && error.to_string().contains("line 1 column 8"), "{error}");
}

#[test]
fn numbers_keep_their_digits() {
    let free = read(r#"{"free":{"a":12345678901234567890123,"b":1.50,"c":9007199254740993}}"#).unwrap().free;
    let printed = serde_json::to_string(&free).unwrap();
    assert_eq!(printed, r#"{"a":12345678901234567890123,"b":1.50,"c":9007199254740993}"#);
}

#[test]
fn taking_and_setting_fold_case_too() {
    let Value::Object(mut object) = parse(br#"{"A":1,"a":2,"b":null}"#).unwrap() else { panic!() };
    assert_eq!(get(&object, "a"), Some(&Value::from(2)));
    assert_eq!(take(&mut object, "a"), Some(Value::from(2)));
    assert_eq!(take(&mut object, "B"), None);
    assert!(object.is_empty());
    // As in a struct: null does not undo an earlier spelling.
    let Value::Object(mut object) = parse(br#"{"a":1,"A":null}"#).unwrap() else { panic!() };
    assert_eq!(get(&object, "a"), Some(&Value::from(1)));
    assert_eq!(take(&mut object, "a"), Some(Value::from(1)));
    assert!(object.is_empty());
}
