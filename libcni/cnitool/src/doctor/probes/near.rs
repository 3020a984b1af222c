//! Those nearby: the node, the gateway, the neighbour on the same network.

use hostnet::capture::Capture;
use hostnet::iptables::{Iptables, Version};
use hostnet::neighbour;
use hostnet::nft::Nft;
use libcni::Error;

use super::Side;
use crate::doctor::ask::{self, Asked, Question};
use crate::doctor::cause;
use crate::doctor::report::{Cause, Report};
use crate::doctor::trial::Trial;

/// From the node to the pod: kubelet's probes come this way.
pub fn node(trial: &mut Trial<'_>, side: Side<'_>, report: &mut Report) -> Result<(), Error> {
    let probe = side.name("node");
    if !trial.facts.is_gateway {
        report.skipped(probe, "the node has no address in the network");
        return Ok(());
    }
    let capture = Capture::open(&trial.host)?;
    let asked = Question::to(side.pod).ask(&trial.host, Some(&capture), ask::reply);
    let came_back = asked.seen.iter().any(|seen| !seen.outgoing && seen.source == side.pod);
    if asked.is_answered() {
        report.ok(probe, format!("the node reaches {}", side.pod));
    } else if came_back {
        let why = format!("{} answers the node's ping, and a rule of INPUT drops the answer", side.pod);
        report.warn(probe, Cause::new(why, "nothing, if it is meant; kubelet's probes need the answers to TCP"));
    } else {
        let remedy = "see which route the node takes (ip route get), and whether a rule of OUTPUT drops it";
        report.broken(probe, Cause::new(silence(&asked, &format!("{} does not answer the node", side.pod)), remedy));
    }
    Ok(())
}

/// What was heard in place of an answer.
fn silence(asked: &Asked, what: &str) -> String {
    let heard = asked.answer.and_then(ask::describe).or_else(|| asked.failure.clone());
    heard.map_or_else(|| what.to_owned(), |heard| format!("{what}: {heard}"))
}

/// From the pod to its gateway. A node may drop pings and still be a good gateway: then it is known as a neighbour.
pub fn gateway(trial: &mut Trial<'_>, side: Side<'_>, report: &mut Report) -> Result<(), Error> {
    let probe = side.name("gateway");
    let Some(pod) = trial.pods.first_mut() else { return Ok(()) };
    let Some(gateway) = pod.gateway(side.ipv4) else {
        report.skipped(probe, "the network has none");
        return Ok(());
    };
    let asked = Question::to(gateway).ask(&pod.nl, None, ask::reply);
    if asked.is_answered() {
        report.ok(probe, format!("{gateway} answers"));
        return Ok(());
    }
    let (protocol, version) = if side.ipv4 { ("ARP", "IPv4") } else { ("neighbour discovery", "IPv6") };
    if neighbour::answers(&mut pod.nl, pod.link.index, gateway)? == Some(true) {
        let why = format!("{gateway} answers {protocol}, but no ping: a rule of INPUT drops it");
        report.warn(probe, Cause::new(why, "nothing, if it is meant; pods cannot ping the node"));
        return Ok(());
    }
    let why = silence(&asked, &format!("the gateway {gateway} answers neither ping nor {protocol}"));
    let remedy = match (&trial.facts.gateway_link, trial.facts.is_gateway) {
        (Some(link), true) => format!("see whether {link} has the address and is up, and whether ebtables or a bridge rule drops {version}"),
        _ => "whoever is the gateway of this network must be on it: isGateway makes the node so, else it is behind a port".to_owned(),
    };
    report.broken(probe, Cause::new(why, remedy));
    Ok(())
}

