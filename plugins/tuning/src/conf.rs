//! The keys of tuning: what may be written ([`Keys`]), and what it means once it is known to be valid ([`Conf`]).
//!
//! DEL needs nothing but `dataDir`, so on DEL nothing else is read.

use std::collections::HashMap;
use std::path::PathBuf;

use libcni::plugin::{self, Command, Environment};
use libcni::types::json::{self, Object};
use libcni::types::{Code, Error, Mac};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::attributes::Attributes;
use crate::sysctl::Sysctl;

/// Where the backups are if the configuration does not say, as in the reference.
const DEFAULT_DATA_DIR: &str = "/run/cni/tuning";

/// The whole configuration: which of its keys must be right depends on the verb.
#[derive(Debug, Deserialize)]
pub struct Raw(Value);

/// What can be tuned, at the top and in `args.cni`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Keys {
    sysctl: Object,
    mac: Option<String>,
    promisc: Option<bool>,
    mtu: Option<u32>,
    tx_q_len: Option<u32>,
    allmulti: Option<bool>,
}

/// What stands beside it at the top.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rest {
    data_dir: Option<String>,
    args: RawArgs,
    runtime_config: RawMac,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: Keys,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawMac {
    mac: Option<String>,
}

/// All that DEL reads.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OfDel {
    data_dir: Option<Value>,
}

/// tuning's configuration.
#[derive(Debug)]
pub struct Conf {
    /// In the order in which they are written, those of `args.cni` last.
    pub sysctls: Vec<Sysctl>,
    /// Of the pod's interface.
    pub attributes: Attributes,
    /// Where the backups are.
    pub data_dir: PathBuf,
}

impl Conf {
    fn of_del(data_dir: Option<&str>) -> Self {
        Self { sysctls: Vec::new(), attributes: Attributes::default(), data_dir: directory(data_dir) }
    }
}

impl plugin::Conf for Conf {
    type Raw = Raw;

    fn for_del(_: &Environment) -> Option<Self> {
        Some(Self::of_del(None))
    }

    fn from_raw(raw: Raw, env: &Environment) -> Result<Self, Error> {
        if env.is(Command::Del) {
            let of_del: OfDel = read(&raw.0)?;
            return Ok(Self::of_del(of_del.data_dir.as_ref().and_then(Value::as_str)));
        }
        let (keys, rest): (Keys, Rest) = (read(&raw.0)?, read(&raw.0)?);
        let args = rest.args.cni;
        let sysctls = sysctls([("sysctl", &keys.sysctl), ("args.cni.sysctl", &args.sysctl)])?;
        let attributes = Attributes {
            mac: mac([args.mac, rest.runtime_config.mac, of_environment(env)?, keys.mac])?,
            // Off is what an interface is by itself, so `false` asks for nothing.
            promisc: args.promisc.or(keys.promisc).filter(|on| *on),
            mtu: args.mtu.or(keys.mtu).filter(|mtu| *mtu != 0),
            allmulti: args.allmulti.or(keys.allmulti),
            txqlen: args.tx_q_len.or(keys.tx_q_len),
        };
        Ok(Self { sysctls, attributes, data_dir: directory(rest.data_dir.as_deref()) })
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    json::from_value(value)
        .map_err(|error| Error::new(Code::DECODING_FAILURE, format!("failed to load netconf: {error}")))
}

fn directory(written: Option<&str>) -> PathBuf {
    written.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_DATA_DIR).into()
}

/// The sysctls of both places; of one that is there already only the value counts. `null` is absent.
fn sysctls(written: [(&str, &Object); 2]) -> Result<Vec<Sysctl>, Error> {
    let mut sysctls: Vec<Sysctl> = Vec::new();
    // Where each is, by its path.
    let mut places = HashMap::new();
    for (under, object) in written {
        for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let value = value.as_str().ok_or_else(|| {
                Error::new(
                    Code::DECODING_FAILURE,
                    format!("failed to load netconf: {under}: {key}: {value} is not a string"),
                )
            })?;
            let sysctl = Sysctl::new(key, value).map_err(|error| error.context(under))?;
            let place = *places.entry(sysctl.path().to_owned()).or_insert(sysctls.len());
            match sysctls.get_mut(place) {
                Some(present) => *present = sysctl,
                None => sysctls.push(sysctl),
            }
        }
    }
    Ok(sysctls)
}

/// `MAC` of `CNI_ARGS`. GC and STATUS are about no interface.
fn of_environment(env: &Environment) -> Result<Option<String>, Error> {
    if !(env.is(Command::Add) || env.is(Command::Check)) {
        return Ok(None);
    }
    let args = env.args()?;
    args.only(&["MAC"])?;
    Ok(args.get("MAC").map(str::to_owned))
}

/// The first that says something.
fn mac(written: [Option<String>; 4]) -> Result<Option<Mac>, Error> {
    let refuse = |msg: String| Error::new(Code::INVALID_CONFIG, msg);
    let Some(text) = written.into_iter().flatten().find(|text| !text.is_empty()) else { return Ok(None) };
    let mac: Mac = text.parse().map_err(|error| refuse(format!("mac: {error}")))?;
    if mac.is_multicast() || mac.bytes() == [0; 6] {
        return Err(refuse(format!("mac: {mac} is not the address of one interface")));
    }
    Ok(Some(mac))
}
