//! firewalld, by D-Bus: the addresses of pods as sources of one of its zones.
//!
//! What is asked of it is what the reference asks: `addSource`, `removeSource` and `querySource` of its zones, which change
//! the configuration of the running firewalld alone; a reload of firewalld forgets it.
//!
//! Every operation is one connection, one run of zbus on the calling thread, and one deadline over all of it. A connection
//! kept from one operation to the next would need a thread to look after it, and saves 0.3 ms beside the 10 ms and more
//! that firewalld takes for a source. Where there is no socket nothing of zbus is set up.
//!
//! Nothing here starts firewalld: a call to its well-known name would, where systemd may activate it, and a node whose
//! administrator stopped the firewall would get it back with the next pod. So its present owner is asked for and called.

use std::env;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hostnet::{Error, Result};
use libcni::types::Cidr;
use zbus::address::transport::{Transport, UnixSocket};
use zbus::connection::Builder;
use zbus::message::Body;
use zbus::{Address, Connection};
use zruntime::SharedRuntime;

/// Where the bus is, if the environment does not say: as in the D-Bus specification ("Well-known Message Bus Instances").
const SYSTEM_BUS: &str = "unix:path=/var/run/dbus/system_bus_socket";
const ADDRESS_VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const FIREWALLD: &str = "org.fedoraproject.FirewallD1";
const FIREWALLD_PATH: &str = "/org/fedoraproject/FirewallD1";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";

/// Longest operation. firewalld answers one caller after the other, in 10 to 100 ms each; kubelet gives up on a pod after
/// two minutes, and asks again.
const DEADLINE: Duration = Duration::from_secs(10);

/// A system bus that answers. firewalld itself may come and go on it.
#[derive(Clone, Debug)]
pub struct Firewalld {
    bus: Bus,
}

impl Firewalld {
    /// Whether firewalld is on the system bus. False, too, where the bus does not answer.
    pub fn is_running() -> bool {
        let Ok(bus) = Bus::of_environment() else { return false };
        bus.may_be_there() && bus.run(async |connection| owner(connection).await).is_ok_and(|owner| owner.is_some())
    }

    /// Finds the bus.
    ///
    /// # Errors
    /// There is none, or it does not let us in; the error names the address.
    pub fn connect() -> Result<Self> {
        let bus = Bus::of_environment()?;
        let connected = bus.run(async |_| Ok(()));
        connected.map_err(|failure| Error::other(format!("connect to the system bus {bus}"), failure))?;
        Ok(Self { bus })
    }

    /// Adds a source to a zone. One that is in this zone already is fine.
    ///
    /// # Errors
    /// firewalld does not run or refuses: no such zone, or the source is in another zone.
    pub fn add_source(&self, zone: &str, source: Cidr) -> Result<()> {
        match self.call("addSource", zone, source) {
            Ok(_) => Ok(()),
            Err(failure) if failure.has_code(&["ZONE_ALREADY_SET"]) => Ok(()),
            Err(failure) => Err(error("addSource", zone, source, &failure)),
        }
    }

    /// Removes a source from a zone. Fine is what has no such source: no zone (`UNKNOWN_SOURCE`), another zone than this
    /// one (`ZONE_CONFLICT`), a zone that does not exist (`INVALID_ZONE`), a firewalld that does not run.
    ///
    /// # Errors
    /// firewalld refuses for another reason, or the bus does not answer.
    pub fn remove_source(&self, zone: &str, source: Cidr) -> Result<()> {
        match self.call("removeSource", zone, source) {
            Ok(_) | Err(Failure::NotRunning) => Ok(()),
            Err(failure) if failure.has_code(&["UNKNOWN_SOURCE", "ZONE_CONFLICT", "INVALID_ZONE"]) => Ok(()),
            Err(failure) => Err(error("removeSource", zone, source, &failure)),
        }
    }

    /// Whether a source is in a zone.
    ///
    /// # Errors
    /// firewalld does not run, or there is no such zone.
    pub fn has_source(&self, zone: &str, source: Cidr) -> Result<bool> {
        let answer = self.call("querySource", zone, source).and_then(|body| Ok(body.deserialize()?));
        answer.map_err(|failure| error("querySource", zone, source, &failure))
    }

