//! The keys we know, and what stands under them.
//!
//! The truth is each plugin's own `src/conf.rs` (`plugins/*`, `ipam/*`) and, for a list and
//! the keys of every plugin, `libcni::runtime` and `libcni::plugin`. This table repeats their names, because a
//! configuration must be judged where the plugins are not installed; whoever adds a key there adds it here.

use libcni::types::json::Object;
use serde_json::Value;

use super::document::Document;
use super::findings::Findings;
use crate::nearest::hint;

/// What may stand under a key. `null` may always: it means that the key is absent.
#[derive(Clone, Copy)]
enum Shape {
    Any,
    Flag,
    Number,
    Text,
    List(&'static Shape),
    /// A string or a list of strings.
    Texts,
    /// Where calls are logged: `libcni::plugin::log`.
    Target,
    Object(Keys),
    /// An object with keys of any name.
    Table(&'static Shape),
}

type Keys = &'static [(&'static str, Shape)];

use Shape::{Any, Flag, List, Number, Table, Target, Text, Texts};

/// Of a list of plugins. The two flags may be text.
const LIST: Keys = &[
    ("cniVersion", Text),
    ("cniVersions", List(&Text)),
    ("name", Text),
    ("disableCheck", Any),
    ("disableGC", Any),
    ("loadOnlyInlinedPlugins", Any),
    ("plugins", List(&Any)),
];

/// Of every plugin.
const PLUGIN: Keys = &[
    ("cniVersion", Text),
    ("name", Text),
    ("type", Text),
    ("capabilities", Any),
    ("args", Any),
    ("runtimeConfig", Any),
    ("prevResult", Any),
    ("ipam", Any),
    ("dns", Shape::Object(DNS)),
    ("log", Target),
];

const DNS: Keys = &[("nameservers", List(&Text)), ("domain", Text), ("search", List(&Text)), ("options", List(&Text))];

/// Here and in `runtimeConfig.bandwidth`, where the runtime puts them.
const BANDWIDTH: Keys =
    &[("ingressRate", Number), ("ingressBurst", Number), ("egressRate", Number), ("egressBurst", Number)];

const BRIDGE: Keys = &[
    ("bridge", Text),
    ("isGateway", Flag),
    ("isDefaultGateway", Flag),
    ("forceAddress", Flag),
    ("mtu", Number),
    ("hairpinMode", Flag),
    ("promiscMode", Flag),
    ("vlan", Number),
    ("vlanTrunk", List(&Shape::Object(TRUNK))),
    ("preserveDefaultVlan", Flag),
    ("macspoofchk", Flag),
    ("enabledad", Flag),
    ("portIsolation", Flag),
    ("disableContainerInterface", Flag),
];

const PORTMAP: Keys = &[
    ("backend", Text),
    ("snat", Flag),
    ("masqAll", Flag),
    ("markMasqBit", Number),
    ("externalSetMarkChain", Text),
    ("conditionsV4", List(&Text)),
    ("conditionsV6", List(&Text)),
];

const PTP: Keys = &[("mtu", Number)];

/// Of every plugin that routes a pod: `hostnet::egress` reads them.
const EGRESS: Keys = &[
    ("ipMasq", Flag),
    ("ipMasqBackend", Text),
    ("ipMasq4", Flag),
    ("ipMasq6", Flag),
    ("nonMasqueradeCIDRs", List(&Text)),
    ("masqRandomFully", Flag),
    ("masqSourceAddress", Texts),
];

const TRUNK: Keys = &[("minID", Number), ("maxID", Number), ("id", Number)];

const FIREWALL: Keys =
    &[("backend", Text), ("iptablesAdminChainName", Text), ("firewalldZone", Text), ("ingressPolicy", Text)];

const TUNING: Keys = &[
    ("sysctl", Table(&Text)),
    ("mac", Text),
    ("mtu", Number),
    ("promisc", Flag),
    ("allmulti", Flag),
    ("txQLen", Number),
    ("dataDir", Text),
];

/// Of `ipam` with type host-local; `timeoutSeconds` is of every plugin that delegates.
const HOST_LOCAL: Keys = &[
    ("type", Text),
    ("timeoutSeconds", Number),
    ("dataDir", Text),
    ("cooldownSeconds", Number),
    ("resolvConf", Text),
    ("routes", List(&Shape::Object(ROUTE))),
    ("ranges", List(&List(&Shape::Object(RANGE)))),
    ("subnet", Text),
    ("rangeStart", Text),
    ("rangeEnd", Text),
    ("gateway", Text),
];

const RANGE: Keys = &[("subnet", Text), ("rangeStart", Text), ("rangeEnd", Text), ("gateway", Text)];

