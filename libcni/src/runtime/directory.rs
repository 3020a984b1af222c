//! Configurations in files: a list with its drop-in folder, and a directory that is searched for a network.
//!
//! The directory is shared by every tool of the node, and one that is broken must not take the others' networks
//! away: a file that cannot be read is passed over, and named if the network is not found.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::conflist::{ConfList, PluginConf, read_object, text};
use crate::types::{Code, Error};

impl ConfList {
    /// Reads a list from a file, and adds the plugins of its drop-in folder: `*.conf` in a directory beside the file
    /// with the network's name, in the order of their names.
    ///
    /// # Errors
    /// As [`ConfList::from_bytes`], with the path before it; a broken drop-in (each is named): a chain that lacks a
    /// plugin, perhaps a firewall, is not the network that was configured; no plugin at all.
    pub fn from_file(file: &Path) -> Result<Self, Error> {
        let mut list = Self::from_bytes(&read(file)?).map_err(|error| named(file, error))?;
        let folder = file.with_file_name(list.name().as_str());
        if !list.load_only_inlined() {
            list.plugins.append(&mut drop_ins(&folder)?);
        }
        if list.plugins.is_empty() {
            let hint = format!("there is no \"plugins\", and no *.conf in {}", folder.display());
            let error = Error::new(Code::INVALID_CONFIG, "no plugin configs found").with_details(hint);
            return Err(named(file, error));
        }
        Ok(list)
    }

    /// Reads a single plugin's configuration from a file, and makes a list of it.
    ///
    /// # Errors
    /// As [`ConfList::from_single`], with the path before it.
    pub fn from_single_file(file: &Path) -> Result<Self, Error> {
        Self::from_single(&read(file)?).map_err(|error| named(file, error))
    }

    /// Searches a directory for a network: `*.conflist` first, then `*.conf` and `*.json`, each sorted by name.
    /// Subdirectories are not searched.
    ///
    /// # Errors
    /// There is none of that name (the details name the files that could not be read), or the first file of that name
    /// is broken: one further down may be an older state of it, and is not used in its stead.
    pub fn from_dir(dir: &Path, name: &str) -> Result<Self, Error> {
        let lists = files(dir, &["conflist"])?;
        let singles = files(dir, &["conf", "json"])?;
        if lists.is_empty() && singles.is_empty() {
            return Err(Error::new(Code::INVALID_CONFIG, format!("no net configurations found in {}", dir.display())));
        }
        let mut broken = Vec::new();
        let lists = lists.iter().map(|file| (file, Self::from_file(file)));
        for (file, loaded) in lists.chain(singles.iter().map(|file| (file, Self::from_single_file(file)))) {
            match loaded {
                Ok(list) if list.name().as_str() == name => return Ok(list),
                Ok(_) => {}
                Err(error) if name_in(file).is_some_and(|found| found == name) => return Err(error),
                Err(error) => broken.push(error.to_string()),
            }
        }
        let error =
            Error::new(Code::INVALID_CONFIG, format!("no net configuration with name {name:?} in {}", dir.display()));
        if broken.is_empty() {
            return Err(error);
        }
        Err(error.with_details(format!("files that could not be read: {}", broken.join("; "))))
    }
}

/// The files of a directory with one of the extensions, sorted. A directory that is not there has none.
///
/// # Errors
/// Code 5: the directory cannot be read.
pub fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let cannot = |error: io::Error| Error::new(Code::IO_FAILURE, format!("cannot read {}: {error}", dir.display()));
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(cannot)?.path();
        let wanted = file.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension));
        // Links to files are files.
        if wanted && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn drop_ins(folder: &Path) -> Result<Vec<PluginConf>, Error> {
    let mut plugins = Vec::new();
    let mut broken = Vec::new();
    for file in files(folder, &["conf"])? {
        match read(&file).and_then(|bytes| PluginConf::from_bytes(&bytes).map_err(|error| named(&file, error))) {
            Ok(plugin) => plugins.push(plugin),
            Err(error) => broken.push(error),
        }
    }
    Error::join(broken)?;
    Ok(plugins)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|error| Error::new(Code::IO_FAILURE, format!("error reading {}: {error}", file.display())))
}

fn named(file: &Path, error: Error) -> Error {
    error.context(file.display())
}

/// The name a broken file gives its network, if that much can be read.
fn name_in(file: &Path) -> Option<String> {
    let object = read_object(&fs::read(file).ok()?).ok()?;
    text(&object, "name").ok()?.map(str::to_owned)
}
