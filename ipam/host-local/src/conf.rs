//! The configuration: what may be written, and the rules between the keys.
//!
//! ADD, CHECK and STATUS want all of it to be right. DEL and GC take the directory and the cooldown from it and nothing else:
//! addresses must come back also under a configuration that was broken, or made stricter, after the ADD. The
//! reference refuses there, and the addresses stay taken.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use libcni::plugin::{Command, Conf, Environment};
use libcni::types::{Cidr, Code, Error, NetworkName, Route, Version, json};
use serde::Deserialize;
use serde_json::Value;

use crate::range::{RangeSet, Written};

/// Where leases are if `ipam.dataDir` does not say.
pub const DATA_DIR: &str = "/var/lib/cni/networks";

/// Most ranges of a network. Each is compared with each, so ten times as many would take a hundred times as long.
const RANGES_MAX: usize = 4096;

/// The longest cooldown: a day.
const COOLDOWN_MAX: u64 = 24 * 60 * 60;

/// What is allocated, and where it is kept.
#[derive(Clone, Debug, Default)]
pub struct HostLocalConf {
    /// `ipam.dataDir`.
    data_dir: PathBuf,
    /// One address of each is allocated; the index is that of `last_reserved_ip.<index>`. From
    /// `runtimeConfig.ipRanges`, then the single range in `ipam`, then `ipam.ranges`. Empty on DEL and GC.
    pub sets: Vec<RangeSet>,
    /// Addresses asked for, without duplicates: `IP` of `CNI_ARGS`, then `args.cni.ips`, then
    /// `runtimeConfig.ips`. ADD only.
    pub requested: Vec<IpAddr>,
    /// `ipam.cooldownSeconds`: how long an address that was freed is not given to another owner while others are free.
    pub cooldown: Option<Duration>,
    /// `ipam.routes`, for the result.
    pub routes: Vec<Route>,
    /// `ipam.resolvConf`.
    pub resolv_conf: Option<PathBuf>,
}

impl HostLocalConf {
    /// The directory with a network's leases.
    pub fn directory(&self, network: &NetworkName) -> PathBuf {
        self.data_dir.join(network.as_str())
    }

    /// Before 0.3.0 a result has room for one address of a family.
    ///
    /// # Errors
    /// Code 7: there are two sets of a family.
    pub fn refuse_second_of_family(&self, version: Version) -> Result<(), Error> {
        let ipv4 = self.sets.iter().filter(|set| set.is_ipv4()).count();
        if version >= Version::V0_3_0 || (ipv4 <= 1 && self.sets.len() - ipv4 <= 1) {
            return Ok(());
        }
        let msg = format!("CNI version {version} does not support more than 1 address per family");
        Err(Error::new(Code::INVALID_CONFIG, msg).with_details("cniVersion 0.3.1 and later do"))
    }
}

/// The keys of the network that are ours, unread: how much of them must be readable depends on the verb. The others, of
/// which `prevResult` may be long, are not copied.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unread {
    ipam: Option<Value>,
    args: Option<Value>,
    runtime_config: Option<Value>,
}

