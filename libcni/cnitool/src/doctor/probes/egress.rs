//! The way out: does a packet of the pod leave by the node's own link, with which address, and does the answer find back.
//!
//! Nobody is asked but the default gateway, the neighbour on the node's link, unless there are targets. Where that has only
//! a link-local address, which no pod can ask, the packet is for an address of the documentation range and may pass
//! one router, the node: the gateway answers that it goes no further.

use std::net::{IpAddr, Ipv6Addr};

use hostnet::capture::Capture;
use hostnet::icmp::Answer;
use hostnet::route;
use libcni::Error;

use super::Side;
use crate::doctor::Stop;
use crate::doctor::ask::{self, Asked, Question};
use crate::doctor::cause;
use crate::doctor::node::Way;
use crate::doctor::report::{Cause, Report};
use crate::doctor::trial::Trial;

/// Of 2001:db8::/32 (RFC 3849), which belongs to nobody.
const NOBODY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// `ICMPV6_DEST_UNREACH` and `ICMPV6_TIME_EXCEED`.
const NO_FURTHER_V6: [u8; 2] = [1, 3];

pub fn ask(
    trial: &mut Trial<'_>,
    side: Side<'_>,
    targets: &[IpAddr],
    stop: &Stop,
    report: &mut Report,
) -> Result<(), Error> {
    let probe = side.name("egress");
    match side.way {
        Some(way) => gateway(trial, side, way, &probe, report)?,
        None => {
            let version = if side.ipv4 { "IPv4" } else { "IPv6" };
            let why = format!("the node has no default route of {version}: pods have no way out of it");
            report.warn(
                probe,
                Cause::new(
                    why,
                    format!("nothing, if it is meant; else give the node one, or take {version} out of the ranges"),
                ),
            );
        }
    }
    for target in targets.iter().filter(|target| target.is_ipv4() == side.ipv4) {
        if stop.is_wanted() {
            break;
        }
        let question = Question::to(*target);
        one(trial, side, &format!("target-{target}"), question, report)?;
    }
    Ok(())
}

fn gateway(trial: &mut Trial<'_>, side: Side<'_>, way: &Way, probe: &str, report: &mut Report) -> Result<(), Error> {
    let question = match way.gateway {
        Some(IpAddr::V6(gateway)) if gateway.is_unicast_link_local() => {
            Question { hops: Some(2), ..Question::to(NOBODY.into()) }
        }
        Some(gateway) => Question::to(gateway),
        None => {
            report.skipped(probe, format!("{} has no next hop to ask; --target ADDRESS asks somebody", way.link.name));
            return Ok(());
        }
    };
    one(trial, side, probe, question, report)
}

/// Whether the answer says that the packet came where it should.
fn is_answer(question: Question, answer: Answer) -> bool {
    match answer {
        Answer::Reply => true,
        Answer::Error { kind, .. } => question.hops.is_some() && NO_FURTHER_V6.contains(&kind),
    }
}

fn one(
    trial: &mut Trial<'_>,
    side: Side<'_>,
    probe: &str,
    question: Question,
    report: &mut Report,
) -> Result<(), Error> {
    let Some(pod) = trial.pods.first_mut() else { return Ok(()) };
    if route::link_towards(&mut pod.nl, question.to)?.is_none() {
        report.skipped(probe, "the pod has no default route: the configuration gives it none");
        return Ok(());
    }
    let capture = Capture::open(&trial.host)?;
    let asked = question.ask(&pod.nl, Some(&capture), |answer| is_answer(question, answer));
    let outcome = judge(trial, side, question, &asked)?;
    match outcome {
        Ok(detail) => report.ok(probe, detail),
        Err((true, cause)) => report.broken(probe, cause),
        Err((false, cause)) => report.warn(probe, cause),
    }
    Ok(())
}

/// In words; an error is broken (`true`) or to know.
type Judgement = Result<String, (bool, Cause)>;

