//! Ports of the node that lead to a port of a pod, and the protocols that have ports.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::iptables::Version;

/// A protocol whose packets carry ports that can be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    // In the order of their names: in it the reference writes its rules.
    /// SCTP.
    Sctp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Sctp, Self::Tcp, Self::Udp];

    /// Its name as iptables and nft write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Its number in the IP header (`IPPROTO_*` of linux/in.h).
    pub fn number(self) -> u8 {
        match self {
            Self::Sctp => 132,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A protocol that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not tcp, udp or sctp")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    /// In any case: runtimes write `tcp` and `TCP`.
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        let known = Self::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| UnknownProtocol(text.to_owned()))
    }
}

/// A port of the node, and where in the pod it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Of both ports.
    pub protocol: Protocol,
    /// The node's port.
    pub host_port: NonZeroU16,
    /// The pod's port.
    pub container_port: NonZeroU16,
    /// The node's address it is on. The unspecified address is every one of its IP version, `None` of both.
    pub host_ip: Option<IpAddr>,
}

impl Mapping {
    /// Whether it says anything about packets of this IP version.
    pub fn is_of(&self, version: Version) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_ipv4() == (version == Version::V4))
    }

    /// The one address it is on, if it is on one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Whether a packet may be for both: the same port of the same protocol, on one address or on every one.
    pub fn overlaps(&self, other: &Self) -> bool {
        let same_address = match (self.host_ip, other.host_ip) {
            (Some(ours), Some(theirs)) if ours.is_ipv4() != theirs.is_ipv4() => false,
            (Some(ours), Some(theirs)) => ours == theirs || ours.is_unspecified() || theirs.is_unspecified(),
            _ => true,
        };
        self.protocol == other.protocol && self.host_port == other.host_port && same_address
    }
}

/// Mappings by the node's port, for whoever has many of them to compare with many others.
pub struct Ports<'a>(HashMap<NonZeroU16, Vec<&'a Mapping>>);

impl<'a> Ports<'a> {
    /// Of these mappings.
    pub fn of(mappings: impl Iterator<Item = &'a Mapping>) -> Self {
        let mut ports: HashMap<_, Vec<_>> = HashMap::new();
        mappings.for_each(|mapping| ports.entry(mapping.host_port).or_default().push(mapping));
        Self(ports)
    }

    /// Those on this port, of whichever protocol and address.
    pub fn on(&self, port: u16) -> &[&'a Mapping] {
        NonZeroU16::new(port).and_then(|port| self.0.get(&port)).map_or(&[], Vec::as_slice)
    }

    /// Those that [overlap](Mapping::overlaps) another one.
    pub fn overlapping(&self, other: Mapping) -> impl Iterator<Item = &'a Mapping> + use<'_, 'a> {
        self.on(other.host_port.get()).iter().copied().filter(move |mapping| mapping.overlaps(&other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(protocol: Protocol, host_port: u16, host_ip: Option<&str>) -> Mapping {
        let port = |port| NonZeroU16::new(port).unwrap();
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        Mapping { protocol, host_port: port(host_port), container_port: port(80), host_ip }
    }

    #[test]
    fn protocols() {
        assert_eq!("TCP".parse(), Ok(Protocol::Tcp));
        assert_eq!("sctp".parse(), Ok(Protocol::Sctp));
        for none in ["", "icmp", "all", "tcp\n", " tcp", "udplite", "6"] {
            assert!(none.parse::<Protocol>().is_err(), "{none:?}");
        }
        let mut names: Vec<_> = Protocol::ALL.map(Protocol::name).into();
        names.sort_unstable();
        assert_eq!(names, Protocol::ALL.map(Protocol::name));
    }

    #[test]
    fn what_overlaps() {
        let any = mapping(Protocol::Tcp, 80, None);
        let one = mapping(Protocol::Tcp, 80, Some("192.0.2.1"));
        assert!(any.overlaps(&one) && one.overlaps(&any) && one.overlaps(&one));
        assert!(!one.overlaps(&mapping(Protocol::Tcp, 80, Some("192.0.2.2"))));
        let (any_v4, any_v6) = (mapping(Protocol::Tcp, 80, Some("0.0.0.0")), mapping(Protocol::Tcp, 80, Some("::")));
        assert!(any_v4.overlaps(&one) && !any_v6.overlaps(&one) && !any_v4.overlaps(&any_v6) && any.overlaps(&any_v6));
        assert_eq!((any_v4.address(), one.address().is_some()), (None, true));
        assert!(!any.overlaps(&mapping(Protocol::Udp, 80, None)));
        assert!(!any.overlaps(&mapping(Protocol::Tcp, 81, None)));
        let mappings = [any, one, mapping(Protocol::Udp, 80, None), mapping(Protocol::Tcp, 81, None)];
        let ports = Ports::of(mappings.iter());
        assert_eq!(ports.overlapping(any_v6).collect::<Vec<_>>(), [&any]);
        assert_eq!(ports.overlapping(one).collect::<Vec<_>>(), [&any, &one]);
        assert_eq!((ports.on(80).len(), ports.on(81).len(), ports.on(82).len(), ports.on(0).len()), (3, 1, 0, 0));
        assert!(any.is_of(Version::V6) && !one.is_of(Version::V6) && one.is_of(Version::V4));
    }
}
