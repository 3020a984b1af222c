//! An address with its prefix length, `10.1.2.3/24`: host bits are kept.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An IP address and the length of its network prefix.
///
/// `ipnetwork` does the arithmetic, but reads too much: `10.1.2.3`, `/024`, `/+24` and
/// `/255.0.0.0` are errors in a CNI configuration, so the text is parsed here. An IPv4 address
/// written as IPv6 (`::ffff:10.1.2.3/120`) is the IPv4 address, as everywhere in CNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNetwork);

/// Why a text is not a [`Cidr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {text:?} ({why})")]
pub struct CidrError {
    text: String,
    why: &'static str,
}

impl Cidr {
    /// An address with a prefix of `prefix_len` bits; `None` where that is longer than the address.
    pub fn new(addr: IpAddr, prefix_len: u8) -> Option<Self> {
        let network = match addr {
            IpAddr::V4(v4) => IpNetwork::V4(Ipv4Network::new(v4, prefix_len).ok()?),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => IpNetwork::V4(Ipv4Network::new(v4, prefix_len.checked_sub(96)?).ok()?),
                None => IpNetwork::V6(Ipv6Network::new(v6, prefix_len).ok()?),
            },
        };
        Some(Self(network))
    }

    /// The address alone, as `/32` or `/128`.
    pub fn host(addr: IpAddr) -> Self {
        Self(IpNetwork::from(addr.to_canonical()))
    }

    /// The default route's destination in the family of `addr`: `0.0.0.0/0` or `::/0`.
    pub fn default_of(addr: IpAddr) -> Self {
        let addr = addr.to_canonical();
        Self::new(addr, 0).map_or_else(|| Self::host(addr), |cidr| cidr.network())
    }

    /// The address, host bits included.
    pub fn addr(&self) -> IpAddr {
        self.0.ip()
    }

    /// The prefix length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix()
    }

    /// The network: the same prefix with the host bits cleared.
    pub fn network(&self) -> Self {
        // The same length in the same family always fits.
        Self::new(self.0.network(), self.prefix_len()).unwrap_or(*self)
    }

    /// The last address of the network; for IPv4 the broadcast address.
    pub fn last(&self) -> IpAddr {
        self.0.broadcast()
    }

    /// Whether this is an IPv4 address.
    pub fn is_ipv4(&self) -> bool {
        self.0.is_ipv4()
    }

    /// Whether every bit of the address belongs to the prefix (`/32`, `/128`).
    pub fn is_host(&self) -> bool {
        self.prefix_len() == if self.is_ipv4() { 32 } else { 128 }
    }

    /// Whether the prefix is of length 0: the default route's destination.
    pub fn is_default(&self) -> bool {
        self.prefix_len() == 0
    }

    /// Whether `addr` lies in the network. An address of the other family does not.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(addr.to_canonical())
    }

    /// Whether the two networks share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network().addr()) || other.contains(self.network().addr())
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let refuse = |why| CidrError { text: text.to_owned(), why };
        let (addr, len) =
            text.split_once('/').ok_or_else(|| refuse("expected an address and a prefix length, like 10.1.2.3/24"))?;
        let addr = addr.parse().map_err(|_| refuse("not an IP address"))?;
        let plain = len.bytes().all(|byte| byte.is_ascii_digit()) && (len == "0" || !len.starts_with('0'));
        let len = if plain { len.parse().ok() } else { None };
        let len = len.ok_or_else(|| refuse("the prefix length is not a plain decimal number"))?;
        Self::new(addr, len).ok_or_else(|| refuse("the prefix length is out of range"))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr(), self.prefix_len())
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_reference_reads_is_read() {
        for (text, printed) in [
            ("10.1.2.3/24", "10.1.2.3/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::1/64", "2001:db8::1/64"),
            ("::/0", "::/0"),
            ("::ffff:1.2.3.4/120", "1.2.3.4/24"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_the_reference_refuses_is_refused() {
        for text in [
            "",
            "/",
            "10.1.2.3",
            "10.1.2.3/",
            "10.1.2.3/024",
            "10.1.2.3/+24",
            "10.1.2.3/-1",
            "10.1.2.3/33",
            "10.1.2.3/255.255.255.0",
            "010.1.2.3/24",
            "10.1.2/24",
            "::1/129",
            "fe80::1%eth0/64",
            " 10.1.2.3/24",
            "10.1.2.3/24 ",
            "10.1.2.3/2 4",
            "::ffff:1.2.3.4/90",
            "10.1.2.3/4294967320",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn in_json_it_is_a_text() {
        assert_eq!(serde_json::from_str::<Cidr>(r#""10.1.2.3/24""#).unwrap().to_string(), "10.1.2.3/24");
        for json in ["10", "null", "[10]", r#"{"IP":"10.1.2.3"}"#, r#""10.1.2.3/255.255.255.0""#] {
            assert!(serde_json::from_str::<Cidr>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn networks() {
        let cidr: Cidr = "10.1.2.3/23".parse().unwrap();
        assert_eq!(cidr.network().to_string(), "10.1.2.0/23");
        assert_eq!(cidr.last().to_string(), "10.1.3.255");
        assert!(cidr.contains("10.1.3.1".parse().unwrap()) && !cidr.contains("10.1.4.1".parse().unwrap()));
        assert!(!cidr.contains("::1".parse().unwrap()));
        assert!(cidr.overlaps(&"10.1.3.0/24".parse().unwrap()) && !cidr.overlaps(&"10.1.4.0/24".parse().unwrap()));
        assert_eq!(Cidr::default_of("::1".parse().unwrap()).to_string(), "::/0");
    }

    proptest! {
        #[test]
        fn prints_what_it_read(addr: IpAddr, len in 0u8..=128) {
            if let Some(cidr) = Cidr::new(addr, len) {
                prop_assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
                prop_assert!(cidr.contains(cidr.addr()));
                prop_assert_eq!(cidr.network().network(), cidr.network());
            }
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = text.parse::<Cidr>();
        }
    }
}
