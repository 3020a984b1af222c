//! What iptables keeps for attachments that are no more, of whichever flavour and suite.
//!
//! Whose a rule is, its comment says. The chain's name does not: it is a hash of network and container with nothing in
//! between, so that container `bc` on network `a` has the same chain as container `c` on network `ab`. A chain goes when
//! all that leads to it goes; one that nothing leads to (the reference makes it first, and removes it last) is told by its
//! own rules.

use std::collections::BTreeMap;

use super::iptables::{EXEMPT, NAT, POSTROUTING};
use crate::error::Error;
use crate::iptables::{Iptables, Rule, Version};
use crate::nft::{self, Batch, Expression, Nft, Verdict};
use crate::valid::Valid;

/// What a chain's name begins with; 24 hex digits follow.
const PREFIX: &str = "CNI-";
const DIGITS: usize = 24;

/// How often the legacy tables are changed anew when somebody else changed them in between.
const ATTEMPTS: usize = 5;

/// Whether a chain is an attachment's, by its name. Other plugins have chains that begin alike.
fn is_chain(name: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.strip_prefix(PREFIX).is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(is_digit))
}

/// Whether all who have rules in a chain are gone, by the comments of its rules.
fn is_deserted(comments: &[String], valid: &Valid) -> bool {
    let mut owned = comments.iter().filter(|comment| *comment != EXEMPT).peekable();
    owned.peek().is_some() && owned.all(|comment| valid.is_stale_container(comment))
}

/// Removes what the nf_tables flavour keeps. Needs no program.
pub fn remove_nft(nft: &mut Nft, valid: &Valid) -> Result<(), Error> {
    nft.settle(|nft| {
        let mut batch = Batch::default();
        for version in Version::ALL {
            plan_nft(nft, version, valid, &mut batch)?;
        }
        Ok(batch)
    })
}

fn plan_nft(nft: &mut Nft, version: Version, valid: &Valid, batch: &mut Batch) -> Result<(), Error> {
    let table = version.nft_nat();
    let chains: Vec<String> = nft.chains(table)?.into_iter().filter(|name| is_chain(name)).collect();
    if chains.is_empty() {
        return Ok(());
    }
    let postrouting = table.chain(POSTROUTING);
    let mut is_used = BTreeMap::new();
    for rule in nft.rules(postrouting)? {
        let Some(chain) = target(&rule) else { continue };
        let is_stale = valid.is_stale_container(&comment(&rule));
        if is_stale {
            batch.remove_rule(postrouting, rule.handle());
        }
        *is_used.entry(chain).or_insert(false) |= !is_stale;
    }
    for name in &chains {
        let chain = table.chain(name);
        let is_left = match is_used.get(name) {
            Some(is_used) => !is_used,
            None => is_deserted(&nft.rules(chain)?.iter().map(comment).collect::<Vec<_>>(), valid),
        };
        if is_left {
            batch.remove_chain(chain);
        }
    }
    Ok(())
}

/// The chain that a rule of POSTROUTING jumps to, if it is an attachment's.
fn target(rule: &nft::Rule) -> Option<String> {
    // To take apart every rule that others have there would take long.
    if !rule.mentions(PREFIX) {
        return None;
    }
    rule.expressions().into_iter().find_map(|expression| match expression {
        Expression::Verdict(Verdict::Jump(chain)) if is_chain(&chain) => Some(chain),
        _ => None,
    })
}

/// The comment of a rule that iptables made: an extension of its own (`struct xt_comment_info`), or nf_tables' way.
fn comment(rule: &nft::Rule) -> String {
    let text = rule.extension("comment").or_else(|| rule.comment()).unwrap_or_default();
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Removes what the legacy flavour keeps. No program is started where it has no table `nat`.
pub fn remove_legacy(valid: &Valid) -> Result<(), Error> {
    let mut outcome = Ok(());
    for version in Version::ALL {
        outcome = outcome.and(match Iptables::get_legacy(version, NAT) {
            Ok(Some(iptables)) => remove_legacy_version(&iptables, valid),
            other => other.map(drop),
        });
    }
    outcome
}

fn remove_legacy_version(iptables: &Iptables, valid: &Valid) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        let commands = plan_legacy(&iptables.list_table(NAT)?, valid);
        if commands.is_empty() {
            return Ok(());
        }
        match iptables.restore(NAT, &commands) {
            Err(_) if attempt < ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// The commands that remove what is stale in a table.
fn plan_legacy(table: &[String], valid: &Valid) -> Vec<String> {
    let rules: Vec<Rule> = table.iter().filter_map(|line| Rule::read(line)).collect();
    let (mut jumps, mut emptied, mut chains) = (Vec::new(), Vec::new(), Vec::new());
    for name in table.iter().filter_map(|line| line.strip_prefix("-N ")).filter(|name| is_chain(name)) {
        let leading: Vec<&Rule> =
            rules.iter().filter(|rule| rule.chain == POSTROUTING && rule.target == *name).collect();
        let stale = leading.iter().filter(|rule| valid.is_stale_container(&rule.comment));
        let removals: Vec<String> = stale.map(|rule| rule.removal()).collect();
        let comments = || rules.iter().filter(|rule| rule.chain == name).map(|rule| rule.comment.clone());
        let is_left = match leading.len() {
            0 => is_deserted(&comments().collect::<Vec<_>>(), valid),
            all => removals.len() == all,
        };
        jumps.extend(removals);
        if is_left {
            emptied.push(format!("-F {name}"));
            chains.push(format!("-X {name}"));
        }
    }
    [jumps, emptied, chains].concat()
}
