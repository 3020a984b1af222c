//! The iptables backend, with the reference's chains and rules in table `filter`.
//!
//! ```text
//! FORWARD      -> CNI-ISOLATION-STAGE-1    before everything, where a bridge has a policy
//!              -> KUBE-...                 of kube-proxy, if it is there
//!              -> CNI-FORWARD -> CNI-ADMIN the administrator's own rules
//!                                          three rules for each address of a pod
//! ```
//!
//! An ADD reads what is there, adds what is missing in one transaction, and then removes what is in the way: at no moment
//! is there less than there should be. Readers and writers are one at a time ([`crate::lock`]).

mod filter;
mod forward;
mod isolation;
mod pods;
mod rule;

use std::collections::HashSet;
use std::net::IpAddr;

use hostnet::Error;
use hostnet::iptables::Version;
use hostnet::nft::Nft;
use libcni::types::Cidr;

use filter::{Change, Filter, Wanted};
use isolation::Stages;
use pods::Pods;
use rule::Rule;

use crate::policy::Policy;
use crate::rules::Rules;
use crate::sources;

/// The chain with the pods' rules.
pub const CNI_FORWARD: &str = "CNI-FORWARD";
/// The chain that knows which bridges have a policy.
pub const STAGE_1: &str = "CNI-ISOLATION-STAGE-1";
/// The chain that knows which bridges may not be entered from those.
pub const STAGE_2: &str = "CNI-ISOLATION-STAGE-2";

const FORWARD: &str = "FORWARD";

/// Makes the rules for each family that the pod has addresses of. What is there already stays as it is.
pub fn add(rules: Rules<'_>) -> Result<(), Error> {
    rules.versions().try_for_each(|version| rules.add_version(version))
}

/// Removes the rules of a bridge's policy, in both flavours: another backend has them now, and what any of them drops is
/// dropped.
pub fn forget_policy(bridge: &str) -> Result<(), Error> {
    for version in Version::ALL {
        forget_in(Filter::in_nft(version), bridge)
            .or_else(|error| if Nft::is_usable() { Err(error) } else { Ok(()) })?;
        Filter::in_legacy(version)?.map_or(Ok(()), |legacy| forget_in(legacy, bridge))?;
    }
    Ok(())
}

fn forget_in(mut filter: Filter, bridge: &str) -> Result<(), Error> {
    let remove = read_stages(&mut filter)?.outdated(bridge, Policy::Open);
    filter.change(&Change { remove, ..Change::default() })
}

/// Compares; changes nothing.
pub fn check(rules: Rules<'_>) -> Result<(), Error> {
    rules.versions().try_for_each(|version| rules.check_version(version))
}

/// Removes the rules of the owners that `is_gone` says so of, by the tag of their comments, and those rules of these
/// addresses that have no owner; says whether there were any. `words`: what stands in every such tag, so that others'
/// rules need not be read. Shared chains stay, as the reference's do. Both flavours of iptables are looked into, whichever
/// is in use.
pub fn remove(words: &str, is_gone: &dyn Fn(&str) -> bool, addresses: &[IpAddr]) -> Result<bool, Error> {
    let (mut found, mut outcome) = (false, Ok(()));
    let mut note = |removed: Result<bool, Error>| match removed {
        Ok(removed) => found |= removed,
        Err(error) => outcome = Err(error),
    };
    for version in Version::ALL {
        let addresses = addresses.iter().copied().filter(|address| is_of(version, *address)).collect();
        let in_nft = remove_from(&mut Filter::in_nft(version), words, is_gone, &addresses);
        note(in_nft.or_else(|error| if Nft::is_usable() { Err(error) } else { Ok(false) }));
        note(Filter::in_legacy(version).and_then(|legacy| match legacy {
            Some(mut filter) => remove_from(&mut filter, words, is_gone, &addresses),
            None => Ok(false),
        }));
    }
    outcome.map(|()| found)
}

fn remove_from(
    filter: &mut Filter,
    words: &str,
    is_gone: &dyn Fn(&str) -> bool,
    addresses: &HashSet<IpAddr>,
) -> Result<bool, Error> {
    let mut wanted = Wanted { words: vec![words.to_owned()], addresses: addresses.clone(), all: false };
    let mut rules = filter.rules(CNI_FORWARD, &wanted)?;
    // An owner's addresses are in its own rules; the configuration may not know them any more.
    wanted.addresses.extend(rules.iter().filter_map(Rule::address));
    if wanted.addresses.len() > addresses.len() {
        rules = filter.rules(CNI_FORWARD, &wanted)?;
    }
    let doomed = Pods::among(&rules).doomed(is_gone, addresses);
    let remove: Vec<_> = doomed.into_iter().map(|rule| (CNI_FORWARD, rule)).collect();
    let found = !remove.is_empty();
    filter.change(&Change { remove, ..Change::default() })?;
    Ok(found)
}

fn is_of(version: Version, address: IpAddr) -> bool {
    Version::of(&Cidr::host(address)) == version
}

