//! Masquerading with iptables: a chain in table `nat` for each container and network, to which
//! POSTROUTING jumps for each of the container's addresses.
//!
//! ```text
//! -A POSTROUTING -s 10.1.2.2/32 -m comment --comment "name: \"NET\" id: \"ID\"" -j CNI-...
//! -A CNI-... -d 10.1.2.0/24 -m comment --comment ... -j ACCEPT
//! -A CNI-... ! -d 224.0.0.0/4 -m comment --comment ... -j MASQUERADE
//! ```
//!
//! Rules are made by the iptables programs. They are removed over netlink where iptables keeps them
//! in nf_tables: that needs no process and no understanding of what the rules consist of, and somebody
//! else's rule that iptables cannot read is not in the way.

use std::net::IpAddr;

use libcni::types::Cidr;

use super::{missing, multicast};
use crate::error::Error;
use crate::iptables::{Iptables, Rule, Version};
use crate::nft::{self, Batch, Direction, Expression, Nft, Verdict};
use crate::owner::Owner;

const NAT: &str = "nat";
const POSTROUTING: &str = "POSTROUTING";

/// Whether the reference would call iptables usable. It asks the IPv4 program alone.
pub fn is_usable() -> bool {
    Iptables::find(Version::V4).is_ok_and(|iptables| iptables.is_usable())
}

pub fn add(owner: &Owner, addrs: &[Cidr]) -> Result<(), Error> {
    let chain = owner.iptables_chain();
    by_version(owner, &chain, addrs).into_iter().try_for_each(|(version, wanted)| add_version(version, &chain, &wanted))
}

fn add_version(version: Version, chain: &str, wanted: &[Rule]) -> Result<(), Error> {
    let iptables = Iptables::find(version)?;
    let mut commands = vec![format!("-N {chain}")];
    commands.extend(wanted.iter().map(Rule::to_string));
    // Nearly always the chain is new. Where it is not, nothing was changed.
    let Err(error) = iptables.restore(NAT, &commands) else { return Ok(()) };
    let Some(mut present) = iptables.rules(NAT, chain)? else { return Err(error) };
    present.extend(iptables.rules(NAT, POSTROUTING)?.unwrap_or_default());
    let missing: Vec<_> = wanted.iter().filter(|rule| !present.contains(rule)).map(Rule::to_string).collect();
    if missing.is_empty() { Ok(()) } else { iptables.restore(NAT, &missing) }
}

/// The rules of the versions that have any, each once and in the reference's order.
fn by_version(owner: &Owner, chain: &str, addrs: &[Cidr]) -> Vec<(Version, Vec<Rule>)> {
    let mut all = Vec::new();
    for version in Version::ALL {
        let mut rules = Vec::new();
        for addr in addrs.iter().filter(|addr| Version::of(addr) == version) {
            for rule in rules_for(owner, chain, addr) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        if !rules.is_empty() {
            all.push((version, rules));
        }
    }
    all
}

fn rules_for(owner: &Owner, chain: &str, addr: &Cidr) -> [Rule; 3] {
    let rule = |chain: &str, target: &str| Rule {
        chain: chain.to_owned(),
        source: None,
        destination: None,
        not_destination: None,
        comment: owner.iptables_comment(),
        target: target.to_owned(),
    };
    let multicast = multicast().find(|network| network.is_ipv4() == addr.is_ipv4());
    // iptables does not print a match of every address.
    let network = (!addr.is_default()).then(|| addr.network());
    [
        Rule { destination: network, ..rule(chain, "ACCEPT") },
        Rule { not_destination: multicast, ..rule(chain, "MASQUERADE") },
        Rule { source: Some(Cidr::host(addr.addr())), ..rule(POSTROUTING, chain) },
    ]
}

/// Removes what the nf_tables flavour keeps.
pub fn remove_nft(nft: &mut Nft, owner: &Owner, keep: &[IpAddr]) -> Result<(), Error> {
    let name = owner.iptables_chain();
    nft.settle(|nft| {
        let mut batch = Batch::default();
        for version in Version::ALL {
            let table = version.nft_nat();
            let (chain, postrouting) = (table.chain(&name), table.chain(POSTROUTING));
            if !nft.has_chain(chain)? {
                continue;
            }
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
    })
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

/// Removes what the legacy flavour keeps. No program is started where it has no table `nat`.
pub fn remove_legacy(owner: &Owner, keep: &[IpAddr]) -> Result<(), Error> {
    let chain = owner.iptables_chain();
    let mut outcome = Ok(());
    for version in Version::ALL {
        if version.has_legacy(NAT) {
            outcome = outcome.and(remove_legacy_version(version, &chain, keep));
        }
    }
    outcome
}

fn remove_legacy_version(version: Version, chain: &str, keep: &[IpAddr]) -> Result<(), Error> {
    let iptables = Iptables::find_legacy(version)?;
    if iptables.rules(NAT, chain)?.is_none() {
        return Ok(());
    }
    let mut jumps = iptables.rules(NAT, POSTROUTING)?.unwrap_or_default();
    jumps.retain(|rule| rule.target == chain);
    let mut commands: Vec<_> = jumps.iter().filter(|rule| !is_kept(rule.source, keep)).map(Rule::removal).collect();
    if commands.len() == jumps.len() {
        commands.extend([format!("-F {chain}"), format!("-X {chain}")]);
    }
    if commands.is_empty() { Ok(()) } else { iptables.restore(NAT, &commands) }
}

/// Whether a jump is for an address that stays. Old versions of the reference jumped for the whole
/// network, `-s ip/len`: such a jump stays as long as any address of it does.
fn is_kept(source: Option<Cidr>, keep: &[IpAddr]) -> bool {
    source.is_some_and(|source| keep.iter().any(|addr| source.contains(*addr)))
}

pub fn check(owner: &Owner, addrs: &[Cidr]) -> Result<(), Error> {
    let chain = owner.iptables_chain();
    for (version, wanted) in by_version(owner, &chain, addrs) {
        let iptables = Iptables::find(version)?;
        let Some(mut present) = iptables.rules(NAT, &chain)? else {
            return Err(missing(owner, format!("there is no chain {chain} in table nat for {version:?}")));
        };
        present.extend(iptables.rules(NAT, POSTROUTING)?.unwrap_or_default());
        if let Some(rule) = wanted.iter().find(|rule| !present.contains(rule)) {
            return Err(missing(owner, format!("table nat lacks the rule {rule}")));
        }
    }
    Ok(())
}
