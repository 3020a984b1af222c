//! ptp: a pod with a veth pair of its own to the node, and routes between the two.
//!
//! ADD makes, in this order: the pair; the addresses that the IPAM plugin gives out, on the pod's end; the pod's
//! routes, all of them through the gateway, also to its own subnet; the gateway's addresses and a route to each of the
//! pod's on the host's end, and forwarding; the masquerade rules. If one step fails, those before it are undone.
//!
//! DEL removes the masquerade rules of either backend, the pair with all that hangs on it, and the lease. Forwarding
//! stays: other pods use it. GC removes the same of attachments that are no more.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

mod check;
mod conf;
mod host;
mod lease;
mod pair;
mod pod;

use std::process::ExitCode;

use hostnet::nft::Nft;
use hostnet::{Netlink, Owner, Undo, Valid, ipam, masquerade, trial, veth};
use libcni::plugin::{self, Network, Plugin, Request};
use libcni::{Error, Success};

use crate::conf::Conf;

struct Ptp;

impl Plugin for Ptp {
    type Conf = Conf;
    const ABOUT: &'static str = concat!("CNI ptp plugin v", env!("CARGO_PKG_VERSION"));
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<Conf>) -> Result<Success, Error> {
        let conf = req.conf();
        let owner = Owner::of(req);
        let mut undo = Undo::new();
        let (mut host, mut pod) = Netlink::pair(req.netns()?)?;
        let asked = ipam::ask(req, &conf.ipam, &owner, &mut pod, &mut undo)?;
        let veth = pair::create(&mut host, &mut pod, req, &owner, &mut undo)?;
        let mut result = pair::result(req, &veth)?;

        let ends = lease::complete(asked.lease(&mut undo)?, &mut result)?;
        pod::configure(&mut pod, &veth.pod, &ends, &result)?;
        host::configure(&mut host, &veth.host, &ends)?;
        conf.egress.ensure(req, &owner, &result.ips, &mut undo)?;
        veth::wait_up(&mut host, &veth)?;
        let result = req.finish(result)?;
        undo.keep();
        Ok(result)
    }

    fn del(&self, req: &Request<Conf>) -> Result<(), Error> {
        let owner = Owner::of(req);
        let mut pod = Netlink::open_if_any(req.netns_if_any())?;
        // What is deleted over this connection is paid for when it is closed, once. The masquerade rules go before the
        // link: the kernel destroys them while it takes the link away, which is as long.
        let mut nft = Nft::default();
        let masquerade = req.conf().egress.remove(&mut nft, pod.as_mut(), &owner).map_err(Error::from);
        let link = veth::remove(pod.as_mut(), &owner).map_err(Error::from);
        // An address that the pod still answers for must not be given to another.
        let lease = req.ipam().filter(|_| link.is_ok()).map_or(Ok(()), |ipam| ipam::del(req, ipam));
        nft.close();
        Error::join([masquerade, link.map(drop), lease].into_iter().filter_map(Result::err).collect())
    }

    fn check(&self, req: &Request<Conf>) -> Result<(), Error> {
        ipam::check(req, &req.conf().ipam)?;
        check::attachment(req)
    }

    fn gc(&self, network: &Network<Conf>) -> Result<(), Error> {
        let ipam_gc = || ipam::gc(network, &network.conf().ipam);
        let Some(valid) = Valid::of(network) else { return ipam_gc() };
        // As in DEL, and for its reasons.
        let mut nft = Nft::default();
        let masquerade = masquerade::remove_all_but(&mut nft, &valid).map_err(Error::from);
        let links = veth::remove_all_but(&valid).map_err(Error::from);
        let leases = if links.is_ok() { ipam_gc() } else { Ok(()) };
        nft.close();
        Error::join([masquerade, links, leases].into_iter().filter_map(Result::err).collect())
    }

    fn status(&self, network: &Network<Conf>) -> Result<(), Error> {
        trial::run(network, |nl, owner| {
            pair::try_out(nl, network.conf(), owner)?;
            network.conf().egress.try_out(owner, &ipam::samples(network))
        })?;
        ipam::status(network, &network.conf().ipam)
    }
}

fn main() -> ExitCode {
    plugin::run(&Ptp)
}
