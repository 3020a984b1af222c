//! `ingressPolicy`: who may open connections to the pods of a bridge.

use std::fmt;
use std::str::FromStr;

use libcni::Error;

use crate::conf::refuse;

/// A policy is one of a bridge: the newest ADD decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Anybody.
    Open,
    /// Anybody but the pods of other bridges that have a policy.
    SameBridge,
    /// Nobody but the node, and whoever comes through a published port.
    Isolated,
}

impl Policy {
    const ALL: [Self; 3] = [Self::Open, Self::SameBridge, Self::Isolated];

    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::SameBridge => "same-bridge",
            Self::Isolated => "isolated",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|policy| policy.as_str() == text);
        known.ok_or_else(|| refuse("ingressPolicy", text, "known are open, same-bridge and isolated"))
    }
}