impl Unread {
    /// What was written, without the rest.
    fn into_value(self) -> Value {
        let keys = [("ipam", self.ipam), ("args", self.args), ("runtimeConfig", self.runtime_config)];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// The same, read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    ipam: Option<RawIpam>,
    args: Option<RawArgs>,
    runtime_config: Option<RawRuntimeConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIpam {
    data_dir: Option<String>,
    cooldown_seconds: Option<Value>,
    resolv_conf: Option<String>,
    routes: Option<Vec<Route>>,
    ranges: Option<Vec<Vec<RawRange>>>,
    subnet: Option<String>,
    range_start: Option<String>,
    range_end: Option<String>,
    gateway: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRange {
    subnet: Option<String>,
    range_start: Option<String>,
    range_end: Option<String>,
    gateway: Option<String>,
}

#[derive(Deserialize)]
struct RawArgs {
    cni: Option<RawCniArgs>,
}

#[derive(Deserialize)]
struct RawCniArgs {
    ips: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRuntimeConfig {
    ips: Option<Vec<String>>,
    ip_ranges: Option<Vec<Vec<RawRange>>>,
}

/// All that DEL and GC read.
#[derive(Deserialize)]
struct RawPlace {
    ipam: Option<RawDataDir>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDataDir {
    data_dir: Option<String>,
    cooldown_seconds: Option<Value>,
}

impl Conf for HostLocalConf {
    type Raw = Unread;

    fn from_raw(unread: Unread, env: &Environment) -> Result<Self, Error> {
        let undecodable =
            |error| Error::new(Code::DECODING_FAILURE, format!("failed to load host-local's configuration: {error}"));
        let written = unread.into_value();
        if env.is(Command::Del) || env.is(Command::Gc) {
            let place: RawPlace = json::from_value(&written).map_err(undecodable)?;
            let (data_dir, cooldown) =
                place.ipam.map(|ipam| (ipam.data_dir, ipam.cooldown_seconds)).unwrap_or_default();
            // A cooldown that is not valid is none: the address must come back.
            let cooldown = cooldown_of(cooldown).unwrap_or_default();
            return Ok(Self { data_dir: data_dir_of(data_dir), cooldown, ..Self::default() });
        }
        let raw: Raw = json::from_value(&written).map_err(undecodable)?;
        let ipam = raw.ipam.ok_or_else(|| Error::new(Code::INVALID_CONFIG, "IPAM config missing 'ipam' key"))?;
        let (runtime_ips, runtime_ranges) = raw.runtime_config.map(|raw| (raw.ips, raw.ip_ranges)).unwrap_or_default();

        let mut requested = Vec::new();
        if env.is(Command::Add) {
            requested.extend(requested_in_env(env)?);
            let args = raw.args.and_then(|args| args.cni).and_then(|cni| cni.ips);
            requested.extend(requested_in("args.cni.ips", args)?);
            requested.extend(requested_in("runtimeConfig.ips", runtime_ips)?);
        }
        let mut sets = written_sets("runtimeConfig.ipRanges", runtime_ranges)?;
        let (routes, resolv_conf, data_dir) = (ipam.routes, ipam.resolv_conf, ipam.data_dir);
        let cooldown = cooldown_of(ipam.cooldown_seconds)?;
        let single = RawRange {
            subnet: ipam.subnet,
            range_start: ipam.range_start,
            range_end: ipam.range_end,
            gateway: ipam.gateway,
        };
        let single = WrittenSet { at: "ipam".to_owned(), single: true, ranges: vec![single.read("ipam")?] };
        // Without `subnet` the other three mean nothing, as in the reference.
        sets.extend(Some(single).filter(|set| set.ranges.iter().any(|range| range.subnet.is_some())));
        sets.extend(written_sets("ipam.ranges", ipam.ranges)?);

        Ok(Self {
            data_dir: data_dir_of(data_dir),
            // A pod that has such a gateway already can still be checked.
            sets: checked_sets(&sets, !env.is(Command::Check))?,
            requested: distinct(requested),
            cooldown,
            routes: routes.unwrap_or_default(),
            resolv_conf: resolv_conf.filter(|path| !path.is_empty()).map(PathBuf::from),
        })
    }
}

fn data_dir_of(text: Option<String>) -> PathBuf {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| DATA_DIR.to_owned()).into()
}

fn cooldown_of(value: Option<Value>) -> Result<Option<Duration>, Error> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let Some(seconds) = value.as_u64().filter(|seconds| *seconds <= COOLDOWN_MAX) else {
        let msg = format!("invalid cooldownSeconds: {value} is not a number of seconds from 0 to {COOLDOWN_MAX}");
        return Err(Error::new(Code::INVALID_CONFIG, msg).with_details("ipam.cooldownSeconds"));
    };
    Ok(Some(Duration::from_secs(seconds)).filter(|cooldown| !cooldown.is_zero()))
}

/// A set with the place it is written at, for messages.
struct WrittenSet {
    at: String,
    /// The one range whose keys stand in `ipam` itself.
    single: bool,
    ranges: Vec<Written>,
}

impl WrittenSet {
    /// The key of a range, like `ipam.ranges[0][1].subnet`; the set if the key is empty.
    fn path(&self, index: usize, key: &str) -> String {
        match (key, self.single) {
            ("", _) => self.at.clone(),
            (_, true) => format!("{}.{key}", self.at),
            (_, false) => format!("{}[{index}].{key}", self.at),
        }
    }
}

fn written_sets(at: &str, raw: Option<Vec<Vec<RawRange>>>) -> Result<Vec<WrittenSet>, Error> {
    let sets = raw.unwrap_or_default().into_iter().enumerate().map(|(set_index, set)| {
        let at = format!("{at}[{set_index}]");
        let ranges = set.into_iter().enumerate().map(|(index, range)| range.read(&format!("{at}[{index}]")));
        Ok(WrittenSet { ranges: ranges.collect::<Result<_, Error>>()?, at, single: false })
    });
    sets.collect()
}

impl RawRange {
    fn read(self, at: &str) -> Result<Written, Error> {
        let bad = |key: &str, msg: String| Error::new(Code::INVALID_CONFIG, msg).with_details(format!("{at}.{key}"));
        let subnet = self.subnet.map(|text| match text.parse::<Cidr>() {
            Ok(subnet) if subnet.is_ipv4() && text.contains(':') => {
                Err(bad("subnet", format!("IPNet IP and Mask version mismatch: {text:?}")))
            }
            Ok(subnet) => Ok(subnet),
            Err(error) => Err(bad("subnet", error.to_string())),
        });
        let address = |key: &str, text: Option<String>| {
            text.filter(|text| !text.is_empty())
                .map(|text| parse_address(&text).ok_or_else(|| bad(key, format!("invalid IP address: {text}"))))
                .transpose()
        };
        Ok(Written {
            subnet: subnet.transpose()?,
            start: address("rangeStart", self.range_start)?,
            end: address("rangeEnd", self.range_end)?,
            gateway: address("gateway", self.gateway)?,
        })
    }
}

fn checked_sets(written: &[WrittenSet], gateways: bool) -> Result<Vec<RangeSet>, Error> {
    let count: usize = written.iter().map(|set| set.ranges.len()).sum();
    if count > RANGES_MAX {
        let msg = format!("{count} address ranges, where {RANGES_MAX} are the most");
        return Err(Error::new(Code::INVALID_CONFIG, msg).with_details("ipam.ranges, runtimeConfig.ipRanges"));
    }
    let mut sets: Vec<RangeSet> = Vec::with_capacity(written.len());
    for (index, set) in written.iter().enumerate() {
        let checked = RangeSet::new(&set.ranges).and_then(|ranges| {
            if gateways {
                ranges.check_gateways()?;
            }
            Ok(ranges)
        });
        sets.push(checked.map_err(|error| {
            Error::new(Code::INVALID_CONFIG, format!("invalid range set {index}: {error}"))
                .with_details(set.path(error.index, error.key))
        })?);
    }
    if sets.is_empty() {
        return Err(Error::new(Code::INVALID_CONFIG, "no IP ranges specified")
            .with_details("give ipam.subnet, ipam.ranges or runtimeConfig.ipRanges"));
    }
    for (index, set) in sets.iter().enumerate() {
        if let Some(other) = sets.iter().skip(index + 1).position(|other| set.overlaps(other)) {
            let other = index + 1 + other;
            let sets = [index, other].map(|index| written.get(index).map_or("", |set| set.at.as_str()));
            return Err(Error::new(Code::INVALID_CONFIG, format!("range set {index} overlaps with {other}"))
                .with_details(sets.join(" and ")));
        }
    }
    Ok(sets)
}

fn requested_in_env(env: &Environment) -> Result<Option<IpAddr>, Error> {
    let args = env.args()?;
    args.only(&["IP"])?;
    let Some(text) = args.get("IP").filter(|text| !text.is_empty()) else { return Ok(None) };
    let addr = parse_requested(text).ok_or_else(|| {
        let msg = format!("ARGS: error parsing value of pair \"IP={text}\": invalid IP address {text}");
        Error::new(Code::INVALID_ENVIRONMENT, msg).with_details("CNI_ARGS")
    })?;
    Ok(Some(addr))
}

fn requested_in(key: &str, texts: Option<Vec<String>>) -> Result<Vec<IpAddr>, Error> {
    let read = |(index, text): (usize, String)| {
        parse_requested(&text).ok_or_else(|| {
            Error::new(Code::INVALID_CONFIG, format!("invalid IP address {text}"))
                .with_details(format!("{key}[{index}] = {text:?}"))
        })
    };
    texts.unwrap_or_default().into_iter().enumerate().map(read).collect()
}

/// An address, or an address and a prefix length that means nothing: the range has its own.
fn parse_requested(text: &str) -> Option<IpAddr> {
    if text.contains('/') { text.parse::<Cidr>().ok().map(|cidr| cidr.addr()) } else { parse_address(text) }
}

fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|addr| addr.to_canonical())
}

fn distinct(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = HashSet::with_capacity(addresses.len());
    addresses.retain(|addr| seen.insert(*addr));
    addresses
}
