//! The rules of CNI-FORWARD for one address of a pod, and whose they are.
//!
//! ```text
//! -A CNI-FORWARD -d IP -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
//! -A CNI-FORWARD -s IP -j ACCEPT
//! -A CNI-FORWARD -d IP -m conntrack --ctstate DNAT -m comment --comment "HASH-HASH, net: ..., if: ..., id: ..." -j ACCEPT
//! ```
//!
//! The first two are the reference's, to the letter, so that it finds them. The third is ours and has two jobs: what was
//! sent to a published port or a Service and rewritten to the pod passes where FORWARD drops by default; and it names
//! the owner of itself and of the two before it. So the owner of a rule is the next tag of its address behind it. Rules
//! without one were made by the reference, and a tag without rules was left by it: its DEL takes only its own two.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use hostnet::iptables::quote;
use libcni::types::Cidr;

use super::CNI_FORWARD;
use super::rule::Rule;
use crate::pod::Pod;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Replies,
    Outgoing,
    Tag,
}

/// What a rule is of an address's three; `None` for anything else in the chain.
fn kind(rule: &Rule) -> Option<(IpAddr, Kind)> {
    let address = rule.address()?;
    // One with another comment is somebody's own.
    if rule.other
        || rule.commented != rule.tag.is_some()
        || rule.input.is_some()
        || rule.output.is_some()
        || rule.target != "ACCEPT"
    {
        return None;
    }
    match (rule.source.is_some(), rule.conntrack, &rule.tag) {
        (false, true, Some(_)) => Some((address, Kind::Tag)),
        (false, true, None) => Some((address, Kind::Replies)),
        (true, false, None) => Some((address, Kind::Outgoing)),
        _ => None,
    }
}

/// The commands that add an address's rules.
pub fn commands(pod: &Pod, address: IpAddr) -> [String; 3] {
    let cidr = Cidr::host(address);
    [
        format!("-A {CNI_FORWARD} -d {cidr} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        format!("-A {CNI_FORWARD} -s {cidr} -j ACCEPT"),
        format!(
            "-A {CNI_FORWARD} -d {cidr} -m conntrack --ctstate DNAT -m comment --comment {} -j ACCEPT",
            quote(&pod.comment())
        ),
    ]
}

/// Those of a chain's rules that are of addresses, by address: looked through once, however many there are.
pub struct Pods<'a>(BTreeMap<IpAddr, Vec<(&'a Rule, Kind)>>);

impl<'a> Pods<'a> {
    /// Among these rules.
    pub fn among(rules: &'a [Rule]) -> Self {
        let mut pods: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for rule in rules {
            if let Some((address, kind)) = kind(rule) {
                pods.entry(address).or_default().push((rule, kind));
            }
        }
        Self(pods)
    }

    /// The rules of an address, in their order.
    fn of(&self, address: IpAddr) -> &[(&'a Rule, Kind)] {
        self.0.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Whether an address's rules are there, once each, and this owner's.
    pub fn are_complete(&self, address: IpAddr, tag: &str) -> bool {
        matches!(self.of(address), [(_, Kind::Replies), (_, Kind::Outgoing), (last, Kind::Tag)]
            if last.tag.as_deref() == Some(tag))
    }

    /// The rules that a newer owner of an address replaces: all there are.
    pub fn all_of(&self, address: IpAddr) -> impl Iterator<Item = &'a Rule> {
        self.of(address).iter().map(|(rule, _)| *rule)
    }

    /// The rules that go: those of the owners that `is_gone` says so of; and of these addresses, what has no owner.
    pub fn doomed(&self, is_gone: &dyn Fn(&str) -> bool, addresses: &HashSet<IpAddr>) -> Vec<Rule> {
        let doomed = self.0.iter().flat_map(|(address, rules)| doomed_of(rules, is_gone, addresses.contains(address)));
        doomed.cloned().collect()
    }

    /// Whether we made the rules of an address: they have an owner.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        self.of(address).last().is_some_and(|(_, kind)| *kind == Kind::Tag)
    }