impl Rules<'_> {
    /// Those with addresses: the others' programs are not asked, they may not be there.
    fn versions(&self) -> impl Iterator<Item = Version> {
        Version::ALL.into_iter().filter(|version| self.addresses(*version).next().is_some())
    }

    fn addresses(&self, version: Version) -> impl Iterator<Item = IpAddr> {
        self.pod.addresses.iter().copied().filter(move |address| is_of(version, *address))
    }

    fn add_version(&self, version: Version) -> Result<(), Error> {
        let mut filter = Filter::open(version)?;
        let mut change = Change::default();
        if let Some(bridge) = self.bridge {
            let stages = read_stages(&mut filter)?;
            change.add.extend(stages.commands(&bridge.name, self.conf.policy));
            change.remove.extend(stages.outdated(&bridge.name, self.conf.policy));
        }
        let moves = if self.policy_only {
            forward::policy_moves(&filter.rules(FORWARD, &Wanted::all())?, self.isolates())
        } else {
            self.add_chains(&mut filter, &mut change)?;
            forward::moves(&filter.rules(FORWARD, &Wanted::all())?, self.isolates())
        };
        change.add.extend(moves.add);
        change.remove.extend(moves.remove.into_iter().map(|rule| (FORWARD, rule)));
        change.front.extend(moves.front);
        if !self.policy_only {
            self.add_pod(version, &mut filter, &mut change)?;
        }
        filter.change(&change)?;
        match (self.bridge, filter.unused()?) {
            (Some(bridge), Some(unused)) => forget_in(unused, &bridge.name),
            _ => Ok(()),
        }
    }

    fn isolates(&self) -> bool {
        self.conf.policy != Policy::Open
    }

    /// The chains that are there before the jumps to them.
    fn add_chains(&self, filter: &mut Filter, change: &mut Change) -> Result<(), Error> {
        for chain in [CNI_FORWARD, &self.conf.admin_chain] {
            if !filter.has_chain(chain)? {
                change.add.push(format!("-N {chain}"));
            }
        }
        Ok(())
    }

    /// The rules in CNI-FORWARD, in place of older ones of these addresses, whose owner is gone.
    fn add_pod(&self, version: Version, filter: &mut Filter, change: &mut Change) -> Result<(), Error> {
        let admin = &self.conf.admin_chain;
        let wanted = Wanted { words: vec![admin.clone()], addresses: self.addresses(version).collect(), all: false };
        let present = filter.rules(CNI_FORWARD, &wanted)?;
        if !present.iter().any(|rule| rule.target == *admin && rule.is_unconditional()) {
            change.add.push(format!(
                "-I {CNI_FORWARD} 1 -m comment --comment \"CNI firewall plugin admin overrides\" -j {admin}"
            ));
        }
        let (pods, tag) = (Pods::among(&present), self.pod.tag());
        for address in self.addresses(version).filter(|address| !pods.are_complete(*address, &tag)) {
            change.add.extend(pods::commands(self.pod, address));
            change.remove.extend(pods.all_of(address).map(|rule| (CNI_FORWARD, rule.clone())));
        }
        Ok(())
    }

    fn check_version(&self, version: Version) -> Result<(), Error> {
        let mut filter = Filter::open(version)?;
        self.compare(version, &mut filter)?.map_err(|what| {
            let doing = format!("check the firewall rules of container {}", self.pod.owner.container);
            Error::other(doing, format!("{what} in table filter of {version:?}"))
        })
    }

    /// The inner error is what is wrong.
    fn compare(&self, version: Version, filter: &mut Filter) -> Result<Result<(), String>, Error> {
        let forward = filter.rules(FORWARD, &Wanted::all())?;
        // Whether we or the reference made the rules of a policy is said by those of the pod.
        let mut strict = self.policy_only && sources::are_of(self.pod);
        if !self.policy_only {
            let admin = &self.conf.admin_chain;
            let wanted =
                Wanted { words: vec![admin.clone()], addresses: self.addresses(version).collect(), all: false };
            let present = filter.rules(CNI_FORWARD, &wanted)?;
            let (pods, tag) = (Pods::among(&present), self.pod.tag());
            let jumps = |rule: &Rule| rule.target == *admin && rule.is_unconditional();
            let asked = present.iter().position(jumps);
            let allowed = present.iter().position(|rule| !jumps(rule) && rule.target == "ACCEPT");
            let admin_first = asked.is_some_and(|asked| allowed.is_none_or(|allowed| asked < allowed));
            strict = self.addresses(version).any(|address| pods.is_ours(address));
            let outcome = forward::check(&forward, self.isolates(), strict)
                .and_then(|()| match admin_first {
                    true => Ok(()),
                    false => Err(format!("expected {CNI_FORWARD} rule [-j {admin}] not found ahead of the pod's")),
                })
                .and_then(|()| self.addresses(version).try_for_each(|address| pods.check(address, &tag)));
            if outcome.is_err() {
                return Ok(outcome);
            }
        }
        let Some(bridge) = self.bridge.filter(|_| self.isolates()) else { return Ok(Ok(())) };
        if strict && self.conf.policy == Policy::Isolated && !bridge.is_isolated()? {
            return Ok(Err(format!("the pod's port of bridge {} is not isolated", bridge.name)));
        }
        let stages = read_stages(filter)?;
        Ok(forward::check_policy(&forward, true).and_then(|()| stages.check(&bridge.name, self.conf.policy, strict)))
    }
}

fn read_stages(filter: &mut Filter) -> Result<Stages, Error> {
    let mut read = |chain: &str| -> Result<Option<Vec<Rule>>, Error> {
        if filter.has_chain(chain)? { filter.rules(chain, &Wanted::all()).map(Some) } else { Ok(None) }
    };
    Ok(Stages { rules: [read(STAGE_1)?, read(STAGE_2)?] })
}
