//! The result cache: what an ADD returned, for the CHECK and DEL that come later, perhaps from another process.
//!
//! Place, file names and JSON are the reference's (`cniCacheV1`): CRI-O and others read these files and delete them
//! by name, and a node may change from one runtime to the other. Written to a file beside the directory and renamed,
//! so that no reader and no power failure finds half of one; the reference's halves have blocked many a DEL.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attachment::Attachment;
use super::base64;
use super::conflist::ConfList;
use super::remembered::{NetnsId, Unreadable};
use crate::regular_file;
use crate::types::json::{self, Object};
use crate::types::{Code, Error, NetworkName};

/// Longest file that is read: a configuration and a result, each as long as a plugin may get or print, and more.
const LENGTH_MAX: u64 = 64 << 20;

const KIND: &str = "cniCacheV1";
/// What is wrong with an entry that says neither container nor network.
const BARE: &str = "it is of a time when only the result was kept";

/// The directory of results.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

/// What is remembered of an attachment.
#[derive(Clone, Debug)]
pub struct Cached {
    /// The network it is attached to.
    pub network: NetworkName,
    /// The attachment, with the arguments of its ADD.
    pub attachment: Attachment,
    /// The bytes of the network's configuration at the time of the ADD, without drop-ins.
    pub config: Vec<u8>,
    /// The result, in whichever version the last plugin returned it.
    pub result: Value,
    /// Which namespace was attached. The reference does not say, and passes over it.
    pub netns_id: Option<NetnsId>,
}

/// Everything in the directory.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The entries, by file name.
    pub entries: Vec<Cached>,
    /// Files that are none: what they were about is not known.
    pub unreadable: Vec<Unreadable>,
}

/// The file, in the reference's order of keys.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    kind: Option<String>,
    container_id: Option<String>,
    /// Base64.
    config: Option<String>,
    if_name: Option<String>,
    network_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capability_args: Option<Object>,
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_id: Option<NetnsId>,
}

/// What a file holds.
enum Content {
    Entry(Box<Cached>),
    /// Written before there was a `kind`: the bare result.
    Bare(Value),
}

impl Cached {
    fn is_of(&self, network: &NetworkName, attachment: &Attachment) -> bool {
        self.network == *network && self.attachment.container_id == attachment.container_id
    }
}

impl Cache {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn results(&self) -> PathBuf {
        self.dir.join("results")
    }

    fn file(&self, network: &NetworkName, attachment: &Attachment) -> PathBuf {
        self.results().join(format!("{network}-{}-{}", attachment.container_id, attachment.ifname))
    }

    /// Whether there is anything under the attachment's name, readable or not.
    pub(super) fn contains(&self, network: &NetworkName, attachment: &Attachment) -> bool {
        self.file(network, attachment).exists() && !self.is_anothers(network, attachment)
    }

    /// Whether the file belongs to another attachment: `-` may be in every part of the name, so that (a-b, c) and
    /// (a, b-c) share one.
    fn is_anothers(&self, network: &NetworkName, attachment: &Attachment) -> bool {
        let Ok(text) = read(&self.file(network, attachment)) else { return false };
        matches!(decode(&text), Ok(Content::Entry(entry)) if !entry.is_of(network, attachment))
    }

    /// Keeps the result of a completed ADD.
    pub(super) fn put(&self, list: &ConfList, attachment: &Attachment, result: Value) -> Result<(), Error> {
        let mut result = result;
        result.sort_all_objects();
        let file = File {
            kind: Some(KIND.into()),
            container_id: Some(attachment.container_id.to_string()),
            config: Some(base64::encode(list.bytes())),
            if_name: Some(attachment.ifname.to_string()),
            network_name: Some(list.name().to_string()),
            netns: attachment.netns.as_ref().map(|netns| netns.to_string_lossy().into_owned()),
            cni_args: Some(attachment.args.clone()).filter(|args| !args.is_empty()),
            capability_args: Some(attachment.capability_args.clone()).filter(|args| !args.is_empty()),
            result: Some(result),
            netns_id: attachment.netns.as_deref().and_then(NetnsId::of),
        };
        let path = self.file(list.name(), attachment);
        if self.is_anothers(list.name(), attachment) {
            let msg = format!("failed to cache the result in {}: another attachment has that file", path.display());
            return Err(Error::new(Code::IO_FAILURE, msg));
        }
        let text = serde_json::to_vec(&file).map_err(io::Error::from);
        text.and_then(|text| self.write(&path, &text)).map_err(|error| {
            Error::new(Code::IO_FAILURE, format!("failed to cache the result in {}: {error}", path.display()))
        })
    }

