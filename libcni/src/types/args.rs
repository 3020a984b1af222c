//! `CNI_ARGS`: `KEY=value;KEY=value`.

use super::error::{Code, Error};

/// The pairs of `CNI_ARGS`, in their order. Runtimes put metadata there (`K8S_POD_NAME`, …) and say
/// `IgnoreUnknown=1`; without it a plugin refuses keys it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniArgs {
    pairs: Vec<(String, String)>,
    ignore_unknown: bool,
}

impl CniArgs {
    /// Reads the variable's text; the empty text has no pairs.
    ///
    /// # Errors
    /// Code 4 for a piece that is not `KEY=value`, and for an `IgnoreUnknown` that is not 0, 1, true or false.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut args = Self::default();
        if text.is_empty() {
            return Ok(args);
        }
        for piece in text.split(';') {
            let refuse = |why: &str| {
                Error::new(Code::INVALID_ENVIRONMENT, format!("CNI_ARGS: invalid pair {piece:?}")).with_details(why)
            };
            let (key, value) = piece
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| refuse("expected KEY=value"))?;
            if key == "IgnoreUnknown" {
                args.ignore_unknown = match value.to_ascii_lowercase().as_str() {
                    "1" | "true" => true,
                    "0" | "false" => false,
                    _ => return Err(refuse("expected 0, 1, true or false")),
                };
            } else {
                args.pairs.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(args)
    }

    /// The value of a key, which is matched exactly; the last one if it is there twice.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Refuses keys other than `known`, unless the runtime said `IgnoreUnknown`.
    ///
    /// # Errors
    /// Code 4 naming every unknown pair.
    pub fn only(&self, known: &[&str]) -> Result<(), Error> {
        let unknown: Vec<String> = self
            .pairs
            .iter()
            .filter(|(key, _)| !known.contains(&key.as_str()))
            .map(|(key, value)| format!("\"{key}={value}\""))
            .collect();
        if unknown.is_empty() || self.ignore_unknown {
            return Ok(());
        }
        Err(Error::new(Code::INVALID_ENVIRONMENT, format!("CNI_ARGS: unknown args [{}]", unknown.join(" ")))
            .with_details("IgnoreUnknown=1 lets them pass"))
    }
}

#[cfg(test)]
mod tests {
    //! The reference's checklist "args" without its reflection ("field lookup", "not text-decodable", "value type", "pointer",
    //! "pointer-pointer"): it fills the fields of a Go struct, we look a key up.

    use super::*;

    #[test]
    fn pairs() {
        let args = CniArgs::parse("K8S_POD_NAME=a;MAC=b;IgnoreUnknown=TRUE").unwrap();
        assert_eq!((args.get("MAC"), args.get("mac")), (Some("b"), None));
        args.only(&["MAC"]).unwrap();
        assert_eq!(CniArgs::parse("").unwrap(), CniArgs::default());
    }

    #[test]
    fn unknown_keys_need_leave() {
        for text in ["X=1", "X=1;IgnoreUnknown=0", "ignoreunknown=1"] {
            assert!(CniArgs::parse(text).unwrap().only(&["MAC"]).is_err(), "{text}");
        }
        CniArgs::parse("X=1;IgnoreUnknown=1").unwrap().only(&[]).unwrap();
        CniArgs::parse("IgnoreUnknown=1;X=1").unwrap().only(&[]).unwrap();
    }

    #[test]
    fn malformed_pieces_are_refused() {
        for text in ["A", "A=1;", "A=b=c", ";", "IgnoreUnknown=yes"] {
            assert_eq!(CniArgs::parse(text).unwrap_err().code(), Code::INVALID_ENVIRONMENT, "{text}");
        }
    }
}
