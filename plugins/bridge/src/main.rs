//! bridge: a pod on a Linux bridge.
//!
//! ADD makes, in this order: the bridge, if it is not there; a veth pair between pod and node whose host end
//! is a port of the bridge (with its VLANs, hairpin mode, isolation and spoof check), while an IPAM plugin that needs no
//! interface looks for a lease; the addresses and routes of the lease, on the pod's end; the gateway's address on the bridge,
//! and forwarding; the masquerade rules. If one step fails, those before it are undone. At the end the pod announces its addresses.
//!
//! DEL removes the masquerade rules of either backend, the veth pair, the lease and the spoof check. The
//! bridge stays, and so does forwarding: other pods use them. GC removes the same of attachments that are no more.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

mod bridge;
mod check;
mod conf;
mod gateway;
mod lease;
mod port;
mod status;

use std::process::ExitCode;

use hostnet::nft::Nft;
use hostnet::{Netlink, Owner, Undo, Valid, announcement, endpoint, ipam, link, masquerade, spoof_check, veth};
use libcni::plugin::{self, Network, Plugin, Request};
use libcni::{Error, Success};

use crate::conf::Conf;

struct Bridge;

impl Plugin for Bridge {
    type Conf = Conf;
    const ABOUT: &'static str = concat!("CNI bridge plugin v", env!("CARGO_PKG_VERSION"));
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<Conf>) -> Result<Success, Error> {
        let conf = req.conf();
        let owner = Owner::of(req);
        let mut undo = Undo::new();
        let (mut host, mut pod) = Netlink::pair(req.netns()?)?;
        let joining = bridge::joining()?;
        let bridge = bridge::ensure(&mut host, conf, &mut undo)?;
        let asked = req.ipam().map(|ipam| ipam::ask(req, ipam, &owner, &mut pod, &mut undo)).transpose()?;
        let (bridge, veth) = port::attach(&mut host, &mut pod, bridge, req, &owner, &mut undo)?;
        drop(joining);
        let mut result = port::result(req, &bridge, &veth)?;

        if let Some(asked) = asked {
            let _ = link::set_arp_notify(&mut pod, veth.pod.index); // for the announcement
            lease::complete(conf, asked.lease(&mut undo)?, &mut result);
            port::prepare_ipv6(&mut pod, conf, &veth.pod, &result.ips);
            let dad = endpoint::Options { dad: conf.duplicate_address_detection };
            endpoint::configure(&mut pod, &veth.pod, port::POD, &result.ips, &result.routes, dad)?;
            gateway::ensure(&mut host, conf, &bridge, &veth.host, &mut result, &mut undo)?;
            conf.egress.ensure(req, &owner, &result.ips, &mut undo)?;
        } else if !conf.disable_container_interface {
            link::set_up(&mut pod, veth.pod.index)?;
        }
        if !conf.disable_container_interface {
            veth::wait_up(&mut host, &veth)?;
            // A courtesy: whoever remembers another pod for an address learns of this one without asking.
            let _ = announcement::send(&mut pod, &veth.pod, &result.ips);
        }
        let result = req.finish(result)?;
        undo.keep();
        Ok(result)
    }

    fn del(&self, req: &Request<Conf>) -> Result<(), Error> {
        let owner = Owner::of(req);
        let mut pod = Netlink::open_if_any(req.netns_if_any())?;
        // What is deleted over this connection is paid for when it is closed, once. The masquerade rules go before the
        // link: the kernel destroys them while it takes the link away, which is as long. The spoof check outlives it.
        let mut nft = Nft::default();
        let masquerade = req.conf().egress.remove(&mut nft, pod.as_mut(), &owner).map_err(Error::from);
        let link = veth::remove(pod.as_mut(), &owner).map_err(Error::from);
        // An address that the pod still answers for must not be given to another.
        let lease = req.ipam().filter(|_| link.is_ok()).map_or(Ok(()), |ipam| ipam::del(req, ipam));
        // Its rules name container and interface: those of an interface that is another network's stay.
        let spoof_check = match link {
            Ok(false) => Ok(()),
            _ => spoof_check::remove_over(&mut nft, &owner).map_err(Error::from),
        };
        nft.close();
        Error::join([masquerade, link.map(drop), lease, spoof_check].into_iter().filter_map(Result::err).collect())
    }

    fn check(&self, req: &Request<Conf>) -> Result<(), Error> {
        if let Some(ipam) = req.ipam() {
            ipam::check(req, ipam)?;
        }
        check::attachment(req)
    }

    fn gc(&self, network: &Network<Conf>) -> Result<(), Error> {
        let ipam_gc = || network.ipam().map_or(Ok(()), |ipam| ipam::gc(network, ipam));
        let Some(valid) = Valid::of(network) else { return ipam_gc() };
        // As in DEL, and for its reasons.
        let mut nft = Nft::default();
        let masquerade = masquerade::remove_all_but(&mut nft, &valid).map_err(Error::from);
        let links = veth::remove_all_but(&valid).map_err(Error::from);
        let leases = if links.is_ok() { ipam_gc() } else { Ok(()) };
        let spoof_check = spoof_check::remove_all_but(&mut nft, &valid).map_err(Error::from);
        nft.close();
        Error::join([masquerade, links, leases, spoof_check].into_iter().filter_map(Result::err).collect())
    }

    fn status(&self, network: &Network<Conf>) -> Result<(), Error> {
        status::status(network)?;
        network.ipam().map_or(Ok(()), |ipam| ipam::status(network, ipam))
    }
}

fn main() -> ExitCode {
    plugin::run(&Bridge)
}
