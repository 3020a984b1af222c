//! Masquerading in nf_tables. One table for all pods:
//!
//! ```text
//! table inet cni_plugins_masquerade {
//!     chain masq_checks {
//!         ip saddr 10.1.2.14 ip daddr != 10.1.2.0/24 masquerade comment "HASH-HASH, net: ..., if: ..., id: ..."
//!     }
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip daddr 224.0.0.0/4 return
//!         ip6 daddr ff00::/8 return
//!         goto masq_checks
//!     }
//! }
//! ```
//!
//! A network may ask for more (see [`Policy`]), and each pod still has one rule for each of its addresses:
//!
//! ```text
//! ip saddr 10.1.2.14 ip daddr != 10.1.2.0/24 ip daddr != { 10.0.0.0/8, 192.168.0.0/16 } masquerade fully-random ...
//! ip saddr 10.1.2.14 ip daddr != 10.1.2.0/24 snat ip to 192.0.2.1 ...
//! ```
//!
//! The networks in braces are a set without a name that goes with its rule, whoever removes that: a rule for each
//! network would make every pod's packets pass as many more. As in `nft`, a single network needs no set.
//!
//! ADD does not read the rules of other pods, so that it takes as long beside a thousand of them as beside none. Where
//! no DEL ended a container's earlier life, this leaves a second rule, which does no harm, and which DEL removes with the
//! first: it removes by comment. But a policy that the first rule knows nothing of would be in vain behind it, so for a
//! policy ADD does look, and removes what is there. CHECK fails if two rules differ.

use libcni::types::Cidr;

use super::{Policy, missing, multicast};
use crate::error::Error;
use crate::nft::{
    Batch, Chain, Direction, Expression, Family, Hook, InetHookNumber, Intervals, Nft, Operator, Rule, Table, Verdict,
    address, ip_version, load_address, masked_address, octets, read_address,
};
use crate::owner::Owner;
use crate::valid::Valid;

const TABLE: Table = Table { family: Family::Inet, name: "cni_plugins_masquerade" };
const CHECKS: Chain<'static> = TABLE.chain("masq_checks");
const POSTROUTING: Chain<'static> = TABLE.chain("postrouting");

/// Priority `srcnat` (`NF_IP_PRI_NAT_SRC`).
const HOOK: Hook = Hook { kind: "nat", at: InetHookNumber::PostRouting, priority: 100 };

const TABLE_COMMENT: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
const CHECKS_COMMENT: &str = "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";

pub(super) type MatchAddress = fn(Direction, Operator, &Cidr) -> Vec<Expression>;

pub fn add(owner: &Owner, policy: &Policy, addrs: &[Cidr]) -> Result<(), Error> {
    let comment = owner.nft_comment();
    Nft::default().settle(|nft| {
        let mut batch = Batch::default();
        if nft.rules(POSTROUTING)?.is_empty() {
            let existed = nft.has_chain(POSTROUTING)?;
            // Asked again: between the two questions another ADD may have made chain and rules.
            if !existed || nft.rules(POSTROUTING)?.is_empty() {
                prepare(nft, &mut batch, existed)?;
            }
        }
        if *policy != Policy::default() {
            remove_owned(nft, &mut batch, owner)?;
        }
        for addr in addrs {
            let exempt = exempt(policy, addr);
            let set = needs_set(&exempt).then(|| batch.create_anonymous_set(TABLE, &exempt));
            batch.append_rule(CHECKS, rule(policy, addr, &exempt, set, address), Some(&comment));
        }
        Ok(batch)
    })
}

/// The table, its chains and the rules that lead to `masq_checks`: what the first pod needs, and the
/// next one after somebody flushed them.
fn prepare(nft: &mut Nft, batch: &mut Batch, existed: bool) -> Result<(), Error> {
    batch.ensure_table(TABLE, Some(TABLE_COMMENT));
    if !nft.has_chain(CHECKS)? {
        batch.create_chain(CHECKS, None, Some(CHECKS_COMMENT));
    }
    if !existed {
        batch.create_chain(POSTROUTING, Some(HOOK), None);
    }
    for multicast in multicast() {
        let mut rule = ip_version(multicast.is_ipv4()).to_vec();
        rule.extend(address(Direction::Destination, Operator::Equal, &multicast));
        rule.push(Expression::Verdict(Verdict::Return));
        batch.append_rule(POSTROUTING, rule, None);
    }
    let goto = Expression::Verdict(Verdict::Goto(CHECKS.name.to_owned()));
    batch.append_rule(POSTROUTING, vec![goto], None);
    Ok(())
}

