//! The keys of bridge: what may be written ([`Raw`]), and what it means once it is known to be valid ([`Conf`]).

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use libcni::plugin::{self, Command, Environment};
use libcni::types::{Code, Error, IfName, Mac};
use serde::Deserialize;

use hostnet::egress::{Beside, Egress};

/// The bridge where the configuration names none, as in the reference.
const DEFAULT_BRIDGE: &str = "cni0";

/// Highest VLAN id that may be used; 4095 is reserved (IEEE 802.1Q).
const VLAN_MAX: i64 = 4094;

/// bridge's keys as they are written, beside those of [`hostnet::egress`].
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Raw {
    bridge: Option<String>,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    mtu: Option<u32>,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: i64,
    vlan_trunk: Option<Vec<RawTrunk>>,
    preserve_default_vlan: bool,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    port_isolation: bool,
    ipam: RawIpam,
    args: RawArgs,
    runtime_config: RawMac,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawTrunk {
    #[serde(rename = "minID")]
    min_id: Option<i64>,
    #[serde(rename = "maxID")]
    max_id: Option<i64>,
    id: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawIpam {
    r#type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawMac,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawMac {
    mac: Option<String>,
}

/// bridge's configuration.
#[derive(Debug)]
pub struct Conf {
    /// The bridge's name.
    pub bridge: IfName,
    /// The bridge has the gateway's address, and the node forwards.
    pub gateway: bool,
    /// The pod's default route leads to the bridge.
    pub default_gateway: bool,
    /// A conflicting address of the bridge is replaced.
    pub force_address: bool,
    /// How the pod's packets leave the node.
    pub egress: Egress,
    /// Bytes, for the bridge at its creation and for both ends of the pair; `None` is the kernel's default.
    pub mtu: Option<u32>,
    /// The port sends frames back to where they came from.
    pub hairpin: bool,
    /// The bridge device receives everything.
    pub promiscuous: bool,
    /// The port's own VLAN.
    pub vlan: Option<u16>,
    /// VLANs of the port that are tagged, unless its own is among them; `None` where the key is not written.
    pub trunk: Option<Vec<RangeInclusive<u16>>>,
    /// The VLAN a port has by default stays.
    pub preserve_default_vlan: bool,
    /// Frames with another source address than the pod's are dropped.
    pub mac_spoof_check: bool,
    /// IPv6 addresses are tested for duplicates.
    pub duplicate_address_detection: bool,
    /// The pod's interface stays down.
    pub disable_container_interface: bool,
    /// The port does not speak with other isolated ports.
    pub isolated: bool,
    /// The address the pod's interface shall have.
    pub mac: Option<Mac>,
}

impl Conf {
    /// The bridge filters by VLAN.
    pub fn vlan_filtering(&self) -> bool {
        self.vlan.is_some() || self.trunk.is_some()
    }

    /// The port has VLANs of its own, in place of the bridge's default.
    pub fn has_port_vlans(&self) -> bool {
        self.vlan.is_some() || self.trunk.as_ref().is_some_and(|trunk| !trunk.is_empty())
    }

    /// The interface that has the gateway's address in place of the bridge: `<bridge>.<vlan>`.
    pub fn vlan_gateway(&self) -> Option<String> {
        let vlan = self.vlan.filter(|_| self.gateway)?;
        Some(format!("{}.{vlan}", self.bridge))
    }
}

fn refuse(msg: impl Into<String>) -> Error {
    Error::new(Code::INVALID_CONFIG, msg)
}

impl plugin::Conf for Conf {
    type Raw = Beside<Raw>;

    /// DEL finds everything by its owner.
    fn for_del(env: &Environment) -> Option<Self> {
        Self::from_raw(Beside::default(), env).ok()
    }

    fn from_raw(Beside { own: raw, egress }: Beside<Raw>, env: &Environment) -> Result<Self, Error> {
        let vlan = vlan_id(raw.vlan)?;
        let trunk = raw.vlan_trunk.as_deref().map(trunk).transpose()?;
        let mac = mac(&raw, env)?;
        if raw.disable_container_interface && raw.ipam.r#type.is_some_and(|name| !name.is_empty()) {
            return Err(refuse("cannot use IPAM when DisableContainerInterface flag is set"));
        }
        if raw.hairpin_mode && raw.promisc_mode {
            return Err(refuse("cannot set hairpin mode and promiscuous mode at the same time"));
        }
        let conf = Self {
            bridge: bridge_name(raw.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE))?,
            gateway: raw.is_gateway || raw.is_default_gateway,
            default_gateway: raw.is_default_gateway,
            force_address: raw.force_address,
            egress: Egress::new(&egress)?,
            mtu: raw.mtu.filter(|mtu| *mtu != 0),
            hairpin: raw.hairpin_mode,
            promiscuous: raw.promisc_mode,
            vlan,
            trunk,
            preserve_default_vlan: raw.preserve_default_vlan,
            mac_spoof_check: raw.macspoofchk,
            duplicate_address_detection: raw.enabledad,
            disable_container_interface: raw.disable_container_interface,
            isolated: raw.port_isolation,
            mac,
        };
        if let Some(name) = conf.vlan_gateway() {
            name.parse::<IfName>().map_err(|error| {
                refuse(format!("isGateway with vlan needs an interface {name:?}, which is no interface name: {error}"))
            })?;
        }
        Ok(conf)
    }
}

