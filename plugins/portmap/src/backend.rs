//! Who makes the rules. Both are cleaned up whichever is configured: the configuration may have changed since ADD, what is
//! installed on the node may have, or the other suite made the rules.

use std::net::IpAddr;
use std::num::NonZeroU16;

use hostnet::iptables::Version;
use hostnet::masquerade::Backend;
use hostnet::nft::{self, Nft};
use hostnet::ports::{Mapping, Protocol};
use hostnet::trial::POD;
use hostnet::{Error, Owner};
use libcni::types::{Cidr, NetworkName};

use crate::conditions::Conditions;
use crate::conf::{Conf, Mark, Masquerade};
use crate::pod::Forward;
use crate::{iptables, nftables};

/// Makes the rules of an attachment, in place of those that an earlier ADD made with whatever backend it had.
///
/// # Errors
/// Some rules may be there; [`remove`] takes them away.
pub fn add(backend: Option<Backend>, owner: &Owner, forwards: &[Forward<'_>]) -> Result<(), Error> {
    let _step = libcni::log::step("port mappings");
    let addrs: Vec<IpAddr> = forwards.iter().map(|forward| forward.pod.addr()).collect();
    let made_by = make(backend, forwards)?;
    let mut nft = Nft::default();
    let failed = match made_by {
        Backend::Iptables => remove_nftables(&mut nft, owner, &addrs),
        Backend::Nftables => remove_iptables(&mut nft, owner),
    };
    join(&format!("remove earlier port mappings of container {}", owner.container), &failed)
}

/// Without a backend: iptables, and nftables only where iptables does not work and nftables does. To find out costs a
/// process, so it is tried and asked about afterwards.
fn make(backend: Option<Backend>, forwards: &[Forward<'_>]) -> Result<Backend, Error> {
    let with_iptables = || forwards.iter().try_for_each(iptables::add).map(|()| Backend::Iptables);
    let with_nftables = || nftables::add(forwards).map(|()| Backend::Nftables);
    match backend {
        Some(Backend::Iptables) => with_iptables(),
        Some(Backend::Nftables) => with_nftables(),
        None => match with_iptables() {
            Err(_) if !iptables::is_usable() && Nft::is_usable() => with_nftables(),
            outcome => outcome,
        },
    }
}

/// Removes the rules of an attachment, of both backends. All is tried before an error is reported, and a backend that does
/// not work on this node has nothing to report.
///
/// # Errors
/// Something is left.
pub fn remove(owner: &Owner, addrs: &[IpAddr]) -> Result<(), Error> {
    let _step = libcni::log::step("port mappings");
    let mut nft = Nft::default();
    let mut failed = remove_nftables(&mut nft, owner, addrs);
    failed.extend(remove_iptables(&mut nft, owner));
    join(&format!("remove the port mappings of container {}", owner.container), &failed)
}

fn remove_nftables(nft: &mut Nft, owner: &Owner, addrs: &[IpAddr]) -> Vec<String> {
    error_if(nftables::remove(nft, owner, addrs), Nft::is_usable).into_iter().collect()
}

fn remove_iptables(nft: &mut Nft, owner: &Owner) -> Vec<String> {
    let mut failed = Vec::new();
    failed.extend(error_if(iptables::remove_nft(nft, owner), Nft::is_usable));
    failed.extend(error_if(iptables::remove_legacy(owner), iptables::is_usable));
    failed
}

/// Removes what belongs to attachments of the network that are not among the valid ones.
///
/// # Errors
/// Something is left.
pub fn remove_all_but(network: &NetworkName, valid: &[Owner]) -> Result<(), Error> {
    let _step = libcni::log::step("port mappings");
    let mut failed = Vec::new();
    failed.extend(error_if(nftables::remove_all_but(&mut Nft::default(), network, valid), Nft::is_usable));
    failed.extend(error_if(iptables::remove_all_but(network, valid), iptables::is_usable));
    join(&format!("remove stale port mappings of network {network}"), &failed)
}

/// What failed, unless the backend does not work here anyhow.
fn error_if(outcome: Result<(), Error>, is_usable: fn() -> bool) -> Option<String> {
    outcome.err().filter(|_| is_usable()).map(|error| error.to_string())
}

fn join(doing: &str, failed: &[String]) -> Result<(), Error> {
    if failed.is_empty() { Ok(()) } else { Err(Error::other(doing, failed.join("; "))) }
}

/// Compares the rules of an attachment with what [`add`] makes. Without a backend, either may have made them.
///
/// # Errors
/// What is missing or different.
pub fn check(backend: Option<Backend>, forwards: &[Forward<'_>]) -> Result<(), Error> {
    let _step = libcni::log::step("port mappings");
    let with_iptables = || forwards.iter().try_for_each(iptables::check);
    let with_nftables = || forwards.iter().try_for_each(nftables::check);
    match backend {
        Some(Backend::Iptables) => with_iptables(),
        Some(Backend::Nftables) => with_nftables(),
        // What is missing is said of the backend that would have made it.
        None => with_nftables()
            .or_else(|nft| with_iptables().map_err(|iptables| if iptables::is_usable() { iptables } else { nft })),
    }
}

/// Makes the rules of a mapping once: in a [`hostnet::trial`], for STATUS. Without what is on the node alone: a chain of
/// somebody else's that marks packets, and what conditions may name.
///
/// # Errors
/// Why they could not be made.
pub fn try_out(conf: &Conf, owner: &Owner) -> Result<(), Error> {
    if conf.backend == Some(Backend::Nftables) && !conf.conditions.is_empty() && !nft::is_installed() {
        return Err(Error::other("apply conditions", "they need the nft program, which is not in PATH"));
    }
    let Some(pod) = Cidr::new(IpAddr::V4(POD), 24) else { return Ok(()) };
    let any = NonZeroU16::MAX;
    let mappings = [Mapping { protocol: Protocol::Tcp, host_port: any, container_port: any, host_ip: None }];
    let masquerade = match conf.masquerade.mark() {
        Some(Mark::Chain(_)) => &Masquerade::Off,
        _ => &conf.masquerade,
    };
    let conditions = &Conditions::default();
    make(conf.backend, &[Forward { version: Version::V4, owner, pod, mappings: &mappings, masquerade, conditions }])
        .map(drop)
}