/// `ip saddr ADDR ip daddr != NETWORK masquerade`, with what the policy adds. `set` looks up the exempt networks.
fn rule(
    policy: &Policy,
    addr: &Cidr,
    exempt: &Intervals,
    set: Option<Expression>,
    match_network: MatchAddress,
) -> Vec<Expression> {
    let ipv4 = addr.is_ipv4();
    let mut rule = ip_version(ipv4).to_vec();
    rule.extend(address(Direction::Source, Operator::Equal, &Cidr::host(addr.addr())));
    rule.extend(match_network(Direction::Destination, Operator::NotEqual, addr));
    if let Some(network) = exempt.as_network() {
        rule.extend(match_network(Direction::Destination, Operator::NotEqual, &network));
    }
    if let Some(set) = set {
        rule.extend([load_address(Direction::Destination, ipv4), set]);
    }
    let random_fully = policy.random_fully;
    match policy.source(ipv4) {
        Some(source) => {
            rule.extend([Expression::Value(octets(source)), Expression::SourceNat { ipv4, random_fully }]);
        }
        None if random_fully => rule.push(Expression::MasqueradeFullyRandom),
        None => rule.push(Expression::Masquerade),
    }
    rule
}

fn exempt(policy: &Policy, addr: &Cidr) -> Intervals {
    Intervals::of(policy.exempt(addr.is_ipv4()), addr.is_ipv4())
}

fn needs_set(exempt: &Intervals) -> bool {
    !exempt.is_empty() && exempt.as_network().is_none()
}

pub fn remove(nft: &mut Nft, owner: &Owner) -> Result<(), Error> {
    nft.settle(|nft| {
        let mut batch = Batch::default();
        remove_owned(nft, &mut batch, owner)?;
        Ok(batch)
    })
}

fn remove_owned(nft: &mut Nft, batch: &mut Batch, owner: &Owner) -> Result<(), Error> {
    for rule in owned(nft, owner)? {
        batch.remove_rule(CHECKS, rule.handle());
    }
    Ok(())
}

/// Removes the rules of this network's attachments that are not valid, whichever suite made them.
pub fn remove_all_but(nft: &mut Nft, valid: &Valid) -> Result<(), Error> {
    nft.settle(|nft| {
        let mut batch = Batch::default();
        for rule in nft.rules(CHECKS)? {
            if rule.comment().is_some_and(|comment| valid.is_stale_comment(comment)) {
                batch.remove_rule(CHECKS, rule.handle());
            }
        }
        Ok(batch)
    })
}

pub fn check(owner: &Owner, policy: &Policy, addrs: &[Cidr]) -> Result<(), Error> {
    let mut nft = Nft::default();
    let goto = Expression::Verdict(Verdict::Goto(CHECKS.name.to_owned()));
    if !nft.rules(POSTROUTING)?.iter().any(|rule| rule.expressions() == [goto.clone()]) {
        return Err(missing(owner, format!("no rule of {POSTROUTING} leads to {}", CHECKS.name)));
    }
    let present: Vec<_> = owned(&mut nft, owner)?.iter().map(Rule::expressions).collect();
    for addr in addrs {
        let source = Some(Cidr::host(addr.addr()));
        let is_of_addr = |rule: &&Vec<_>| read_address(rule, Direction::Source, addr.is_ipv4()) == source;
        let mut rules = present.iter().filter(is_of_addr).peekable();
        if rules.peek().is_none() {
            return Err(missing(owner, format!("{CHECKS} has no rule for {addr}")));
        }
        // A second rule for the address, from an earlier life, must not say something else.
        for found in rules {
            if !is_wanted(&mut nft, policy, addr, found)? {
                return Err(missing(owner, format!("{CHECKS} has a rule for {addr} that says something else")));
            }
        }
    }
    Ok(())
}

/// Whether a rule is what [`add`] makes. Older nft programs mask whole bytes too.
fn is_wanted(nft: &mut Nft, policy: &Policy, addr: &Cidr, found: &[Expression]) -> Result<bool, Error> {
    let exempt = exempt(policy, addr);
    let set = found.iter().find(|expression| matches!(expression, Expression::Lookup { .. })).cloned();
    let same_set = match &set {
        Some(Expression::Lookup { set, inverted: true, .. }) => nft.elements(TABLE, set)? == exempt.elements(),
        Some(_) => false,
        None => !needs_set(&exempt),
    };
    let forms: [MatchAddress; 2] = [address, masked_address];
    Ok(same_set && forms.iter().any(|form| rule(policy, addr, &exempt, set.clone(), *form) == found))
}

/// The owner's rules. The hashes that the comment begins with are enough: the rest may be cut off.
fn owned(nft: &mut Nft, owner: &Owner) -> Result<Vec<Rule>, Error> {
    let prefix = owner.nft_comment_prefix();
    let mut rules = nft.rules(CHECKS)?;
    rules.retain(|rule| rule.comment().is_some_and(|comment| comment.starts_with(prefix.as_bytes())));
    Ok(rules)
}
