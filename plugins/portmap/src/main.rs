//! portmap: ports of the node that lead to ports of a pod, which a plugin before it in the chain has connected.
//!
//! ADD makes, for each IP version in which the pod has an address: the rules of one backend (chains in table `nat` of
//! iptables, or table `cni_hostport` of nf_tables), before those of other pods and in place of its own earlier ones;
//! `route_localnet` on the interface towards the pod, with a rule that keeps 127.0.0.0/8 to the node. Then UDP flows
//! that still go elsewhere are forgotten. The result is that of the plugin before. Without port mappings it does nothing.
//!
//! DEL removes the attachment's rules of both backends, and forgets UDP flows to the pod. The chains that all attachments share
//! stay, as do `route_localnet` and its guard.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

mod backend;
mod conditions;
mod conf;
mod holder;
mod iptables;
mod localnet;
mod nftables;
mod pod;
mod stale;

use std::net::IpAddr;
use std::process::ExitCode;

use hostnet::{Netlink, Owner, Undo, trial};
use libcni::plugin::{self, Network, Plugin, Request, log};
use libcni::{Code, Error, Success};

use crate::conf::Conf;

struct Portmap;

impl Plugin for Portmap {
    type Conf = Conf;
    const ABOUT: &'static str = concat!("CNI portmap plugin v", env!("CARGO_PKG_VERSION"));
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<Conf>) -> Result<Success, Error> {
        let conf = req.conf();
        let result = prev_result(req, "must be called as chained plugin")?;
        if conf.mappings.is_empty() {
            return Ok(result);
        }
        let owner = Owner::of(req);
        let forwards = pod::forwards(req, &owner, &result);
        if forwards.is_empty() {
            log::warn(format_args!("portmap: {} has no address in prevResult: no port can lead to it", req.ifname()));
        }
        let pods: Vec<IpAddr> = forwards.iter().map(|forward| forward.pod.addr()).collect();
        // Versions before 0.3.0 cannot say every result: better now than when all is made.
        result.check_version(req.version())?;
        let mut undo = Undo::new();
        undo.push("remove the port mappings", || backend::remove(&owner, &pods));
        backend::add(conf.backend, &owner, &forwards)?;
        let mut host = Netlink::open()?;
        if conf.masquerade.mark().is_some() {
            for pod in pods.iter().filter(|pod| pod.is_ipv4()) {
                localnet::ensure(&mut host, *pod)?;
            }
        }
        note(stale::forget_others(&mut host, &conf.mappings, &pods));
        undo.keep();
        Ok(result)
    }

    fn del(&self, req: &Request<Conf>) -> Result<(), Error> {
        // Neither need be right any more: the rules are found by whose they are.
        let result = req.prev_result().ok().flatten().unwrap_or_default();
        let pods: Vec<IpAddr> = pod::addresses(req, &result).iter().map(libcni::types::Cidr::addr).collect();
        let removed = backend::remove(&Owner::of(req), &pods);
        if !req.conf().mappings.is_empty() {
            note(Netlink::open().and_then(|mut host| stale::forget_own(&mut host, &req.conf().mappings, &pods)));
        }
        Ok(removed?)
    }

    fn check(&self, req: &Request<Conf>) -> Result<(), Error> {
        let conf = req.conf();
        let result = prev_result(req, "Required prevResult missing")?;
        if conf.mappings.is_empty() {
            return Ok(());
        }
        let owner = Owner::of(req);
        let forwards = pod::forwards(req, &owner, &result);
        backend::check(conf.backend, &forwards)?;
        if conf.masquerade.mark().is_some() {
            let mut host = Netlink::open()?;
            for forward in forwards.iter().filter(|forward| forward.pod.is_ipv4()) {
                localnet::check(&mut host, forward.pod.addr())?;
            }
        }
        Ok(())
    }

    fn gc(&self, network: &Network<Conf>) -> Result<(), Error> {
        let Some(valid) = network.valid_attachments() else { return Ok(()) };
        // What has no valid name was never added.
        let owners = valid.iter().filter_map(|attachment| {
            let (container, ifname) = (attachment.container_id.parse().ok()?, attachment.ifname.parse().ok()?);
            Some(Owner { network: network.name().clone(), container, ifname })
        });
        Ok(backend::remove_all_but(network.name(), &owners.collect::<Vec<_>>())?)
    }

    fn status(&self, network: &Network<Conf>) -> Result<(), Error> {
        trial::run(network, |_, owner| backend::try_out(network.conf(), owner))
    }
}

fn prev_result(req: &Request<Conf>, missing: &str) -> Result<Success, Error> {
    let missing = || Error::new(Code::INVALID_CONFIG, missing);
    req.prev_result()?.ok_or_else(|| {
        missing().with_details("prevResult: portmap works in a chain, behind the plugin that connects the pod")
    })
}

/// Flows that are not forgotten end by themselves once their sender pauses: no reason to keep a pod from starting.
fn note(forgotten: Result<(), hostnet::Error>) {
    if let Err(error) = forgotten {
        log::warn(format_args!("portmap: failed to delete stale UDP conntrack entries: {error}"));
    }
}

fn main() -> ExitCode {
    plugin::run(&Portmap)
}
