//! The rules of the policies: which bridges may be entered from where.
//!
//! ```text
//! -A CNI-ISOLATION-STAGE-1 ! -i BR -o BR -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP    isolated
//! -A CNI-ISOLATION-STAGE-1 -i BR -o BR -j DROP                                                        isolated
//! -A CNI-ISOLATION-STAGE-1 -i BR ! -o BR -j CNI-ISOLATION-STAGE-2
//! -A CNI-ISOLATION-STAGE-1 -j RETURN
//! -A CNI-ISOLATION-STAGE-2 -o BR -j DROP
//! -A CNI-ISOLATION-STAGE-2 -j RETURN
//! ```
//!
//! All but the first are the reference's. With them alone an isolated pod can be reached from everywhere but another
//! such bridge; the first is what its documentation promises. What answers a pod passes, and so does what came to a
//! published port of the node and was rewritten: to publish a port is to let others in.

use super::forward::POLICY_COMMENT;
use super::rule::{Interface, Rule};
use super::{STAGE_1, STAGE_2};
use crate::policy::Policy;

/// A rule about one bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// From the bridge to elsewhere: on to stage 2.
    Leaving,
    /// From pod to pod.
    Within,
    /// From elsewhere, unasked.
    FromOutside,
    /// In stage 2: from a bridge with a policy into this one.
    Entering,
}

/// The kinds of a policy, in the order in which the reference makes them, each in front of the last.
fn wanted(policy: Policy) -> &'static [Kind] {
    match policy {
        Policy::Open => &[],
        Policy::SameBridge => &[Kind::Leaving, Kind::Entering],
        Policy::Isolated => &[Kind::Leaving, Kind::Within, Kind::FromOutside, Kind::Entering],
    }
}

impl Kind {
    fn chain(self) -> &'static str {
        if self == Self::Entering { STAGE_2 } else { STAGE_1 }
    }

    /// What a rule of a stage says about the bridge.
    fn read(rule: &Rule, chain: &str, bridge: &str) -> Option<Self> {
        let here = |interface: &Option<Interface>| {
            interface.as_ref().and_then(|interface| (interface.name == bridge).then_some(!interface.not))
        };
        if rule.other || rule.address().is_some() {
            return None;
        }
        match (chain == STAGE_1, here(&rule.input), here(&rule.output), rule.conntrack, rule.target.as_str()) {
            (true, Some(true), Some(false), false, STAGE_2) => Some(Self::Leaving),
            (true, Some(true), Some(true), false, "DROP") => Some(Self::Within),
            (true, Some(false), Some(true), true, "DROP") => Some(Self::FromOutside),
            (false, None, Some(true), false, "DROP") if rule.input.is_none() => Some(Self::Entering),
            _ => None,
        }
    }

    fn words(self, bridge: &str, policy: Policy) -> String {
        let comment = |text: &str| format!("-m comment --comment \"{text}\"");
        let of_policy = comment(&format!("CNI firewall plugin rules (ingressPolicy: {policy})"));
        match self {
            Self::Leaving => format!("-i {bridge} ! -o {bridge} {of_policy} -j {STAGE_2}"),
            Self::Within => format!("-i {bridge} -o {bridge} {of_policy} -j DROP"),
            Self::FromOutside => format!(
                "! -i {bridge} -o {bridge} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT {of_policy} -j DROP"
            ),
            Self::Entering => format!("-o {bridge} {} -j DROP", comment(POLICY_COMMENT)),
        }
    }
}

/// The rules of the two stages as they are; `None` where there are no such chains.
pub struct Stages {
    /// Of stage 1, then of stage 2.
    pub rules: [Option<Vec<Rule>>; 2],
}

const CHAINS: [&str; 2] = [STAGE_1, STAGE_2];