    /// What is wrong with an address's rules. Without an owner they are the reference's, which knows no better.
    pub fn check(&self, address: IpAddr, tag: &str) -> Result<(), String> {
        let found = self.of(address);
        let missing = |rule: String| Err(format!("expected {CNI_FORWARD} rule [{rule}] not found"));
        if !found.iter().any(|(_, kind)| *kind == Kind::Replies) {
            let cidr = Cidr::host(address);
            return missing(format!("-d {cidr} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
        }
        if !found.iter().any(|(_, kind)| *kind == Kind::Outgoing) {
            return missing(format!("-s {} -j ACCEPT", Cidr::host(address)));
        }
        let owner = found.last().filter(|(_, kind)| *kind == Kind::Tag);
        match owner.and_then(|(rule, _)| rule.tag.as_deref()) {
            Some(other) if other != tag => {
                Err(format!("the rules of {address} in {CNI_FORWARD} belong to {other}, not to {tag}"))
            }
            _ => Ok(()),
        }
    }
}

/// The same of one address. Its rules in their order fall into groups that each end with a tag; the last may have none.
fn doomed_of<'a>(rules: &[(&'a Rule, Kind)], is_gone: &dyn Fn(&str) -> bool, without_owner: bool) -> Vec<&'a Rule> {
    let (mut doomed, mut left_behind, mut group) = (Vec::new(), Vec::new(), Vec::new());
    for (rule, kind) in rules {
        group.push(*rule);
        if *kind != Kind::Tag {
            continue;
        }
        let group = std::mem::take(&mut group);
        if rule.tag.as_deref().is_some_and(is_gone) {
            doomed.extend(group);
        } else if group.len() == 1 {
            left_behind.extend(group);
        }
    }
    if without_owner && !group.is_empty() {
        doomed.extend(group);
        doomed.extend(left_behind);
    }
    doomed
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbb-bbbbbbbbbbbbbbbb";

    fn chain(words: &[&str]) -> Vec<Rule> {
        let line = |word: &&str| {
            Rule::from_line(&match *word {
                "replies" => {
                    "-A CNI-FORWARD -d 10.0.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned()
                }
                "out" => "-A CNI-FORWARD -s 10.0.0.2/32 -j ACCEPT".to_owned(),
                "admin" => "-A CNI-FORWARD -m comment --comment \"x\" -j CNI-ADMIN".to_owned(),
                tag => format!(
                    "-A CNI-FORWARD -d 10.0.0.2/32 -m conntrack --ctstate DNAT -m comment --comment \"{tag}, net: n\" -j ACCEPT"
                ),
            })
        };
        words.iter().map(line).collect()
    }

    fn address() -> IpAddr {
        "10.0.0.2".parse().unwrap()
    }

    /// The numbers of the rules that go.
    fn go(words: &[&str], gone: &str, addresses: &[IpAddr]) -> usize {
        Pods::among(&chain(words)).doomed(&|tag| tag == gone, &addresses.iter().copied().collect()).len()
    }

    #[test]
    fn an_owner_takes_its_own() {
        let ours = ["admin", "replies", "out", A];
        let rules = chain(&ours);
        let pods = Pods::among(&rules);
        assert!(pods.are_complete(address(), A) && !pods.are_complete(address(), B));
        assert_eq!((go(&ours, A, &[]), go(&ours, A, &[address()])), (3, 3));
        // A late DEL of the pod that had the address before.
        assert_eq!((go(&ours, B, &[]), go(&ours, B, &[address()])), (0, 0));
        // An ADD that was killed before it could remove the old ones.
        let twice = ["replies", "out", A, "replies", "out", B];
        assert_eq!((go(&twice, A, &[address()]), go(&twice, B, &[address()])), (3, 3));
    }

    #[test]
    fn rules_of_the_reference_go_by_address() {
        assert_eq!((go(&["admin", "replies", "out"], A, &[address()]), go(&["replies", "out"], A, &[])), (2, 0));
        // Its DEL left a tag of ours, and its ADD made rules for another pod behind it.
        let mixed = [A, "replies", "out"];
        assert_eq!((go(&mixed, B, &[address()]), go(&mixed, A, &[])), (3, 1));
        let is_ours = |words: &[&str]| Pods::among(&chain(words)).is_ours(address());
        assert!(!is_ours(&mixed) && is_ours(&["replies", "out", A]));
    }

    #[test]
    fn what_check_says() {
        let check = |words: &[&str]| Pods::among(&chain(words)).check(address(), A);
        assert_eq!(check(&["replies", "out", A]), Ok(()));
        assert_eq!(check(&["replies", "out"]), Ok(()));
        assert!(check(&["replies", "out", B]).unwrap_err().contains("belong"));
        assert!(check(&["out", A]).unwrap_err().contains("RELATED"));
        assert!(check(&["replies", A]).unwrap_err().contains("-s 10.0.0.2/32"));
    }
}
