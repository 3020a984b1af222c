//! A port of the node that leads to the pod: asked by the node, by the neighbour, and by the pod itself (hairpin).

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use hostnet::{Netlink, link};
use libcni::Error;

use super::{Mapped, Side};
use crate::doctor::cause;
use crate::doctor::checks::node_address;
use crate::doctor::pod::HostPort;
use crate::doctor::report::{Cause, Report};
use crate::doctor::trial::Trial;

/// For one connection on one machine, with one lost packet.
const PATIENCE: Duration = Duration::from_millis(1500);
const ACCEPTED_WITHIN: Duration = Duration::from_millis(500);

/// Who asks.
#[derive(Clone, Copy, PartialEq)]
enum From {
    Node,
    Neighbour,
    Pod,
}

pub fn ask(trial: &mut Trial<'_>, side: Side<'_>, port: &Mapped, report: &mut Report) -> Result<(), Error> {
    let probe = side.name("host-port");
    let port = match port {
        Mapped::Port(port) => *port,
        Mapped::None => {
            report.skipped(probe, "no plugin of the chain maps ports");
            return Ok(());
        }
        Mapped::Failed(error) => {
            let cause = cause::of_error(error);
            report.broken(
                probe,
                Cause::new(format!("a pod with a host port cannot be added: {}", cause.why), cause.remedy),
            );
            return Ok(());
        }
    };
    let Some(pod) = trial.pods.first() else { return Ok(()) };
    let Some(node) = node_address(side.way, pod.gateway(side.ipv4)) else {
        report.skipped(probe, "the node has no address to ask");
        return Ok(());
    };
    let listener = listen(&pod.nl, side.pod, port)?;
    let mut questions = vec![("the node", From::Node, node)];
    if trial.pods.len() > 1 && !trial.facts.is_isolated {
        questions.push(("the neighbour", From::Neighbour, node));
    }
    if side.ipv4 && trial.facts.maps_loopback {
        questions.push(("the node at 127.0.0.1", From::Node, Ipv4Addr::LOCALHOST.into()));
    }
    questions.push(("the pod itself", From::Pod, node));
    let mut good = Vec::new();
    for (who, from, to) in questions {
        let place = match from {
            From::Node => &trial.host,
            From::Pod => &pod.nl,
            From::Neighbour => trial.pods.get(1).map_or(&pod.nl, |other| &other.nl),
        };
        let to = SocketAddr::new(to, port.node.get());
        let Err(why) = connects(place, &listener, to)? else {
            good.push(who);
            continue;
        };
        let what = format!("{who} does not reach the pod by {to} ({why})");
        // A choice, and the last that is asked: all others reach it.
        if from == From::Pod && has_hairpin(trial) == Some(false) {
            let why = format!("{what}: its packets come back by the port they left by, which is not in hairpin mode");
            report.warn(probe, Cause::new(why, "\"hairpinMode\": true in the bridge's configuration, if pods need it"));
        } else {
            let cause = why_not(trial, side, from, to);
            report.broken(probe, Cause::new(format!("{what}: {}", cause.why), cause.remedy));
        }
        return Ok(());
    }
    report.ok(probe, format!("by {node} port {} {} reach the pod", port.node, good.join(", ")));
    Ok(())
}

/// Whether the pod's port of the bridge is in hairpin mode; `None` where it has none.
fn has_hairpin(trial: &Trial<'_>) -> Option<bool> {
    let links = trial.pods.first()?.host_links();
    let port = links.iter().find(|name| trial.facts.bridge.as_deref() != Some(**name))?;
    let mut nl = Netlink::open().ok()?;
    link::get(&mut nl, port).ok()??.port.map(|port| port.hairpin)
}

fn listen(pod: &Netlink, address: IpAddr, port: HostPort) -> Result<TcpListener, Error> {
    let listener = pod.in_netns(|| TcpListener::bind(SocketAddr::new(address, port.pod.get())))?;
    let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|error| Error::internal(format!("cannot listen in the pod at {address}: {error}")))
}

/// Whether a connection to `to` comes to the listener: somebody else may listen there.
fn connects(from: &Netlink, listener: &TcpListener, to: SocketAddr) -> Result<Result<(), String>, Error> {
    let stream = match from.in_netns(|| TcpStream::connect_timeout(&to, PATIENCE))? {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(Err("no answer".to_owned())),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let end = std::time::Instant::now() + ACCEPTED_WITHIN;
    while std::time::Instant::now() < end {
        if listener.accept().is_ok() {
            drop(stream);
            return Ok(Ok(()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(Err("somebody else answers".to_owned()))
}

fn why_not(trial: &Trial<'_>, side: Side<'_>, from: From, to: SocketAddr) -> Cause {
    let links = trial.pods.first().map(|pod| pod.host_links()).unwrap_or_default();
    let towards = trial.facts.gateway_link.as_deref().or_else(|| links.first().copied()).unwrap_or_default();
    if to.ip().is_loopback() {
        let key = format!("net/ipv4/conf/{towards}/route_localnet");
        if cause::number(&trial.host, &key) == Some(0) {
            let why = format!("packets from 127.0.0.1 do not leave by {towards} ({key} is 0)");
            return Cause::new(
                why,
                format!("let portmap set it (snat must not be false), and find out who sets {key} back to 0"),
            );
        }
    }
    if from == From::Node {
        return Cause::new(
            "the translation of the destination is missing or comes too late",
            "see what is before the plugin's rules in PREROUTING and OUTPUT: nft list ruleset, iptables-save -t nat",
        );
    }
    cause::of_drop(&trial.host, trial.facts, towards, side.ipv4)
}