fn judge(trial: &mut Trial<'_>, side: Side<'_>, question: Question, asked: &Asked) -> Result<Judgement, Error> {
    let to = question.to;
    let entrances = entrances(trial)?;
    let left =
        asked.seen.iter().find(|seen| seen.outgoing && seen.destination == to && !entrances.contains(&seen.link));
    let answered = asked.answer.is_some_and(|answer| is_answer(question, answer));
    let Some(left) = left else {
        // Where others are to say that it goes no further, it must have come to them.
        if answered && question.hops.is_none() {
            return Ok(Ok(format!("{to} answers")));
        }
        return Ok(Err((true, not_left(trial, side, to, asked))));
    };
    let by = hostnet::link::get_by_index(&mut trial.host, left.link)?.map(|link| link.name).unwrap_or_default();
    let is_own = left.source == side.pod;
    let source = if is_own { "the pod's own address".to_owned() } else { format!("the address {}", left.source) };
    let way = format!("packets to {to} leave by {by} with {source}");
    if is_own && trial.facts.masquerades(to) {
        let remedy = "see what is before the plugin's rule in POSTROUTING: nft list ruleset, iptables-save -t nat";
        return Ok(Err((true, Cause::new(format!("{way}, although ipMasq is set"), remedy))));
    }
    if answered {
        return Ok(Ok(format!("{way}, and are answered")));
    }
    let back = asked.seen.iter().find(|seen| !seen.outgoing && seen.source == to && !entrances.contains(&seen.link));
    if let Some(back) = back {
        let link = hostnet::link::get_by_index(&mut trial.host, back.link)?.map(|link| link.name).unwrap_or_default();
        let cause = if side.ipv4 { cause::reverse_path(&trial.host, &link) } else { None };
        let cause = cause.unwrap_or_else(|| cause::of_drop(&trial.host, trial.facts, &link, side.ipv4));
        let why = format!("{way}; the answer comes in by {link} and does not reach the pod: {}", cause.why);
        return Ok(Err((true, Cause::new(why, cause.remedy))));
    }
    Ok(Err(unanswered(trial, question, is_own, way)))
}

/// The links by which the pods' packets come in: what is seen there has not left yet.
fn entrances(trial: &mut Trial<'_>) -> Result<Vec<u32>, Error> {
    let mut names: Vec<String> = trial.pods.iter().flat_map(|pod| pod.host_links()).map(str::to_owned).collect();
    names.extend(trial.facts.bridge.clone());
    names.extend(trial.facts.gateway_link.clone());
    let links = hostnet::link::list(&mut trial.host)?;
    Ok(links.iter().filter(|link| names.contains(&link.name)).map(|link| link.index).collect())
}

fn not_left(trial: &Trial<'_>, side: Side<'_>, to: IpAddr, asked: &Asked) -> Cause {
    if let Some(failure) = &asked.failure {
        return Cause::new(failure.clone(), "see the pod's routes: the IPAM routes, isDefaultGateway");
    }
    if let Some(heard) = asked.answer.filter(|answer| ask::is_host_unreachable(*answer)).and_then(ask::describe) {
        let why = format!("the node knows the way to {to}, but nobody is there ({heard})");
        return Cause::new(why, "see whether the node itself reaches it: its link, its gateway (ip neighbour)");
    }
    let entrance = trial.facts.gateway_link.clone();
    let of_pod = || trial.pods.first().and_then(|pod| pod.host_links().first().map(|link| (*link).to_owned()));
    let entrance = entrance.or_else(of_pod).unwrap_or_default();
    let cause = cause::of_drop(&trial.host, trial.facts, &entrance, side.ipv4);
    let heard = asked.answer.and_then(ask::describe).map(|heard| format!(" ({heard})")).unwrap_or_default();
    Cause::new(format!("packets of the pod to {to} do not leave the node{heard}: {}", cause.why), cause.remedy)
}

/// It left, and nothing came back. If the node itself is not answered, that says nothing about pods.
fn unanswered(trial: &Trial<'_>, question: Question, is_own: bool, way: String) -> (bool, Cause) {
    // Without the node as a router before.
    let hops = question.hops.map(|hops| hops.saturating_sub(1));
    let of_node = Question { hops, ..question }.ask(&trial.host, None, |answer| is_answer(question, answer));
    let node_is_answered = of_node.answer.is_some_and(|answer| is_answer(question, answer));
    match (node_is_answered, is_own) {
        (true, true) => (
            true,
            Cause::new(
                format!(
                    "{way}, and nobody answers, while the node itself is answered: nobody out there knows the pods"
                ),
                "set \"ipMasq\": true, or give the routers of the node's network a route to the pods' subnet",
            ),
        ),
        (true, false) => (
            true,
            Cause::new(
                format!("{way}, and are not answered, while the node itself is"),
                "see whether that address is the node's own on that link (masqSourceAddress), and what drops it upstream",
            ),
        ),
        (false, _) => (
            false,
            Cause::new(
                format!("{way}; nobody answers, not even the node"),
                "nothing, if it answers no pings; --target ADDRESS asks somebody who does",
            ),
        ),
    }
}
