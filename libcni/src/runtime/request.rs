//! What a plugin reads on stdin: its configuration, made into a request (specification, "Section 3: Deriving
//! request configuration from plugin configuration").
//!
//! Keys that are the runtime's to say are taken out of the configuration first, in any case and for every verb: a
//! `prevResult` in a file would be believed, and `capabilities` must not be sent. The reference lets them through.

use serde_json::{Value, json};

use super::conflist::{ConfList, PluginConf};
use crate::plugin;
use crate::types::json::Object;

/// Keys with this beginning are the specification's.
const RESERVED: &str = "cni.dev/";

/// ADD, CHECK, DEL: with the result so far, and what the runtime has for the capabilities that the plugin declares.
pub(super) fn of_attachment(
    list: &ConfList,
    plugin: &PluginConf,
    prev_result: Option<Value>,
    capability_args: &Object,
) -> Vec<u8> {
    let mut request = begin(list, plugin);
    let declared = |key: &str| plugin.capabilities().iter().any(|capability| capability == key);
    let runtime_config: Object = capability_args
        .iter()
        .filter(|(key, value)| declared(key) && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !runtime_config.is_empty() {
        request.insert("runtimeConfig".into(), Value::Object(runtime_config));
    }
    if let Some(prev_result) = prev_result {
        request.insert("prevResult".into(), prev_result);
    }
    Value::Object(request).to_string().into_bytes()
}

/// GC and STATUS. The attachments to keep are sent under the specification's key and the one it had before; a list
/// without any is `[]`, which the reference writes as `null`.
pub(super) fn of_network(list: &ConfList, plugin: &PluginConf, valid: Option<&[plugin::Attachment]>) -> Vec<u8> {
    let mut request = begin(list, plugin);
    if let Some(valid) = valid {
        let valid: Value =
            valid.iter().map(|one| json!({ "containerID": one.container_id, "ifname": one.ifname })).collect();
        request.insert("cni.dev/valid-attachments".into(), valid.clone());
        request.insert("cni.dev/attachments".into(), valid);
    }
    Value::Object(request).to_string().into_bytes()
}

fn begin(list: &ConfList, plugin: &PluginConf) -> Object {
    let mut request = Object::new();
    request.insert("cniVersion".into(), list.version_text().into());
    request.insert("name".into(), list.name().as_str().into());
    let runtimes = ["cniVersion", "name", "capabilities", "runtimeConfig", "prevResult"];
    for (key, value) in plugin.object() {
        let reserved = key.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED));
        if !reserved && !runtimes.iter().any(|known| known.eq_ignore_ascii_case(key)) {
            request.insert(key.clone(), value.clone());
        }
    }
    request
}
