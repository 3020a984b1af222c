//! The jumps of FORWARD: to our rules, and to those of the policies.
//!
//! The reference puts both first, so that it accepts a pod's packet before kube-proxy can refuse it: a Service without
//! endpoints then times out in place of being refused at once. Ours stands behind kube-proxy's jumps, and else first as
//! the reference's does. What a policy forbids is forbidden before anything accepts it.

use super::rule::Rule;
use super::{CNI_FORWARD, FORWARD, STAGE_1};

/// What kube-proxy's chains are called: KUBE-FORWARD, KUBE-SERVICES, KUBE-EXTERNAL-SERVICES, KUBE-PROXY-FIREWALL.
const KUBE: &str = "KUBE-";

const FORWARD_COMMENT: &str = "CNI firewall plugin rules";
/// Of the jump, and of all that is the same for every policy.
pub const POLICY_COMMENT: &str = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)";

/// The changes that bring the jumps where they belong.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// The command for the jump to the pods' rules; it counts the rules as they are.
    pub add: Option<String>,
    /// Jumps that stand at the wrong place, or twice.
    pub remove: Vec<Rule>,
    /// The command for the policies' jump, after the others.
    pub front: Option<String>,
}

fn is_jump(rule: &Rule, chain: &str) -> bool {
    rule.target == chain && rule.is_unconditional()
}

/// Of the rules of FORWARD: what brings the policies' jump in front. One that is there is kept there, whoever needs it;
/// `isolate`: this pod does.
pub fn policy_moves(present: &[Rule], isolate: bool) -> Moves {
    let is_first = present.first().is_some_and(|rule| is_jump(rule, STAGE_1));
    let jumps = present.iter().filter(|rule| is_jump(rule, STAGE_1));
    let remove: Vec<Rule> = jumps.skip(usize::from(is_first)).cloned().collect();
    let front = (!is_first && (isolate || !remove.is_empty())).then(|| jump(1, POLICY_COMMENT, STAGE_1));
    Moves { add: None, remove, front }
}

/// The same with the jump to the pods' rules.
pub fn moves(present: &[Rule], isolate: bool) -> Moves {
    let mut moves = policy_moves(present, isolate);
    let behind_kube = present.iter().rposition(|rule| rule.target.starts_with(KUBE)).map_or(0, |index| index + 1);
    let behind_policies = present.first().is_some_and(|rule| is_jump(rule, STAGE_1));
    let place = behind_kube.max(usize::from(behind_policies));
    let jumps: Vec<_> = present.iter().enumerate().filter(|(_, rule)| is_jump(rule, CNI_FORWARD)).collect();
    let good = jumps.iter().find(|(index, _)| *index >= place).map(|(index, _)| *index);
    if good.is_none() {
        // iptables counts from 1.
        moves.add = Some(jump(place + 1, FORWARD_COMMENT, CNI_FORWARD));
    }
    moves.remove.extend(jumps.into_iter().filter(|(index, _)| Some(*index) != good).map(|(_, rule)| rule.clone()));
    moves
}

fn jump(number: usize, comment: &str, chain: &str) -> String {
    format!("-I {FORWARD} {number} -m comment --comment \"{comment}\" -j {chain}")
}

/// What is wrong with the jumps. `isolate`: a policy is in force. `strict`: we made the pod's rules, and so the jump is
/// behind kube-proxy's; the reference's is not.
pub fn check(present: &[Rule], isolate: bool, strict: bool) -> Result<(), String> {
    let first = |chain: &str| present.iter().position(|rule| is_jump(rule, chain));
    let Some(forward) = first(CNI_FORWARD) else {
        return Err(format!("expected {FORWARD} rule [-j {CNI_FORWARD}] not found"));
    };
    let kube = present.iter().rposition(|rule| rule.target.starts_with(KUBE));
    if strict && kube.is_some_and(|kube| kube > forward) {
        return Err(format!("{FORWARD} jumps to {CNI_FORWARD} before it jumps to kube-proxy's chains"));
    }
    check_policy(present, isolate)
}

