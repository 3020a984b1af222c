//! The three names that become file names, chain names and kernel object names, and are therefore
//! checked before anything is done with them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::{Code, Error};

/// Longest interface name in bytes: `IFNAMSIZ` (16) less the terminating NUL.
pub const IFNAME_MAX: usize = 15;

/// Longest network name in bytes: it is a directory of leases, and no name of a file is longer (`NAME_MAX`). With libcni
/// an ADD under a longer one has never succeeded, as the cache's files begin with it.
const NETWORK_NAME_MAX: usize = 255;

/// Longest container id in bytes, far above every runtime's (nerdctl sends 76): it is read back from leases, of which
/// no more than a page is read.
const CONTAINER_ID_MAX: usize = 1024;

/// The rule for container ids and network names: `[A-Za-z0-9][A-Za-z0-9_.-]*` (spec, "Parameters").
fn is_cni_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// `CNI_CONTAINERID`: what the runtime calls the container, at most 1024 bytes.
    ContainerId
}

name_type! {
    /// `name` of a network configuration, at most 255 bytes. It becomes a directory of leases and a part of rule comments.
    NetworkName
}

name_type! {
    /// `CNI_IFNAME` or another interface name: 1 to 15 bytes, not `.` or `..`, no `/`, `:` or white space.
    IfName
}

/// The beginning is enough to find it again, and whoever sends megabytes need not get them back.
fn too_long(code: Code, what: &str, text: &str) -> Error {
    let beginning: String = text.chars().take(32).collect();
    Error::new(code, format!("{what} is too long")).with_details(format!("{} bytes: {beginning}...", text.len()))
}

impl FromStr for ContainerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "" => Err(Error::new(Code::UNKNOWN_CONTAINER, "missing containerID")),
            _ if text.len() > CONTAINER_ID_MAX => Err(too_long(Code::INVALID_ENVIRONMENT, "containerID", text)),
            _ if is_cni_name(text) => Ok(Self(text.to_owned())),
            _ => Err(Error::new(Code::INVALID_ENVIRONMENT, "invalid characters in containerID").with_details(text)),
        }
    }
}

impl FromStr for NetworkName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "" => Err(Error::new(Code::INVALID_CONFIG, "missing network name")),
            _ if text.len() > NETWORK_NAME_MAX => Err(too_long(Code::INVALID_CONFIG, "network name", text)),
            _ if is_cni_name(text) => Ok(Self(text.to_owned())),
            _ => Err(Error::new(Code::INVALID_CONFIG, "invalid characters found in network name").with_details(text)),
        }
    }
}

impl FromStr for IfName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |msg: &str| Err(Error::new(Code::INVALID_ENVIRONMENT, msg).with_details(format!("{text:?}")));
        match text {
            "" => refuse("interface name is empty"),
            "." | ".." => refuse("interface name is . or .."),
            _ if text.len() > IFNAME_MAX => Err(Error::new(Code::INVALID_ENVIRONMENT, "interface name is too long")
                .with_details(format!("interface name should be less than 16 characters: {text:?}"))),
            // The kernel refuses what isspace() says of each byte; the reference, any Unicode space.
            _ if text.chars().any(|c| c == '/' || c == ':' || c == '\0' || c.is_whitespace()) => {
                refuse("interface name contains / or : or whitespace characters")
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_and_network_names() {
        for good in ["a", "0", "default-9f_3.x", "A.B-C_d", &"x".repeat(255)] {
            assert!(good.parse::<ContainerId>().is_ok(), "{good}");
            assert!(good.parse::<NetworkName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "_a", "a/b", "../a", "a b", "a\n", "ä", "a:b"] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
            assert!(bad.parse::<NetworkName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_are_too_long() {
        assert!("x".repeat(1024).parse::<ContainerId>().is_ok());
        let error = "x".repeat(1025).parse::<ContainerId>().unwrap_err();
        assert_eq!((error.code(), error.msg()), (Code::INVALID_ENVIRONMENT, "containerID is too long"));
        let error = "x".repeat(10_000_000).parse::<NetworkName>().unwrap_err();
        assert_eq!((error.code(), error.msg()), (Code::INVALID_CONFIG, "network name is too long"));
        assert!(error.details().len() < 100, "{error}");
    }

    #[test]
    fn interface_names() {
        for good in ["eth0", "a", "123456789012345", "br-0.100", "…"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "1234567890123456", "a/b", "a:b", "a b", "a\tb", "a\u{a0}b", "\u{2026}12345678901234"]
        {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_carry_the_code_the_reference_uses() {
        assert_eq!("".parse::<ContainerId>().unwrap_err().code(), Code::UNKNOWN_CONTAINER);
        assert_eq!("a/b".parse::<ContainerId>().unwrap_err().code(), Code::INVALID_ENVIRONMENT);
        assert_eq!("a/b".parse::<NetworkName>().unwrap_err().code(), Code::INVALID_CONFIG);
        assert_eq!("..".parse::<IfName>().unwrap_err().code(), Code::INVALID_ENVIRONMENT);
    }
}
