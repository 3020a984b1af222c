//! The keys of portmap: what may be written ([`Raw`]), and what it means once it is known to be valid ([`Conf`]).
//!
//! Everything that ends up in a ruleset is a type here that cannot hold anything else: a protocol, a port, an address.

use std::net::IpAddr;
use std::num::NonZeroU16;

use hostnet::iptables::{Iptables, Version};
use hostnet::masquerade::Backend;
use hostnet::ports::Mapping;
use libcni::plugin::{self, Environment};
use libcni::types::{Code, Error};
use serde::Deserialize;

use crate::conditions::{Conditions, Language};

/// Bits of a packet's mark.
const MARK_BITS: i64 = 32;
/// The bit of those that are to be masqueraded, as in the reference.
const DEFAULT_MARK_BIT: i64 = 13;
/// Longest name of a chain (`XT_EXTENSION_MAXNAMELEN` without the NUL).
const CHAIN_NAME_MAX: usize = 28;
/// Targets that end a packet's way: not what sets a mark.
const VERDICTS: [&str; 4] = ["ACCEPT", "DROP", "QUEUE", "RETURN"];

/// As it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Raw {
    backend: Option<String>,
    snat: Option<bool>,
    masq_all: Option<bool>,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    conditions_v4: Option<Vec<String>>,
    conditions_v6: Option<Vec<String>>,
    runtime_config: RawRuntime,
}

/// What the runtime adds for the capability `portMappings`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawRuntime {
    port_mappings: Option<Vec<RawMapping>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawMapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
}

/// portmap's configuration.
#[derive(Debug, Default)]
pub struct Conf {
    /// Who makes the rules; `None`: iptables, and nftables only where iptables does not work and nftables does.
    pub backend: Option<Backend>,
    /// The ports.
    pub mappings: Vec<Mapping>,
    /// Whose packets get the node's address.
    pub masquerade: Masquerade,
    /// What else must be true of a packet.
    pub conditions: Conditions,
}

/// Whose packets to a mapped port get the node's address as their source. Where pods can reach each other, or
/// themselves, without the node, an answer would not come back the way of the question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Masquerade {
    /// Nobody's.
    #[default]
    Off,
    /// Those of the pod's own network and of the node's loopback address, by way of this mark.
    Neighbours(Mark),
    /// Everybody's.
    All(Mark),
}

/// How packets are marked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// By this bit, in chains of ours.
    Bit(u32),
    /// In somebody else's chain, who masquerades too.
    Chain(String),
}

impl Masquerade {
    /// How packets are marked, if they are.
    pub fn mark(&self) -> Option<&Mark> {
        match self {
            Self::Off => None,
            Self::Neighbours(mark) | Self::All(mark) => Some(mark),
        }
    }

    /// The bit, where we set it.
    pub fn bit(&self) -> Option<u32> {
        match self.mark() {
            Some(Mark::Bit(bit)) => Some(*bit),
            _ => None,
        }
    }
}

impl plugin::Conf for Conf {
    type Raw = Raw;

    fn for_del(_: &Environment) -> Option<Self> {
        Some(Self::default())
    }

    fn from_raw(raw: Raw, _: &Environment) -> Result<Self, Error> {
        let mark = mark(raw.mark_masq_bit, raw.external_set_mark_chain.as_deref())?;
        let conditions = Conditions::new(raw.conditions_v4.unwrap_or_default(), raw.conditions_v6.unwrap_or_default())?;
        let backend = backend(raw.backend.as_deref(), &mark, &conditions)?;
        let mappings = raw.runtime_config.port_mappings.unwrap_or_default();
        let mappings = mappings.iter().enumerate().map(|(index, written)| mapping(index, written));
        let masquerade = match (raw.snat.unwrap_or(true), raw.masq_all.unwrap_or(false)) {
            (false, _) => Masquerade::Off,
            (true, false) => Masquerade::Neighbours(mark),
            (true, true) => Masquerade::All(mark),
        };
        Ok(Self { backend, mappings: mappings.collect::<Result<_, _>>()?, masquerade, conditions })
    }
}

