//! A glance at what iptables keeps in nf_tables, over netlink: whether an ADD is the plain one that most are. Then all that
//! is shared is there, nothing of this attachment is, nobody has its ports, and the rules can be written without a
//! program that lists the table first.

use std::collections::HashSet;

use hostnet::Error;
use hostnet::nft::{self, Expression, MetaKey, Nft, Operator, Verdict};

use super::rules::{ENTRIES, MASQUERADE, SET_MARK};
use crate::pod::Forward;

/// `struct xt_multiport_v1` of linux/netfilter/xt_multiport.h: flags, count, 15 ports of two bytes...
const MULTIPORT_PORTS: usize = 2;

/// Whether this is such an ADD.
///
/// # Errors
/// The kernel's refusal.
pub fn is_plain(forward: &Forward<'_>) -> Result<bool, Error> {
    let mut nft = Nft::default();
    let table = forward.version.nft_nat();
    let (base, own) = (forward.owner.hostport_chain(), forward.owner.own_hostport_chain());
    for chain in [&base, &own] {
        if nft.has_chain(table.chain(chain))? {
            return Ok(false);
        }
    }
    for from in ["PREROUTING", "OUTPUT"] {
        if !jumps_once(&mut nft, table.chain(from), ENTRIES)? {
            return Ok(false);
        }
    }
    if let Some(bit) = forward.masquerade.bit()
        && !(jumps_once(&mut nft, table.chain("POSTROUTING"), MASQUERADE)?
            && is_about_mark(&mut nft, table.chain(SET_MARK), bit)?
            && is_about_mark(&mut nft, table.chain(MASQUERADE), bit)?)
    {
        return Ok(false);
    }
    let wanted: HashSet<u16> = forward.mappings.iter().map(|mapping| mapping.host_port.get()).collect();
    Ok(nft.rules(table.chain(ENTRIES))?.iter().all(|rule| !may_have(rule, &wanted)))
}

/// Whether one rule leads there, and has nothing but what ours has: a match of an extension, a counter, the jump.
fn jumps_once(nft: &mut Nft, chain: nft::Chain<'_>, to: &str) -> Result<bool, Error> {
    let jump = Expression::Verdict(Verdict::Jump(to.to_owned()));
    let mut rules = nft.rules(chain)?;
    rules.retain(|rule| rule.mentions(to) && rule.expressions().contains(&jump));
    Ok(matches!(rules.as_slice(), [rule] if rule.expressions().len() <= 3))
}

/// Whether the chain's one rule sets or asks for this bit. Versions of iptables write it as an extension, whose structure
/// begins with mark and mask, or as nf_tables' own.
fn is_about_mark(nft: &mut Nft, chain: nft::Chain<'_>, bit: u32) -> Result<bool, Error> {
    let rules = nft.rules(chain)?;
    let [rule] = rules.as_slice() else { return Ok(false) };
    let bytes = bit.to_ne_bytes();
    let expressions = rule.expressions();
    let asks = expressions.contains(&Expression::Meta(MetaKey::Mark))
        && expressions.contains(&Expression::Compare(Operator::Equal, bytes.to_vec()));
    Ok(asks || rule.contains(&[bytes, bytes].concat()) || expressions.ends_with(&nft::set_mark(bit)))
}

/// Whether an entry may be for one of these ports; one that we cannot read may.
fn may_have(rule: &nft::Rule, wanted: &HashSet<u16>) -> bool {
    let Some(info) = rule.extension("multiport") else { return true };
    let count = usize::from(info.get(1).copied().unwrap_or_default());
    let ports = info.get(MULTIPORT_PORTS..).unwrap_or_default().chunks_exact(2).take(count);
    let mut ports = ports.filter_map(|port| Some(u16::from_ne_bytes(port.try_into().ok()?)));
    ports.any(|port| wanted.contains(&port))
}
