//! Port mappings in nf_tables, over netlink: table `cni_hostport` of each IP version, as the reference lays it out.
//!
//! ADD puts an attachment's rules before those of others, in the place of what an earlier ADD made for it: all in one
//! transaction. Only conditions need the `nft` program.

mod conditions;
mod frame;
mod rules;

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use hostnet::iptables::Version;
use hostnet::nft::{self, Batch, Nft, Rule};
use hostnet::ports::Ports;
use hostnet::{Error, Owner};
use libcni::types::NetworkName;

use self::frame::{HOSTPORTS, MASQUERADING, OLD_HOSTPORTS, table};
use crate::holder::Holder;
use crate::pod::Forward;

/// The chains that hold rules of attachments.
const CHAINS: [&str; 3] = [HOSTPORTS, OLD_HOSTPORTS, MASQUERADING];

/// Makes the rules, in place of what an earlier ADD made for the same attachment.
///
/// # Errors
/// Some may be there.
pub fn add(forwards: &[Forward<'_>]) -> Result<(), Error> {
    conditions::ensure(forwards)?;
    let mut nft = Nft::default();
    forwards.iter().try_for_each(|forward| add_version(&mut nft, forward))
}

fn add_version(nft: &mut Nft, forward: &Forward<'_>) -> Result<(), Error> {
    let mut reported = false;
    let ports = Ports::of(forward.mappings());
    nft.settle(|nft| {
        let mut batch = Batch::default();
        let table = table(forward.version);
        frame::ensure(nft, &mut batch, forward.version)?;
        for name in CHAINS {
            let chain = table.chain(name);
            let present = nft.rules(chain)?;
            if name == MASQUERADING && forward.masquerade.mark().is_some() {
                frame::ensure_masquerading(nft, &mut batch, forward.version, &present, forward.masquerade.bit())?;
            }
            for rule in present {
                if belongs(&rule, forward.owner, &[forward.pod.addr()], forward.version) {
                    batch.remove_rule(chain, rule.handle());
                } else if !reported && name != MASQUERADING {
                    report_holder(&rule, &ports, forward);
                }
            }
        }
        reported = true;
        let conditions = conditions::chain(forward.owner);
        if forward.condition_words().is_empty() && nft.has_chain(table.chain(&conditions))? {
            batch.remove_chain(table.chain(&conditions));
        }
        let parts = [(HOSTPORTS, rules::of_hostports(forward)), (MASQUERADING, rules::of_masquerading(forward))];
        let (comment, tag) = (forward.owner.container.as_str().as_bytes(), forward.owner.nft_comment());
        for (name, rules) in parts {
            // Each goes before the one before it.
            for rule in rules.into_iter().rev() {
                batch.insert_rule(table.chain(name), rule, comment, &tag);
            }
        }
        Ok(batch)
    })
}

/// Whether a rule is the owner's. One without a tag is the reference's: it says of which container it is, and by where it
/// leads, of which of its interfaces. An interface whose addresses are not known has all of them.
fn belongs(rule: &Rule, owner: &Owner, addrs: &[IpAddr], version: Version) -> bool {
    if let Some(tag) = rule.tag() {
        return tag.starts_with(owner.nft_comment_prefix().as_bytes());
    }
    if rule.comment() != Some(owner.container.as_str().as_bytes()) {
        return false;
    }
    let expressions = rule.expressions();
    let ipv4 = version == Version::V4;
    let to = nft::read_dnat(&expressions).map(|to| to.ip());
    let to = to.or_else(|| Some(nft::read_address(&expressions, nft::Direction::Destination, ipv4)?.addr()));
    addrs.is_empty() || to.is_none_or(|to| addrs.contains(&to))
}

fn report_holder(rule: &Rule, ports: &Ports<'_>, forward: &Forward<'_>) {
    // To take every pod's rule apart would take long on a node with many.
    if !rule.values().any(|value| !ports.on(u16::from_be_bytes(value)).is_empty()) {
        return;
    }
    let Some((theirs, _)) = rules::read(&rule.expressions(), forward.version) else { return };
    for mapping in ports.overlapping(theirs) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let of_tag = rule.tag().map(|tag| Holder::of_tag(&text(tag))).unwrap_or_default();
        Holder { container: rule.comment().map(text), ..of_tag }.report(mapping, forward.owner);
    }
}

