//! The keys of ptp: what may be written ([`Raw`]), and what it means once it is known to be valid ([`Conf`]).

use hostnet::egress::{Beside, Egress};
use libcni::plugin::{self, Environment};
use libcni::types::{Code, Error};
use serde::Deserialize;

/// ptp's keys as they are written, beside those of [`hostnet::egress`].
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Raw {
    mtu: Option<u32>,
    ipam: RawIpam,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawIpam {
    r#type: Option<String>,
}

/// ptp's configuration.
#[derive(Debug, Default)]
pub struct Conf {
    /// How the pod's packets leave the node.
    pub egress: Egress,
    /// Bytes, of both ends of the pair; `None` is the kernel's default.
    pub mtu: Option<u32>,
    /// The IPAM plugin: there is nothing to route without addresses. Empty on a DEL whose configuration names none.
    pub ipam: String,
}

impl plugin::Conf for Conf {
    type Raw = Beside<Raw>;

    /// DEL finds everything by its owner.
    fn for_del(_env: &Environment) -> Option<Self> {
        Some(Self::default())
    }

    fn from_raw(Beside { own: raw, egress }: Beside<Raw>, _env: &Environment) -> Result<Self, Error> {
        let ipam = raw.ipam.r#type.filter(|name| !name.is_empty()).ok_or_else(|| {
            Error::new(Code::INVALID_CONFIG, "missing \"ipam.type\": ptp routes addresses, so it needs an IPAM plugin")
        })?;
        Ok(Self { egress: Egress::new(&egress)?, mtu: raw.mtu.filter(|mtu| *mtu != 0), ipam })
    }
}
