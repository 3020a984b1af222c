//! firewalld on a bus of a host's own: a stand-in that the test has in its hand, and Debian's.
//!
//! The stand-in keeps zones and their sources, and refuses in the words of firewalld 1.3 (`firewall/core/fw_zone.py`).
//! What is asked of the one is asked of the other as well, so that the stand-in cannot drift from what it plays.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Debug;
use std::future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zbus::{Connection, DBusError, block_on, interface};

use crate::dbus::{Bus, Daemon};
use crate::host::Host;

/// Names the directory where Debian's package firewalld is unpacked; `cargo xtask test` sets it.
pub const UNPACKED: &str = "PODWIRE_FIREWALLD_DIR";

const NAME: &str = "org.fedoraproject.FirewallD1";
const OBJECT: &str = "/org/fedoraproject/FirewallD1";

/// Somebody who plays firewalld, or is it.
pub trait Firewalld: Debug {
    /// The sources of a zone, sorted.
    fn sources(&self, zone: &str) -> Vec<String>;
}

/// The stand-in. It leaves the bus when it is dropped.
#[derive(Debug)]
pub struct StandIn {
    zones: Arc<Mutex<Zones>>,
    _connection: Connection,
}

impl StandIn {
    /// With the zones `public` (the default), `trusted` and `pods`, all empty.
    pub fn start(bus: &Bus<'_>) -> Self {
        let zones = Arc::new(Mutex::new(Zones::default()));
        let connection = bus.connect();
        block_on(async {
            let added = connection.object_server().at(OBJECT, Service(zones.clone())).await;
            assert!(added.expect("serve an object").is_none(), "there is an object already");
            connection.request_name(NAME).await.expect("get firewalld's name");
        });
        Self { zones, _connection: connection }
    }

    /// The calls so far, in their order: `addSource trusted 10.0.0.2/32`.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.zones).calls.clone()
    }

    /// From now on every call is answered with this error.
    pub fn refuse(&self, words: &str) {
        lock(&self.zones).refusal = Some(words.to_owned());
    }

    /// From now on no call is answered.
    pub fn hang(&self) {
        lock(&self.zones).hangs = true;
    }
}

impl Firewalld for StandIn {
    fn sources(&self, zone: &str) -> Vec<String> {
        let mut sources = lock(&self.zones).zones[zone].clone();
        sources.sort();
        sources
    }
}

fn lock(zones: &Mutex<Zones>) -> MutexGuard<'_, Zones> {
    zones.lock().unwrap_or_else(PoisonError::into_inner)
}

/// firewalld's one error; what it is, is the first word of its message.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.fedoraproject.FirewallD1")]
enum Refusal {
    #[zbus(error)]
    Bus(zbus::Error),
    Exception(String),
}

impl Refusal {
    fn new<T>(words: String) -> Result<T, Self> {
        Err(Self::Exception(words))
    }
}

#[derive(Debug)]
struct Zones {
    zones: BTreeMap<String, Vec<String>>,
    calls: Vec<String>,
    refusal: Option<String>,
    hangs: bool,
}

impl Default for Zones {
    fn default() -> Self {
        let zones = ["public", "trusted", "pods"].map(|zone| (zone.to_owned(), Vec::new()));
        Self { zones: zones.into(), calls: Vec::new(), refusal: None, hangs: false }
    }
}

impl Zones {
    fn known(&self, zone: &str) -> Result<String, Refusal> {
        let zone = if zone.is_empty() { "public" } else { zone };
        match self.zones.contains_key(zone) {
            true => Ok(zone.to_owned()),
            false => Refusal::new(format!("INVALID_ZONE: {zone}")),
        }
    }

    fn of_source(&self, source: &str) -> Option<&String> {
        self.zones.iter().find(|(_, sources)| sources.iter().any(|known| known == source)).map(|(zone, _)| zone)
    }

    fn add(&mut self, zone: &str, source: &str) -> Result<String, Refusal> {
        let zone = self.known(zone)?;
        let (address, length) = source.split_once('/').unwrap_or((source, "32"));
        if address.parse::<IpAddr>().is_err() || length.parse::<u8>().is_err() {
            return Refusal::new(format!("INVALID_ADDR: {source}"));
        }
        match self.of_source(source) {
            Some(there) if *there == zone => {
                Refusal::new(format!("ZONE_ALREADY_SET: '{source}' already bound to '{zone}'"))
            }
            Some(_) => Refusal::new(format!("ZONE_CONFLICT: '{source}' already bound to a zone")),
            None => {
                self.zones.entry(zone.clone()).or_default().push(source.to_owned());
                Ok(zone)
            }
        }
    }