/// Of `ipam` with type static.
const STATIC: Keys = &[
    ("type", Text),
    ("timeoutSeconds", Number),
    ("addresses", List(&Shape::Object(ADDRESS))),
    ("routes", List(&Shape::Object(ROUTE))),
    ("dns", Shape::Object(DNS)),
];

const ADDRESS: Keys = &[("address", Text), ("gateway", Text)];

const ROUTE: Keys = &[
    ("dst", Text),
    ("gw", Text),
    ("mtu", Number),
    ("advmss", Number),
    ("priority", Number),
    ("table", Number),
    ("scope", Number),
];

/// Judges the keys beside `plugins`.
pub fn judge_list(document: &Document, object: &Object, findings: &mut Findings) {
    judge(document, "", object, &[LIST], "a network", findings);
}

/// Judges the keys of a plugin that stands at `path`, if we know the plugin, and of its `ipam`, if we know that.
pub fn judge_plugin(document: &Document, path: &str, plugin: &Object, findings: &mut Findings) {
    let known: Option<Keys> = match kind(plugin) {
        "bandwidth" => Some(BANDWIDTH),
        "bridge" => Some(BRIDGE),
        "loopback" => Some(&[]),
        "portmap" => Some(PORTMAP),
        "ptp" => Some(PTP),
        "firewall" => Some(FIREWALL),
        "tuning" => Some(TUNING),
        _ => None,
    };
    if let Some(known) = known {
        let egress = if matches!(kind(plugin), "bridge" | "ptp") { EGRESS } else { &[] };
        judge(document, path, plugin, &[PLUGIN, known, egress], kind(plugin), findings);
    }
    let Some(Value::Object(ipam)) = libcni::types::json::get(plugin, "ipam") else { return };
    let known: Option<Keys> = match kind(ipam) {
        "host-local" => Some(HOST_LOCAL),
        "static" => Some(STATIC),
        _ => None,
    };
    if let Some(known) = known {
        judge(document, &under(path, "ipam"), ipam, &[known], kind(ipam), findings);
    }
}

/// `type` of a plugin or of its `ipam`; empty if there is none.
pub fn kind(object: &Object) -> &str {
    libcni::types::json::get(object, "type").and_then(Value::as_str).unwrap_or_default()
}

/// The path of a key in the object at `path`.
pub fn under(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn judge(document: &Document, path: &str, object: &Object, keys: &[Keys], whose: &str, findings: &mut Findings) {
    let known = || keys.iter().flat_map(|keys| keys.iter());
    for (key, value) in object {
        let place = under(path, key);
        match known().find(|(name, _)| name.eq_ignore_ascii_case(key)) {
            Some((_, shape)) => judge_value(document, &place, value, *shape, whose, findings),
            None if key.to_ascii_lowercase().starts_with("cni.dev/") => {}
            None => {
                let hint = hint(key, known().map(|(name, _)| *name));
                let message = format!("unknown key {key:?} of {whose}, which is ignored{hint}");
                findings.warning(document, &place, message);
            }
        }
    }
}

fn judge_value(document: &Document, path: &str, value: &Value, shape: Shape, whose: &str, findings: &mut Findings) {
    let expected = match (shape, value) {
        (Any, _)
        | (_, Value::Null)
        | (Flag, Value::Bool(_))
        | (Number, Value::Number(_))
        | (Text | Texts, Value::String(_)) => return,
        (Target, Value::String(text)) if matches!(&**text, "" | "off" | "journal") || text.starts_with('/') => return,
        (Texts, Value::Array(_)) => return judge_value(document, path, value, List(&Text), whose, findings),
        (List(item), Value::Array(items)) => {
            for (index, value) in items.iter().enumerate() {
                judge_value(document, &format!("{path}[{index}]"), value, *item, whose, findings);
            }
            return;
        }
        (Table(item), Value::Object(object)) => {
            for (key, value) in object {
                judge_value(document, &under(path, key), value, *item, whose, findings);
            }
            return;
        }
        (Shape::Object(keys), Value::Object(object)) => {
            let whose = format!("{path:?}");
            return judge(document, path, object, &[keys], &whose, findings);
        }
        (Flag, _) => "true or false",
        (Number, _) => "a number",
        (Text, _) => "a string",
        (List(_), _) => "a list",
        (Target, _) => "an absolute path (of a new file: below /var/log), \"journal\" or \"off\"",
        (Texts, _) => "a string or a list of strings",
        (Shape::Object(_) | Table(_), _) => "an object",
    };
    findings.error(document, path, format!("{path:?} of {whose} must be {expected}"));
}
