//! Which address an ADD gets of each range set, and what a failed ADD takes back.
//!
//! The order of precedence in a set: an address that was asked for; an address that the owner holds already,
//! so that an ADD that is repeated (after a crash, a reboot, a time-out) has the result of the first one; the
//! next free address round robin, so that an address rests as long as possible before its next use. Only when there is
//! none: an address whose lease is of an earlier boot ([`crate::boot`]), then one that was freed a moment ago
//! ([`crate::resting`]).
//!
//! All sets are served under one lock, and a failure gives back what this very call has reserved and nothing
//! else. (The reference gives back all that the owner holds, and takes a running container's address away.)

use std::iter;
use std::net::IpAddr;

use libcni::types::IpConfig;
use libcni::{Code, Error};

use crate::conf::HostLocalConf;
use crate::lease::{Owner, printable};
use crate::range::RangeSet;
use crate::store::Store;

/// One address of every set, in their order.
///
/// # Errors
/// A set has none; nothing new is reserved then.
pub fn all(store: &mut Store, conf: &HostLocalConf, owner: &Owner) -> Result<Vec<IpConfig>, Error> {
    let _step = libcni::log::step("allocate");
    let requested = assign(&conf.requested, &conf.sets)?;
    let mut reserved = Vec::new();
    let mut ips = Vec::with_capacity(conf.sets.len());
    for (index, (set, requested)) in conf.sets.iter().zip(requested).enumerate() {
        match one(store, index, set, requested, owner, &mut reserved) {
            Ok(ip) => ips.push(ip),
            Err(error) => {
                for addr in reserved {
                    // The error that brought us here is the one to report.
                    let _ = store.release(addr, owner.key());
                }
                return Err(error.context(format_args!("failed to allocate for range {index}")));
            }
        }
    }
    Ok(ips)
}

/// That a set has a free address.
///
/// # Errors
/// It has none.
pub fn check_free(store: &mut Store, index: usize, set: &RangeSet) -> Result<(), Error> {
    let last = store.last_reserved(index);
    let free = store.get_free(set.candidates(last))?.is_some() || store.has_reclaimable(set.candidates(last));
    if free { Ok(()) } else { Err(used_up(store, set)) }
}

/// The requested address of each set: the first that lies in it and is not given to an earlier set.
fn assign(requested: &[IpAddr], sets: &[RangeSet]) -> Result<Vec<Option<IpAddr>>, Error> {
    let mut pending = requested.to_vec();
    let mut take = |set: &RangeSet| {
        let index = pending.iter().position(|addr| set.contains(*addr))?;
        Some(pending.remove(index))
    };
    let assigned = sets.iter().map(&mut take).collect();
    if pending.is_empty() {
        return Ok(assigned);
    }
    let text = |items: Vec<String>, separator| items.join(separator);
    let left = text(pending.iter().map(IpAddr::to_string).collect(), " ");
    let sets = text(sets.iter().map(RangeSet::to_string).collect(), "; ");
    Err(Error::new(Code::INVALID_CONFIG, format!("failed to allocate all requested IPs: {left}"))
        .with_details(format!("range sets: {sets}; each gives one address")))
}

fn one(
    store: &mut Store,
    index: usize,
    set: &RangeSet,
    requested: Option<IpAddr>,
    owner: &Owner,
    reserved: &mut Vec<IpAddr>,
) -> Result<IpConfig, Error> {
    let held: Vec<IpAddr> = store.held_by(owner.key())?.into_iter().filter(|addr| set.contains(*addr)).collect();
    let again = match requested {
        Some(addr) => held.into_iter().find(|held| *held == addr),
        None => held.into_iter().next(),
    };
    let addr = match (again, requested) {
        (Some(addr), _) => {
            store.renew(addr)?;
            addr
        }
        (None, Some(addr)) => reserve_requested(store, set, addr, owner)?,
        (None, None) => reserve_next(store, index, set, owner)?,
    };
    if again.is_none() {
        reserved.push(addr);
        store.set_last_reserved(index, addr)?;
    }
    let range = set.range_of(addr).ok_or_else(|| Error::internal(format!("{addr} not in range set {set}")))?;
    Ok(IpConfig::new(range.cidr(addr), Some(range.gateway())))
}

fn reserve_requested(store: &mut Store, set: &RangeSet, addr: IpAddr, owner: &Owner) -> Result<IpAddr, Error> {
    if set.is_gateway(addr) {
        return Err(Error::new(Code::INVALID_CONFIG, format!("requested ip {addr} is subnet's gateway")));
    }
    if let Some(addr) = store.reserve(iter::once(addr), owner)? {
        return Ok(addr);
    }
    if let Some(addr) = store.reclaim(iter::once(addr), owner)? {
        return Ok(addr);
    }
    let holder = store.holder(addr)?.unwrap_or_default();
    let msg = format!("requested IP address {addr} is not available in range set {set}");
    Err(Error::internal(msg).with_details(format!("it is reserved for {}", printable(&holder))))
}

fn reserve_next(store: &mut Store, index: usize, set: &RangeSet, owner: &Owner) -> Result<IpAddr, Error> {
    // A lease of before 2018 does not say which interface it is for; it might be in use by another one.
    if let Some(addr) = store.held_by(owner.id())?.into_iter().find(|addr| set.contains(*addr)) {
        if let Some(addr) = store.reclaim(iter::once(addr), owner)? {
            return Ok(addr);
        }
        let msg = format!("{addr} has been allocated to {owner}, duplicate allocation is not allowed");
        return Err(Error::internal(msg).with_details("the lease names no interface; a DEL of the container frees it"));
    }
    let last = store.last_reserved(index).filter(|last| set.contains(*last));
    let last = last.or_else(|| store.newest(|addr| set.contains(addr)));
    let resting = store.resting(owner);
    let rested = set.candidates(last).filter(|addr| !resting.contains(*addr));
    if let Some(addr) = store.reserve(rested, owner)? {
        return Ok(addr);
    }
    if let Some(addr) = store.reclaim(set.candidates(last), owner)? {
        return Ok(addr);
    }
    let may_give = |addr: &IpAddr| set.contains(*addr) && !set.is_gateway(*addr);
    let resting = resting.longest_first().into_iter().filter(may_give);
    store.reserve(resting, owner)?.ok_or_else(|| used_up(store, set))
}

fn used_up(store: &Store, set: &RangeSet) -> Error {
    let taken = store.taken().unwrap_or_default();
    let taken = taken.iter().filter(|addr| set.contains(**addr) && !set.is_gateway(**addr)).count();
    let size = set.size();
    Error::internal(format!("no IP addresses available in range set: {set} ({taken} of {size} addresses are taken)"))
        .with_details(format!("the leases are the files in {}", store.dir().display()))
}