/// Removes the owner's rules. `addrs` are its addresses as far as they are known: by them two interfaces of a container are
/// told apart, where the reference made the rules.
///
/// # Errors
/// Something is left.
pub fn remove(nft: &mut Nft, owner: &Owner, addrs: &[IpAddr]) -> Result<(), Error> {
    nft.settle_in_parts(|nft| {
        let mut batch = Batch::default();
        for version in Version::ALL {
            let of_version: Vec<IpAddr> =
                addrs.iter().filter(|addr| addr.is_ipv4() == (version == Version::V4)).copied().collect();
            for name in CHAINS {
                let chain = table(version).chain(name);
                for rule in nft.rules(chain)? {
                    if belongs(&rule, owner, &of_version, version) {
                        batch.remove_rule(chain, rule.handle());
                    }
                }
            }
            let conditions = conditions::chain(owner);
            if nft.has_chain(table(version).chain(&conditions))? {
                batch.remove_chain(table(version).chain(&conditions));
            }
        }
        Ok(batch)
    })
}

/// Removes the rules of this network's attachments that are not valid. Those that the reference made name no network,
/// and stay.
///
/// # Errors
/// Something is left.
pub fn remove_all_but(nft: &mut Nft, network: &NetworkName, valid: &[Owner]) -> Result<(), Error> {
    let begin = Owner::nft_network_prefix(network);
    let valid: HashSet<Vec<u8>> = valid.iter().map(|owner| owner.nft_comment_prefix().into_bytes()).collect();
    let is_stale = |tag: &[u8]| {
        let owner = tag.split(|byte| *byte == b',').next().unwrap_or_default();
        tag.starts_with(begin.as_bytes()) && !valid.contains(owner)
    };
    nft.settle_in_parts(|nft| {
        let mut batch = Batch::default();
        for version in Version::ALL {
            let mut chains = BTreeSet::new();
            for name in CHAINS {
                let chain = table(version).chain(name);
                for rule in nft.rules(chain)? {
                    if rule.tag().is_some_and(is_stale) {
                        chains.extend(conditions::led_to(&rule));
                        batch.remove_rule(chain, rule.handle());
                    }
                }
            }
            for chain in &chains {
                batch.remove_chain(table(version).chain(chain));
            }
        }
        Ok(batch)
    })
}

/// Compares the rules of one IP version with what [`add`] makes, and with what the reference does.
///
/// # Errors
/// What is missing or different.
pub fn check(forward: &Forward<'_>) -> Result<(), Error> {
    let mut nft = Nft::default();
    let wrong = |what: String| {
        let doing =
            format!("check the port mappings of container {} for {:?}", forward.owner.container, forward.version);
        Err(Error::other(doing, what))
    };
    let table = table(forward.version);
    let mut ours = false;
    let parts = [(HOSTPORTS, rules::of_hostports(forward)), (MASQUERADING, rules::of_masquerading(forward))];
    for (name, wanted) in parts {
        let mut present = nft.rules(table.chain(name))?;
        present.retain(|rule| belongs(rule, forward.owner, &[forward.pod.addr()], forward.version));
        ours |= present.iter().any(|rule| rule.tag().is_some());
        let present: Vec<_> = present.iter().map(Rule::expressions).collect();
        // The reference marks nothing, and has its conditions elsewhere.
        let of_reference = || if name == HOSTPORTS { rules::of_reference(forward) } else { wanted.clone() };
        if present != wanted && (ours || present != of_reference()) {
            return wrong(format!(
                "missing hostport rules in {name:?} chain: it has {} of {}, or others",
                present.len(),
                wanted.len()
            ));
        }
    }
    let bit = if ours { forward.masquerade.bit() } else { None };
    if let Some(missing) = frame::missing(&mut nft, forward.version, bit)? {
        return wrong(missing);
    }
    if ours
        && !forward.condition_words().is_empty()
        && nft.rules(table.chain(&conditions::chain(forward.owner)))?.is_empty()
    {
        return wrong("the chain of its conditions is empty".to_owned());
    }
    Ok(())
}
