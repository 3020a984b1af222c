//! To write a plugin: implement [`Plugin`], and let [`run`] be the whole of `main`.
//!
//! [`run`] does what every plugin must do and few do right: it checks the environment, the network's
//! name and the versions before the plugin's code sees anything, refuses to work in its own network
//! namespace, prints exactly one JSON document, and turns every failure, a panic included, into CNI
//! error JSON.
//!
//! A whole plugin, which hands out one address:
//!
//! ```
//! use libcni::plugin::{Conf, Environment, Network, Plugin, Request};
//! use libcni::types::{Cidr, IpConfig};
//! use libcni::{Code, Error, Success};
//!
//! /// The configuration as it is written: every key may be missing.
//! #[derive(serde::Deserialize)]
//! struct Raw {
//!     address: Option<Cidr>,
//! }
//!
//! /// The configuration as the plugin uses it: what is here is valid.
//! struct OneConf {
//!     address: Cidr,
//! }
//!
//! impl Conf for OneConf {
//!     type Raw = Raw;
//!
//!     fn from_raw(raw: Raw, _env: &Environment) -> Result<Self, Error> {
//!         let address = raw.address.ok_or_else(|| Error::new(Code::INVALID_CONFIG, "missing \"address\""))?;
//!         Ok(Self { address })
//!     }
//! }
//!
//! struct One;
//!
//! impl Plugin for One {
//!     type Conf = OneConf;
//!     const ABOUT: &'static str = "CNI one plugin v1.2.0";
//!
//!     fn add(&self, req: &Request<OneConf>) -> Result<Success, Error> {
//!         let ips = vec![IpConfig::new(req.conf().address, None)];
//!         Ok(Success { ips, ..Success::default() })
//!     }
//!
//!     fn del(&self, _req: &Request<OneConf>) -> Result<(), Error> {
//!         Ok(())
//!     }
//!
//!     fn check(&self, req: &Request<OneConf>) -> Result<(), Error> {
//!         let result = req.prev_result()?.unwrap_or_default();
//!         match result.ips.iter().any(|ip| ip.address == req.conf().address) {
//!             true => Ok(()),
//!             false => Err(Error::internal(format!("{} is not in prevResult", req.conf().address))),
//!         }
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     # if std::env::var_os("CNI_COMMAND").is_none() { return std::process::ExitCode::SUCCESS }
//!     libcni::plugin::run(&One)
//! }
//! ```

mod asker;
mod dispatch;
pub mod dry_run;
mod env;
pub mod log;
mod request;

#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;

pub use asker::ensure_asked;
pub use dispatch::{dispatch, own_netns, run};
pub use env::{Command, Environment};
pub use request::{Attachment, Network, Request};

use crate::types::{Error, Success, Version};

/// A plugin's own configuration, made from what is written in the network's JSON.
pub trait Conf: Sized {
    /// The JSON's shape: every key the plugin knows, every one of them optional.
    type Raw: DeserializeOwned;

    /// Checks and completes what was written. Every rule between keys lives here, so that the rest of the
    /// plugin works on values that cannot be wrong. Plugins that read `CNI_ARGS` find it in `env`.
    ///
    /// # Errors
    /// Code 7 ([`Code::INVALID_CONFIG`](crate::Code::INVALID_CONFIG)) naming the key and its value.
    fn from_raw(raw: Self::Raw, env: &Environment) -> Result<Self, Error>;

    /// What DEL works with where the configuration cannot be read: somebody may have broken it since the ADD,
    /// and the pod must still go. `None` where DEL cannot do without.
    fn for_del(_env: &Environment) -> Option<Self> {
        None
    }
}

/// A plugin without keys of its own.
impl Conf for () {
    type Raw = serde::de::IgnoredAny;

    fn from_raw(_: Self::Raw, _: &Environment) -> Result<Self, Error> {
        Ok(())
    }
}

/// What a CNI plugin does, verb by verb.
pub trait Plugin {
    /// The plugin's configuration.
    type Conf: Conf;

    /// What is printed when a person starts the plugin: `CNI <name> plugin v<version>`. Nomad and installers
    /// read the version from it.
    const ABOUT: &'static str;

    /// The versions of the specification the plugin speaks.
    const VERSIONS: &'static [Version] = Version::ALL;

    /// Whether DEL and GC have a dry run ([`dry_run`]). Who says so promises that neither changes anything before it has
    /// asked [`dry_run::notes`], not in the kernel, nor on the disk, nor by a program that it starts. Of who does not, the
    /// command of a dry run is refused as an unknown one.
    const DRY_RUN: bool = false;

    /// Connects the container, and says what was made.
    ///
    /// # Errors
    /// Any failure; what was made until then has been removed again.
    fn add(&self, req: &Request<Self::Conf>) -> Result<Success, Error>;

    /// Removes what ADD made. What is gone already is success; after a failure the rest is still removed.
    ///
    /// # Errors
    /// Something is left behind.
    fn del(&self, req: &Request<Self::Conf>) -> Result<(), Error>;

    /// Compares what is there with what ADD made; changes nothing.
    ///
    /// # Errors
    /// Something is missing or different.
    fn check(&self, req: &Request<Self::Conf>) -> Result<(), Error>;

    /// Removes what belongs to attachments that are not in [`Network::valid_attachments`].
    ///
    /// # Errors
    /// Something is left behind.
    fn gc(&self, _network: &Network<Self::Conf>) -> Result<(), Error> {
        Ok(())
    }

    /// Whether an ADD could succeed now.
    ///
    /// # Errors
    /// Code 50 or 51 ([`Code::NOT_AVAILABLE`](crate::Code::NOT_AVAILABLE), [`Code::LIMITED`](crate::Code::LIMITED)).
    fn status(&self, _network: &Network<Self::Conf>) -> Result<(), Error> {
        Ok(())
    }
}
