//! `ipMasq`: what a pod sends beyond its own network leaves with the node's address, or with another that is told.
//!
//! Two backends make the rules, and both are cleaned up whichever is configured: the configuration may
//! have changed since ADD, or the other suite may have made the rules. Everything here acts in the
//! current network namespace, the node's.

mod glance;
mod iptables;
mod leftovers;
mod nftables;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use libcni::types::Cidr;

use crate::error::Error;
use crate::nft::Nft;
use crate::owner::Owner;
use crate::valid::Valid;

/// Who makes the rules: configuration key `ipMasqBackend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The iptables programs.
    Iptables,
    /// nf_tables, without a program.
    Nftables,
}

/// A value of `ipMasqBackend` that is neither `iptables` nor `nftables`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown ipmasq backend {0:?}")]
pub struct UnknownBackend(String);

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        match text {
            "iptables" => Ok(Self::Iptables),
            "nftables" => Ok(Self::Nftables),
            _ => Err(UnknownBackend(text.to_owned())),
        }
    }
}

/// How a network masquerades, the same for all its pods. By default as the reference does, and its rules are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Packets to these networks keep the pod's address, as those to its own network do. Of both IP versions, none of
    /// them all addresses, in order.
    pub exempt: BTreeSet<Cidr>,
    /// What the others get in place of the outgoing interface's address: at most one of each IP version.
    pub sources: Vec<IpAddr>,
    /// The port they get is a random one, and not the pod's if that is free.
    pub random_fully: bool,
}

impl Policy {
    /// The networks of one IP version to which packets keep their source.
    fn exempt(&self, ipv4: bool) -> impl Iterator<Item = &Cidr> {
        self.exempt.iter().filter(move |network| network.is_ipv4() == ipv4)
    }

    /// The address that replaces the pod's; `None` is that of the outgoing interface.
    fn source(&self, ipv4: bool) -> Option<IpAddr> {
        self.sources.iter().copied().find(|source| source.is_ipv4() == ipv4)
    }
}

/// Masquerades what comes from each address and goes outside its network, multicast excepted.
///
/// Without a backend: iptables, and nftables only where iptables does not work and nftables does. To
/// find out costs a process, so it is tried and asked about afterwards.
///
/// After an error some rules may be there; [`remove`] takes them away.
pub fn add(owner: &Owner, backend: Option<Backend>, policy: &Policy, addrs: &[Cidr]) -> Result<(), Error> {
    match backend {
        Some(Backend::Iptables) => iptables::add(owner, policy, addrs),
        Some(Backend::Nftables) => nftables::add(owner, policy, addrs),
        None => match iptables::add(owner, policy, addrs) {
            Err(_) if !iptables::is_usable() && Nft::is_usable() => nftables::add(owner, policy, addrs),
            outcome => outcome,
        },
    }
}

/// Removes the owner's rules of both backends. Needs no address, link or namespace: they may be gone.
///
/// The interfaces of a container on one network share their iptables chain; `keep` are the
/// addresses of those that stay. All is tried before an error is reported, and a backend that does
/// not work on this node has nothing to report.
pub fn remove(owner: &Owner, keep: &[IpAddr]) -> Result<(), Error> {
    remove_over(&mut Nft::default(), owner, keep, &[])
}

/// [`remove`] over a connection of the caller's: one that also removes links does so before it drops the connection.
/// `likely` are the addresses that iptables probably has rules for: if they are all, the legacy flavour need not list any.
pub fn remove_over(nft: &mut Nft, owner: &Owner, keep: &[IpAddr], likely: &[Cidr]) -> Result<(), Error> {
    let by_nftables = nftables::remove(nft, owner);
    let by_iptables_nft = iptables::remove_nft(nft, owner, keep);
    // What one flavour of iptables had the other has not, unless somebody changed flavours in between.
    let likely = if matches!(by_iptables_nft, Ok(true)) { &[] } else { likely };
    let outcomes: [Outcome; 3] = [
        (by_nftables, Nft::is_usable),
        (by_iptables_nft.map(drop), Nft::is_usable),
        (iptables::remove_legacy(owner, keep, likely), iptables::is_usable),
    ];
    join(outcomes, || format!("remove masquerade rules of container {}", owner.container))
}

/// Removes the rules, of both backends, of this network's attachments that are not valid. With iptables the interfaces of
/// a container share a chain: it stays while one of them is valid. Errors are as [`remove`]'s.
pub fn remove_all_but(nft: &mut Nft, valid: &Valid) -> Result<(), Error> {
    let _step = libcni::log::step("masquerade");
    let outcomes: [Outcome; 3] = [
        (nftables::remove_all_but(nft, valid), Nft::is_usable),
        (leftovers::remove_nft(nft, valid), Nft::is_usable),
        (leftovers::remove_legacy(valid), iptables::is_usable),
    ];
    join(outcomes, || format!("remove stale masquerade rules of network {}", valid.network()))
}

/// What came of one backend, and whether it works here at all.
type Outcome = (Result<(), Error>, fn() -> bool);

fn join(outcomes: [Outcome; 3], doing: impl FnOnce() -> String) -> Result<(), Error> {
    let failed = outcomes.into_iter().filter_map(|(outcome, is_usable)| outcome.err().filter(|_| is_usable()));
    let failed: Vec<_> = failed.map(|error| error.to_string()).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::other(doing(), failed.join("; "))) }
}

/// Compares the rules with what [`add`] makes. Without a backend, either may have made them.
pub fn check(owner: &Owner, backend: Option<Backend>, policy: &Policy, addrs: &[Cidr]) -> Result<(), Error> {
    match backend {
        Some(Backend::Iptables) => iptables::check(owner, policy, addrs),
        Some(Backend::Nftables) => nftables::check(owner, policy, addrs),
        // What is missing is said of the backend that would have made it.
        None => nftables::check(owner, policy, addrs).or_else(|nft| {
            iptables::check(owner, policy, addrs).map_err(|iptables| if iptables::is_usable() { iptables } else { nft })
        }),
    }
}

/// What is multicast, in both IP versions: it stays as it is.
fn multicast() -> impl Iterator<Item = Cidr> {
    let v4 = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0));
    [(v4, 4), (v6, 8)].into_iter().filter_map(|(addr, len)| Cidr::new(addr, len))
}

fn missing(owner: &Owner, what: impl Into<String>) -> Error {
    Error::other(format!("check masquerade rules of container {}", owner.container), what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends() {
        assert_eq!("iptables".parse(), Ok(Backend::Iptables));
        assert_eq!("nftables".parse(), Ok(Backend::Nftables));
        let unknown = |text: &str| text.parse::<Backend>().unwrap_err().to_string();
        assert_eq!(unknown("foo"), "unknown ipmasq backend \"foo\"");
        assert_eq!(unknown(""), "unknown ipmasq backend \"\"");
    }
}
