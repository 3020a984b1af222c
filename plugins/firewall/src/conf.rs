//! The keys of firewall: what may be written ([`Raw`]), and what it means once it is known to be valid ([`Conf`]).

use libcni::plugin::{self, Command, Environment};
use libcni::types::{Code, Error};
use serde::Deserialize;

use crate::backend::Backend;
use crate::iptables;
use crate::policy::Policy;

/// The chain for the administrator's own rules, as in the reference.
const DEFAULT_ADMIN_CHAIN: &str = "CNI-ADMIN";
/// The zone of firewalld that pods are put into, as in the reference.
const DEFAULT_ZONE: &str = "trusted";

/// Longest name of a chain of iptables (`XT_EXTENSION_MAXNAMELEN` without the NUL).
const CHAIN_MAX: usize = 28;

/// Names that mean something else where a chain is named.
const RESERVED: [&str; 12] = [
    "ACCEPT",
    "DROP",
    "QUEUE",
    "RETURN",
    "INPUT",
    "FORWARD",
    "OUTPUT",
    "PREROUTING",
    "POSTROUTING",
    iptables::CNI_FORWARD,
    iptables::STAGE_1,
    iptables::STAGE_2,
];

/// firewall's keys as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Raw {
    backend: Option<String>,
    iptables_admin_chain_name: Option<String>,
    firewalld_zone: Option<String>,
    ingress_policy: Option<String>,
}

/// firewall's configuration.
#[derive(Debug)]
pub struct Conf {
    /// Who makes the rules; `None` for what this node has.
    pub backend: Option<Backend>,
    /// The chain of table `filter` that is asked before our rules.
    pub admin_chain: String,
    /// The zone of firewalld.
    pub zone: String,
    /// Who may open connections to the pods of the bridge.
    pub policy: Policy,
}

impl plugin::Conf for Conf {
    type Raw = Raw;

    /// DEL finds everything by its owner, whoever made it.
    fn for_del(_: &Environment) -> Option<Self> {
        Some(Self::of_del(Raw::default()))
    }

    fn from_raw(raw: Raw, env: &Environment) -> Result<Self, Error> {
        if env.is(Command::Del) {
            return Ok(Self::of_del(raw));
        }
        let written = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            backend: written(raw.backend).map(|name| name.parse()).transpose()?,
            admin_chain: written(raw.iptables_admin_chain_name).map_or(Ok(DEFAULT_ADMIN_CHAIN.to_owned()), chain)?,
            zone: written(raw.firewalld_zone).map_or(Ok(DEFAULT_ZONE.to_owned()), zone)?,
            policy: written(raw.ingress_policy).map_or(Ok(Policy::Open), |name| name.parse())?,
        })
    }
}

impl Conf {
    /// What cannot be right is passed over.
    fn of_del(raw: Raw) -> Self {
        Self {
            backend: raw.backend.and_then(|name| name.parse().ok()),
            admin_chain: DEFAULT_ADMIN_CHAIN.to_owned(),
            zone: raw.firewalld_zone.and_then(|name| zone(name).ok()).unwrap_or_else(|| DEFAULT_ZONE.to_owned()),
            policy: Policy::Open,
        }
    }
}

/// A refusal of a value, naming key and value.
pub fn refuse(key: &str, value: &str, why: &str) -> Error {
    Error::new(Code::INVALID_CONFIG, format!("invalid {key:?}: {value:?}")).with_details(why)
}

/// What becomes a word of a command to iptables-restore is a word, and no option.
fn chain(name: String) -> Result<String, Error> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/@".contains(&byte));
    let why = if name.len() > CHAIN_MAX {
        "a chain's name has 28 characters at most"
    } else if !plain || name.starts_with('-') {
        "a chain's name here is of letters, digits and - _ . : + / @, and does not begin with -"
    } else if RESERVED.contains(&name.as_str()) {
        "this name has a meaning of its own"
    } else {
        return Ok(name);
    };
    Err(refuse("iptablesAdminChainName", &name, why))
}

/// firewalld knows its zones; only what cannot be one is refused here.
fn zone(name: String) -> Result<String, Error> {
    if name.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/') {
        return Err(refuse("firewalldZone", &name, "a zone's name has no spaces, slashes or control characters"));
    }
    Ok(name)
}