    fn write(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.results())?;
        // Not among the results: whoever lists those would take it for one.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Process ids repeat: after a reboot, and in containers that share the directory, where each begins with 1.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let temporary = self.dir.join(format!("{}{count}-{now}", unfinished(std::process::id())));
        let written = (|| {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// The result of the attachment's ADD. `None` if there is no file, or it cannot be opened.
    ///
    /// # Errors
    /// The file is not one: then nobody knows what the result was.
    pub(super) fn result(&self, network: &NetworkName, attachment: &Attachment) -> Result<Option<Value>, Error> {
        Ok(self.read(network, attachment)?.map(|content| match content {
            Content::Entry(entry) => entry.result,
            Content::Bare(result) => result,
        }))
    }

    /// Everything that is remembered of an attachment; `None` as in [`Cache::result`].
    ///
    /// # Errors
    /// As there, and for a file that holds a bare result.
    pub(super) fn get(&self, network: &NetworkName, attachment: &Attachment) -> Result<Option<Cached>, Error> {
        match self.read(network, attachment)? {
            None => Ok(None),
            Some(Content::Entry(entry)) => Ok(Some(*entry)),
            Some(Content::Bare(_)) => Err(invalid(&self.file(network, attachment), BARE)),
        }
    }

    fn read(&self, network: &NetworkName, attachment: &Attachment) -> Result<Option<Content>, Error> {
        let path = self.file(network, attachment);
        let Ok(text) = read(&path) else { return Ok(None) };
        let content = decode(&text).map_err(|why| invalid(&path, &why))?;
        if matches!(&content, Content::Entry(entry) if !entry.is_of(network, attachment)) {
            return Ok(None);
        }
        Ok(Some(content))
    }

    /// Removes the files that a process which is no more had begun.
    pub(super) fn remove_unfinished(&self, process: u32) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&unfinished(process)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Forgets an attachment; it need not be known.
    pub(super) fn remove(&self, network: &NetworkName, attachment: &Attachment) {
        if !self.is_anothers(network, attachment) {
            // What stays behind is found by the next GC, and overwritten by the next ADD.
            let _ = fs::remove_file(self.file(network, attachment));
        }
    }

    /// The file of an attachment, for messages.
    pub(super) fn path(&self, network: &NetworkName, attachment: &Attachment) -> PathBuf {
        self.file(network, attachment)
    }

    /// Every attachment that is remembered, and the files that are no entries. Directories are passed over.
    ///
    /// # Errors
    /// The directory is there but cannot be read: that is not the same as "no attachments".
    pub(super) fn list(&self) -> Result<Remembered, Error> {
        let results = self.results();
        let cannot = |error: io::Error| {
            Error::new(Code::IO_FAILURE, format!("cannot read the cached results in {}: {error}", results.display()))
        };
        let mut files = match fs::read_dir(&results) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remembered::default()),
            Err(error) => Err(error),
        }
        .map_err(cannot)?;
        files.sort();
        let mut found = Remembered::default();
        for file in files {
            let why = match read(&file) {
                // Removed since, or a directory: not of a container.
                Err(error) if error.kind() == io::ErrorKind::NotFound || file.is_dir() => continue,
                Err(error) => error.to_string(),
                Ok(text) => match decode(&text) {
                    Ok(Content::Entry(entry)) => {
                        found.entries.push(*entry);
                        continue;
                    }
                    Ok(Content::Bare(_)) => BARE.to_owned(),
                    Err(why) => why,
                },
            };
            found.unreadable.push(Unreadable { file, why });
        }
        Ok(found)
    }
}

/// What the names of files begin with that a process has not finished.
fn unfinished(process: u32) -> String {
    format!(".result-{process}-")
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    regular_file::read(path, LENGTH_MAX)
}

fn invalid(path: &Path, why: &str) -> Error {
    Error::new(Code::DECODING_FAILURE, format!("invalid cached result {}: {why}", path.display()))
}

/// The error is a text that does not name the file.
fn decode(text: &[u8]) -> Result<Content, String> {
    let value = json::parse(text).map_err(|error| error.to_string())?;
    let object = value.as_object().ok_or("expected a JSON object")?;
    match json::get(object, "kind") {
        None if json::get(object, "cniVersion").is_some() => return Ok(Content::Bare(value)),
        None => return Err("there is no \"kind\", and it is no result".into()),
        Some(kind) if kind == KIND => {}
        Some(kind) => return Err(format!("unknown \"kind\": {kind}")),
    }
    let file: File = json::from_value(&value).map_err(|error| error.to_string())?;
    let name = |name: Option<String>, key: &str| name.ok_or_else(|| format!("missing {key:?}"));
    let text = |error: Error| error.to_string();
    let config = file.config.unwrap_or_default();
    Ok(Content::Entry(Box::new(Cached {
        network: name(file.network_name, "networkName")?.parse().map_err(text)?,
        attachment: Attachment {
            container_id: name(file.container_id, "containerId")?.parse().map_err(text)?,
            netns: file.netns.filter(|netns| !netns.is_empty()).map(PathBuf::from),
            ifname: name(file.if_name, "ifName")?.parse().map_err(text)?,
            args: file.cni_args.unwrap_or_default(),
            capability_args: file.capability_args.unwrap_or_default(),
        },
        config: base64::decode(&config).ok_or("\"config\" is not base64")?,
        result: file.result.filter(Value::is_object).ok_or("there is no \"result\"")?,
        netns_id: file.netns_id,
    })))
}
