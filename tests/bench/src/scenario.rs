//! The rows of the table: what is measured.

use std::fmt;

use serde_json::{Value, json};

use crate::suite::{Programs, Suite};

/// How many pods are there already where the row says so.
const CROWD: usize = 400;

/// How many leases are there already where the row says so.
const LEASES: usize = 10_000;

/// What writes the rules of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// iptables.
    Iptables,
    /// nftables.
    Nftables,
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A pod on a bridge, with addresses from host-local.
    Bridge {
        /// Whether, and with what, the pod's packets are masqueraded.
        masquerade: Option<Backend>,
        /// IPv4 and IPv6, in place of IPv4 alone.
        dual_stack: bool,
        /// How many pods of the same network are there already.
        crowd: usize,
    },
    /// The same without masquerade, and a port of the node that leads to it.
    Portmap(Backend),
    /// host-local alone, with so many leases in its directory.
    HostLocal {
        /// How many there are already.
        leases: usize,
    },
}

/// A pod on a bridge alone on its node.
pub const fn bridge(masquerade: Option<Backend>, dual_stack: bool) -> Scenario {
    Scenario::Bridge { masquerade, dual_stack, crowd: 0 }
}

/// The same on a node with [`CROWD`] other pods.
pub const fn crowded(masquerade: Backend) -> Scenario {
    Scenario::Bridge { masquerade: Some(masquerade), dual_stack: false, crowd: CROWD }
}

/// host-local with an empty store.
pub const EMPTY_STORE: Scenario = Scenario::HostLocal { leases: 0 };
/// host-local with a full one.
pub const FULL_STORE: Scenario = Scenario::HostLocal { leases: LEASES };

/// Without masquerade, with iptables, with nftables.
pub const MASQUERADES: [Option<Backend>; 3] = [None, Some(Backend::Iptables), Some(Backend::Nftables)];

/// All rows that our suite has the plugins for.
pub fn all(programs: &Programs) -> Vec<Scenario> {
    let mut all = Vec::new();
    for dual_stack in [false, true] {
        all.extend(MASQUERADES.map(|masquerade| bridge(masquerade, dual_stack)));
    }
    let backends = [Backend::Iptables, Backend::Nftables];
    all.extend(backends.map(Scenario::Portmap).into_iter().filter(|row| row.is_known_to(programs, Suite::Ours)));
    all.extend(backends.map(crowded));
    all.extend([EMPTY_STORE, FULL_STORE]);
    all
}

impl Scenario {
    /// The plugins of an ADD in order, each with its configuration.
    pub fn chain(self) -> Vec<(&'static str, Value)> {
        let (masquerade, dual_stack) = match self {
            Self::Bridge { masquerade, dual_stack, .. } => (masquerade, dual_stack),
            Self::Portmap(_) | Self::HostLocal { .. } => (None, false),
        };
        let mut ranges = vec![json!([{"subnet": "10.88.0.0/16"}])];
        if dual_stack {
            ranges.push(json!([{"subnet": "fd88::/64"}]));
        }
        let mut first = json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
            "ipMasq": masquerade.is_some(), "ipam": {"type": "host-local", "ranges": ranges},
        });
        if let Some(backend) = masquerade {
            first["ipMasqBackend"] = backend.to_string().into();
        }
        match self {
            Self::Bridge { .. } => vec![("bridge", first)],
            Self::HostLocal { .. } => vec![("host-local", first)],
            Self::Portmap(backend) => {
                let mapping = json!([{"hostPort": 30080, "containerPort": 80, "protocol": "tcp"}]);
                let portmap = json!({
                    "cniVersion": "1.0.0", "name": "bench", "type": "portmap", "backend": backend.to_string(),
                    "capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": mapping},
                });
                vec![("bridge", first), ("portmap", portmap)]
            }
        }
    }

    /// Whether there are other pods on the node. Such a row is measured when there are no others on the machine: what a
    /// namespace costs the kernel does not stop at its node.
    pub fn is_crowded(self) -> bool {
        matches!(self, Self::Bridge { crowd: 1.., .. })
    }

    /// What the floor makes of it: the rules of nftables are netlink requests like others; those of iptables and
    /// portmap are left out. host-local has no floor, because it makes no kernel object.
    pub fn has_floor_rules(self) -> bool {
        matches!(self, Self::Bridge { masquerade: Some(Backend::Nftables), .. })
    }

    /// Whether a suite has the plugins, and these the backend.
    pub fn is_known_to(self, programs: &Programs, suite: Suite) -> bool {
        match self {
            Self::HostLocal { .. } => suite != Suite::Floor,
            Self::Bridge { masquerade: Some(Backend::Nftables), .. } => {
                programs.knows(suite, "bridge", "cni_plugins_masquerade")
            }
            Self::Portmap(Backend::Iptables) => programs.knows(suite, "portmap", "CNI-HOSTPORT-DNAT"),
            Self::Portmap(Backend::Nftables) => programs.knows(suite, "portmap", "cni_hostport"),
            Self::Bridge { .. } => true,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        })
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge { masquerade, dual_stack, crowd } => {
                f.write_str(if *dual_stack { "bridge dual stack" } else { "bridge" })?;
                match masquerade {
                    Some(backend) => write!(f, ", {backend}")?,
                    None => f.write_str(", no masquerade")?,
                }
                if *crowd > 0 { write!(f, ", {crowd} pods there") } else { Ok(()) }
            }
            Self::Portmap(backend) => write!(f, "bridge + portmap, {backend}"),
            Self::HostLocal { leases } => write!(f, "host-local alone, {leases} leases"),
        }
    }
}
