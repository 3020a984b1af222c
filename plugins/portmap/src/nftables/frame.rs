//! What all attachments share: the table, its chains, and the rules that lead to `hostports`.
//!
//! The reference's ADD writes `prerouting` and `output` anew, with the conditions of its own configuration. Ours makes of
//! them what they are here again: conditions are an attachment's own.

use hostnet::Error;
use hostnet::iptables::Version;
use hostnet::nft::{
    Batch, Chain, Expression, Family, Hook, InetHookNumber, Nft, Rule, Table, Verdict, destination_is_local, has_mark,
};

/// `ip cni_hostport` or `ip6 cni_hostport`.
pub fn table(version: Version) -> Table {
    let family = if version == Version::V4 { Family::Ip } else { Family::Ip6 };
    Table { family, name: "cni_hostport" }
}

/// The rules of attachments: where a port leads.
pub const HOSTPORTS: &str = "hostports";
/// The same of the reference before 1.9, for mappings with an address.
pub const OLD_HOSTPORTS: &str = "hostip_hostports";
/// The rules of attachments: what is masqueraded.
pub const MASQUERADING: &str = "masquerading";
const ALL: &str = "hostports_all";

const COMMENT: &str = "CNI portmap plugin";

/// Priorities `dstnat` and `srcnat` (`NF_IP_PRI_NAT_DST`, `NF_IP_PRI_NAT_SRC`).
const fn hook(at: InetHookNumber, priority: i32) -> Hook {
    Hook { kind: "nat", at, priority }
}

/// Makes what is not there as it should be.
///
/// # Errors
/// The kernel's refusal.
pub fn ensure(nft: &mut Nft, batch: &mut Batch, version: Version) -> Result<(), Error> {
    let table = table(version);
    batch.ensure_table(table, Some(COMMENT));
    for name in [HOSTPORTS, OLD_HOSTPORTS] {
        if !nft.has_chain(table.chain(name))? {
            batch.create_chain(table.chain(name), None, None);
        }
    }
    let mut entry = destination_is_local().to_vec();
    entry.push(jump(ALL));
    for (name, hook, rules) in [
        (ALL, None, vec![vec![jump(OLD_HOSTPORTS)], vec![jump(HOSTPORTS)]]),
        ("prerouting", Some(hook(InetHookNumber::PreRouting, -100)), vec![entry.clone()]),
        ("output", Some(hook(InetHookNumber::LocalOut, -100)), vec![entry]),
    ] {
        fill(nft, batch, table.chain(name), hook, &rules)?;
    }
    Ok(())
}

/// Makes what is not there of the chain that masquerades, whose rules are `present`, and its rule for this mark.
///
/// # Errors
/// The kernel's refusal.
pub fn ensure_masquerading(
    nft: &mut Nft,
    batch: &mut Batch,
    version: Version,
    present: &[Rule],
    bit: Option<u32>,
) -> Result<(), Error> {
    let chain = table(version).chain(MASQUERADING);
    if present.is_empty() && !nft.has_chain(chain)? {
        batch.create_chain(chain, Some(hook(InetHookNumber::PostRouting, 100)), None);
    }
    if let Some(bit) = bit
        && !present.iter().any(|rule| is_marked(rule, bit))
    {
        batch.append_rule(chain, marked(bit), Some(MARKED_COMMENT.as_bytes()));
    }
    Ok(())
}

const MARKED_COMMENT: &str = "CNI portfwd requiring masquerade";

/// `meta mark & 0x2000 == 0x2000 masquerade`
fn marked(bit: u32) -> Vec<Expression> {
    let mut rule = has_mark(bit).to_vec();
    rule.push(Expression::Masquerade);
    rule
}

/// To take every pod's rule apart would take long on a node with many.
fn is_marked(rule: &Rule, bit: u32) -> bool {
    rule.comment() == Some(MARKED_COMMENT.as_bytes()) && rule.expressions() == marked(bit)
}

fn fill(
    nft: &mut Nft,
    batch: &mut Batch,
    chain: Chain<'_>,
    hook: Option<Hook>,
    rules: &[Vec<Expression>],
) -> Result<(), Error> {
    if !nft.has_chain(chain)? {
        batch.create_chain(chain, hook, None);
    } else {
        let present = nft.rules(chain)?;
        if present.iter().map(Rule::expressions).eq(rules.iter().cloned()) {
            return Ok(());
        }
        if !present.is_empty() {
            batch.flush_chain(chain);
        }
    }
    for rule in rules {
        batch.append_rule(chain, rule.clone(), None);
    }
    Ok(())
}

/// What of it is missing. The reference's own rules may have conditions before the jump.
///
/// # Errors
/// The kernel's refusal.
pub fn missing(nft: &mut Nft, version: Version, bit: Option<u32>) -> Result<Option<String>, Error> {
    let table = table(version);
    for (name, to) in [("prerouting", ALL), ("output", ALL), (ALL, HOSTPORTS)] {
        let chain = table.chain(name);
        if !nft.rules(chain)?.iter().any(|rule| rule.expressions().ends_with(&[jump(to)])) {
            return Ok(Some(format!("no rule of chain {chain} leads to {to}")));
        }
    }
    if let Some(bit) = bit {
        let chain = table.chain(MASQUERADING);
        if !nft.rules(chain)?.iter().any(|rule| is_marked(rule, bit)) {
            return Ok(Some(format!("{chain} has no rule for the mark {bit:#x}")));
        }
    }
    Ok(None)
}

/// A jump within the table.
pub fn jump(to: &str) -> Expression {
    Expression::Verdict(Verdict::Jump(to.to_owned()))
}
