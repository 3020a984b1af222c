//! The configuration: which of the places that can name an address counts.
//!
//! Addresses are in `ipam.addresses`, and `IP` of `CNI_ARGS` adds to them. `args.cni.ips` replaces both, and
//! `runtimeConfig.ips` replaces all three; an empty list replaces nothing. Whatever the runtime gives must be right
//! even if it is replaced, `ipam.addresses` only if it counts: both are the reference's rules.
//!
//! DEL and GC read none of it: there is nothing they would do with it, and a pod must go also under a configuration
//! that was broken after the ADD.

use std::net::IpAddr;

use libcni::plugin::{Command, Conf, Environment};
use libcni::types::{Cidr, CniArgs, Code, Dns, Error, IpConfig, Route, Version, json};
use serde::Deserialize;
use serde_json::Value;

/// What ADD answers with. Empty on DEL and GC.
#[derive(Clone, Debug, Default)]
pub struct StaticConf {
    /// The addresses, in the order they are written. There may be none.
    pub ips: Vec<IpConfig>,
    /// `ipam.routes`.
    pub routes: Vec<Route>,
    /// `ipam.dns`.
    pub dns: Dns,
    /// Gateways of `CNI_ARGS` that are in the subnet of no address of `CNI_ARGS`, and so are nobody's.
    unused_gateways: Vec<IpAddr>,
}

impl StaticConf {
    /// Before 0.3.0 a result has room for one address of a family.
    ///
    /// # Errors
    /// Code 7: there are two of a family.
    pub fn refuse_second_of_family(&self, version: Version) -> Result<(), Error> {
        let ipv4 = self.ips.iter().filter(|ip| ip.address.is_ipv4()).count();
        if version >= Version::V0_3_0 || (ipv4 <= 1 && self.ips.len() - ipv4 <= 1) {
            return Ok(());
        }
        let msg = format!("CNI version {version} does not support more than 1 address per family");
        let ips: Vec<String> = self.ips.iter().map(|ip| ip.address.to_string()).collect();
        let details = format!("[{}]; cniVersion 0.3.1 and later do", ips.join(", "));
        Err(Error::new(Code::INVALID_CONFIG, msg).with_details(details))
    }

    /// What is probably a mistake and is done all the same, as the reference does it; for the log.
    pub fn doubts(&self) -> Vec<String> {
        let outside = |ip: &IpConfig| {
            let gateway = ip.gateway.filter(|gateway| !ip.address.contains(*gateway))?;
            let (address, network) = (ip.address, ip.address.network());
            if gateway.is_ipv4() != address.is_ipv4() {
                return Some(format!("gateway {gateway} of {address} is of the other family"));
            }
            // A host address has no subnet its gateway could be in.
            let said =
                || format!("gateway {gateway} of {address} is outside of {network}: it needs a route of its own");
            (!address.is_host()).then(said)
        };
        let unused = |gateway: &IpAddr| {
            format!("GATEWAY={gateway} of CNI_ARGS is not used: it is in the subnet of no IP of CNI_ARGS")
        };
        self.ips.iter().filter_map(outside).chain(self.unused_gateways.iter().map(unused)).collect()
    }
}

/// The keys of the network that are ours.
#[derive(Deserialize)]
struct Raw {
    ipam: Option<RawIpam>,
    args: Option<RawArgs>,
    #[serde(rename = "runtimeConfig")]
    runtime_config: Option<RawIps>,
}

#[derive(Deserialize)]
struct RawIpam {
    addresses: Option<Vec<RawAddress>>,
    routes: Option<Vec<Route>>,
    dns: Option<Dns>,
}

#[derive(Deserialize)]
struct RawAddress {
    address: Option<String>,
    gateway: Option<String>,
}

#[derive(Deserialize)]
struct RawArgs {
    cni: Option<RawIps>,
}

#[derive(Deserialize)]
struct RawIps {
    ips: Option<Vec<String>>,
}

impl Conf for StaticConf {
    /// Unread: DEL and GC read nothing.
    type Raw = Value;

