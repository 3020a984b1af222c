//! loopback: the pod's `lo`.
//!
//! ADD sets `lo` up, upon which the kernel gives it 127.0.0.1/8 and ::1/128, and reports those; a result of a
//! plugin before it in the chain is passed on as it came. DEL sets `lo` down. Whatever `CNI_IFNAME` says, the
//! interface is `lo`. containerd calls this plugin for every sandbox, at version 0.3.1.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

use std::process::ExitCode;

use hostnet::addr::{self, Address};
use hostnet::link::{self, Link};
use hostnet::{Netlink, Netns};
use libcni::plugin::{self, Plugin, Request};
use libcni::types::{Interface, IpConfig};
use libcni::{Error, Success};

/// The interface.
const LO: &str = "lo";

struct Loopback;

impl Plugin for Loopback {
    type Conf = ();
    const ABOUT: &'static str = concat!("CNI loopback plugin v", env!("CARGO_PKG_VERSION"));
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<()>) -> Result<Success, Error> {
        let prev_result = req.prev_result()?;
        let (mut pod, lo) = open(req)?;
        refuse_foreign(&addr::list(&mut pod, lo.index)?)?;
        link::set_up(&mut pod, lo.index)?;
        let addresses = addr::list(&mut pod, lo.index)?;
        match prev_result {
            Some(result) => Ok(result),
            None => Ok(result(req, &addresses)),
        }
    }

    fn del(&self, req: &Request<()>) -> Result<(), Error> {
        let Some(path) = req.netns_if_any() else { return Ok(()) };
        let Some(netns) = Netns::get(path)? else { return Ok(()) };
        let mut pod = Netlink::open_in(netns)?;
        match link::get(&mut pod, LO)? {
            Some(lo) => Ok(link::set_down(&mut pod, lo.index)?),
            None => Ok(()),
        }
    }

    fn check(&self, req: &Request<()>) -> Result<(), Error> {
        let (_, lo) = open(req)?;
        if lo.up {
            return Ok(());
        }
        Err(Error::internal(format!("loopback interface is down in {}", req.netns()?.display())))
    }
}

/// The pod's namespace and its `lo`.
fn open(req: &Request<()>) -> Result<(Netlink, Link), Error> {
    let path = req.netns()?;
    let mut pod = Netlink::open_in(Netns::open(path)?)?;
    let lo = link::get(&mut pod, LO)?;
    let lo = lo.ok_or_else(|| Error::internal(format!("there is no interface lo in {}", path.display())))?;
    Ok((pod, lo))
}

/// An address that is not a loopback's would be reachable by nobody, and hides the one it belongs to.
fn refuse_foreign(addresses: &[Address]) -> Result<(), Error> {
    match addresses.iter().find(|address| !address.cidr.addr().is_loopback()) {
        Some(foreign) => {
            let msg = format!("loopback interface found with non-loopback address {:?}", foreign.cidr.to_string());
            Err(Error::internal(msg))
        }
        None => Ok(()),
    }
}

/// `lo` with the first address of each family.
fn result(req: &Request<()>, addresses: &[Address]) -> Success {
    let sandbox = req.netns_if_any().map(|path| path.display().to_string()).unwrap_or_default();
    let lo = Interface { name: LO.into(), mac: "00:00:00:00:00:00".into(), sandbox, ..Interface::default() };
    let first = |ipv4| addresses.iter().find(|address| address.cidr.is_ipv4() == ipv4);
    let ips = [first(true), first(false)].into_iter().flatten();
    let ips = ips.map(|address| IpConfig { interface: Some(0), ..IpConfig::new(address.cidr, None) }).collect();
    Success { interfaces: vec![lo], ips, ..Success::default() }
}

fn main() -> ExitCode {
    plugin::run(&Loopback)
}
