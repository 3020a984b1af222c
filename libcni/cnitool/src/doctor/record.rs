//! Notes about temporary pods, written before each is added and removed when it is gone: what a doctor that was killed
//! left is found by the next one. In /run, because a reboot takes pods and bridges with it.
//!
//! The directory is also the lock: there is one doctor on a node, or each would take the other's pods for leftovers and
//! its links for a change. So is the cache: what is remembered there of pods with our names is deleted as well, and a doctor
//! in a container may see the node's cache with a /run of its own.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libcni::types::json::{self, Object};
use libcni::{Code, Error};
use serde_json::{Value, json};

/// Where the notes are.
const DIRECTORY: &str = "/run/podwire-doctor";

/// What the name of a note ends with that is not written to its end.
const UNFINISHED: &str = ".new";

/// A temporary pod, and what its network makes with its first pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub container: String,
    pub network: String,
    /// The bridge, and the interface with the gateway's address, if they were not there before.
    pub bridge: Option<String>,
    pub gateway_link: Option<String>,
    /// Those that the ADD has made; unknown until it has ended.
    pub made: Option<Made>,
    /// Whether the node forwarded IPv4, IPv6.
    pub forwarding: [bool; 2],
    /// The configuration, for when its file is gone.
    pub config: String,
}

/// The bridge that an ADD has made: that one, and none that has its name later.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The boot and the network namespace that the numbers are of.
    pub place: String,
    pub bridge: u32,
    pub gateway_link: Option<u32>,
    /// Of both, directly after the ADD.
    pub addresses: Vec<String>,
}

/// The notes of this node and the cache, held by us alone.
pub struct Records {
    directory: File,
    _cache: File,
}

fn failed(what: &str, error: &io::Error) -> Error {
    Error::new(Code::IO_FAILURE, format!("failed to {what} {DIRECTORY}: {error}"))
}

impl Records {
    /// Takes the notes and the cache; made where there are none.
    ///
    /// # Errors
    /// Another doctor is at work.
    pub fn take(cache: &Path) -> Result<Self, Error> {
        let cache = hold(cache)?;
        Ok(Self { directory: hold(Path::new(DIRECTORY))?, _cache: cache })
    }

    /// Notes a pod.
    pub fn add(&self, record: &Record) -> Result<(), Error> {
        let text = json!({
            "network": record.network, "bridge": record.bridge, "gatewayLink": record.gateway_link,
            "forwarding": record.forwarding, "config": record.config,
            "made": record.made.as_ref().map(|made| json!({
                "place": made.place, "bridge": made.bridge, "gatewayLink": made.gateway_link, "addresses": made.addresses,
            })),
        });
        // Beside it first: a note that is there is not lost while it is written anew.
        let beside = path(&format!("{}{UNFINISHED}", record.container));
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600).open(&beside);
        let written = file.and_then(|mut file| io::Write::write_all(&mut file, text.to_string().as_bytes()));
        let written = written.and_then(|()| fs::rename(&beside, path(&record.container)));
        written.map_err(|error| failed("write to", &error))
    }

    /// Forgets a pod.
    pub fn remove(&self, container: &str) {
        let _ = fs::remove_file(path(container));
    }

    /// The pods that are noted. Of a note that was not written to its end, nothing was made.
    pub fn list(&self) -> Result<Vec<Record>, Error> {
        let entries = fs::read_dir(DIRECTORY).map_err(|error| failed("read", &error))?;
        let mut records = Vec::new();
        for entry in entries.flatten() {
            let container = entry.file_name().to_string_lossy().into_owned();
            if container.ends_with(UNFINISHED) {
                self.remove(&container);
                continue;
            }
            match fs::read(entry.path()).ok().and_then(|text| read(container.clone(), &text)) {
                Some(record) => records.push(record),
                None => self.remove(&container),
            }
        }
        records.sort_by(|left, right| left.container.cmp(&right.container));
        Ok(records)
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // Not if there are notes in it. Whoever opened it meanwhile sees that it is gone.
        let _ = fs::remove_dir(DIRECTORY);
        let _ = self.directory.unlock();
    }
}

/// Locks a directory, made where there is none.
fn hold(path: &Path) -> Result<File, Error> {
    let shown = path.display();
    let failed =
        |what: &str, error: &io::Error| Error::new(Code::IO_FAILURE, format!("failed to {what} {shown}: {error}"));
    loop {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| failed("create", &error))?;
        let directory = File::open(path).map_err(|error| failed("open", &error))?;
        // NFS locks no directory: there, the other of the two has to do.
        if matches!(directory.try_lock(), Err(TryLockError::WouldBlock)) {
            let busy = Error::new(Code::TRY_AGAIN_LATER, "another cnitool doctor is at work on this node");
            return Err(busy.with_details(format!("it holds {shown}")));
        }
        // Its last owner may have removed it in between: then what we hold is nowhere.
        let (ours, there) = (directory.metadata(), fs::metadata(path));
        if let (Ok(ours), Ok(there)) = (ours, there)
            && (ours.dev(), ours.ino()) == (there.dev(), there.ino())
        {
            return Ok(directory);
        }
    }
}

fn path(container: &str) -> PathBuf {
    Path::new(DIRECTORY).join(container)
}

fn read(container: String, text: &[u8]) -> Option<Record> {
    let Value::Object(object) = json::parse(text).ok()? else { return None };
    let text = |object: &Object, key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    let forwarding: Vec<bool> = object.get("forwarding")?.as_array()?.iter().filter_map(Value::as_bool).collect();
    Some(Record {
        container,
        network: text(&object, "network")?,
        bridge: text(&object, "bridge"),
        gateway_link: text(&object, "gatewayLink"),
        made: object.get("made").and_then(Value::as_object).and_then(made),
        forwarding: forwarding.try_into().ok()?,
        config: text(&object, "config")?,
    })
}

fn made(object: &Object) -> Option<Made> {
    let number = |key: &str| object.get(key).and_then(Value::as_u64).and_then(|number| number.try_into().ok());
    let addresses = object.get("addresses")?.as_array()?.iter().filter_map(Value::as_str);
    Some(Made {
        place: object.get("place")?.as_str()?.to_owned(),
        bridge: number("bridge")?,
        gateway_link: number("gatewayLink"),
        addresses: addresses.map(str::to_owned).collect(),
    })
}
