//! tuning: sysctls of a pod's namespace, and MAC, MTU, modes and queue length of an interface that a plugin before it
//! in the chain has made.
//!
//! ADD sets, in this order: the sysctls, as they stand in the configuration; the interface's attributes, of which it
//! first writes the present values to a backup file. If one is refused, those before it are set back. The result is
//! the one of the plugin before, with the MAC and MTU as they are now.
//!
//! DEL sets the attributes back from the backup and removes it. Sysctls stay: they end with the namespace. GC removes
//! backups of attachments that are no more.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

mod allowlist;
mod attributes;
mod backup;
mod conf;
mod duplicates;
mod sysctl;

use std::process::ExitCode;

use hostnet::link::{self, Link};
use hostnet::{Netlink, Netns, Undo};
use libcni::plugin::{self, Network, Plugin, Request};
use libcni::{Code, Error, Success};

use crate::attributes::Attributes;
use crate::backup::Backup;
use crate::conf::Conf;

struct Tuning;

impl Plugin for Tuning {
    type Conf = Conf;
    const ABOUT: &'static str = concat!("CNI tuning plugin v", env!("CARGO_PKG_VERSION"));
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<Conf>) -> Result<Success, Error> {
        let conf = req.conf();
        duplicates::refuse(req.stdin())?;
        allowlist::check(&conf.sysctls)?;
        let mut result = prev_result(req)?;
        let mut pod = open(req)?;
        let mut undo = Undo::new();
        for sysctl in &conf.sysctls {
            sysctl.set(&pod, req.ifname(), &mut undo)?;
        }
        if !conf.attributes.is_empty() {
            let link = get_link(&mut pod, req)?;
            let before = conf.attributes.present(&link);
            Backup::of(req).ensure(&before)?;
            undo_attributes(req, &link, before, &mut undo);
            conf.attributes.set(&mut pod, &link)?;
            conf.attributes.report(req.ifname(), req.version(), &mut result);
        }
        // Versions before 0.3.0 cannot say a result without addresses: better now than when all is kept.
        result.check_version(req.version())?;
        undo.keep();
        Ok(result)
    }

    fn del(&self, req: &Request<Conf>) -> Result<(), Error> {
        let backup = Backup::of(req);
        if backup.is_anothers() {
            return Ok(());
        }
        let Some(before) = backup.get()? else { return backup.remove() };
        if let Some(netns) = req.netns_if_any().map(Netns::get).transpose()?.flatten() {
            restore(netns, req.ifname().as_str(), &before)?;
        }
        backup.remove()
    }

    fn check(&self, req: &Request<Conf>) -> Result<(), Error> {
        let conf = req.conf();
        duplicates::refuse(req.stdin())?;
        prev_result(req)?;
        let mut pod = open(req)?;
        let mut wrong: Vec<Error> =
            conf.sysctls.iter().filter_map(|sysctl| sysctl.check(&pod, req.ifname()).err()).collect();
        if !conf.attributes.is_empty() {
            wrong.extend(conf.attributes.check(&get_link(&mut pod, req)?));
        }
        Error::join(wrong)
    }

    fn gc(&self, network: &Network<Conf>) -> Result<(), Error> {
        match network.valid_attachments() {
            Some(valid) => backup::remove_all_but(&network.conf().data_dir, network.name(), valid),
            None => Ok(()),
        }
    }

    fn status(&self, network: &Network<Conf>) -> Result<(), Error> {
        let unavailable = |error: Error| Error::new(Code::NOT_AVAILABLE, error.msg()).with_details(error.details());
        allowlist::check(&network.conf().sysctls).map_err(unavailable)?;
        if network.conf().attributes.is_empty() {
            return Ok(());
        }
        backup::check_writable(&network.conf().data_dir, network.name()).map_err(unavailable)
    }
}

fn prev_result(req: &Request<Conf>) -> Result<Success, Error> {
    req.prev_result()?.ok_or_else(|| {
        Error::new(Code::INVALID_CONFIG, "Required prevResult missing")
            .with_details("tuning works in a chain, behind the plugin that makes the interface")
    })
}

fn open(req: &Request<Conf>) -> Result<Netlink, Error> {
    Ok(Netlink::open_in(Netns::open(req.netns()?)?)?)
}

fn get_link(pod: &mut Netlink, req: &Request<Conf>) -> Result<Link, Error> {
    let link = link::get(pod, req.ifname().as_str())?;
    link.ok_or_else(|| {
        Error::internal(format!("failed to get {:?}: Link not found in {}", req.ifname().as_str(), pod.netns()))
    })
}

/// Sets an interface back to what it was; one that is gone has taken it along.
fn restore(netns: Netns, ifname: &str, before: &Attributes) -> Result<(), Error> {
    let mut pod = Netlink::open_in(netns)?;
    match link::get(&mut pod, ifname)? {
        Some(link) => before.set(&mut pod, &link),
        None => Ok(()),
    }
}

/// The backup goes only if everything is as it was: else the DEL that follows needs it.
fn undo_attributes<'a>(req: &'a Request<Conf>, link: &Link, before: Attributes, undo: &mut Undo<'a>) {
    let ifname = link.name.clone();
    undo.push("set the interface back", move || {
        restore(Netns::open(req.netns()?)?, &ifname, &before)?;
        Backup::of(req).remove_if(&before)
    });
}

fn main() -> ExitCode {
    plugin::run(&Tuning)
}
