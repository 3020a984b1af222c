//! The versions of the specification.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::{Code, Error};

/// A published version of the CNI specification. They are ordered as they were published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The first: ADD and DEL.
    V0_1_0,
    /// VERSION.
    V0_2_0,
    /// Lists of plugins, `prevResult`, results with interfaces.
    V0_3_0,
    /// A typing error of 0.3.0 mended.
    V0_3_1,
    /// CHECK.
    V0_4_0,
    /// Configurations are lists only; `ips[].version` is gone.
    V1_0_0,
    /// GC, STATUS, `cniVersions`, more fields in interfaces and routes.
    V1_1_0,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: &'static [Self] =
        &[Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest version this crate speaks.
    pub const CURRENT: Self = Self::V1_1_0;

    /// The version as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// What a configuration's or a result's `cniVersion` means: none, and the empty text, are 0.1.0.
    ///
    /// # Errors
    /// Code 1 for a text that is not exactly a published version: `1.0` is not `1.0.0`.
    pub fn of_config(text: Option<&str>) -> Result<Self, Error> {
        match text {
            None | Some("") => Ok(Self::V0_1_0),
            Some(text) => text.parse(),
        }
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|version| version.as_str() == text).ok_or_else(|| {
            Error::new(Code::INCOMPATIBLE_VERSION, "incompatible CNI versions")
                .with_details(format!("config is {text:?}, plugin supports {}", quoted(Self::ALL)))
        })
    }
}

/// Versions as the reference prints them in an error: `["0.1.0" "0.2.0"]`.
pub(crate) fn quoted(versions: &[Version]) -> String {
    let quoted: Vec<String> = versions.iter().map(|version| format!("\"{version}\"")).collect();
    format!("[{}]", quoted.join(" "))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A version number that need not be published: up to three numbers, absent ones are 0.
///
/// The reference decides which verbs a configuration may use by comparing numbers, and which
/// results it can read by comparing texts. `None` where the text is not a version number.
pub fn number(text: &str) -> Option<[i64; 3]> {
    if text.is_empty() {
        return Some([0, 1, 0]);
    }
    let mut numbers = [0; 3];
    let mut pieces = text.split('.');
    for slot in &mut numbers {
        match pieces.next() {
            Some(piece) => *slot = piece.parse().ok()?,
            None => return Some(numbers),
        }
    }
    pieces.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    //! "suffix list from 0.3.1" of the reference's checklist is not here: no plugin of ours says "all versions from X". One
    //! that does not speak all of them lists those it does.

    use super::*;

    #[test]
    fn only_published_versions_exactly_written() {
        for version in Version::ALL {
            assert_eq!(version.as_str().parse::<Version>().unwrap(), *version);
        }
        for bad in ["", "1.0", "1", "1.1.0 ", "v1.0.0", "1.2.0", "0.5.0", "1.0.0-rc1"] {
            let error = bad.parse::<Version>().unwrap_err();
            assert_eq!((error.code(), error.msg()), (Code::INCOMPATIBLE_VERSION, "incompatible CNI versions"));
        }
        assert_eq!(Version::of_config(None).unwrap(), Version::V0_1_0);
        assert_eq!(Version::of_config(Some("")).unwrap(), Version::V0_1_0);
    }

    #[test]
    fn numbers() {
        assert_eq!(number(""), Some([0, 1, 0]));
        assert_eq!(number("1"), Some([1, 0, 0]));
        assert_eq!(number("1.2.03"), Some([1, 2, 3]));
        for bad in ["1.2.3.4", "v1", "1.0.0-rc1", " 1", "1..2", "a"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
