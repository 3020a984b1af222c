//! Masquerading with iptables: a chain in table `nat` for each container and network, to which
//! POSTROUTING jumps for each of the container's addresses.
//!
//! ```text
//! -A POSTROUTING -s 10.1.2.2/32 -m comment --comment "name: \"NET\" id: \"ID\"" -j CNI-...
//! -A CNI-... -d 10.1.2.0/24 -m comment --comment ... -j ACCEPT
//! -A CNI-... -d 10.0.0.0/8 -m comment --comment nonMasqueradeCIDRs -j ACCEPT      (where the policy exempts it)
//! -A CNI-... ! -d 224.0.0.0/4 -m comment --comment ... -j MASQUERADE              (or SNAT, as the policy says)
//! ```
//!
//! The container's interfaces on one network share the chain: whatever they need is in it once, and what the network's
//! policy says is there as the newest ADD found it. So the rules that come of the policy are told by their comment from
//! those of an interface, which another's ADD leaves alone. Who is to pass stands before who is changed; the reference
//! has the second network of a container behind the rule that changes its packets.
//!
//! Rules are made by the iptables programs. They are removed over netlink where iptables keeps them
//! in nf_tables: that needs no process and no understanding of what the rules consist of, and somebody
//! else's rule that iptables cannot read is not in the way.

use std::net::IpAddr;

use libcni::plugin::dry_run;
use libcni::types::Cidr;

use super::{Policy, glance, missing, multicast};
use crate::error::Error;
use crate::iptables::{Iptables, Rule, Version};
use crate::nft::{self, Batch, Direction, Expression, Nft, Verdict};
use crate::owner::Owner;

pub(super) const NAT: &str = "nat";
pub(super) const POSTROUTING: &str = "POSTROUTING";

pub(super) const ACCEPT: &str = "ACCEPT";

/// The comment of what is in the chain for an exempt network.
pub(super) const EXEMPT: &str = "nonMasqueradeCIDRs";

/// What a container needs in the table of one IP version.
pub(super) struct Rules {
    pub(super) version: Version,
    /// The container's own chain, in order.
    pub(super) chain: Vec<Rule>,
    /// To the chain.
    pub(super) jumps: Vec<Rule>,
}

/// Whether the reference would call iptables usable. It asks the IPv4 program alone.
pub fn is_usable() -> bool {
    Iptables::find(Version::V4).is_ok_and(|iptables| iptables.is_usable())
}

pub fn add(owner: &Owner, policy: &Policy, addrs: &[Cidr]) -> Result<(), Error> {
    let chain = owner.iptables_chain();
    by_version(owner, &chain, policy, addrs).iter().try_for_each(|rules| add_version(&chain, rules))
}

fn add_version(chain: &str, rules: &Rules) -> Result<(), Error> {
    let iptables = Iptables::find(rules.version)?;
    let mut commands = vec![format!("-N {chain}")];
    commands.extend(rules.chain.iter().chain(&rules.jumps).map(Rule::to_string));
    // Nearly always the chain is new. Where it is not, nothing was changed.
    let Err(error) = iptables.restore(NAT, &commands) else { return Ok(()) };
    let Some(present) = iptables.rules(NAT, chain)? else { return Err(error) };
    let jumps = iptables.rules(NAT, POSTROUTING)?.unwrap_or_default();
    let of_others = present.iter().filter(|rule| is_of_interface(rule) && !rules.chain.contains(rule));
    let missing = rules.jumps.iter().filter(|rule| !jumps.contains(rule));
    let mut commands = vec![format!("-F {chain}")];
    commands.extend(of_others.chain(&rules.chain).chain(missing).map(Rule::to_string));
    iptables.restore(NAT, &commands)
}

/// The rules of the versions that have any, each once.
fn by_version(owner: &Owner, chain: &str, policy: &Policy, addrs: &[Cidr]) -> Vec<Rules> {
    let mut all = Vec::new();
    for version in Version::ALL {
        let addrs: Vec<_> = addrs.iter().filter(|addr| Version::of(addr) == version).collect();
        if !addrs.is_empty() {
            all.push(rules_for(owner, chain, policy, version, &addrs));
        }
    }
    all
}

