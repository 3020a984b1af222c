//! How large packets may be: those of the pod's MTU, in one piece.

use libcni::Error;

use super::Side;
use crate::doctor::ask::{self, Question};
use crate::doctor::report::{Cause, Report};
use crate::doctor::trial::Trial;

pub fn ask(trial: &mut Trial<'_>, side: Side<'_>, report: &mut Report) -> Result<(), Error> {
    let probe = side.name("mtu");
    let Some(pod) = trial.pods.first() else { return Ok(()) };
    let mtu = pod.link.mtu;
    let size = usize::try_from(mtu).unwrap_or_default();
    let gateway = pod.gateway(side.ipv4).filter(|_| trial.facts.is_gateway);
    let other = trial.pods.get(1).and_then(|other| other.addresses(side.ipv4).first().copied());
    let mut reached = Vec::new();
    for (who, to) in [("the gateway", gateway), ("the neighbour", other.filter(|_| !trial.facts.is_isolated))] {
        let Some(to) = to else { continue };
        // Who answers nothing at all is another probe's.
        if !Question::to(to).ask(&pod.nl, None, ask::reply).is_answered() {
            continue;
        }
        let asked = Question { size, ..Question::to(to) }.ask(&pod.nl, None, ask::reply);
        if asked.is_answered() {
            reached.push(who);
            continue;
        }
        let heard = asked.answer.and_then(ask::describe).or(asked.failure);
        let heard = heard.map(|heard| format!(" ({heard})")).unwrap_or_default();
        let why = format!("the pod's interface has mtu {mtu}, but packets of {mtu} bytes do not reach {who}{heard}");
        let remedy = "give all links of the network one mtu: \"mtu\" of the plugin, and that of the bridge";
        report.broken(probe, Cause::new(why, remedy));
        return Ok(());
    }
    if let Some(way) = side.way.filter(|way| way.link.mtu < mtu) {
        let why = format!(
            "the pod's mtu is {mtu}, that of {} is {}: the node answers every large packet that it is too big, and where such \
             answers are lost connections hang",
            way.link.name, way.link.mtu
        );
        report.warn(probe, Cause::new(why, format!("\"mtu\": {} in the configuration", way.link.mtu)));
        return Ok(());
    }
    let reached = if reached.is_empty() { String::new() } else { format!(" reach {}", reached.join(" and ")) };
    match side.way {
        Some(way) => report.ok(probe, format!("{mtu} bytes{reached}; {} has {}", way.link.name, way.link.mtu)),
        None => report.ok(probe, format!("{mtu} bytes{reached}")),
    }
    Ok(())
}
