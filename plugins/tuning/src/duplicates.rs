//! A sysctl that is written twice is a mistake, and which of the two was meant nobody knows. Once the document is a
//! value only one is left of them, so this looks at the text, and at nothing else in it.

use std::collections::HashSet;
use std::fmt;

use libcni::{Code, Error};
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::sysctl;

/// Refuses a `sysctl` at the top of the configuration `text` that has a key twice, in whatever spelling.
///
/// # Errors
/// Code 7, naming the key.
pub fn refuse(text: &[u8]) -> Result<(), Error> {
    let mut json = serde_json::Deserializer::from_slice(text);
    // Anything else that may be wrong with the text was said when it was read.
    let found = json.deserialize_map(Document).unwrap_or_default();
    found.map_or(Ok(()), |key| {
        let msg = format!("sysctl: {key:?} is there twice: duplicated sysctl keys are not allowed");
        Err(Error::new(Code::INVALID_CONFIG, msg))
    })
}

/// The whole document.
struct Document;

impl<'de> Visitor<'de> for Document {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key.eq_ignore_ascii_case("sysctl") {
                found = found.or(map.next_value::<Keys>()?.0);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// The first key of an object that is there twice.
struct Keys(Option<String>);

impl<'de> de::Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Sysctls)
    }
}

struct Sysctls;

impl<'de> Visitor<'de> for Sysctls {
    type Value = Keys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or null")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Keys, E> {
        Ok(Keys(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
        let (mut seen, mut found) = (HashSet::new(), None);
        while let Some((key, IgnoredAny)) = map.next_entry::<String, _>()? {
            if !seen.insert(sysctl::path(&key)) {
                found.get_or_insert(key);
            }
        }
        Ok(Keys(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice() {
        for text in [
            r#"{"sysctl":{"net.a":"1","net.b":"2","net.a":"1"}}"#,
            r#"{"sysctl":{"net.a":"1","net.b":"2","net/a":"1"},"x":[{}]}"#,
            r#"{"x":{"sysctl":{}},"SYSCTL":{"net.a":"1","net.a":"1"}}"#,
        ] {
            let error = refuse(text.as_bytes()).unwrap_err();
            assert!(
                error.code() == Code::INVALID_CONFIG
                    && error.msg().contains("net")
                    && error.msg().contains("duplicated")
            );
        }
    }

    #[test]
    fn once() {
        for text in [
            r#"{"sysctl":{"net.a":"1","net.b":"1"},"args":{"cni":{"sysctl":{"net.a":"2"}}}}"#,
            r#"{"sysctl":null}"#,
            r#"{"x":{"net.a":"1","net.a":"1"}}"#,
            "{}",
        ] {
            refuse(text.as_bytes()).unwrap();
        }
    }
}