fn rules_for(owner: &Owner, chain: &str, policy: &Policy, version: Version, addrs: &[&Cidr]) -> Rules {
    let ipv4 = version == Version::V4;
    let rule = |chain: &str, target: &str| Rule {
        chain: chain.to_owned(),
        source: None,
        destination: None,
        not_destination: None,
        comment: owner.iptables_comment(),
        target: target.to_owned(),
    };
    let mut rules = Rules { version, chain: Vec::new(), jumps: Vec::new() };
    for addr in addrs {
        // iptables does not print a match of every address.
        let network = (!addr.is_default()).then(|| addr.network());
        let own = Rule { destination: network, ..rule(chain, ACCEPT) };
        let jump = jump(owner, chain, addr);
        for (rules, rule) in [(&mut rules.chain, own), (&mut rules.jumps, jump)] {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    for network in policy.exempt(ipv4) {
        rules.chain.push(Rule {
            destination: Some(network.network()),
            comment: EXEMPT.to_owned(),
            ..rule(chain, ACCEPT)
        });
    }
    let multicast = multicast().find(|network| network.is_ipv4() == ipv4);
    rules.chain.push(Rule { not_destination: multicast, ..rule(chain, &translation(policy, ipv4)) });
    rules
}

/// Leads to the container's chain what comes from an address.
fn jump(owner: &Owner, chain: &str, addr: &Cidr) -> Rule {
    Rule {
        chain: POSTROUTING.to_owned(),
        source: Some(Cidr::host(addr.addr())),
        destination: None,
        not_destination: None,
        comment: owner.iptables_comment(),
        target: chain.to_owned(),
    }
}

/// The target that changes the source, and its options as iptables prints them.
fn translation(policy: &Policy, ipv4: bool) -> String {
    let mut target = policy.source(ipv4).map_or("MASQUERADE".to_owned(), |source| format!("SNAT --to-source {source}"));
    if policy.random_fully {
        target.push_str(" --random-fully");
    }
    target
}

/// Whether a rule of the chain lets packets to the own network of an interface pass.
fn is_of_interface(rule: &Rule) -> bool {
    rule.target == ACCEPT && rule.comment != EXEMPT
}

/// Removes what the nf_tables flavour keeps. Whether there was anything.
pub fn remove_nft(nft: &mut Nft, owner: &Owner, keep: &[IpAddr]) -> Result<bool, Error> {
    let name = owner.iptables_chain();
    let mut is_there = false;
    nft.settle(|nft| {
        let mut batch = Batch::default();
        for version in Version::ALL {
            let table = version.nft_nat();
            let (chain, postrouting) = (table.chain(&name), table.chain(POSTROUTING));
            if !nft.has_chain(chain)? {
                continue;
            }
            is_there = true;
            let mut kept = false;
            for (handle, source) in jumps(nft, postrouting, &name, version)? {
                if is_kept(source, keep) {
                    kept = true;
                } else {
                    batch.remove_rule(postrouting, handle);
                }
            }
            if !kept {
                batch.remove_chain(chain);
            }
        }
        Ok(batch)
    })?;
    Ok(is_there)
}

/// The rules of POSTROUTING that jump to the chain: their handles, and the sources they are for.
fn jumps(
    nft: &mut Nft,
    postrouting: nft::Chain<'_>,
    name: &str,
    version: Version,
) -> Result<Vec<(u64, Option<Cidr>)>, Error> {
    let mut found = Vec::new();
    for rule in nft.rules(postrouting)? {
        // To take every pod's rule apart would take long on a node with many.
        if !rule.mentions(name) {
            continue;
        }
        let expressions = rule.expressions();
        if expressions.contains(&Expression::Verdict(Verdict::Jump(name.to_owned()))) {
            let source = nft::read_address(&expressions, Direction::Source, version == Version::V4);
            found.push((rule.handle(), source));
        }
    }
    Ok(found)
}

/// Removes what the legacy flavour keeps. No program is started where it has no table `nat`. `likely` are the addresses
/// that there are probably rules for, and no others.
pub fn remove_legacy(owner: &Owner, keep: &[IpAddr], likely: &[Cidr]) -> Result<(), Error> {
    let chain = owner.iptables_chain();
    let mut outcome = Ok(());
    for version in Version::ALL {
        let likely = likely.iter().filter(|addr| Version::of(addr) == version).map(|addr| jump(owner, &chain, addr));
        let likely: Vec<Rule> = likely.filter(|jump| !is_kept(jump.source, keep)).collect();
        outcome = outcome.and(match Iptables::get_legacy(version, NAT) {
            Ok(Some(iptables)) => remove_legacy_version(&iptables, &chain, keep, &likely),
            other => other.map(drop),
        });
    }
    outcome
}

fn remove_legacy_version(iptables: &Iptables, chain: &str, keep: &[IpAddr], likely: &[Rule]) -> Result<(), Error> {
    // To list takes two processes, and each as long as the table is. If these are not all the rules that lead to the
    // chain, nothing is changed. A dry run would not find that out.
    if !likely.is_empty() && !dry_run::is_on() {
        let commands: Vec<_> = likely.iter().map(Rule::removal).chain(removal_of(chain)).collect();
        if iptables.restore(NAT, &commands).is_ok() {
            return Ok(());
        }
    }
    if iptables.rules(NAT, chain)?.is_none() {
        return Ok(());
    }
    let mut jumps = iptables.rules(NAT, POSTROUTING)?.unwrap_or_default();
    jumps.retain(|rule| rule.target == chain);
    let mut commands: Vec<_> = jumps.iter().filter(|rule| !is_kept(rule.source, keep)).map(Rule::removal).collect();
    if commands.len() == jumps.len() {
        commands.extend(removal_of(chain));
    }
    if commands.is_empty() { Ok(()) } else { iptables.restore(NAT, &commands) }
}

/// The commands that remove a chain, which iptables refuses as long as a rule leads to it.
fn removal_of(chain: &str) -> [String; 2] {
    [format!("-F {chain}"), format!("-X {chain}")]
}

/// Whether a jump is for an address that stays. Old versions of the reference jumped for the whole
/// network, `-s ip/len`: such a jump stays as long as any address of it does.
fn is_kept(source: Option<Cidr>, keep: &[IpAddr]) -> bool {
    source.is_some_and(|source| keep.iter().any(|addr| source.contains(*addr)))
}

pub fn check(owner: &Owner, policy: &Policy, addrs: &[Cidr]) -> Result<(), Error> {
    let chain = owner.iptables_chain();
    for rules in by_version(owner, &chain, policy, addrs) {
        let iptables = Iptables::find(rules.version)?;
        if iptables.is_nft() && glance::is_there(&rules, &chain).unwrap_or(false) {
            continue;
        }
        let Some(mut present) = iptables.rules(NAT, &chain)? else {
            let version = rules.version;
            return Err(missing(owner, format!("there is no chain {chain} in table nat for {version:?}")));
        };
        // Of the policy's rules there must be no more than these, and in this order.
        let surplus = surplus(&present, &rules.chain).map(Rule::to_string);
        present.extend(iptables.rules(NAT, POSTROUTING)?.unwrap_or_default());
        if let Some(rule) = rules.chain.iter().chain(&rules.jumps).find(|rule| !present.contains(rule)) {
            return Err(missing(owner, format!("table nat lacks the rule {rule}")));
        }
        if let Some(rule) = surplus {
            return Err(missing(owner, format!("table nat has the rule {rule}, which is not to be there")));
        }
    }
    Ok(())
}

/// The first rule of the policy that is not where it should be.
fn surplus<'a>(present: &'a [Rule], wanted: &[Rule]) -> Option<&'a Rule> {
    let mut wanted = wanted.iter().filter(|rule| !is_of_interface(rule));
    present.iter().filter(|rule| !is_of_interface(rule)).find(|rule| wanted.next() != Some(rule))
}
