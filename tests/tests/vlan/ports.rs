//! Ports of bridges and their VLANs, as `bridge` shows them, and networks with VLANs.

use serde_json::{Value, json};
use tests::{Host, Plugin};

use crate::bridge_conf::{of, with};

/// A port's VLANs as `bridge -j vlan show` lists them: `1 untagged`, `100 PVID untagged`, `101`, `200-203`.
#[track_caller]
pub fn vlans(host: &Host, port: &str) -> Vec<String> {
    let text = host.run(&format!("bridge -j -compressvlans vlan show dev {port}"));
    let shown: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("bridge -j: {e}: {text}"));
    shown[0]["vlans"].as_array().into_iter().flatten().map(words).collect()
}

fn words(vlan: &Value) -> String {
    let mut text = vlan["vlan"].to_string();
    if let Some(end) = vlan["vlanEnd"].as_u64() {
        text += &format!("-{end}");
    }
    for (flag, word) in [("PVID", " PVID"), ("Egress Untagged", " untagged")] {
        if vlan["flags"].as_array().into_iter().flatten().any(|set| set == flag) {
            text += word;
        }
    }
    text
}

/// The pod's port, as the result names it.
pub fn port(result: &Value) -> &str {
    result["interfaces"][1]["name"].as_str().unwrap()
}

/// The port of a gateway's interface: the veth at its other end, by index.
#[track_caller]
pub fn port_of(host: &Host, gateway: &str) -> String {
    let link = host.link(gateway).unwrap_or_else(|| panic!("no link {gateway}"));
    assert_eq!(link["linkinfo"]["info_kind"], "veth", "{link}");
    link["link"].as_str().unwrap_or_else(|| panic!("its other end is not on the host: {link}")).to_owned()
}

/// Whether the bridge filters.
pub fn filters(host: &Host, bridge: &str) -> bool {
    host.link(bridge).unwrap()["linkinfo"]["info_data"]["vlan_filtering"] == 1
}

/// A layer 2 network on `cni0`.
pub fn layer2(keys: Value) -> Value {
    with(&crate::bridge_conf::layer2(), keys)
}

/// A routed network on `cni0`, with its gateway in VLAN 100.
pub fn routed(subnets: &[&str]) -> Value {
    with(&of(subnets), json!({"vlan": 100}))
}

/// A network without a gateway on `cni0` whose pods get addresses from `first` on, in 10.1.0.0/24.
pub fn addressed(name: &str, first: &str, keys: Value) -> Value {
    let range = json!([[{"subnet": "10.1.0.0/24", "rangeStart": first}]]);
    let conf =
        with(&crate::bridge_conf::layer2(), json!({"name": name, "ipam": {"type": "host-local", "ranges": range}}));
    with(&conf, keys)
}

/// The reference in a version that knows `vlanTrunk` and `preserveDefaultVlan`, where there is one: Debian's 1.1.1 does
/// not, and leaves the default VLAN on every port.
pub fn newer(host: &Host) -> Option<Plugin<'_>> {
    host.references("bridge").into_iter().find(knows_trunks)
}

/// Whether a reference knows `vlanTrunk` and `preserveDefaultVlan`: those that speak 1.1.0 do.
pub fn knows_trunks(reference: &Plugin<'_>) -> bool {
    reference.version().success()["supportedVersions"].as_array().unwrap().contains(&"1.1.0".into())
}