fn refuse(msg: impl Into<String>) -> Error {
    Error::new(Code::INVALID_CONFIG, msg)
}

fn mark(bit: Option<i64>, chain: Option<&str>) -> Result<Mark, Error> {
    match (bit, chain.filter(|chain| !chain.is_empty())) {
        (Some(_), Some(_)) => Err(refuse("Cannot specify externalSetMarkChain and markMasqBit")),
        (None, Some(chain)) => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            let valid = chain.len() <= CHAIN_NAME_MAX
                && chain.bytes().all(plain)
                && !chain.starts_with('-')
                && !VERDICTS.contains(&chain);
            if !valid {
                return Err(refuse(format!("externalSetMarkChain: {chain:?} is not the name of a chain")));
            }
            Ok(Mark::Chain(chain.to_owned()))
        }
        (bit, None) => {
            let bit = bit.unwrap_or(DEFAULT_MARK_BIT);
            let shift = u32::try_from(bit).ok().filter(|_| bit < MARK_BITS).ok_or_else(|| {
                refuse("MasqMarkBit must be between 0 and 31").with_details(format!("markMasqBit: {bit}"))
            })?;
            Ok(Mark::Bit(1 << shift))
        }
    }
}

/// The backend that is asked for, and whether it understands the rest.
fn backend(written: Option<&str>, mark: &Mark, conditions: &Conditions) -> Result<Option<Backend>, Error> {
    let asked = match written {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            refuse(format!("unrecognized backend {text:?}")).with_details("backend: expected iptables or nftables")
        })?),
    };
    let of = |language| conditions.keys_of(language);
    let mut of_iptables: Vec<&str> = if matches!(mark, Mark::Chain(_)) { vec!["externalSetMarkChain"] } else { vec![] };
    of_iptables.extend(of(Language::Iptables));
    let of_nftables = of(Language::Nftables);
    // What is not asked for is iptables wherever there is one.
    let has_iptables = || Iptables::find(Version::V4).is_ok();
    let (name, other, keys) = match asked {
        Some(Backend::Nftables) => ("nftables", "iptables", of_iptables),
        None if of_nftables.is_empty() && of_iptables.is_empty() => return Ok(None),
        None if of_iptables.is_empty() && !has_iptables() => return Ok(Some(Backend::Nftables)),
        Some(Backend::Iptables) | None => ("iptables", "nftables", of_nftables),
    };
    if !keys.is_empty() {
        return Err(refuse(format!(
            "{name} backend was requested but configuration contains {other}-specific options [{}]",
            keys.join(" ")
        )));
    }
    Ok(asked.or(Some(Backend::Iptables)))
}

fn mapping(index: usize, written: &RawMapping) -> Result<Mapping, Error> {
    let key = |name: &str| format!("runtimeConfig.portMappings[{index}].{name}");
    let port = |kind: &str, name: &str, number: i64| {
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        port.ok_or_else(|| {
            refuse(format!("Invalid {kind} port number: {number}"))
                .with_details(format!("{}: {number} is not 1 to 65535", key(name)))
        })
    };
    let container_port = port("container", "containerPort", written.container_port)?;
    let host_port = port("host", "hostPort", written.host_port)?;
    let protocol = written.protocol.parse();
    let protocol = protocol.map_err(|error| refuse(format!("{}: {error}", key("protocol"))))?;
    let host_ip = match written.host_ip.as_deref().unwrap_or_default() {
        "" => None,
        text => {
            let addr: IpAddr = text
                .parse()
                .map_err(|_| refuse(format!("{}: {text:?} is not an IPv4 or IPv6 address", key("hostIP"))))?;
            if addr.is_multicast() {
                return Err(refuse(format!("{}: {text:?} is a multicast address", key("hostIP"))));
            }
            Some(addr.to_canonical())
        }
    };
    Ok(Mapping { protocol, host_port, container_port, host_ip })
}
