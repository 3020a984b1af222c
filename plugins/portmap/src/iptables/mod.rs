//! Port mappings with iptables: chains in table `nat` that all attachments share, and one for each attachment.
//!
//! ADD is one `iptables-restore` per IP version: the chain of the attachment is emptied and filled, and its entries are put
//! before those of others, all at once. What is shared is looked at first, over netlink where iptables keeps its rules
//! in nf_tables, else with a listing. ADDs take turns: what each adds to the shared chains depends on what it saw, and
//! `iptables-restore` itself is not safe against another one that makes the same chain.

mod glance;
mod listing;
mod remove;
mod rules;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use hostnet::Error;
use hostnet::iptables::{Iptables, Version};
use hostnet::lock::Lock;
use hostnet::ports::Ports;

pub use remove::{remove_all_but, remove_legacy, remove_nft};

use self::listing::{Listing, is_tag, own_chains, removal};
use self::rules::{ENTRIES, Entry, MASQUERADE, SET_MARK};
use crate::conf::Mark;
use crate::pod::Forward;

const NAT: &str = "nat";

/// Held while the shared chains are looked at and changed.
const LOCK: &str = "/run/cni/portmap.lock";
/// The longest of iptables' own waits, many times.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody else changed the table between our look and our change: kube-proxy, the reference.
const ATTEMPTS: usize = 3;

/// Whether the reference would call iptables usable. It asks the IPv4 program alone.
pub fn is_usable() -> bool {
    Iptables::find(Version::V4).is_ok_and(|iptables| iptables.is_usable())
}

/// Takes the turn. Where no file can be made, as without privileges in a user namespace, there are few to take turns with.
fn lock() -> Result<Option<Lock>, Error> {
    match Lock::take(Path::new(LOCK), PATIENCE) {
        Err(error) if matches!(error.errno(), Some(libc::EROFS | libc::EACCES | libc::EPERM)) => Ok(None),
        lock => lock.map(Some),
    }
}

