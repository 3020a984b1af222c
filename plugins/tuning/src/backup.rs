//! What an interface's attributes were before the first ADD, in a file: `<dataDir>/<container>_<interface>.json`, which is the
//! reference's, to the byte.
//!
//! Its name does not say of which network it is, and GC is told of one network only. So the same file has a second
//! name, `<dataDir>/networks/<network>/<container>_<interface>.json`: a hard link, which costs nothing in the file, and
//! which is no longer the same file when somebody else has removed the first name and made a new one.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libcni::plugin::{Attachment, Request, dry_run};
use libcni::types::{NetworkName, json};
use libcni::{Code, Error, regular_file};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::attributes::Attributes;
use crate::conf::Conf;

/// Longest backup that is read, in bytes: five attributes.
const LENGTH_MAX: u64 = 4096;

/// The ending of a file that is being written.
const UNFINISHED: &str = ".tmp";

/// The backup of one attachment.
#[derive(Debug)]
pub struct Backup {
    /// The reference's name of it.
    path: PathBuf,
    /// The name that says whose it is.
    of_network: PathBuf,
}

impl Backup {
    /// That of this request's attachment.
    pub fn of(req: &Request<Conf>) -> Self {
        let name = file_name(req.container_id().as_str(), req.ifname().as_str());
        let data_dir = &req.conf().data_dir;
        Self { path: data_dir.join(&name), of_network: networks(data_dir, req.name()).join(name) }
    }

    /// What it says; `None` where there is none. One that is not whole is none: whoever was writing it was killed before
    /// he changed anything.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn get(&self) -> Result<Option<Attributes>, Error> {
        let text = match regular_file::read(&self.path, LENGTH_MAX) {
            Ok(text) => text,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(failed("read", &self.path, &error)),
        };
        let read = json::from_slice(&text);
        if let Err(error) = &read {
            libcni::log::warn(format_args!("tuning: the backup {} is useless: {error}", self.path.display()));
        }
        Ok(read.ok())
    }

    /// Whether it is of an attachment to another network: it has a second name, and not ours. What the reference made has none,
    /// and is taken for ours.
    pub fn is_anothers(&self) -> bool {
        let names = fs::symlink_metadata(&self.path).map_or(0, |file| file.nlink());
        names > 1 && !same_file(&self.path, &self.of_network)
    }

    /// Keeps `before`, unless an earlier ADD has kept something: what it found is what was there first.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn ensure(&self, before: &Attributes) -> Result<(), Error> {
        let _step = libcni::log::step("backup");
        let kept = self.get()?;
        let whole = kept.as_ref().map_or_else(|| before.clone(), |kept| kept.or(before));
        if kept.as_ref() == Some(&whole) && same_file(&self.path, &self.of_network) {
            return Ok(());
        }
        let directory = self.of_network.parent().unwrap_or(Path::new("/"));
        create_directory(directory)?;
        let unfinished = with_ending(&self.of_network);
        let write = || {
            write_new(&unfinished, &whole)?;
            fs::rename(&unfinished, &self.of_network)?;
            // A link cannot replace a file, a renamed one can. Nobody ever sees half of it. It need not outlive a
            // crash of the node, as the interface does not.
            fs::hard_link(&self.of_network, &unfinished)?;
            fs::rename(&unfinished, &self.path)
        };
        write().map_err(|error| {
            // The first name is still what it was.
            for left in [&unfinished, &self.of_network] {
                let _ = remove_file(left);
            }
            failed("write", &self.path, &error)
        })
    }

    /// Removes it, under both names.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove(&self) -> Result<(), Error> {
        // The name that says whose it is goes last: a DEL killed in between left GC a file of no network.
        for path in [&with_ending(&self.of_network), &self.path, &self.of_network] {
            remove_file(path).map_err(|error| failed("remove", path, &error))?;
        }
        Ok(())
    }

    /// Removes it if it says nothing else than this: no earlier ADD has a part in it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove_if(&self, before: &Attributes) -> Result<(), Error> {
        if self.get()?.as_ref() == Some(before) { self.remove() } else { Ok(()) }
    }
}

