//! Whether a network's plugins are installed, and speak its version. Each is asked once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use libcni::types::Version;
use libcni::{Error, exec};

use super::document::Document;
use super::findings::{Findings, Level};

/// What is installed.
pub struct Binaries {
    dirs: Vec<PathBuf>,
    /// Nobody said where plugins are, and they are not in the usual place: this is perhaps not a node.
    absent: bool,
    versions: BTreeMap<String, Result<Vec<String>, Error>>,
}

impl Binaries {
    pub fn new(dirs: &[PathBuf], chosen: bool) -> Self {
        let absent = !chosen && !dirs.iter().any(|dir| dir.is_dir());
        Self { dirs: dirs.to_owned(), absent, versions: BTreeMap::new() }
    }

    /// Checks a plugin that is named at `path`, for a network of that version.
    pub fn check(&mut self, document: &Document, path: &str, name: &str, version: &str, findings: &mut Findings) {
        let wanted = if version.is_empty() { Version::V0_1_0.as_str() } else { version };
        if self.absent {
            return;
        }
        let dirs = &self.dirs;
        let ask = || exec::versions(&exec::find(name, dirs)?);
        match self.versions.entry(name.to_owned()).or_insert_with(ask) {
            Ok(versions) if versions.iter().any(|version| version == wanted) => {}
            Ok(versions) => {
                let versions = versions.join(", ");
                let message = format!("plugin {name:?} does not speak version {wanted}; it speaks {versions}");
                findings.error(document, path, message);
            }
            Err(error) => findings.error(document, path, error.to_string()),
        }
    }

    /// Says so if nothing could be checked.
    pub fn note(&self, targets: &[PathBuf], findings: &mut Findings) {
        if let (true, Some(target)) = (self.absent, targets.first()) {
            let dirs: Vec<String> = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
            let message = format!("there is no {}, and CNI_PATH is not set: plugins were not checked", dirs.join(" "));
            findings.add(target, None, Level::Warning, message);
        }
    }
}
