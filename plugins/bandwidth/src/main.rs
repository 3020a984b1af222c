//! bandwidth: limits what a pod may receive and send a second, at the interface that a plugin before it in the chain has
//! made: a veth, whose end on the host is where it is done.
//!
//! ADD makes, in this order: for what the pod receives, a shaper (tbf) at the root of the host's end. For what it sends,
//! a link of kind ifb, a shaper at its root, a hook where packets come into the host's end (clsact, unless one is there),
//! and a filter at that hook which sends them through the ifb. Then it removes what an earlier ADD made for a direction
//! that has no limit any more. Without any limit it does nothing. The result is the one of the plugin before, with the
//! ifb.
//!
//! DEL removes the filter, the hook if nothing else stands there, the ifb, and the shaper of what is received. GC removes
//! the ifb of attachments that are no more.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

mod conf;
mod host_end;
mod ifb;
mod kernel;
mod limit;

use std::process::ExitCode;

use hostnet::link::Link;
use hostnet::tc::{self, ingress, redirect, tbf};
use hostnet::{Netlink, Undo, trial};
use libcni::plugin::{self, Network, Plugin, Request};
use libcni::types::Version;
use libcni::{Code, Error, Success};

use crate::conf::Conf;
use crate::limit::Limit;

struct Bandwidth;

impl Plugin for Bandwidth {
    type Conf = Conf;
    const ABOUT: &'static str = concat!("CNI bandwidth plugin v", env!("CARGO_PKG_VERSION"));
    // As in the reference: before 0.3.0 a result has no interfaces.
    const VERSIONS: &'static [Version] =
        &[Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<Conf>) -> Result<Success, Error> {
        let conf = req.conf();
        let mut result = prev_result(req)?;
        if conf.is_unlimited() {
            return Ok(result);
        }
        conf.warn();
        let (mut host, mut pod) = Netlink::pair(req.netns()?)?;
        let end = host_end::get(&mut host, &mut pod, req.ifname(), &result)?;
        let mut undo = Undo::new();
        if let Some(limit) = &conf.ingress {
            shape(&mut host, &end, limit, &mut undo)?;
        }
        if let Some(limit) = &conf.egress {
            let ifb = ifb::ensure(&mut host, req, &end, &mut undo)?;
            shape(&mut host, &ifb, limit, &mut undo)?;
            ingress::ensure(&mut host, end.index, &mut undo)?;
            redirect::ensure(&mut host, end.index, ifb.index, &mut undo)?;
            ifb::report(&ifb, &mut result);
        }
        if conf.ingress.is_none() {
            tc::remove_root(&mut host, end.index)?;
        }
        if conf.egress.is_none() {
            ifb::remove(&mut host, req, Some(&end))?;
        }
        undo.keep();
        Ok(result)
    }

    fn del(&self, req: &Request<Conf>) -> Result<(), Error> {
        let mut failed = Vec::new();
        let mut host = Netlink::open()?;
        let end = host_end::find(&mut host, req).unwrap_or_else(|error| {
            failed.push(error);
            None
        });
        failed.extend(ifb::remove(&mut host, req, end.as_ref()).err());
        if let Some(end) = &end {
            failed.extend(tc::remove_root(&mut host, end.index).err().map(Error::from));
        }
        Error::join(failed)
    }

    fn check(&self, req: &Request<Conf>) -> Result<(), Error> {
        let conf = req.conf();
        let result = prev_result(req)?;
        if conf.is_unlimited() {
            return Ok(());
        }
        let (mut host, mut pod) = Netlink::pair(req.netns()?)?;
        let end = host_end::get(&mut host, &mut pod, req.ifname(), &result)?;
        let mut wrong = Vec::new();
        if let Some(limit) = &conf.ingress {
            wrong.extend(check_shaper(&mut host, &end, limit).err());
        }
        if let Some(limit) = &conf.egress {
            let ifb = ifb::check(&mut host, req, &end)?;
            wrong.extend(check_shaper(&mut host, &ifb, limit).err());
            wrong.extend(check_redirect(&mut host, &end, &ifb).err());
        }
        Error::join(wrong)
    }

    fn gc(&self, network: &Network<Conf>) -> Result<(), Error> {
        match network.valid_attachments() {
            Some(valid) => ifb::remove_all_but(network.name(), valid),
            None => Ok(()),
        }
    }

    fn status(&self, network: &Network<Conf>) -> Result<(), Error> {
        trial::run(network, |nl, _| kernel::try_out(nl))
    }
}

fn prev_result(req: &Request<Conf>) -> Result<Success, Error> {
    req.prev_result()?.ok_or_else(|| {
        Error::new(Code::INVALID_CONFIG, "must be called as a chained plugin: prevResult is missing")
            .with_details("bandwidth works in a chain, behind the plugin that makes the interface")
    })
}

fn shape(host: &mut Netlink, link: &Link, limit: &Limit, undo: &mut Undo<'_>) -> Result<(), Error> {
    Ok(tbf::ensure(host, link.index, &limit.tbf(link.mtu), undo)?)
}

fn check_shaper(host: &mut Netlink, link: &Link, limit: &Limit) -> Result<(), Error> {
    let found = tbf::get(host, link.index)?;
    let found = found.ok_or_else(|| Error::internal(format!("Failed to find qdisc: {} is not shaped", link.name)))?;
    limit.check(&found, link)
}

fn check_redirect(host: &mut Netlink, end: &Link, ifb: &Link) -> Result<(), Error> {
    if redirect::is_there(host, end.index, ifb.index)? {
        return Ok(());
    }
    Err(Error::internal(format!("no filter redirects what comes into {} to {}", end.name, ifb.name)))
}

fn main() -> ExitCode {
    plugin::run(&Bandwidth)
}
