//! The hardware address of an Ethernet link.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A 6-byte Ethernet address. Read as `aa:bb:cc:dd:ee:ff`, `aa-bb-…` or `aabb.ccdd.eeff`, printed as the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

/// Why a text is not a [`Mac`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid MAC address: {0:?} (expected six bytes, like 02:42:ac:11:00:02)")]
pub struct MacError(String);

impl Mac {
    /// From the bytes as the kernel has them.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes, first on the wire first.
    pub const fn bytes(&self) -> [u8; 6] {
        self.0
    }

    /// Whether this is a group address, which no link can have as its own.
    pub const fn is_multicast(&self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 1
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let refuse = || MacError(text.to_owned());
        let group = match text.bytes().find(|byte| b":-.".contains(byte)) {
            Some(b'.') => 4,
            Some(_) => 2,
            None => return Err(refuse()),
        };
        let separator = if group == 4 {
            '.'
        } else if text.contains(':') {
            ':'
        } else {
            '-'
        };
        let mut digits = String::with_capacity(12);
        for piece in text.split(separator) {
            if piece.len() != group || !piece.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            digits.push_str(piece);
        }
        if digits.len() != 12 {
            return Err(refuse());
        }
        let value = u64::from_str_radix(&digits, 16).map_err(|_| refuse())?;
        let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
        Ok(Self([a, b, c, d, e, f]))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_spellings_one_address() {
        for text in ["02:42:AC:11:00:02", "02-42-ac-11-00-02", "0242.ac11.0002"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "02:42:ac:11:00:02");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "02:42:ac:11:00:02:03:04",
            "2:42:ac:11:00:02",
            "02:42-ac:11:00:02",
            "02:42:ac:11:00:0g",
            "0242ac110002",
            "zz",
            "02:42:ac:11:00:02:",
            "0242.ac11.00-2",
            "+2:42:ac:11:00:02",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
