//! The network that is examined: its file, and what its configuration says that the probes compare with.
//!
//! Only what a probe asks is read here, and never to judge it: that is `validate`'s and the plugins' own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use libcni::runtime::{ConfList, files};
use libcni::types::Cidr;
use libcni::types::json::{self, Object};
use libcni::{Code, Error};
use serde_json::Value;

use crate::validate::EXTENSIONS;

/// Where host-local keeps its leases unless `dataDir` says otherwise.
const LEASES: &str = "/var/lib/cni/networks";

/// The plugins that make a link of their own for the pod. Any other may move one of the node's into it, as host-device
/// does, and what it had (addresses, routes) does not come back with it.
const MAKERS: [&str; 7] = ["bridge", "ptp", "macvlan", "ipvlan", "vlan", "dummy", "tap"];

/// A network and where it stands.
pub struct Subject {
    pub name: String,
    pub file: PathBuf,
    /// Why it cannot be loaded, otherwise.
    pub list: Result<ConfList, Error>,
}

impl Subject {
    /// The network of that name; without one, that of the first file of the directory: the one containerd takes, and CRI-O
    /// unless it is told a name.
    pub fn choose(dir: &Path, name: Option<&str>) -> Result<Self, Error> {
        let Some(name) = name else {
            let first = files(dir, EXTENSIONS)?.into_iter().next();
            let none = || Error::new(Code::INVALID_CONFIG, format!("no net configurations found in {}", dir.display()));
            let file = first.ok_or_else(none)?;
            let list = load(&file);
            let name = list.as_ref().map(|list| list.name().to_string()).ok().or_else(|| name_in(&file));
            return Ok(Self { name: name.unwrap_or_else(|| "?".to_owned()), file, list });
        };
        // In the order in which a runtime looks for a name.
        let lists = files(dir, &["conflist"])?.into_iter().chain(files(dir, &["conf", "json"])?);
        for file in lists {
            let list = load(&file);
            let found = list.as_ref().map(|list| list.name().to_string()).ok().or_else(|| name_in(&file));
            if found.as_deref() == Some(name) {
                return Ok(Self { name: name.to_owned(), file, list });
            }
        }
        // It says which files there are that cannot be read.
        let list = ConfList::from_dir(dir, name)?;
        Ok(Self { name: name.to_owned(), file: dir.to_owned(), list: Ok(list) })
    }
}

fn load(file: &Path) -> Result<ConfList, Error> {
    match file.extension().is_some_and(|extension| extension == "conflist") {
        true => ConfList::from_file(file),
        false => ConfList::from_single_file(file),
    }
}

fn name_in(file: &Path) -> Option<String> {
    match json::parse(&std::fs::read(file).ok()?).ok()? {
        Value::Object(object) => json::get(&object, "name")?.as_str().map(str::to_owned),
        _ => None,
    }
}

/// A subnet that pods get addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub cidr: Cidr,
    pub gateway: IpAddr,
}

/// What the configuration says.
#[derive(Debug, Default)]
pub struct Facts {
    /// Of a bridge: its name, and the interface that has the gateway's address.
    pub bridge: Option<String>,
    pub gateway_link: Option<String>,
    /// Whether the node has the gateway's address.
    pub is_gateway: bool,
    pub force_address: bool,
    masquerade: [bool; 2],
    exempt: Vec<Cidr>,
    /// Pods are not to reach each other.
    pub is_isolated: bool,
    pub subnets: Vec<Subnet>,
    /// The directory of the network's leases.
    pub leases: PathBuf,
    /// Whether host ports can be mapped, and whether 127.0.0.1 is among their addresses.
    pub maps_ports: bool,
    pub maps_loopback: bool,
    /// Whether the chain lets pods through the node's firewall.
    pub has_firewall: bool,
}