/// Removes the backups of a network's attachments that are not valid. Those that the reference made name no network, and stay.
///
/// # Errors
/// The kernel's refusal.
pub fn remove_all_but(data_dir: &Path, network: &NetworkName, valid: &[Attachment]) -> Result<(), Error> {
    let _step = libcni::log::step("backup");
    let directory = networks(data_dir, network);
    let entries = match open_directory(&directory).and_then(|()| fs::read_dir(&directory)) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(failed("read", &directory, &error)),
    };
    let keep: Vec<String> = valid.iter().map(|pair| file_name(&pair.container_id, &pair.ifname)).collect();
    let mut errors = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().map(|name| name.strip_suffix(UNFINISHED).unwrap_or(name)) else { continue };
        if keep.iter().any(|kept| kept == name) {
            continue;
        }
        let (first, second) = (data_dir.join(name), directory.join(name));
        let ours = same_file(&first, &second).then_some(first);
        // The name that says whose it is goes last: until then a GC that was killed can be repeated.
        for path in ours.iter().chain([&with_ending(&second), &second]) {
            errors.extend(remove_file(path).err().map(|error| failed("remove", path, &error)));
        }
    }
    Error::join(errors)
}

/// Whether a backup could be written now.
///
/// # Errors
/// Why not.
pub fn check_writable(data_dir: &Path, network: &NetworkName) -> Result<(), Error> {
    let directory = networks(data_dir, network);
    create_directory(&directory)?;
    // No interface has this name, and GC removes it if this is killed.
    let probe = directory.join(format!("status{UNFINISHED}"));
    let write = write_new(&probe, &Attributes::default()).and_then(|()| remove_file(&probe));
    write.map_err(|error| failed("write", &probe, &error))
}

fn networks(data_dir: &Path, network: &NetworkName) -> PathBuf {
    data_dir.join("networks").join(network.as_str())
}

/// As the reference calls it.
fn file_name(container_id: &str, ifname: &str) -> String {
    format!("{container_id}_{ifname}.json")
}

fn with_ending(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or(OsStr::new(""));
    let mut name = name.to_owned();
    name.push(UNFINISHED);
    path.with_file_name(name)
}

/// A network's directory, and the one above it, each looked at before something is made in it.
fn create_directory(path: &Path) -> Result<(), Error> {
    let make = |path: &Path, recursive| DirBuilder::new().recursive(recursive).mode(0o700).create(path);
    let ensure = |path: &Path| match make(path, false) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => regular_file::open_directory(path).map(drop),
    };
    let above = path.parent().unwrap_or(path);
    let data_dir = above.parent().unwrap_or(above);
    make(data_dir, true)
        .and_then(|()| ensure(above))
        .and_then(|()| ensure(path))
        .map_err(|error| failed("failed to create backup directory", path, &error))
}

/// That a network's directory is one, and the one above it: below a link GC would remove what is not ours.
fn open_directory(path: &Path) -> io::Result<()> {
    path.parent().into_iter().chain([path]).try_for_each(|path| regular_file::open_directory(path).map(drop))
}

/// Writes the file as the reference does: indented by one space, no newline at the end, for root's eyes.
fn write_new(path: &Path, attributes: &Attributes) -> io::Result<()> {
    let mut text = Vec::new();
    attributes.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b" ")))?;
    // What a killed ADD left, or somebody's link, goes; nothing is written through it.
    remove_file(path)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&text)
}

fn remove_file(path: &Path) -> io::Result<()> {
    if dry_run::is_on() {
        let _ = fs::symlink_metadata(path).map(|_| dry_run::notes(|| format!("remove {}", path.display())));
        return Ok(());
    }
    match fs::remove_file(path) {
        // A file system that is read-only says so before it looks.
        Err(error) if !is_absent(&error) && fs::symlink_metadata(path).is_ok() => Err(error),
        _ => Ok(()),
    }
}

/// Whether both names are there, and of one file.
fn same_file(first: &Path, second: &Path) -> bool {
    let id = |path| fs::symlink_metadata(path).map(|file| (file.dev(), file.ino())).ok();
    id(first).is_some_and(|first| id(second) == Some(first))
}

/// Also a name that is too long, of which there can be no file.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Code::IO_FAILURE, format!("{doing} {}: {error}", path.display()))
}
