//! JSON as CNI reads it: **keys match without regard to case**.
//!
//! The reference decodes with Go's `encoding/json`, and the field depends on what that forgives:
//! containerd, nerdctl, Nomad and BuildKit send `HostPort` and `IngressRate`, real configurations
//! carry `ipmasq` and `RuntimeConfig`. One deserializer over [`serde_json::Value`] does it for every
//! struct, however deeply nested: an object's keys are mapped onto the struct's field names, the last
//! of several spellings wins, unknown keys are ignored and `null` means absent. It also remembers where
//! in the document it is, so that a refusal names the key.
//!
//! Two things follow for the structs that are read by it: a field that may be absent is an `Option` or
//! has `#[serde(default)]`, and `#[serde(flatten)]`, `#[serde(untagged)]`, `#[serde(tag = ...)]` and enums that hold
//! structs are not used (serde then no longer asks for a struct, and keys match in their own case only).

use std::fmt;

use serde::Serialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_json::{Map, Value};

/// A JSON object.
pub type Object = Map<String, Value>;

/// Why a document could not be read: where, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Keys and indices down to the value, outermost first; empty for the document itself.
    path: Vec<String>,
    message: String,
    /// Whether the text is no JSON at all, as against JSON of another shape.
    syntax: bool,
}

impl Error {
    /// The key the message is about, like `ipam.ranges[0][1].subnet`; empty for the whole document.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        path
    }

    /// What is wrong with the value, without the path.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the text is not JSON; the message then ends with the line and column.
    pub fn is_syntax(&self) -> bool {
        self.syntax
    }

    pub(crate) fn at(mut self, step: String) -> Self {
        self.path.push(step);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path(), self.message) }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: Vec::new(), message: message.to_string(), syntax: false }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self { path: Vec::new(), syntax: false, message: error.to_string() }
    }
}

/// Reads a value of type `T` from JSON text.
///
/// # Errors
/// The text is not one JSON document, or its shape is not that of `T`.
///
/// ```
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "camelCase")]
/// struct PortMapping {
///     host_port: u16,
///     container_port: u16,
/// }
/// let mapping: PortMapping = libcni::types::json::from_slice(br#"{"HostPort": 8080, "containerport": 80}"#)?;
/// assert_eq!((mapping.host_port, mapping.container_port), (8080, 80));
/// # Ok::<(), libcni::types::json::Error>(())
/// ```
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    from_value(&parse(text)?)
}

/// Reads JSON text as it is; keys keep their spelling, numbers their digits.
///
/// # Errors
/// The text is not one JSON document.
pub fn parse(text: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(text).map_err(|error| Error { syntax: true, ..error.into() })
}

/// Reads a value of type `T` from parsed JSON.
///
/// # Errors
/// The shape of the value is not that of `T`.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(Folding(value))
}

/// Removes the key from an object, whatever its case. Of several spellings the last in order that is
/// not `null` is returned, and all are removed.
pub fn take(object: &mut Object, key: &str) -> Option<Value> {
    let spellings: Vec<String> = object.keys().filter(|name| name.eq_ignore_ascii_case(key)).cloned().collect();
    let mut last = None;
    for spelling in spellings {
        last = object.shift_remove(&spelling).filter(|value| !value.is_null()).or(last);
    }
    last
}

/// [`take`], and the value read as a `T`.
///
/// # Errors
/// The shape of the value is not that of `T`; the error names the key.
pub fn take_as<T: DeserializeOwned>(object: &mut Object, key: &str) -> Result<Option<T>, Error> {
    take(object, key).map(|value| from_value(&value).map_err(|error| error.at(key.to_owned()))).transpose()
}

/// The value of a key, whatever its case; `null` is absent.
pub fn get<'a>(object: &'a Object, key: &str) -> Option<&'a Value> {
    object
        .iter()
        .filter(|(name, value)| name.eq_ignore_ascii_case(key) && !value.is_null())
        .map(|(_, value)| value)
        .next_back()
}

/// Sets a key, replacing every spelling of it.
pub fn set(object: &mut Object, key: &str, value: Value) {
    take(object, key);
    object.insert(key.to_owned(), value);
}

