//! A configuration file with the position of every key in it.
//!
//! The JSON reader knows values, not where they stood. Once it has accepted a text, a short walk over the same text finds
//! the places; it need not be able to judge, only to follow.

use std::path::{Path, PathBuf};

use libcni::types::json;
use serde_json::Value;

/// Line and column, both from 1; the column counts bytes.
pub type Position = (usize, usize);

/// A file that is JSON.
pub struct Document {
    pub file: PathBuf,
    pub bytes: Vec<u8>,
    pub value: Value,
    places: Vec<Place>,
}

/// Where a value stands.
struct Place {
    /// As errors write it: `plugins[0].ipam.ranges[0][0].subnet`.
    path: String,
    /// Of the key, or of the item of a list.
    at: usize,
    /// Whether an object has the same key before it, perhaps in another case.
    repeated: bool,
}

impl Document {
    /// Reads a file. The error says where in the text it is, if it is in the text.
    pub fn read(file: &Path) -> Result<Self, (Option<Position>, String)> {
        let bytes = std::fs::read(file).map_err(|error| (None, format!("cannot read it: {error}")))?;
        match json::parse(&bytes) {
            Ok(value) => {
                let mut walk = Walk { bytes: &bytes, at: 0, places: Vec::new() };
                walk.value("");
                let places = walk.places;
                Ok(Self { file: file.to_owned(), value, places, bytes })
            }
            Err(error) => {
                let (message, at) = split_position(error.message());
                Err((at, format!("{message}{}", why_not(&bytes, at))))
            }
        }
    }

    /// Where the last value of that path stands; of the file, if there is none.
    pub fn position(&self, path: &str) -> Position {
        let place = self.places.iter().rev().find(|place| place.path.eq_ignore_ascii_case(path));
        place.map_or((1, 1), |place| position_of(&self.bytes, place.at))
    }

    /// The keys that an object has had before, and where they are again.
    pub fn repeated(&self) -> Vec<(&str, Position)> {
        let repeated = self.places.iter().filter(|place| place.repeated);
        repeated.map(|place| (place.path.as_str(), position_of(&self.bytes, place.at))).collect()
    }
}

/// What the reader stumbled over, where editors and habits put what JSON does not have.
fn why_not(bytes: &[u8], at: Option<Position>) -> &'static str {
    let there = at.and_then(|(line, column)| {
        bytes.split(|byte| *byte == b'\n').nth(line.checked_sub(1)?)?.get(column.checked_sub(1)?)
    });
    match there {
        _ if bytes.trim_ascii().is_empty() => ": the file is empty",
        _ if bytes.starts_with(b"\xef\xbb\xbf") => ": the file begins with a byte order mark; save it without",
        Some(b'/' | b'#') => ": JSON has no comments",
        Some(b'\'') => ": JSON has no single quotes",
        _ => "",
    }
}

/// Takes `at line L column C` off the end of a message.
fn split_position(message: &str) -> (&str, Option<Position>) {
    let split = || {
        let (text, at) = message.rsplit_once(" at line ")?;
        let (line, column) = at.split_once(" column ")?;
        // At the end of an empty text the reader says column 0.
        Some((text, (line.parse().ok()?, column.parse::<usize>().ok()?.max(1))))
    };
    split().map_or((message, None), |(text, at)| (text, Some(at)))
}

fn position_of(bytes: &[u8], at: usize) -> Position {
    let before = bytes.get(..at).unwrap_or(bytes);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    (line, column)
}

/// A walk over text that is known to be JSON.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    places: Vec<Place>,
}

impl Walk<'_> {
    /// The next byte that is not white space; 0 at the end.
    fn next(&mut self) -> u8 {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied().unwrap_or_default()
    }

    fn value(&mut self, path: &str) {
        match self.next() {
            b'{' => self.object(path),
            b'[' => self.list(path),
            b'"' => {
                self.string();
            }
            _ => {
                let ends = |byte: &u8| byte.is_ascii_whitespace() || b",]}".contains(byte);
                while self.bytes.get(self.at).is_some_and(|byte| !ends(byte)) {
                    self.at += 1;
                }
            }
        }
    }

    fn object(&mut self, path: &str) {
        self.at += 1;
        let mut keys: Vec<String> = Vec::new();
        loop {
            match self.next() {
                b'"' => {}
                b',' => {
                    self.at += 1;
                    continue;
                }
                _ => break,
            }
            let at = self.at;
            let key = self.string();
            if self.next() == b':' {
                self.at += 1;
            }
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let folded = key.to_ascii_lowercase();
            let repeated = keys.contains(&folded);
            keys.push(folded);
            self.places.push(Place { path: inner.clone(), at, repeated });
            self.value(&inner);
        }
        self.at += 1;
    }

    fn list(&mut self, path: &str) {
        self.at += 1;
        let mut index = 0;
        loop {
            match self.next() {
                b']' | 0 => break,
                b',' => self.at += 1,
                _ => {
                    let inner = format!("{path}[{index}]");
                    self.places.push(Place { path: inner.clone(), at: self.at, repeated: false });
                    self.value(&inner);
                    index += 1;
                }
            }
        }
        self.at += 1;
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.bytes.get(self.at).filter(|byte| **byte != b'"') {
            self.at += if *byte == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        match json::parse(self.bytes.get(start..self.at).unwrap_or_default()) {
            Ok(Value::String(text)) => text,
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Document, (Option<Position>, String)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Document::read(file.path())
    }

    #[test]
    fn every_key_has_its_place() {
        let text = "{\n  \"name\": \"a\\\"}b\",\n  \"plugins\": [\n    {\"type\": \"x\", \"mtu\": 1},\n    {\"ipam\": {\"ranges\": [[], [{\"subnet\":7}]]}, \"TYPE\": null }\n  ], \"last\" : true}\n";
        let document = read(text).unwrap();
        for (path, position) in [
            ("name", (2, 3)),
            ("plugins", (3, 3)),
            ("plugins[0]", (4, 5)),
            ("plugins[0].mtu", (4, 19)),
            ("plugins[1]", (5, 5)),
            ("plugins[1].ipam.ranges[1][0].subnet", (5, 32)),
            ("plugins[1].type", (5, 48)),
            ("last", (6, 6)),
            ("absent", (1, 1)),
        ] {
            assert_eq!(document.position(path), position, "{path}");
        }
        assert_eq!(document.repeated(), []);
    }

    #[test]
    fn repeated_keys() {
        let document = read(r#"{"a":1,"b":{"a":2},"A":3,"b":4}"#).unwrap();
        assert_eq!(document.repeated(), [("A", (1, 20)), ("b", (1, 26))]);
        assert_eq!(document.position("a"), (1, 20));
    }

    #[test]
    fn what_is_no_json() {
        for (text, position, part) in [
            ("{\n  \"a\": 1,\n}", (3, 1), "trailing comma"),
            ("{\n  \"a\" 1}", (2, 7), "expected `:`"),
            ("", (1, 1), "EOF while parsing a value: the file is empty"),
            ("\u{feff}{}", (1, 1), "byte order mark"),
            ("{\n  // the bridge\n}", (2, 3), "JSON has no comments"),
            ("{'a': 1}", (1, 2), "JSON has no single quotes"),
            ("{\"a\": 1} x", (1, 10), "trailing characters"),
        ] {
            let Err((Some(found), message)) = read(text) else { panic!("{text}") };
            assert!(found == position && message.contains(part), "{text}: {found:?} {message}");
        }
        assert_eq!(Document::read(Path::new("/nowhere/x")).err().unwrap().0, None);
    }
}
