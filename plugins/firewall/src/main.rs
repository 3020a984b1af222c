//! firewall, with the backend firewalld alone: as much as its tests need. The other backends come with the plugin itself.

mod firewalld;

use std::process::ExitCode;

use hostnet::Undo;
use libcni::plugin::{self, Environment, Network, Plugin, Request};
use libcni::types::{Cidr, Code};
use libcni::{Error, Success};
use serde::Deserialize;

use crate::firewalld::Firewalld;

struct Firewall;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    backend: Option<String>,
    firewalld_zone: Option<String>,
}

struct Conf {
    is_explicit: bool,
    zone: String,
}

impl plugin::Conf for Conf {
    type Raw = Raw;

    fn for_del(_: &Environment) -> Option<Self> {
        Some(Self { is_explicit: false, zone: "trusted".to_owned() })
    }

    fn from_raw(raw: Raw, _: &Environment) -> Result<Self, Error> {
        let zone = raw.firewalld_zone.filter(|zone| !zone.is_empty()).unwrap_or_else(|| "trusted".to_owned());
        Ok(Self { is_explicit: raw.backend.as_deref() == Some("firewalld"), zone })
    }
}

impl Plugin for Firewall {
    type Conf = Conf;
    const ABOUT: &'static str = concat!("CNI firewall plugin v", env!("CARGO_PKG_VERSION"));

    fn add(&self, req: &Request<Conf>) -> Result<Success, Error> {
        let result = prev_result(req)?;
        let firewalld = firewalld(req)?;
        let (conf, remover) = (req.conf(), &firewalld);
        let mut undo = Undo::new();
        for source in sources(&result) {
            // First, so that also what is done after a deadline is undone.
            undo.push(format!("remove the source {source}"), move || remover.remove_source(&conf.zone, source));
            firewalld.add_source(&conf.zone, source)?;
        }
        undo.keep();
        Ok(result)
    }

    fn del(&self, req: &Request<Conf>) -> Result<(), Error> {
        let Some(result) = req.prev_result()? else { return Ok(()) };
        if !req.conf().is_explicit && !Firewalld::is_running() {
            return Ok(());
        }
        let firewalld = Firewalld::connect()?;
        let removed = sources(&result).map(|source| firewalld.remove_source(&req.conf().zone, source));
        Error::join(removed.filter_map(Result::err).map(Error::from).collect())
    }

    fn check(&self, req: &Request<Conf>) -> Result<(), Error> {
        let (conf, result) = (req.conf(), prev_result(req)?);
        let firewalld = firewalld(req)?;
        for source in sources(&result) {
            if !firewalld.has_source(&conf.zone, source)? {
                return Err(Error::internal(format!("the source {source} is not in firewalld's zone {:?}", conf.zone)));
            }
        }
        Ok(())
    }

    fn status(&self, network: &Network<Conf>) -> Result<(), Error> {
        if network.conf().is_explicit && !Firewalld::is_running() {
            return Err(Error::new(Code::NOT_AVAILABLE, "firewalld does not run"));
        }
        Ok(())
    }
}

fn firewalld(req: &Request<Conf>) -> Result<Firewalld, Error> {
    if !req.conf().is_explicit && !Firewalld::is_running() {
        return Err(Error::internal("the only backend yet is firewalld, which does not run"));
    }
    Ok(Firewalld::connect()?)
}

fn prev_result(req: &Request<Conf>) -> Result<Success, Error> {
    req.prev_result()?.ok_or_else(|| Error::new(Code::INVALID_CONFIG, "missing prevResult from earlier plugin"))
}

fn sources(result: &Success) -> impl Iterator<Item = Cidr> {
    result.ips.iter().map(|ip| Cidr::host(ip.address.addr()))
}

fn main() -> ExitCode {
    plugin::run(&Firewall)
}