/// From the pod to the other one.
pub fn neighbour(trial: &mut Trial<'_>, side: Side<'_>, report: &mut Report) -> Result<(), Error> {
    let probe = side.name("neighbour");
    let (Some(pod), Some(other)) = (trial.pods.first(), trial.pods.get(1)) else { return Ok(()) };
    let Some(address) = other.addresses(side.ipv4).first().copied() else { return Ok(()) };
    if trial.facts.is_isolated {
        report.skipped(probe, "pods are isolated from each other by configuration");
        return Ok(());
    }
    let asked = Question::to(address).ask(&pod.nl, None, ask::reply);
    if asked.is_answered() {
        report.ok(probe, format!("{} and {address} reach each other", side.pod));
        return Ok(());
    }
    let what = silence(&asked, &format!("{address} does not answer {}", side.pod));
    let call = if side.ipv4 { CALL_V4 } else { CALL_V6 };
    let link = trial.facts.gateway_link.as_deref().or_else(|| pod.host_links().first().copied()).unwrap_or_default();
    let is_bridge = trial.facts.bridge.is_some();
    let is_filtered = cause::number(&trial.host, call) == Some(1);
    let cause = match (is_bridge, is_filtered) {
        (true, true) if !cause::dropping(side.ipv4).is_empty() => {
            let cause = cause::of_drop(&trial.host, trial.facts, link, side.ipv4);
            Cause::new(
                format!("{}; {call} is 1, so this is also asked of packets that stay on the bridge", cause.why),
                cause.remedy,
            )
        }
        (true, true) => Cause::new(
            format!("{call} is 1, so the rules of FORWARD are asked of packets that stay on the bridge"),
            "look for the rule: nft list ruleset, iptables-save; or bridge rules: nft list table bridge filter",
        ),
        (true, false) => Cause::new(
            "on the bridge itself",
            "look at the rules of family bridge (nft list ruleset, ebtables), and at the ports: bridge -d link",
        ),
        (false, _) => cause::of_drop(&trial.host, trial.facts, link, side.ipv4),
    };
    report.broken(probe, Cause::new(format!("{what}: {}", cause.why), cause.remedy));
    Ok(())
}

const CALL_V4: &str = "net/bridge/bridge-nf-call-iptables";
const CALL_V6: &str = "net/bridge/bridge-nf-call-ip6tables";

/// Whether answers to a Service come back translated, where the pod behind it is on the same bridge: they stay on the bridge,
/// and connection tracking sees them only through `br_netfilter`.
pub fn services(trial: &Trial<'_>, report: &mut Report) {
    if trial.facts.bridge.is_none() {
        return;
    }
    let kube_proxy = has_kube_proxy();
    for (ipv4, key) in [(true, CALL_V4), (false, CALL_V6)] {
        let probe = if ipv4 { "services-ipv4" } else { "services-ipv6" };
        if !trial.facts.has(ipv4) {
            continue;
        }
        let value = cause::number(&trial.host, key);
        let key = key.replace('/', ".");
        match (value, kube_proxy) {
            (Some(1), _) => report.ok(probe, format!("{key} is 1: packets between pods of the bridge pass FORWARD")),
            (_, false) => report.skipped(probe, "kube-proxy has no rules here"),
            (value, true) => {
                let state = if value.is_some() { "is 0" } else { "is not there (br_netfilter is not loaded)" };
                let why = format!(
                    "{key} {state}: a pod that asks a Service gets no answer from a pod on the same bridge, whose answers are \
                     not translated back"
                );
                report
                    .warn(probe, Cause::new(why, format!("modprobe br_netfilter; sysctl -w {key}=1 (/etc/sysctl.d)")));
            }
        }
    }
}

/// Whether kube-proxy, in any of its modes with rules, is at work.
fn has_kube_proxy() -> bool {
    let mut nft = Nft::default();
    let own = nft.base_chains().unwrap_or_default().iter().any(|chain| chain.table == "kube-proxy");
    let is_kube = |name: &String| name.starts_with("KUBE-SERVICES");
    let in_nft = nft.chains(Version::V4.nft_nat()).unwrap_or_default().iter().any(is_kube);
    let legacy = Iptables::get_legacy(Version::V4, "nat").ok().flatten();
    own || in_nft || legacy.is_some_and(|legacy| legacy.list("nat", "KUBE-SERVICES").ok().flatten().is_some())
}
