//! What is wrong, where, and how much.

use std::fmt;
use std::path::{Path, PathBuf};

use super::document::{Document, Position};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warning,
    /// Nothing is wrong; it is good to know.
    Note,
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    file: PathBuf,
    at: Option<Position>,
    level: Level,
    message: String,
}

impl Finding {
    /// The file it is in.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How much is wrong.
    pub fn level(&self) -> Level {
        self.level
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        write!(f, ": {level}: {}", self.message)
    }
}

/// Everything that is wrong.
#[derive(Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Something that will fail, at the value of that path.
    pub fn error(&mut self, document: &Document, path: &str, message: impl Into<String>) {
        self.add(&document.file, Some(document.position(path)), Level::Error, message.into());
    }

    /// Something that is probably not meant.
    pub fn warning(&mut self, document: &Document, path: &str, message: impl Into<String>) {
        self.add(&document.file, Some(document.position(path)), Level::Warning, message.into());
    }

    pub fn add(&mut self, file: &Path, at: Option<Position>, level: Level, message: String) {
        self.0.push(Finding { file: file.to_owned(), at, level, message });
    }

    /// How many there are of a level.
    pub fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }
}
