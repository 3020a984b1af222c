//! A MAC that tuning changes behind a bridge with `macspoofchk`: that was made for the MAC that bridge has given, and drops
//! whatever comes from another.

use libcni::types::Mac;
use libcni::types::json::{self, Object};
use serde_json::Value;

use super::document::Document;
use super::findings::Findings;
use super::keys;

/// Judges a plugin at `path` that comes after such a `bridge` in its list.
pub fn judge(document: &Document, path: &str, plugin: &Object, bridge: &Object, findings: &mut Findings) {
    if keys::kind(plugin) != "tuning" {
        return;
    }
    let takes = |plugin| inner(plugin, &["capabilities", "mac"]) == Some(&Value::Bool(true));
    // In the order in which tuning takes them. What the runtime gives to both of them is the same.
    let place = if let Some(mac) = mac(inner(plugin, &["args", "cni", "mac"])) {
        (mac_of(bridge) != Some(mac)).then_some("args")
    } else if let Some(mac) = mac(json::get(plugin, "mac")) {
        (mac_of(bridge) != Some(mac)).then_some("mac")
    } else {
        (takes(plugin) && !takes(bridge)).then_some("capabilities")
    };
    if let Some(place) = place {
        let message = "tuning changes the MAC after \"macspoofchk\" of bridge was set up for another: all that the pod sends \
                       is dropped; let bridge give the MAC, by its \"capabilities\": {\"mac\": true} or its \"args\"";
        findings.warning(document, &keys::under(path, place), message);
    }
}

/// Whether it is a bridge that drops what does not come from the MAC it has given.
pub fn is_made_by(plugin: &Object) -> bool {
    keys::kind(plugin) == "bridge" && json::get(plugin, "macspoofchk") == Some(&Value::Bool(true))
}

/// The one that its configuration gives.
fn mac_of(bridge: &Object) -> Option<Mac> {
    mac(inner(bridge, &["args", "cni", "mac"]))
}

fn mac(value: Option<&Value>) -> Option<Mac> {
    value.and_then(Value::as_str)?.parse().ok()
}

fn inner<'a>(object: &'a Object, keys: &[&str]) -> Option<&'a Value> {
    let (last, outer) = keys.split_last()?;
    let object = outer.iter().try_fold(object, |object, key| json::get(object, key)?.as_object())?;
    json::get(object, last)
}