impl Facts {
    pub fn of(list: &ConfList) -> Self {
        let empty = Object::new();
        let first = list.plugins().first().map_or(&empty, |plugin| plugin.object());
        let kind = list.plugins().first().map(|plugin| plugin.plugin_type().to_owned()).unwrap_or_default();
        let ipam = json::get(first, "ipam").and_then(Value::as_object).unwrap_or(&empty);
        let of = |kind: &str| list.plugins().iter().find(|plugin| plugin.plugin_type() == kind);
        let portmap = of("portmap");
        let firewall = of("firewall");
        let bridge = (kind == "bridge").then(|| text(first, "bridge").unwrap_or("cni0").to_owned());
        let vlan = json::get(first, "vlan").map(Value::to_string).filter(|vlan| vlan != "0");
        let gateway_link = bridge.as_ref().map(|bridge| match vlan {
            Some(vlan) => format!("{bridge}.{vlan}"),
            None => bridge.clone(),
        });
        let both = flag(first, "ipMasq").unwrap_or(false);
        let isolated = firewall.and_then(|plugin| text(plugin.object(), "ingressPolicy")) == Some("isolated");
        Self {
            is_gateway: kind == "ptp"
                || ["isGateway", "isDefaultGateway"].iter().any(|key| flag(first, key) == Some(true)),
            force_address: flag(first, "forceAddress") == Some(true),
            masquerade: ["ipMasq4", "ipMasq6"].map(|key| flag(first, key).unwrap_or(both)),
            exempt: texts(first, "nonMasqueradeCIDRs").iter().filter_map(|text| text.parse().ok()).collect(),
            is_isolated: isolated || flag(first, "portIsolation") == Some(true),
            subnets: subnets(ipam),
            leases: Path::new(text(ipam, "dataDir").unwrap_or(LEASES)).join(list.name().as_str()),
            maps_ports: list
                .plugins()
                .iter()
                .any(|plugin| plugin.capabilities().iter().any(|one| one == "portMappings")),
            maps_loopback: portmap.is_some_and(|plugin| flag(plugin.object(), "snat") != Some(false)),
            has_firewall: firewall.is_some(),
            bridge,
            gateway_link,
        }
    }

    /// Whether packets to `to` are to leave with the node's address.
    pub fn masquerades(&self, to: IpAddr) -> bool {
        let [v4, v6] = self.masquerade;
        (if to.is_ipv4() { v4 } else { v6 }) && !self.exempt.iter().any(|cidr| cidr.contains(to))
    }

    /// Whether pods have addresses of this IP version.
    pub fn has(&self, ipv4: bool) -> bool {
        self.subnets.iter().any(|subnet| subnet.cidr.is_ipv4() == ipv4)
    }
}

/// Why no pod is to be tried: it might take a device of the node.
pub fn takes_devices(list: &ConfList) -> Option<String> {
    let kinds = || list.plugins().iter().map(libcni::runtime::PluginConf::plugin_type);
    let first = kinds().next().filter(|kind| !MAKERS.contains(kind));
    let kind = first.or_else(|| kinds().find(|kind| *kind == "host-device"));
    if let Some(kind) = kind {
        return Some(format!(
            "no pod is tried: {kind} is not known to make a link of its own, and may take a device of the node into the pod"
        ));
    }
    let first = list.plugins().first().map(|plugin| plugin.object())?;
    // It takes all packets of its master, and changes its address.
    let is_passthru = text(first, "mode") == Some("passthru");
    is_passthru.then(|| "no pod is tried: in mode passthru it would take the master away from the node".to_owned())
}

fn text<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    json::get(object, key)?.as_str().filter(|text| !text.is_empty())
}

fn flag(object: &Object, key: &str) -> Option<bool> {
    json::get(object, key)?.as_bool()
}