    fn from_raw(raw: Value, env: &Environment) -> Result<Self, Error> {
        if env.is(Command::Del) || env.is(Command::Gc) {
            return Ok(Self::default());
        }
        let raw: Raw = json::from_value(&raw).map_err(|error| {
            Error::new(Code::DECODING_FAILURE, format!("failed to load static's configuration: {error}"))
        })?;
        let ipam = raw.ipam.ok_or_else(|| {
            Error::new(Code::INVALID_CONFIG, "IPAM config missing 'ipam' key")
                .with_details("args.cni.ips and runtimeConfig.ips need it too")
        })?;
        let FromEnvironment { ips: in_env, unused_gateways } = FromEnvironment::read(&env.args()?)?;
        let in_args = read_ips("args.cni.ips", raw.args.and_then(|args| args.cni))?;
        let in_runtime_config = read_ips("runtimeConfig.ips", raw.runtime_config)?;

        let replacement = [in_runtime_config, in_args].into_iter().find(|ips| !ips.is_empty());
        let ips = match replacement {
            Some(ips) => ips,
            None => {
                let mut ips = read_addresses(ipam.addresses)?;
                ips.extend(in_env);
                ips
            }
        };
        Ok(Self { ips, routes: ipam.routes.unwrap_or_default(), dns: ipam.dns.unwrap_or_default(), unused_gateways })
    }
}

/// `ipam.addresses`.
fn read_addresses(raw: Option<Vec<RawAddress>>) -> Result<Vec<IpConfig>, Error> {
    let read = |(index, raw): (usize, RawAddress)| {
        let at = |key: &str| format!("ipam.addresses[{index}].{key}");
        let text = raw.address.unwrap_or_default();
        let cidr = text.parse::<Cidr>().map_err(|error| {
            let msg = format!("the 'address' field is expected to be in CIDR notation, got: '{text}'");
            invalid(msg, format!("{}: {error}", at("address")))
        })?;
        let gateway = raw.gateway.filter(|text| !text.is_empty()).map(|text| {
            parse_gateway(&text).ok_or_else(|| invalid(format!("invalid IP address: {text}"), at("gateway")))
        });
        Ok(IpConfig::new(cidr, gateway.transpose()?))
    };
    raw.unwrap_or_default().into_iter().enumerate().map(read).collect()
}

/// The list of `ips` that stands at `key`: addresses without gateways.
fn read_ips(key: &str, raw: Option<RawIps>) -> Result<Vec<IpConfig>, Error> {
    let read = |(index, text): (usize, String)| {
        let cidr = text.parse::<Cidr>().map_err(|error| {
            let msg = format!("an entry in the 'ips' field is NOT in CIDR notation, got: '{text}'");
            invalid(msg, format!("{key}[{index}]: {error}"))
        })?;
        Ok(IpConfig::new(cidr, None))
    };
    raw.and_then(|raw| raw.ips).unwrap_or_default().into_iter().enumerate().map(read).collect()
}

/// `IP` and `GATEWAY` of `CNI_ARGS`, both with commas between several.
struct FromEnvironment {
    ips: Vec<IpConfig>,
    unused_gateways: Vec<IpAddr>,
}

impl FromEnvironment {
    fn read(args: &CniArgs) -> Result<Self, Error> {
        args.only(&["IP", "GATEWAY"])?;
        let refuse = |msg: String| Error::new(Code::INVALID_ENVIRONMENT, msg);
        let mut ips = Vec::new();
        for text in pieces(args.get("IP")) {
            let cidr = text.parse::<Cidr>().map_err(|error| {
                let msg = format!("the 'ip' field is expected to be in CIDR notation, got: '{text}'");
                refuse(msg).with_details(format!("IP of CNI_ARGS: {error}"))
            })?;
            ips.push(IpConfig::new(cidr, None));
        }
        let mut unused_gateways = Vec::new();
        for text in pieces(args.get("GATEWAY")) {
            let gateway = parse_gateway(text).ok_or_else(|| {
                refuse(format!("invalid gateway address: {text}")).with_details("GATEWAY of CNI_ARGS")
            })?;
            let mut used = false;
            // Of two gateways in one subnet the later one counts.
            for ip in ips.iter_mut().filter(|ip| ip.address.contains(gateway)) {
                ip.gateway = Some(gateway);
                used = true;
            }
            if !used {
                unused_gateways.push(gateway);
            }
        }
        Ok(Self { ips, unused_gateways })
    }
}

/// The pieces between commas, without the white space around them; none of nothing.
fn pieces(value: Option<&str>) -> impl Iterator<Item = &str> {
    value.filter(|value| !value.is_empty()).into_iter().flat_map(|value| value.split(',')).map(str::trim)
}

fn parse_gateway(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|addr| addr.to_canonical())
}

/// A refusal of a value in the configuration, and where it stands.
fn invalid(msg: String, at: String) -> Error {
    Error::new(Code::INVALID_CONFIG, msg).with_details(at)
}