    /// A method of the zones: each takes a zone and a source.
    fn call(&self, method: &str, zone: &str, source: Cidr) -> std::result::Result<Body, Failure> {
        let arguments = (zone, source.to_string());
        self.bus.run(async |connection| {
            let owner = owner(connection).await?.ok_or(Failure::NotRunning)?;
            let to = Some(owner.as_str());
            Ok(connection.call_method(to, FIREWALLD_PATH, Some(ZONES), method, &arguments).await?.body())
        })
    }
}

fn error(method: &str, zone: &str, source: Cidr, failure: &Failure) -> Error {
    Error::other(format!("firewalld: {method} {source} of zone {zone:?}"), failure)
}

/// Who firewalld is on the bus at present (`:1.7`).
async fn owner(connection: &Connection) -> std::result::Result<Option<String>, Failure> {
    let asked = connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &(FIREWALLD,)).await;
    match asked {
        Ok(answer) => Ok(Some(answer.body().deserialize()?)),
        Err(zbus::Error::FDO(error)) if matches!(*error, zbus::fdo::Error::NameHasNoOwner(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where the system bus may be: alternatives, of which the first that answers counts.
#[derive(Clone, Debug)]
struct Bus {
    addresses: Vec<Address>,
}

impl Bus {
    fn of_environment() -> Result<Self> {
        match env::var(ADDRESS_VARIABLE) {
            Ok(text) if !text.is_empty() => {
                Self::read(&text).map_err(|why| Error::other(format!("read {ADDRESS_VARIABLE}={text:?}"), why))
            }
            _ => Self::read(SYSTEM_BUS).map_err(|why| Error::other(format!("read {SYSTEM_BUS:?}"), why)),
        }
    }

    fn read(text: &str) -> zbus::Result<Self> {
        let alternatives = text.split(';').filter(|address| !address.is_empty());
        Ok(Self { addresses: alternatives.map(Address::from_str).collect::<zbus::Result<_>>()? })
    }

    /// False where every address is a socket's and none of the sockets exists: the node without a bus, of which there are
    /// many, pays for one look.
    fn may_be_there(&self) -> bool {
        self.addresses.iter().any(|address| match address.transport() {
            Transport::Unix(unix) => match unix.path() {
                UnixSocket::File(path) => path.exists(),
                _ => true,
            },
            _ => true,
        })
    }

    /// Does something with a new connection, within the deadline.
    fn run<T>(
        &self,
        work: impl AsyncFnOnce(&Connection) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        zbus::block_on(async {
            let runtime = SharedRuntime::current().map_err(|error| Failure::Bus(error.into()))?;
            let all = async { work(&self.connection().await?).await };
            runtime.timeout(DEADLINE, all).await.unwrap_or(Err(Failure::TimedOut))
        })
    }

    async fn connection(&self) -> std::result::Result<Connection, Failure> {
        let mut failure = Failure::Bus(zbus::Error::Address("no address".to_owned()));
        for address in &self.addresses {
            match Builder::address(address.clone()).build().await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(Address::to_string).collect();
        f.write_str(&addresses.join(";"))
    }
}

/// Why an operation came to nothing.
#[derive(Debug)]
enum Failure {
    TimedOut,
    NotRunning,
    Bus(zbus::Error),
}

impl Failure {
    /// Whether firewalld answered with one of its own errors. All have one D-Bus name; the code is the message's first word:
    /// `ZONE_ALREADY_SET: '10.0.0.2/32' already bound to 'trusted'`.
    fn has_code(&self, codes: &[&str]) -> bool {
        let Self::Bus(zbus::Error::MethodError(_, Some(words), _)) = self else { return false };
        words.split(':').next().is_some_and(|code| codes.contains(&code))
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        Self::Bus(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => write!(f, "no answer within {} s", DEADLINE.as_secs()),
            Self::NotRunning => write!(f, "firewalld does not run ({FIREWALLD} is not on the system bus)"),
            // The address is in the error around it.
            Self::Bus(zbus::Error::Connection(error, _)) => error.fmt(f),
            Self::Bus(zbus::Error::MethodError(_, Some(words), _)) => f.write_str(words),
            Self::Bus(error) => error.fmt(f),
        }
    }
}
