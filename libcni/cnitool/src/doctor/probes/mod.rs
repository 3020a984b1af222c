//! The questions that take pods.

mod egress;
mod host_port;
mod near;
mod size;

use std::net::{IpAddr, TcpListener};
use std::num::NonZeroU16;

use libcni::{Error, Version};

use super::Stop;
use super::cause;
use super::node::Way;
use super::pod::{HostPort, Pod};
use super::report::{Cause, Report};
use super::trial::Trial;

/// The port in the pod that a host port leads to.
const POD_PORT: u16 = 8080;

/// Adds the pods and asks them. What is found is in the report.
///
/// # Errors
/// A signal, or something that has nothing to do with the network.
pub fn run(trial: &mut Trial<'_>, targets: &[IpAddr], stop: &Stop, report: &mut Report) -> Result<(), Error> {
    let Some(port) = add(trial, report)? else { return Ok(()) };
    stop.unless()?;
    check(trial, report);
    let neighbour = add_neighbour(trial, report);
    let ways = [Way::get(&mut trial.host, true)?, Way::get(&mut trial.host, false)?];
    for (ipv4, way) in [true, false].into_iter().zip(&ways) {
        let Some(pod) = trial.pods.first().and_then(|pod| pod.addresses(ipv4).first().copied()) else { continue };
        let side = Side { ipv4, pod, way: way.as_ref() };
        let mut ask = |name: &str, probe: Probe<'_>| {
            if let Err(error) = probe(trial, side, report) {
                report.skipped(side.name(name), format!("could not be asked: {error}"));
            }
            stop.unless()
        };
        ask("node", &near::node)?;
        ask("gateway", &near::gateway)?;
        if neighbour {
            ask("neighbour", &near::neighbour)?;
        }
        ask("egress", &|trial, side, report| egress::ask(trial, side, targets, stop, report))?;
        ask("mtu", &size::ask)?;
        ask("host-port", &|trial, side, report| host_port::ask(trial, side, &port, report))?;
    }
    if neighbour {
        near::services(trial, report);
    }
    Ok(())
}

/// A question about one IP version.
type Probe<'a> = &'a dyn Fn(&mut Trial<'_>, Side<'_>, &mut Report) -> Result<(), Error>;

/// One IP version of the pod.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    pub ipv4: bool,
    /// The pod's address.
    pub pod: IpAddr,
    /// The node's way out.
    pub way: Option<&'a Way>,
}

impl Side<'_> {
    /// A probe's name with the IP version.
    pub fn name(&self, probe: &str) -> String {
        format!("{probe}-{}", if self.ipv4 { "ipv4" } else { "ipv6" })
    }
}

/// What became of the host port.
pub enum Mapped {
    /// Nothing in the chain maps ports.
    None,
    Port(HostPort),
    /// A pod with a host port cannot be added.
    Failed(Error),
}

/// Adds the pod, with a host port if the chain maps them; if that fails, without. `None`: it cannot be added.
fn add(trial: &mut Trial<'_>, report: &mut Report) -> Result<Option<Mapped>, Error> {
    let mut mapped = Mapped::None;
    let mut added = Ok(());
    if trial.facts.maps_ports {
        let port = free_port()?;
        added = trial.add("", Some(port));
        mapped = match &added {
            Ok(()) => Mapped::Port(port),
            Err(error) => Mapped::Failed(error.clone()),
        };
    }
    if !matches!(mapped, Mapped::Port(_)) {
        added = trial.add("", None);
    }
    match (added, trial.pods.first()) {
        (Ok(()), Some(pod)) => {
            report.ok("add", format!("{} has {}", pod.id(), addresses(pod)));
            Ok(Some(mapped))
        }
        (Err(error), _) => {
            report.broken("add", cause::of_error(&error));
            Ok(None)
        }
        (Ok(()), None) => Ok(None),
    }
}

fn addresses(pod: &Pod) -> String {
    let addresses: Vec<String> = pod.result.ips.iter().map(|ip| ip.address.to_string()).collect();
    if addresses.is_empty() { "no address (layer 2)".to_owned() } else { addresses.join(", ") }
}

fn free_port() -> Result<HostPort, Error> {
    let free = TcpListener::bind(("::", 0)).or_else(|_| TcpListener::bind(("0.0.0.0", 0)));
    let port = free.and_then(|listener| listener.local_addr()).map(|address| address.port());
    let ports = port.map(|port| (NonZeroU16::new(port), NonZeroU16::new(POD_PORT)));
    match ports {
        Ok((Some(node), Some(pod))) => Ok(HostPort { node, pod }),
        Ok(_) => Err(Error::internal("no free port on the node")),
        Err(error) => Err(Error::internal(format!("no free port on the node: {error}"))),
    }
}

fn check(trial: &Trial<'_>, report: &mut Report) {
    let Some(pod) = trial.pods.first() else { return };
    if trial.list.version().is_ok_and(|version| version < Version::V0_4_0) {
        return report.skipped("check", "CHECK came with cniVersion 0.4.0");
    }
    match trial.runtime.check(trial.list, &pod.attachment) {
        Ok(()) => report.ok("check", "everything is as ADD left it"),
        Err(error) => {
            let remedy =
                "something else on the node changes what the plugins make, or another version of them is installed";
            report.broken("check", Cause::new(error.to_string(), remedy));
        }
    }
}

/// Whether there is a second pod.
fn add_neighbour(trial: &mut Trial<'_>, report: &mut Report) -> bool {
    match trial.add("-neighbour", None) {
        Ok(()) => true,
        Err(error) => {
            let cause = cause::of_error(&error);
            let is_last = cause.why.contains(cause::EXHAUSTED);
            let what = if is_last { "there was one address left" } else { "a second pod cannot be added" };
            let cause = Cause::new(format!("{what}: {}", cause.why), cause.remedy);
            if is_last {
                report.warn("add-neighbour", cause);
            } else {
                report.broken("add-neighbour", cause);
            }
            false
        }
    }
}
