//! A glance at what iptables keeps in nf_tables, over netlink: whether a container's rules are there to the letter. Then no
//! program has to be asked, which takes longer than all else in a CHECK. A glance says yes or nothing: whether a chain
//! that looks otherwise is right as well, and what it lacks, iptables itself is to say.

use super::iptables::{ACCEPT, NAT, POSTROUTING, Rules};
use super::nftables::MatchAddress;
use crate::error::Error;
use crate::iptables::Rule;
use crate::nft::{self, Direction, Expression, Nft, Operator, Verdict};

/// `struct xt_comment_info` is the text and NULs.
const COMMENT: &str = "comment";
const MASQUERADE: &str = "MASQUERADE";

/// Whether the chain consists of these rules, in this order, and is jumped to by these.
///
/// # Errors
/// The kernel's refusal.
pub fn is_there(rules: &Rules, chain: &str) -> Result<bool, Error> {
    let mut nft = Nft::default();
    let table = rules.version.nft_table(NAT);
    let present = nft.rules(table.chain(chain))?;
    if present.len() != rules.chain.len() || !present.iter().zip(&rules.chain).all(|(have, want)| is(have, want)) {
        return Ok(false);
    }
    let mut jumps = nft.rules(table.chain(POSTROUTING))?;
    // To take every pod's rule apart would take long on a node with many.
    jumps.retain(|rule| rule.mentions(chain));
    Ok(rules.jumps.iter().all(|want| jumps.iter().any(|have| is(have, want))))
}

/// Whether it is this rule, as some version of iptables writes it.
fn is(have: &nft::Rule, want: &Rule) -> bool {
    let comment = have.extension(COMMENT).and_then(|text| text.split(|byte| *byte == 0).next()).or(have.comment());
    if comment != Some(want.comment.as_bytes()) {
        return false;
    }
    let uncounted = |expression: &Expression| *expression != Expression::Other("counter".to_owned());
    let mut expressions = have.expressions();
    expressions.retain(uncounted);
    // There is one match, the comment's, if it is not beside the rule.
    let matches = expressions.iter().filter(|expression| is_extension(expression, "match")).count();
    if matches != usize::from(have.extension(COMMENT).is_some()) {
        return false;
    }
    expressions.retain(|expression| !is_extension(expression, "match"));
    let Some((target, addresses)) = expressions.split_last() else { return false };
    let forms: [MatchAddress; 2] = [nft::address, nft::masked_address];
    is_target(have, target, &want.target) && forms.iter().any(|form| written(want, *form) == addresses)
}

fn is_extension(expression: &Expression, kind: &str) -> bool {
    matches!(expression, Expression::Other(name) if name == kind)
}

fn written(want: &Rule, form: MatchAddress) -> Vec<Expression> {
    let source = want.source.map(|network| form(Direction::Source, Operator::Equal, &network));
    let destination = want.destination.map(|network| form(Direction::Destination, Operator::Equal, &network));
    let outside = want.not_destination.map(|network| form(Direction::Destination, Operator::NotEqual, &network));
    [source, destination, outside].into_iter().flatten().flatten().collect()
}

/// Targets with options are left to iptables.
fn is_target(have: &nft::Rule, expression: &Expression, want: &str) -> bool {
    match expression {
        Expression::Verdict(Verdict::Accept) => want == ACCEPT,
        Expression::Verdict(Verdict::Jump(chain)) => want == chain,
        Expression::Masquerade => want == MASQUERADE,
        other => {
            want == MASQUERADE && is_extension(other, "target") && have.extension(MASQUERADE).is_some_and(is_plain)
        }
    }
}

/// Whether a range of addresses and ports, which the target has for its options, says nothing: zeros, but for the number of
/// ranges that IPv4's begins with.
fn is_plain(range: &[u8]) -> bool {
    range.strip_prefix(&1u32.to_ne_bytes()).unwrap_or(range).iter().all(|byte| *byte == 0)
}
