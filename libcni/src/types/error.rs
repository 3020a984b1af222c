//! The one error that leaves a process: CNI error JSON on stdout.

use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use serde_json::Value;

use super::json;
use super::version::Version;

/// An error code of the specification ("Error"). 0 to 99 are the specification's, 100 and above a plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u64);

impl Code {
    /// 0: a plugin failed without saying how.
    pub const UNKNOWN: Self = Self(0);
    /// 1: the configuration's version is not one the plugin speaks.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// 2: a field of the configuration is not supported; the message names key and value.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// 3: the container is unknown; there is nothing to clean up.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// 4: an environment variable is missing or invalid; the message names it.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// 5: reading or writing failed.
    pub const IO_FAILURE: Self = Self(5);
    /// 6: the content could not be decoded.
    pub const DECODING_FAILURE: Self = Self(6);
    /// 7: the network configuration is invalid.
    pub const INVALID_CONFIG: Self = Self(7);
    /// 8: `CNI_NETNS` is the plugin's own namespace (the reference's, not in the specification).
    pub const INVALID_NETNS: Self = Self(8);
    /// 11: a passing condition; try again later.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// 50 (STATUS): the plugin cannot serve ADD.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// 51 (STATUS): the plugin cannot serve ADD, and existing containers may be limited.
    pub const LIMITED: Self = Self(51);
    /// 999: any other failure inside a plugin. It is what the reference uses for nearly everything.
    pub const INTERNAL: Self = Self(999);
}

/// A CNI error: a code, a message for people, and details.
///
/// ```
/// use libcni::{Code, Error};
/// let error = Error::new(Code::INVALID_CONFIG, "missing network name");
/// assert_eq!(error.to_string(), "missing network name");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    msg: String,
    details: String,
}

impl Error {
    /// An error of this code; `msg` says what failed, on what, and why.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// A failure inside the plugin: code 999.
    pub fn internal(msg: impl Into<String>) -> Self {
        Self::new(Code::INTERNAL, msg)
    }

    /// The same with `details`: the value, the list, the hint.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same, with `context: ` before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.msg = format!("{context}: {}", self.msg);
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message without the details.
    pub fn msg(&self) -> &str {
        &self.msg
    }

    /// The details; empty where there are none.
    pub fn details(&self) -> &str {
        &self.details
    }

    /// Several failures as one: the first one's code, and all messages, each with its own details. `Ok` if there is none.
    ///
    /// # Errors
    /// The joined error.
    pub fn join(errors: Vec<Self>) -> Result<(), Self> {
        let mut errors = errors.into_iter();
        let Some(mut first) = errors.next() else { return Ok(()) };
        for other in errors {
            first = Self::new(first.code, format!("{first}; {other}"));
        }
        Err(first)
    }

    /// The JSON a plugin prints: `cniVersion`, `code`, `msg`, `details`, indented by four spaces.
    pub fn to_json(&self, version: Version) -> Vec<u8> {
        json::pretty(&Printed { error: self, version })
    }

    /// Reads a plugin's error object. `None` where the text is not one: not an object, or a `code` that is not
    /// an unsigned number.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Raw {
            code: Option<u64>,
            msg: Option<String>,
            details: Option<String>,
        }
        let value = json::parse(text).ok().filter(Value::is_object)?;
        let raw: Raw = json::from_value(&value).ok()?;
        Some(Self {
            code: Code(raw.code.unwrap_or_default()),
            msg: raw.msg.unwrap_or_default(),
            details: raw.details.unwrap_or_default(),
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, "; {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

struct Printed<'a> {
    error: &'a Error,
    version: Version,
}

impl Serialize for Printed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Error", 4)?;
        object.serialize_field("cniVersion", &self.version)?;
        object.serialize_field("code", &self.error.code.0)?;
        object.serialize_field("msg", &self.error.msg)?;
        if !self.error.details.is_empty() {
            object.serialize_field("details", &self.error.details)?;
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_the_specification_asks_for() {
        let error = Error::new(Code::INVALID_CONFIG, "bad <name>").with_details("x");
        assert_eq!(
            String::from_utf8(error.to_json(Version::V1_0_0)).unwrap(),
            "{\n    \"cniVersion\": \"1.0.0\",\n    \"code\": 7,\n    \"msg\": \"bad <name>\",\n    \"details\": \"x\"\n}"
        );
        assert_eq!(error.to_string(), "bad <name>; x");
    }

    #[test]
    fn joined_errors_keep_their_own_details() {
        let error = |msg: &str| Error::internal(msg).with_details(format!("of {msg}"));
        assert_eq!(Error::join(vec![]), Ok(()));
        assert_eq!(Error::join(vec![error("a")]).unwrap_err(), error("a"));
        let joined = Error::join(vec![Error { code: Code(7), ..error("a") }, error("b"), error("c")]).unwrap_err();
        assert_eq!((joined.code(), joined.to_string().as_str()), (Code(7), "a; of a; b; of b; c; of c"));
    }

    #[test]
    fn reads_what_plugins_print() {
        let read = Error::from_json(br#"{"cniVersion":"0.4.0","CODE":11,"msg":"later","more":1}"#).unwrap();
        assert_eq!(read, Error::new(Code::TRY_AGAIN_LATER, "later"));
        assert_eq!(Error::from_json(b"{}").unwrap().code(), Code::UNKNOWN);
        for not_one in ["", "[]", "7", "{\"code\":-1}", "{\"code\":\"7\"}", "oops"] {
            assert!(Error::from_json(not_one.as_bytes()).is_none(), "{not_one}");
        }
    }
}
