//! Who makes the rules: iptables, nf_tables or firewalld.

use std::fmt;
use std::str::FromStr;

use hostnet::iptables::{Iptables, Version};
use hostnet::nft::Nft;
use libcni::Error;

use crate::conf::refuse;
use crate::firewalld::Firewalld;

/// Configuration key `backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The iptables programs.
    Iptables,
    /// nf_tables, without a program, in a table of our own.
    Nftables,
    /// The pods' addresses become sources of a zone; policies are rules of one of the others.
    Firewalld,
}

impl Backend {
    const ALL: [Self; 3] = [Self::Iptables, Self::Nftables, Self::Firewalld];

    fn as_str(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Firewalld => "firewalld",
        }
    }

    /// What this node has: firewalld if it runs, as the reference decides; else iptables, and nf_tables where there is
    /// no iptables that works.
    pub fn of_node() -> Self {
        if Firewalld::is_running() { Self::Firewalld } else { Self::of_rules() }
    }

    /// The same without firewalld, which does not know what a bridge's policy is. An iptables that keeps its rules in
    /// nf_tables is not started to find out.
    pub fn of_rules() -> Self {
        let iptables = match Iptables::find(Version::V4) {
            Ok(program) => program.is_nft() || program.is_usable(),
            Err(_) => false,
        };
        if !iptables && Nft::is_usable() { Self::Nftables } else { Self::Iptables }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|backend| backend.as_str() == text);
        known.ok_or_else(|| refuse("backend", text, "known are iptables, nftables and firewalld"))
    }
}