impl Stages {
    /// The commands that bring a bridge's rules to its policy. The older ones of a bridge whose policy was another one
    /// are for [`outdated`](Self::outdated).
    pub fn commands(&self, bridge: &str, policy: Policy) -> Vec<String> {
        if policy == Policy::Open {
            return Vec::new();
        }
        let mut commands: Vec<String> = Vec::new();
        for (chain, present) in CHAINS.into_iter().zip(&self.rules) {
            if present.is_none() {
                commands.push(format!("-N {chain}"));
            }
        }
        for kind in wanted(policy) {
            if !self.of_bridge(bridge).any(|(_, _, present)| present == *kind) {
                commands.push(format!("-I {} 1 {}", kind.chain(), kind.words(bridge, policy)));
            }
        }
        for (chain, present) in CHAINS.into_iter().zip(&self.rules) {
            let returns = |rule: &Rule| rule.target == "RETURN" && rule.is_unconditional();
            if !present.iter().flatten().any(returns) {
                commands.push(format!("-A {chain} -m comment --comment \"{POLICY_COMMENT}\" -j RETURN"));
            }
        }
        commands
    }

    /// The bridge's rules that its policy has not, and those that are there twice.
    pub fn outdated(&self, bridge: &str, policy: Policy) -> Vec<(&'static str, Rule)> {
        let mut seen = Vec::new();
        let mut outdated = Vec::new();
        for (chain, rule, kind) in self.of_bridge(bridge) {
            if wanted(policy).contains(&kind) && !seen.contains(&kind) {
                seen.push(kind);
            } else {
                outdated.push((chain, rule.clone()));
            }
        }
        outdated
    }

    /// What is wrong with a bridge's rules. `strict`: we made them; the reference does not make all, and removes none.
    pub fn check(&self, bridge: &str, policy: Policy, strict: bool) -> Result<(), String> {
        let present: Vec<Kind> = self.of_bridge(bridge).map(|(_, _, kind)| kind).collect();
        for kind in wanted(policy).iter().filter(|kind| strict || **kind != Kind::FromOutside) {
            if !present.contains(kind) {
                let words = kind.words(bridge, policy);
                return Err(format!("expected {} rule [{words}] not found", kind.chain()));
            }
        }
        match present.iter().find(|kind| strict && !wanted(policy).contains(kind)) {
            Some(kind) => Err(format!(
                "{} has a rule [{}] that ingressPolicy {policy} has not",
                kind.chain(),
                kind.words(bridge, Policy::Isolated)
            )),
            None => Ok(()),
        }
    }

    fn of_bridge<'a>(&'a self, bridge: &'a str) -> impl Iterator<Item = (&'static str, &'a Rule, Kind)> {
        CHAINS.into_iter().zip(&self.rules).flat_map(move |(chain, rules)| {
            let rules = rules.iter().flatten();
            rules.filter_map(move |rule| Some((chain, rule, Kind::read(rule, chain, bridge)?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two stages as a listing of iptables shows them, from the commands.
    fn stages(lines: &[String]) -> Stages {
        let of = |chain: &str| {
            let begin = format!(" {chain} ");
            let rules = lines.iter().filter(|line| line.contains(&begin) && !line.starts_with("-N"));
            Some(
                rules
                    .map(|line| Rule::from_line(&line.replacen(&format!("-I {chain} 1"), &format!("-A {chain}"), 1)))
                    .collect(),
            )
        };
        Stages { rules: [of(STAGE_1), of(STAGE_2)] }
    }

    #[test]
    fn what_is_made_is_found_again() {
        let empty = Stages { rules: [None, None] };
        assert!(empty.commands("br0", Policy::Open).is_empty());
        for policy in [Policy::SameBridge, Policy::Isolated] {
            let commands = empty.commands("br0", policy);
            let made = stages(&commands);
            assert_eq!(made.check("br0", policy, true), Ok(()), "{commands:#?}");
            assert!(made.commands("br0", policy).is_empty() && made.outdated("br0", policy).is_empty());
            assert!(made.check("br1", policy, true).is_err());
        }
    }

    #[test]
    fn another_policy_replaces_the_rules() {
        let empty = Stages { rules: [None, None] };
        let isolated = stages(&empty.commands("br0", Policy::Isolated));
        assert!(isolated.check("br0", Policy::SameBridge, true).unwrap_err().contains("DROP"));
        assert_eq!(isolated.outdated("br0", Policy::SameBridge).len(), 2);
        assert!(isolated.commands("br0", Policy::SameBridge).is_empty());
        assert_eq!(
            (isolated.outdated("br0", Policy::Open).len(), isolated.outdated("br1", Policy::Open).len()),
            (4, 0)
        );
    }
}