fn bridge_name(text: &str) -> Result<IfName, Error> {
    text.parse().map_err(|error: Error| refuse(format!("bridge {text:?}: {error}")))
}

/// `vlan`; 0 is none.
fn vlan_id(id: i64) -> Result<Option<u16>, Error> {
    match u16::try_from(id) {
        Ok(0) => Ok(None),
        Ok(vlan) if id <= VLAN_MAX => Ok(Some(vlan)),
        _ => Err(refuse(format!("invalid VLAN ID {id} (must be between 0 and {VLAN_MAX})"))),
    }
}

/// The union of all entries, in order.
fn trunk(entries: &[RawTrunk]) -> Result<Vec<RangeInclusive<u16>>, Error> {
    let mut ids = BTreeSet::new();
    for entry in entries {
        match (entry.min_id, entry.max_id) {
            (Some(min), Some(max)) => {
                let (min, max) = (trunk_id("minID", min)?, trunk_id("maxID", max)?);
                if min > max {
                    return Err(refuse(format!("minID is greater than maxID in trunk parameter: {min} > {max}")));
                }
                ids.extend(min..=max);
            }
            (Some(_), None) => {
                return Err(refuse("minID and maxID should be configured simultaneously, maxID is missing"));
            }
            (None, Some(_)) => {
                return Err(refuse("minID and maxID should be configured simultaneously, minID is missing"));
            }
            (None, None) => {}
        }
        if let Some(id) = entry.id {
            ids.insert(trunk_id("id", id)?);
        }
    }
    Ok(ranges(ids))
}

/// Neighbours joined: the kernel takes ranges, and a trunk can have four thousand members.
fn ranges(ids: BTreeSet<u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(id) => *last = *last.start()..=id,
            _ => ranges.push(id..=id),
        }
    }
    ranges
}

fn trunk_id(key: &str, id: i64) -> Result<u16, Error> {
    u16::try_from(id)
        .ok()
        .filter(|_| (1..=VLAN_MAX).contains(&id))
        .ok_or_else(|| refuse(format!("incorrect trunk {key} parameter: {id} (must be between 1 and {VLAN_MAX})")))
}

/// `runtimeConfig.mac` before `args.cni.mac` before `MAC` of `CNI_ARGS`. DEL needs none, so on DEL none is judged:
/// a pod must be removable whatever it was started with.
fn mac(raw: &Raw, env: &Environment) -> Result<Option<Mac>, Error> {
    if env.is(Command::Del) {
        return Ok(None);
    }
    let args = env.args()?;
    args.only(&["MAC"])?;
    let said = |text: &&str| !text.is_empty();
    let of_args = args.get("MAC");
    let Some(text) = raw
        .runtime_config
        .mac
        .as_deref()
        .filter(said)
        .or(raw.args.cni.mac.as_deref().filter(said))
        .or(of_args.filter(said))
    else {
        return Ok(None);
    };
    let mac: Mac = text.parse().map_err(|error| refuse(format!("mac: {error}")))?;
    if mac.is_multicast() || mac.bytes() == [0; 6] {
        return Err(refuse(format!("mac: {mac} is not the address of one interface")));
    }
    Ok(Some(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(min_id: Option<i64>, max_id: Option<i64>, id: Option<i64>) -> RawTrunk {
        RawTrunk { min_id, max_id, id }
    }

    /// The reference's table of trunks and of its nine errors (its words up to the colon).
    #[test]
    fn trunks() {
        let union = trunk(&[entry(Some(10), Some(12), Some(5)), entry(None, None, Some(11)), entry(None, None, None)]);
        assert_eq!(union.unwrap(), [5..=5, 10..=12]);
        for (bad, msg) in [
            (entry(Some(10), None, None), "minID and maxID should be configured simultaneously, maxID is missing"),
            (entry(None, Some(10), None), "minID and maxID should be configured simultaneously, minID is missing"),
            (entry(Some(0), Some(10), None), "incorrect trunk minID parameter"),
            (entry(Some(-1), Some(10), None), "incorrect trunk minID parameter"),
            (entry(Some(4095), Some(4096), None), "incorrect trunk minID parameter"),
            (entry(Some(10), Some(4095), None), "incorrect trunk maxID parameter"),
            (entry(Some(20), Some(10), None), "minID is greater than maxID in trunk parameter"),
            (entry(None, None, Some(0)), "incorrect trunk id parameter"),
            (entry(None, None, Some(4095)), "incorrect trunk id parameter"),
        ] {
            let error = trunk(&[bad]).unwrap_err();
            assert!(error.msg().starts_with(msg) && error.code() == Code::INVALID_CONFIG, "{error}");
        }
    }

    #[test]
    fn vlans() {
        assert_eq!((vlan_id(0).unwrap(), vlan_id(4094).unwrap()), (None, Some(4094)));
        for bad in [-100, -1, 4095, 5000, 65_636] {
            let error = vlan_id(bad).unwrap_err();
            assert_eq!(error.msg(), format!("invalid VLAN ID {bad} (must be between 0 and 4094)"));
        }
    }
}
