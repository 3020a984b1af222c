//! An object as it is written. A [`Value`] would have a table of its keys for each, and own all its texts; this is a list
//! that borrows them. A result is written once, by a process that has little else to do.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::Shape;
use crate::types::json::Object;

/// Keys and values, in the order in which they are written.
#[derive(Default)]
pub(super) struct Fields<'a>(Vec<(&'a str, Field<'a>)>);

/// A value of a key.
pub(super) enum Field<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    Texts(&'a [String]),
    Object(Fields<'a>),
    Objects(Vec<Fields<'a>>),
    /// What we do not know, as it was read.
    Unknown(Cow<'a, Value>),
}

impl<'a> Fields<'a> {
    pub(super) fn push(&mut self, key: &'static str, value: impl Into<Field<'a>>) {
        self.0.push((key, value.into()));
    }

    pub(super) fn push_option(&mut self, key: &'static str, value: Option<impl Into<Field<'a>>>) {
        if let Some(value) = value {
            self.push(key, value);
        }
    }

    /// An empty text is left out.
    pub(super) fn push_text(&mut self, key: &'static str, text: &'a str) {
        self.push_option(key, Some(text).filter(|text| !text.is_empty()));
    }

    /// An empty list is left out.
    pub(super) fn push_texts(&mut self, key: &'static str, texts: &'a [String]) {
        self.push_option(key, Some(texts).filter(|texts| !texts.is_empty()).map(Field::Texts));
    }

    /// An empty list is left out.
    pub(super) fn push_objects(&mut self, key: &'static str, objects: impl Iterator<Item = Self>) {
        let objects: Vec<Self> = objects.collect();
        self.push_option(key, Some(objects).filter(|objects| !objects.is_empty()).map(Field::Objects));
    }

    /// Adds what we do not know, but for `known` keys and those that are there. From 1.0.0 on keys are in alphabetical order,
    /// in what we do not know, too.
    pub(super) fn finish(mut self, extra: &'a Object, known: &[&str], shape: Shape) -> Self {
        let is_sorted = shape == Shape::Current;
        let own = self.0.len();
        for (key, value) in extra {
            let is_known = known.iter().any(|known| known.eq_ignore_ascii_case(key));
            if is_known || self.0.iter().take(own).any(|(present, _)| present == key) {
                continue;
            }
            let mut value = Cow::Borrowed(value);
            if is_sorted {
                value.to_mut().sort_all_objects();
            }
            self.0.push((key, Field::Unknown(value)));
        }
        if is_sorted {
            self.0.sort_unstable_by_key(|(key, _)| *key);
        }
        self
    }

    pub(super) fn to_value(&self) -> Value {
        // This fails only for maps with keys that are not text; ours are.
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Texts(texts) => texts.serialize(serializer),
            Self::Object(fields) => fields.serialize(serializer),
            Self::Objects(objects) => objects.serialize(serializer),
            Self::Unknown(value) => value.serialize(serializer),
        }
    }
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Field<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Field<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Field<'_> {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u8> for Field<'_> {
    fn from(number: u8) -> Self {
        Self::Number(number.into())
    }
}

impl<'a> From<Fields<'a>> for Field<'a> {
    fn from(fields: Fields<'a>) -> Self {
        Self::Object(fields)
    }
}
