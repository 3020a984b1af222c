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
//! ADD does not read the rules of other pods. So a repeated ADD without DEL leaves a second rule, which
//! does no harm, and which DEL removes with the first: it removes by comment.

use libcni::types::Cidr;

use super::{missing, multicast};
use crate::error::Error;
use crate::nft::{
    Batch, Chain, Direction, Expression, Family, Hook, InetHookNumber, Nft, Operator, Rule, Table, Verdict, address,
    ip_version, masked_address,
};
use crate::owner::Owner;

const TABLE: Table = Table { family: Family::Inet, name: "cni_plugins_masquerade" };
const CHECKS: Chain<'static> = TABLE.chain("masq_checks");
const POSTROUTING: Chain<'static> = TABLE.chain("postrouting");

/// Priority `srcnat` (`NF_IP_PRI_NAT_SRC`).
const HOOK: Hook = Hook { kind: "nat", at: InetHookNumber::PostRouting, priority: 100 };

const TABLE_COMMENT: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
const CHECKS_COMMENT: &str = "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";

type MatchAddress = fn(Direction, Operator, &Cidr) -> Vec<Expression>;

pub fn add(owner: &Owner, addrs: &[Cidr]) -> Result<(), Error> {
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
        for addr in addrs {
            batch.append_rule(CHECKS, masquerade(addr, address), Some(&comment));
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

/// `ip saddr ADDR ip daddr != NETWORK masquerade`
fn masquerade(addr: &Cidr, match_network: MatchAddress) -> Vec<Expression> {
    let mut rule = ip_version(addr.is_ipv4()).to_vec();
    rule.extend(address(Direction::Source, Operator::Equal, &Cidr::host(addr.addr())));
    rule.extend(match_network(Direction::Destination, Operator::NotEqual, addr));
    rule.push(Expression::Masquerade);
    rule
}

pub fn remove(nft: &mut Nft, owner: &Owner) -> Result<(), Error> {
    nft.settle(|nft| {
        let mut batch = Batch::default();
        for rule in owned(nft, owner)? {
            batch.remove_rule(CHECKS, rule.handle());
        }
        Ok(batch)
    })
}

pub fn check(owner: &Owner, addrs: &[Cidr]) -> Result<(), Error> {
    let mut nft = Nft::default();
    let goto = Expression::Verdict(Verdict::Goto(CHECKS.name.to_owned()));
    if !nft.rules(POSTROUTING)?.iter().any(|rule| rule.expressions() == [goto.clone()]) {
        return Err(missing(owner, format!("no rule of {POSTROUTING} leads to {}", CHECKS.name)));
    }
    let present: Vec<_> = owned(&mut nft, owner)?.iter().map(Rule::expressions).collect();
    for addr in addrs {
        // Older nft programs mask whole bytes too.
        let forms: [MatchAddress; 2] = [address, masked_address];
        if !forms.iter().any(|form| present.contains(&masquerade(addr, *form))) {
            return Err(missing(owner, format!("{CHECKS} has no rule for {addr}")));
        }
    }
    Ok(())
}

/// The owner's rules. The hashes that the comment begins with are enough: the rest may be cut off.
fn owned(nft: &mut Nft, owner: &Owner) -> Result<Vec<Rule>, Error> {
    let prefix = owner.nft_comment_prefix();
    let mut rules = nft.rules(CHECKS)?;
    rules.retain(|rule| rule.comment().is_some_and(|comment| comment.starts_with(prefix.as_bytes())));
    Ok(rules)
}