    fn remove(&mut self, zone: &str, source: &str) -> Result<String, Refusal> {
        let Some(there) = self.of_source(source).cloned() else {
            return Refusal::new(format!("UNKNOWN_SOURCE: '{source}' is not in any zone"));
        };
        let zone = self.known(zone)?;
        if there != zone {
            return Refusal::new(format!("ZONE_CONFLICT: remove_source({zone}, {source}): zos='{there}'"));
        }
        self.zones.entry(zone.clone()).or_default().retain(|known| known != source);
        Ok(zone)
    }
}

#[derive(Debug)]
struct Service(Arc<Mutex<Zones>>);

impl Service {
    /// Writes the call down, and refuses or hangs where it was told to.
    async fn called(&self, method: &str, zone: &str, source: &str) -> Result<(), Refusal> {
        let (hangs, refusal) = {
            let mut zones = lock(&self.0);
            zones.calls.push(format!("{method} {zone} {source}"));
            (zones.hangs, zones.refusal.clone())
        };
        if hangs {
            future::pending::<()>().await;
        }
        refusal.map_or(Ok(()), Refusal::new)
    }
}

#[interface(name = "org.fedoraproject.FirewallD1.zone")]
impl Service {
    #[zbus(name = "addSource")]
    async fn add_source(&self, zone: String, source: String) -> Result<String, Refusal> {
        self.called("addSource", &zone, &source).await?;
        lock(&self.0).add(&zone, &source)
    }

    #[zbus(name = "removeSource")]
    async fn remove_source(&self, zone: String, source: String) -> Result<String, Refusal> {
        self.called("removeSource", &zone, &source).await?;
        lock(&self.0).remove(&zone, &source)
    }

    #[zbus(name = "querySource")]
    async fn query_source(&self, zone: String, source: String) -> Result<bool, Refusal> {
        self.called("querySource", &zone, &source).await?;
        let zones = lock(&self.0);
        let zone = zones.known(&zone)?;
        Ok(zones.zones[&zone].contains(&source))
    }
}

/// Debian's firewalld, in a host's namespaces, with its own default configuration.
#[derive(Debug)]
pub struct Debian<'a> {
    host: &'a Host,
    directory: PathBuf,
    _daemon: Daemon,
}

impl<'a> Debian<'a> {
    /// Starts it and waits until it is on the bus.
    pub fn start(host: &'a Host, bus: &Bus<'_>) -> Self {
        let directory = unpacked();
        let daemon = host.enter(|| {
            let mut program = Command::new("/usr/bin/python3");
            program.arg(directory.join("usr/sbin/firewalld")).args(["--nofork", "--nopid"]);
            program.arg("--default-config").arg(directory.join("usr/lib/firewalld"));
            program.arg("--system-config").arg(directory.join("etc/firewalld"));
            program.args(["--log-target", "file", "--log-file", "/run/firewalld.log"]);
            Daemon::start(&mut program)
        });
        bus.wait_for(NAME);
        Self { host, directory, _daemon: daemon }
    }

    /// Its version, as it says itself.
    pub fn version(&self) -> String {
        self.command("--version")
    }

    /// Reads its configuration again, which forgets what was changed since it runs.
    pub fn reload(&self) {
        self.command("--reload");
    }

    /// What an administrator sees: `firewall-cmd`.
    pub fn command(&self, arguments: &str) -> String {
        let program = self.directory.join("usr/bin/firewall-cmd");
        self.host.run(&format!("/usr/bin/python3 {} {arguments}", program.display())).trim().to_owned()
    }
}

impl Firewalld for Debian<'_> {
    fn sources(&self, zone: &str) -> Vec<String> {
        let listed = self.command(&format!("--zone={zone} --list-sources"));
        let mut sources: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
        sources.sort();
        sources
    }
}

fn unpacked() -> PathBuf {
    let directory = env::var_os(UNPACKED).map_or_else(|| Path::new("/").to_owned(), PathBuf::from);
    let program = directory.join("usr/sbin/firewalld");
    assert!(program.is_file(), "no {} (`cargo xtask test` unpacks it and sets {UNPACKED})", program.display());
    directory
}