/// The same of the policies' jump alone.
pub fn check_policy(present: &[Rule], isolate: bool) -> Result<(), String> {
    let first = |chain: &str| present.iter().position(|rule| is_jump(rule, chain));
    match (first(STAGE_1), first(CNI_FORWARD)) {
        (None, _) if isolate => Err(format!("expected {FORWARD} rule [-j {STAGE_1}] not found")),
        (Some(stage), Some(forward)) if isolate && stage > forward => {
            Err(format!("{FORWARD} jumps to {CNI_FORWARD} before it jumps to {STAGE_1}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(targets: &[&str]) -> Vec<Rule> {
        targets.iter().map(|target| Rule::from_line(&format!("-A FORWARD -j {target}"))).collect()
    }

    /// FORWARD after the moves, by target.
    fn moved(targets: &[&str], isolate: bool) -> Vec<String> {
        let present = rules(targets);
        let moves = moves(&present, isolate);
        let mut chain: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
        let insert = |chain: &mut Vec<String>, command: &Option<String>| {
            let Some(command) = command else { return };
            let words: Vec<&str> = command.split(' ').collect();
            let number: usize = words[2].parse().unwrap();
            chain.insert(number - 1, (*words.last().unwrap()).to_owned());
        };
        insert(&mut chain, &moves.add);
        // By its words, as legacy iptables does: the first that is alike.
        for rule in &moves.remove {
            let index = chain.iter().position(|target| *target == rule.target).unwrap();
            chain.remove(index);
        }
        insert(&mut chain, &moves.front);
        chain
    }

    #[test]
    fn ours_is_first_but_for_kube_proxy() {
        const F: &str = CNI_FORWARD;
        assert_eq!(moved(&[], false), [F]);
        assert_eq!(moved(&["DOCKER-USER", "ACCEPT"], false), [F, "DOCKER-USER", "ACCEPT"]);
        assert_eq!(
            moved(&["KUBE-FORWARD", "KUBE-SERVICES", "ACCEPT"], false),
            ["KUBE-FORWARD", "KUBE-SERVICES", F, "ACCEPT"]
        );
        assert_eq!(moved(&[F, "KUBE-FORWARD", "X"], false), ["KUBE-FORWARD", F, "X"]);
        // Of two good ones either may go.
        assert_eq!(moved(&["KUBE-FORWARD", F, "X", F], false), ["KUBE-FORWARD", "X", F]);
        assert!(moves(&rules(&["KUBE-FORWARD", "X", F]), false) == Moves::default());
    }

    #[test]
    fn policies_come_before_everything() {
        const F: &str = CNI_FORWARD;
        assert_eq!(moved(&[], true), [STAGE_1, F]);
        assert_eq!(moved(&[F], true), [STAGE_1, F]);
        assert_eq!(moved(&[F, STAGE_1], false), [STAGE_1, F]);
        assert_eq!(moved(&["KUBE-FORWARD", STAGE_1, F], true), [STAGE_1, "KUBE-FORWARD", F]);
        assert_eq!(moved(&["KUBE-FORWARD", F, "X"], true), [STAGE_1, "KUBE-FORWARD", F, "X"]);
        assert!(moves(&rules(&[STAGE_1, "KUBE-FORWARD", F]), true) == Moves::default());
        assert_eq!(moved(&[STAGE_1, F, "KUBE-FORWARD"], true), [STAGE_1, "KUBE-FORWARD", F]);
    }

    #[test]
    fn a_jump_with_a_condition_is_somebody_elses() {
        let present = [Rule::from_line("-A FORWARD -i br0 -j CNI-FORWARD")];
        assert!(moves(&present, false).add.is_some());
        assert!(moves(&present, false).remove.is_empty());
    }

    #[test]
    fn what_check_says() {
        assert!(check(&rules(&[]), false, true).unwrap_err().contains("CNI-FORWARD"));
        assert!(check(&rules(&[CNI_FORWARD, "KUBE-SERVICES"]), false, true).unwrap_err().contains("kube-proxy"));
        assert_eq!(check(&rules(&[CNI_FORWARD, "KUBE-SERVICES"]), false, false), Ok(()));
        assert!(check(&rules(&[CNI_FORWARD]), true, true).unwrap_err().contains(STAGE_1));
        assert!(check(&rules(&[CNI_FORWARD, STAGE_1]), true, true).unwrap_err().contains("before"));
        assert_eq!(check(&rules(&[STAGE_1, "KUBE-X", CNI_FORWARD]), true, true), Ok(()));
    }
}
