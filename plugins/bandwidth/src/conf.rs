//! The keys of bandwidth: what may be written ([`Raw`]), and what it means once it is known to be valid ([`Conf`]).
//!
//! The four keys stand at the top or in `runtimeConfig.bandwidth`. One at the top, also a 0, and the runtime is not asked:
//! the reference's rule.

use libcni::plugin::{self, Environment};
use libcni::types::{Code, Error};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::limit::Limit;

/// From here on, in bits, the reference's number of bytes has more than 32 bits.
const BURST_END: u64 = (u32::MAX as u64) * 8;

/// The whole configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Raw {
    ingress_rate: Option<u64>,
    ingress_burst: Option<u64>,
    egress_rate: Option<u64>,
    egress_burst: Option<u64>,
    shaped_subnets: Option<IgnoredAny>,
    unshaped_subnets: Option<IgnoredAny>,
    runtime_config: RawRuntime,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRuntime {
    bandwidth: RawBandwidth,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawBandwidth {
    ingress_rate: Option<u64>,
    ingress_burst: Option<u64>,
    egress_rate: Option<u64>,
    egress_burst: Option<u64>,
}

/// bandwidth's configuration.
#[derive(Debug, Default)]
pub struct Conf {
    /// Of what the pod receives.
    pub ingress: Option<Limit>,
    /// Of what it sends.
    pub egress: Option<Limit>,
    /// Keys of the reference's 1.5 that it ignores today.
    ignored: Vec<&'static str>,
}

impl Conf {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }

    /// Says on stderr what is written and not done.
    pub fn warn(&self) {
        for key in &self.ignored {
            libcni::log::warn(format_args!("bandwidth: {key} is ignored: what goes to any address is limited"));
        }
    }
}

impl plugin::Conf for Conf {
    type Raw = Raw;

    fn from_raw(raw: Raw, _: &Environment) -> Result<Self, Error> {
        let of_network = RawBandwidth {
            ingress_rate: raw.ingress_rate,
            ingress_burst: raw.ingress_burst,
            egress_rate: raw.egress_rate,
            egress_burst: raw.egress_burst,
        };
        let (under, written) = if of_network.is_empty() {
            ("runtimeConfig.bandwidth.", raw.runtime_config.bandwidth)
        } else {
            ("", of_network)
        };
        let ignored = [("shapedSubnets", raw.shaped_subnets), ("unshapedSubnets", raw.unshaped_subnets)];
        Ok(Self {
            ingress: limit(&format!("{under}ingress"), written.ingress_rate, written.ingress_burst)?,
            egress: limit(&format!("{under}egress"), written.egress_rate, written.egress_burst)?,
            ignored: ignored.into_iter().filter_map(|(key, value)| value.map(|_| key)).collect(),
        })
    }

    /// What there is to remove is found at the veth, and by its owner.
    fn for_del(_: &Environment) -> Option<Self> {
        Some(Self::default())
    }
}

impl RawBandwidth {
    fn is_empty(&self) -> bool {
        [self.ingress_rate, self.ingress_burst, self.egress_rate, self.egress_burst].iter().all(Option::is_none)
    }
}

/// The limit of one direction; `None` where both numbers are 0 or absent.
fn limit(direction: &str, rate: Option<u64>, burst: Option<u64>) -> Result<Option<Limit>, Error> {
    let refuse = |key: &str, value: u64, why: &str| {
        Err(Error::new(Code::INVALID_CONFIG, format!("{direction}{key}: {value}: {why}")))
    };
    match (rate.unwrap_or(0), burst.unwrap_or(0)) {
        (0, 0) => Ok(None),
        (0, burst) => refuse("Burst", burst, "if burst is set, rate must also be set"),
        (rate, 0) => refuse("Rate", rate, "if rate is set, burst must also be set"),
        (rate @ 1..8, _) => refuse("Rate", rate, "a rate below 8 bits a second is less than a byte"),
        (_, burst @ BURST_END..) => refuse("Burst", burst, "burst cannot be more than 4GB"),
        (rate, burst) => Ok(Some(Limit::of_bits(rate, burst))),
    }
}