/// Makes the rules of one IP version, in place of what an earlier ADD made for the same attachment.
///
/// # Errors
/// Nothing was changed.
pub fn add(forward: &Forward<'_>) -> Result<(), Error> {
    let iptables = Iptables::find(forward.version)?;
    let _lock = lock()?;
    if iptables.is_nft() && glance::is_plain(forward).unwrap_or(false) {
        let chain = forward.owner.hostport_chain();
        return iptables.restore(NAT, &of_attachment(forward, &chain));
    }
    let mut attempt = 1;
    loop {
        let listing = Listing::read(&iptables)?;
        for (holder, taken) in listing.holders(&Ports::of(forward.mappings()), &own_chains(forward.owner)) {
            taken.into_iter().for_each(|mapping| holder.report(mapping, forward.owner));
        }
        match iptables.restore(NAT, &plan(forward, &listing)) {
            Err(_) if attempt < ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// All that is missing, and what an earlier ADD left.
fn plan(forward: &Forward<'_>, listing: &Listing) -> Vec<String> {
    let mut commands = Vec::new();
    if let Some(bit) = forward.masquerade.bit() {
        for (chain, rule) in [(SET_MARK, rules::set_mark(bit)), (MASQUERADE, rules::masquerade(bit))] {
            if listing.rules(chain) != [rule.as_str()] {
                commands.extend([empty(chain), rule]);
            }
        }
        let jump = rules::masquerade_jump();
        let first = jump.replacen("-A POSTROUTING", "-I POSTROUTING 1", 1);
        commands.extend(once(listing, "POSTROUTING", &jump, first));
    }
    if !listing.has_chain(ENTRIES) {
        commands.push(format!("-N {ENTRIES}"));
    }
    for from in ["PREROUTING", "OUTPUT"] {
        let jump = rules::entry_jump(from);
        commands.extend(once(listing, from, &jump, jump.clone()));
    }
    let chosen = listing.chain_for(forward.owner);
    for chain in own_chains(forward.owner) {
        if chain == chosen {
            commands.extend(listing.jumps(ENTRIES, &chain).into_iter().map(removal));
        } else if listing.is_of(&chain, forward.owner) {
            commands.extend(listing.removal(ENTRIES, &chain));
        }
    }
    commands.extend(of_attachment(forward, &chosen));
    commands
}

/// The command that makes a rule if it is not there, or the removal of those that are too many: the reference's ADDs, at
/// once, make several. Somebody else's rule that leads to the same chain, for some packets only, is not this one.
fn once(listing: &Listing, chain: &str, rule: &str, command: String) -> Vec<String> {
    match listing.rules(chain).iter().filter(|present| **present == rule).count() {
        0 => vec![command],
        present => vec![removal(rule); present - 1],
    }
}

/// The attachment's chain, emptied if it is there, its rules, and its entries before all others.
fn of_attachment(forward: &Forward<'_>, chain: &str) -> Vec<String> {
    let mut commands = vec![empty(chain)];
    commands.extend(rules::of_chain(forward, chain));
    commands.push(rules::tag(chain, forward.owner));
    for (index, entry) in Entry::all(forward.mappings).iter().enumerate() {
        let rule = entry.matches(forward.owner, forward.condition_words(), chain);
        commands.push(format!("-I {ENTRIES} {} {rule}", index + 1));
    }
    commands
}

/// A chain without rules, in the form of saved tables: it is made if need be.
fn empty(chain: &str) -> String {
    format!(":{chain} - [0:0]")
}

/// Compares the rules of one IP version with what [`add`] makes, and with what the reference does.
///
/// # Errors
/// What is missing or different.
pub fn check(forward: &Forward<'_>) -> Result<(), Error> {
    let listing = Listing::read(&Iptables::find(forward.version)?)?;
    let chain = listing.chain_of(forward.owner);
    let wrong = |what: String| {
        let doing =
            format!("check the port mappings of container {} for {:?}", forward.owner.container, forward.version);
        Err(Error::other(doing, what))
    };
    if !listing.has_chain(&chain) || !listing.is_of(&chain, forward.owner) {
        return wrong(format!("chain {chain} not found in iptables table nat"));
    }
    let mut present = listing.rules(&chain);
    present.retain(|rule| !is_tag(rule));
    let wanted = rules::of_chain(forward, &chain);
    if present != wanted {
        return wrong(format!("chain {chain} has the rules {present:?} in place of {wanted:?}"));
    }
    let entries: HashSet<&str> = listing.jumps(ENTRIES, &chain).into_iter().collect();
    for entry in Entry::all(forward.mappings) {
        if !has_entry(&entries, &entry, forward, &chain) {
            return wrong(format!(
                "{ENTRIES} has no rule that leads from {} ports {:?} to {chain}",
                entry.protocol, entry.ports
            ));
        }
    }
    for from in ["PREROUTING", "OUTPUT"] {
        if !listing.rules(from).contains(&rules::entry_jump(from).as_str()) {
            return wrong(format!("{from} has no rule that leads to {ENTRIES}"));
        }
    }
    if let Some(bit) = forward.masquerade.bit() {
        let wanted = [rules::set_mark(bit), rules::masquerade(bit), rules::masquerade_jump()];
        for (chain, rule) in [SET_MARK, MASQUERADE, "POSTROUTING"].into_iter().zip(&wanted) {
            if !listing.rules(chain).contains(&rule.as_str()) {
                return wrong(format!("table nat lacks the rule {rule}"));
            }
        }
    }
    if let Some(Mark::Chain(external)) = forward.masquerade.mark()
        && !listing.has_chain(external)
    {
        return wrong(format!("externalSetMarkChain: there is no chain {external}"));
    }
    Ok(())
}

/// Whether an entry is there. How iptables prints conditions only iptables knows, so with them the words before and
/// behind are compared.
fn has_entry(entries: &HashSet<&str>, entry: &Entry, forward: &Forward<'_>, chain: &str) -> bool {
    let conditions = forward.condition_words();
    let wanted = format!("-A {ENTRIES} {}", entry.matches(forward.owner, &[], chain));
    if conditions.is_empty() {
        return entries.contains(wanted.as_str());
    }
    let matches =
        wanted.strip_prefix(&format!("-A {ENTRIES} ")).and_then(|rule| rule.strip_suffix(&format!(" -j {chain}")));
    entries.iter().any(|rule| matches.is_some_and(|matches| rule.contains(matches)) && rule.len() > wanted.len())
}
