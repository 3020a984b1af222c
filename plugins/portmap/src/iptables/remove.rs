//! Taking away the rules that iptables keeps for an attachment, of whichever flavour, and those of attachments that are no
//! more. Over netlink where they are in nf_tables: that needs no process. A chain goes at the same moment as what leads to it.

use std::collections::HashSet;

use hostnet::iptables::{Iptables, Version};
use hostnet::nft::{Batch, Expression, Nft, Rule, Verdict};
use hostnet::{Error, Owner};
use libcni::types::NetworkName;

use super::listing::{Listing, is_of_network};
use super::rules::{ENTRIES, OLD_ENTRIES};
use super::{NAT, lock};

/// An attachment's chains, each with the chain that leads to it.
fn chains(owner: &Owner) -> [(&'static str, String); 3] {
    [
        (ENTRIES, owner.hostport_chain()),
        (ENTRIES, owner.own_hostport_chain()),
        (OLD_ENTRIES, owner.old_hostport_chain()),
    ]
}

/// Removes what the nf_tables flavour keeps.
///
/// # Errors
/// Something is left.
pub fn remove_nft(nft: &mut Nft, owner: &Owner) -> Result<(), Error> {
    nft.settle(|nft| {
        let mut batch = Batch::default();
        for version in Version::ALL {
            let table = version.nft_nat();
            for (from, name) in chains(owner) {
                let chain = table.chain(&name);
                if !nft.has_chain(chain)? || is_others(&nft.rules(chain)?, owner) {
                    continue;
                }
                let jump = Expression::Verdict(Verdict::Jump(name.clone()));
                for rule in nft.rules(table.chain(from))? {
                    // To take every pod's rule apart would take long on a node with many.
                    if rule.mentions(&name) && rule.expressions().contains(&jump) {
                        batch.remove_rule(table.chain(from), rule.handle());
                    }
                }
                batch.remove_chain(chain);
            }
        }
        Ok(batch)
    })
}

/// Whether a chain has a tag, and it is not this owner's: that of another interface of the container.
fn is_others(rules: &[Rule], owner: &Owner) -> bool {
    let tags = || rules.iter().filter(|rule| rule.mentions(", net: "));
    tags().next().is_some() && !tags().any(|rule| rule.mentions(&owner.nft_comment_prefix()))
}

/// Removes what the legacy flavour keeps. No program is started where it has no table `nat`.
///
/// # Errors
/// Something is left.
pub fn remove_legacy(owner: &Owner) -> Result<(), Error> {
    let mut outcome = Ok(());
    let of_owner = |listing: &Listing| {
        let mut commands = Vec::new();
        for (from, chain) in chains(owner) {
            if listing.is_of(&chain, owner) {
                commands.extend(listing.removal(from, &chain));
            }
        }
        commands
    };
    for version in Version::ALL {
        outcome = outcome.and(match Iptables::get_legacy(version, NAT) {
            Ok(Some(iptables)) => remove_by(&iptables, of_owner),
            other => other.map(drop),
        });
    }
    outcome
}

fn remove_by(iptables: &Iptables, plan: impl Fn(&Listing) -> Vec<String>) -> Result<(), Error> {
    let _lock = lock()?;
    let mut attempt = 1;
    loop {
        let commands = plan(&Listing::read(iptables)?);
        if commands.is_empty() {
            return Ok(());
        }
        match iptables.restore(NAT, &commands) {
            Err(_) if attempt < super::ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// Removes what either flavour keeps for attachments of this network that are not valid.
///
/// # Errors
/// Something is left.
pub fn remove_all_but(network: &NetworkName, valid: &[Owner]) -> Result<(), Error> {
    let mut outcome = Ok(());
    for version in Version::ALL {
        let mut programs: Vec<Iptables> = Iptables::find(version).into_iter().collect();
        match Iptables::get_legacy(version, NAT) {
            Ok(legacy) => programs.extend(legacy),
            Err(error) => outcome = outcome.and(Err(error)),
        }
        for iptables in programs {
            let removed = remove_by(&iptables, |listing| stale(listing, network, valid));
            // A node without IPv6 has no rules for it, though it may have the program.
            outcome = outcome.and(removed.or_else(|error| if iptables.is_usable() { Err(error) } else { Ok(()) }));
        }
    }
    outcome
}

/// The commands that remove the chains of a network's attachments that are not valid. A chain of the reference does not
/// say of which interface it is: it stays as long as its container has a valid one.
fn stale(listing: &Listing, network: &NetworkName, valid: &[Owner]) -> Vec<String> {
    let tags: HashSet<String> = valid.iter().map(Owner::nft_comment_prefix).collect();
    let chains: HashSet<String> = valid.iter().map(Owner::hostport_chain).collect();
    let keep = |chain: &str, tag: Option<String>| match tag {
        Some(tag) => tag.split(',').next().is_some_and(|tag| tags.contains(tag)),
        None => chains.contains(chain),
    };
    let network_hash = Owner::nft_network_prefix(network);
    let is_of_the_network = |chain: &str, tag: Option<&String>| match tag {
        Some(tag) => tag.starts_with(&network_hash),
        None => listing.jumps(ENTRIES, chain).iter().any(|entry| is_of_network(entry, network.as_str())),
    };
    let mut commands = Vec::new();
    for chain in listing.chains() {
        let tag = listing.tag(chain);
        if is_of_the_network(chain, tag.as_ref()) && !keep(chain, tag) {
            commands.extend(listing.removal(ENTRIES, chain));
        }
    }
    commands
}