/// JSON text indented by four spaces, without a newline at the end: what the reference prints.
pub fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, format);
    // Serializing into memory fails only for maps with keys that are not text; ours are.
    let _ = value.serialize(&mut serializer);
    text
}

/// A value that is read with its keys folded onto field names.
#[derive(Clone, Copy)]
struct Folding<'a>(&'a Value);

impl<'a> Folding<'a> {
    fn sequence<V: Visitor<'a>>(items: &'a [Value], visitor: V) -> Result<V::Value, Error> {
        let steps = items.iter().enumerate().map(|(index, value)| Step { value, name: Name::Index(index) });
        visitor.visit_seq(SeqDeserializer::new(steps))
    }

    /// Entries in the object's order under the names of fields; later ones replace earlier ones. `null` means absent: the
    /// field's own default stands. As in Go, a key that is null does not undo an earlier spelling of it.
    fn object<V: Visitor<'a>>(
        object: &'a Object,
        visitor: V,
        fields: &'static [&'static str],
    ) -> Result<V::Value, Error> {
        let mut entries: Vec<(&'static str, Step<'a>)> = Vec::with_capacity(object.len().min(fields.len()));
        for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let Some(name) = fields.iter().copied().find(|field| field.eq_ignore_ascii_case(key)) else { continue };
            let step = Step { value, name: Name::Key(name) };
            match entries.iter_mut().find(|(taken, _)| *taken == name) {
                Some(entry) => entry.1 = step,
                None => entries.push((name, step)),
            }
        }
        visitor.visit_map(MapDeserializer::new(entries.into_iter()))
    }

    /// Entries under their own names, of which there are no two alike. Not through the list above: an object of
    /// strangers may have a hundred thousand keys, a struct has a few.
    fn map<V: Visitor<'a>>(object: &'a Object, visitor: V) -> Result<V::Value, Error> {
        let entries = object.iter().map(|(key, value)| (key.as_str(), Step { value, name: Name::Key(key) }));
        visitor.visit_map(MapDeserializer::new(entries))
    }
}

/// A value inside an object or array, under the name that an error in it is reported with.
struct Step<'a> {
    value: &'a Value,
    name: Name<'a>,
}

/// Made a text where there is an error: there are as many names as values, and nearly all are right.
enum Name<'a> {
    Key(&'a str),
    Index(usize),
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl<'de> IntoDeserializer<'de, Error> for Step<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! forward_step {
    ($($method:ident($($arg:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, Error> {
            Folding(self.value).$method($($arg,)* visitor).map_err(|error| error.at(self.name.to_string()))
        }
    )*};
}

impl<'de> Deserializer<'de> for Step<'de> {
    type Error = Error;

    forward_step! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_str() deserialize_string() deserialize_bytes()
        deserialize_byte_buf() deserialize_option() deserialize_unit() deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str) deserialize_seq() deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize) deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
        deserialize_identifier() deserialize_ignored_any()
    }
}

macro_rules! forward_scalar {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            Ok(self.0.$method(visitor)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Folding<'de> {
    type Error = Error;

    forward_scalar! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_identifier
        deserialize_ignored_any
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => Self::sequence(items, visitor),
            Value::Object(object) => Self::map(object, visitor),
            // Numbers as serde_json gives them, so that a `Value` inside `T` keeps every digit.
            scalar => Ok(scalar.deserialize_any(visitor)?),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(object) => Self::object(object, visitor, fields),
            // serde would read a list as the fields in order; in a configuration that is a mistake. And it would name
            // the struct, which nobody who wrote the configuration knows.
            Value::Array(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &"an object")),
            Value::String(text) => Err(de::Error::invalid_type(de::Unexpected::Str(text), &"an object")),
            Value::Bool(flag) => Err(de::Error::invalid_type(de::Unexpected::Bool(*flag), &"an object")),
            Value::Number(_) => Err(de::Error::invalid_type(de::Unexpected::Other("a number"), &"an object")),
            Value::Null => Err(de::Error::invalid_type(de::Unexpected::Other("null"), &"an object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        Ok(self.0.deserialize_enum(name, variants, visitor)?)
    }
}

#[cfg(test)]
mod tests;
