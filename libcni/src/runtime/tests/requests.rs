//! What plugins read.

use serde_json::json;

use super::*;
use crate::plugin;

fn of_attachment(plugin: &str, prev_result: Option<Value>, capability_args: Value) -> String {
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"net","plugins":[{plugin}]}}"#);
    let list = ConfList::from_bytes(text.as_bytes()).unwrap();
    let Value::Object(capability_args) = capability_args else { panic!() };
    String::from_utf8(request::of_attachment(&list, &list.plugins()[0], prev_result, &capability_args)).unwrap()
}

#[test]
fn everything_else_passes_as_it_is() {
    assert_eq!(
        of_attachment(
            r#"{"type":"x","z":{"b":1,"a":[12345678901234567890,1.50,"<&>"]},"name":"own","CNIversion":"0.1.0","args":{"cni":{}}}"#,
            None,
            json!({})
        ),
        r#"{"cniVersion":"1.0.0","name":"net","type":"x","z":{"b":1,"a":[12345678901234567890,1.50,"<&>"]},"args":{"cni":{}}}"#
    );
}

#[test]
fn runtime_config_is_what_is_declared_and_supplied() {
    let supplied = json!({"portMappings":[{"HostPort":1}],"dns":{},"mac":null,"other":1});
    let declares = r#"{"type":"x","capabilities":{"portMappings":true,"dns":false,"mac":true,"absent":true}}"#;
    assert_eq!(
        of_attachment(declares, None, supplied.clone()),
        r#"{"cniVersion":"1.0.0","name":"net","type":"x","runtimeConfig":{"portMappings":[{"HostPort":1}]}}"#
    );
    assert_eq!(of_attachment(r#"{"type":"x"}"#, None, supplied), r#"{"cniVersion":"1.0.0","name":"net","type":"x"}"#);
}

/// Weakness 8 of the reference: they leak.
#[test]
fn what_is_the_runtimes_to_say_is_taken_out() {
    let plugin = r#"{"type":"x","capabilities":{"a":true},"RuntimeConfig":{"a":1},"prevResult":{},"PrevResult":{},
        "cni.dev/valid-attachments":[],"CNI.dev/anything":1}"#;
    assert_eq!(of_attachment(plugin, None, json!({})), r#"{"cniVersion":"1.0.0","name":"net","type":"x"}"#);
    assert_eq!(
        of_attachment(plugin, Some(json!({"ips":[]})), json!({"a":2})),
        r#"{"cniVersion":"1.0.0","name":"net","type":"x","runtimeConfig":{"a":2},"prevResult":{"ips":[]}}"#
    );
}

#[test]
fn the_attachments_to_keep() {
    let list = list("1.1.0", "");
    let request = |valid: Option<&[plugin::Attachment]>| {
        String::from_utf8(request::of_network(&list, &list.plugins()[0], valid)).unwrap()
    };
    let head = r#"{"cniVersion":"1.1.0","name":"net","type":"first","a":1"#;
    assert_eq!(request(None), format!("{head}}}"));
    // `[]`, where the reference writes `null`.
    assert_eq!(request(Some(&[])), format!(r#"{head},"cni.dev/valid-attachments":[],"cni.dev/attachments":[]}}"#));
    let one = plugin::Attachment { container_id: "c".into(), ifname: "eth0".into() };
    let listed = r#"[{"containerID":"c","ifname":"eth0"}]"#;
    assert_eq!(
        request(Some(&[one])),
        format!(r#"{head},"cni.dev/valid-attachments":{listed},"cni.dev/attachments":{listed}}}"#)
    );
}