fn texts(object: &Object, key: &str) -> Vec<String> {
    let list = json::get(object, key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The subnets in host-local's keys.
fn subnets(ipam: &Object) -> Vec<Subnet> {
    let sets = json::get(ipam, "ranges").and_then(Value::as_array).into_iter().flatten();
    let ranges = sets.filter_map(Value::as_array).flatten().filter_map(Value::as_object);
    let subnet = |range: &Object| {
        let cidr: Cidr = text(range, "subnet")?.parse().ok()?;
        let gateway = text(range, "gateway").and_then(|gateway| gateway.parse().ok()).or_else(|| first(&cidr))?;
        Some(Subnet { cidr, gateway })
    };
    [ipam].into_iter().chain(ranges).filter_map(subnet).collect()
}

/// The first address after the network's own, which is the gateway's unless something else is written.
fn first(subnet: &Cidr) -> Option<IpAddr> {
    match subnet.network().addr() {
        IpAddr::V4(network) => network.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(network) => network.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(plugins: &str) -> Facts {
        let list = format!(r#"{{"cniVersion":"1.0.0","name":"net","plugins":[{plugins}]}}"#);
        Facts::of(&ConfList::from_bytes(list.as_bytes()).unwrap())
    }

    #[test]
    fn what_a_bridge_says() {
        let facts = facts(
            r#"{"type":"bridge","isDefaultGateway":true,"ipMasq":true,"ipMasq6":false,"nonMasqueradeCIDRs":["10.0.0.0/8"],
                "ipam":{"type":"host-local","dataDir":"/data","subnet":"10.1.0.0/24","ranges":[[{"subnet":"fd00::/64","gateway":"fd00::9"}]]}},
               {"type":"portmap","capabilities":{"portMappings":true}}"#,
        );
        assert_eq!((facts.bridge.as_deref(), facts.gateway_link.as_deref()), (Some("cni0"), Some("cni0")));
        assert!(facts.is_gateway && facts.maps_ports && facts.maps_loopback && !facts.has_firewall);
        assert_eq!(facts.leases, Path::new("/data/net"));
        let subnets: Vec<String> =
            facts.subnets.iter().map(|subnet| format!("{} {}", subnet.cidr, subnet.gateway)).collect();
        assert_eq!(subnets, ["10.1.0.0/24 10.1.0.1", "fd00::/64 fd00::9"]);
        for (to, masquerades) in [("192.0.2.1", true), ("10.9.9.9", false), ("2001:db8::1", false)] {
            assert_eq!(facts.masquerades(to.parse().unwrap()), masquerades, "{to}");
        }
    }

    #[test]
    fn what_takes_devices() {
        for (plugins, takes) in [
            (r#"{"type":"bridge"},{"type":"portmap"}"#, false),
            (r#"{"type":"macvlan","master":"eth0"}"#, false),
            (r#"{"type":"macvlan","master":"eth0","mode":"passthru"}"#, true),
            (r#"{"type":"host-device","device":"up0"}"#, true),
            (r#"{"type":"tuning"},{"type":"host-device","device":"up0"}"#, true),
            (r#"{"type":"bridge"},{"type":"host-device","device":"up0"}"#, true),
            (r#"{"type":"sriov"}"#, true),
        ] {
            let list = format!(r#"{{"cniVersion":"1.0.0","name":"net","plugins":[{plugins}]}}"#);
            assert_eq!(takes_devices(&ConfList::from_bytes(list.as_bytes()).unwrap()).is_some(), takes, "{plugins}");
        }
    }

    #[test]
    fn what_isolates() {
        assert!(facts(r#"{"type":"bridge","portIsolation":true}"#).is_isolated);
        assert!(facts(r#"{"type":"bridge"},{"type":"firewall","ingressPolicy":"isolated"}"#).is_isolated);
        assert!(!facts(r#"{"type":"bridge"},{"type":"firewall","ingressPolicy":"open"}"#).is_isolated);
        assert_eq!(facts(r#"{"type":"bridge","vlan":7}"#).gateway_link.as_deref(), Some("cni0.7"));
    }
}
