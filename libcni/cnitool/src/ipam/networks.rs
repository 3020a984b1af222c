//! The networks that are configured, and those that only the runtimes' caches still know: where each keeps its leases,
//! and from which ranges they are.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use host_local::conf::DATA_DIR;
use host_local::range::{RangeSet, Written};
use libcni::Error;
use libcni::runtime::{Cached, ConfList, PluginConf, files};
use libcni::types::json::{self, Object};
use serde_json::Value;

/// One network.
pub struct Network {
    pub list: ConfList,
    /// Where its leases are. Empty: its addresses are not host-local's.
    pub directories: Vec<PathBuf>,
    /// What is given out, as far as the configuration says.
    pub sets: Vec<RangeSet>,
    /// Whether these are all: the runtime may supply more, and one may be wrong.
    pub are_all_sets: bool,
}

impl Network {
    fn of(list: ConfList) -> Self {
        let mut network = Self { list, directories: Vec::new(), sets: Vec::new(), are_all_sets: true };
        for plugin in network.list.plugins().to_vec() {
            network.take(&plugin);
        }
        network
    }

    fn take(&mut self, plugin: &PluginConf) {
        let Some(Value::Object(ipam)) = json::get(plugin.object(), "ipam") else { return };
        if text(ipam, "type") != Some("host-local") {
            return;
        }
        let root = text(ipam, "dataDir").filter(|root| !root.is_empty()).unwrap_or(DATA_DIR);
        self.directories.push(Path::new(root).join(self.list.name().as_str()));
        self.are_all_sets &= !plugin.capabilities().iter().any(|capability| capability == "ipRanges");
        let sets = json::get(ipam, "ranges").and_then(Value::as_array);
        let mut written: Vec<Vec<Option<Written>>> = Vec::new();
        if json::get(ipam, "subnet").is_some() {
            written.push(vec![range(ipam)]);
        }
        let ranges = |set: &Value| {
            let ranges = set.as_array().into_iter().flatten();
            ranges.map(|one| one.as_object().and_then(range)).collect()
        };
        written.extend(sets.into_iter().flatten().map(ranges));
        for set in written {
            let set: Option<Vec<Written>> = set.into_iter().collect();
            match set.and_then(|set| RangeSet::new(&set).ok()) {
                Some(set) => self.sets.push(set),
                // `cnitool validate` says what is wrong.
                None => self.are_all_sets = false,
            }
        }
    }

    pub fn name(&self) -> &str {
        self.list.name().as_str()
    }

    /// Whether an address is certainly not of the network.
    pub fn is_foreign(&self, address: IpAddr) -> bool {
        self.are_all_sets && !self.sets.is_empty() && !self.sets.iter().any(|set| set.contains(address))
    }
}

fn text<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    json::get(object, key).and_then(Value::as_str)
}

/// A range whose texts are addresses.
fn range(object: &Object) -> Option<Written> {
    let address = |key: &str| match text(object, key).filter(|text| !text.is_empty()) {
        None => Some(None),
        Some(text) => text.parse::<IpAddr>().ok().map(|addr| Some(addr.to_canonical())),
    };
    Some(Written {
        subnet: Some(text(object, "subnet")?.parse().ok()?),
        start: address("rangeStart")?,
        end: address("rangeEnd")?,
        gateway: address("gateway")?,
    })
}

/// Every network there is.
#[derive(Default)]
pub struct Networks {
    /// By name, each once.
    pub all: Vec<Network>,
    /// Files that could not be read: their networks are not looked at.
    pub broken: Vec<String>,
}

impl Networks {
    /// Those of a directory, as [`ConfList::from_dir`] would find each, and then those of the cache that it has not.
    pub fn read(dir: &Path, cached: &[Cached]) -> Result<Self, Error> {
        let mut networks = Self::default();
        let lists = files(dir, &["conflist"])?.into_iter().map(|file| ConfList::from_file(&file));
        let singles = files(dir, &["conf", "json"])?.into_iter().map(|file| ConfList::from_single_file(&file));
        for list in lists.chain(singles) {
            match list {
                Ok(list) => networks.add(list),
                Err(error) => networks.broken.push(error.to_string()),
            }
        }
        for entry in cached {
            if let Ok(list) = ConfList::from_bytes(&entry.config).or_else(|_| ConfList::from_single(&entry.config))
                && *list.name() == entry.network
                && !list.plugins().is_empty()
            {
                networks.add(list);
            }
        }
        networks.all.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(networks)
    }

    fn add(&mut self, list: ConfList) {
        if self.get(list.name().as_str()).is_none() {
            self.all.push(Network::of(list));
        }
    }

    pub fn get(&self, name: &str) -> Option<&Network> {
        self.all.iter().find(|network| network.name() == name)
    }

    /// Every directory below which there may be leases: the default one, and those that are configured.
    pub fn roots(&self) -> BTreeSet<PathBuf> {
        let configured = self.all.iter().flat_map(|network| &network.directories);
        let mut roots: BTreeSet<PathBuf> = configured.filter_map(|dir| dir.parent().map(Path::to_owned)).collect();
        roots.insert(DATA_DIR.into());
        roots
    }
}
