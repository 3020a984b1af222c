//! The ifb of an attachment, and whose an ifb is.
//!
//! The reference's name for it is made of network and container. So two interfaces of a container on one network have
//! one name between them; there the second takes a name of its own. Ours say in their alias whose they are. One
//! without is the reference's, or of an ADD that was killed, and is told by who sends packets to it.

use hostnet::ifb::{self, KIND, PREFIX, names};
use hostnet::link::{self, Link};
use hostnet::tc::{ingress, redirect};
use hostnet::{Netlink, Owner, Undo};
use libcni::plugin::{Attachment, Request};
use libcni::types::{Interface, NetworkName};
use libcni::{Error, Success};

use crate::conf::Conf;

/// The attachment's ifb, made if it is not there, as wide as the host's end and up.
///
/// # Errors
/// Somebody else has both names; the kernel's refusal.
pub fn ensure(host: &mut Netlink, req: &Request<Conf>, end: &Link, undo: &mut Undo<'_>) -> Result<Link, Error> {
    let _step = libcni::log::step("ifb");
    let owner = Owner::of(req);
    let ifb = match find(host, &owner, end)? {
        Some(ifb) => ifb,
        None => create(host, &owner, end.mtu, undo)?,
    };
    if ifb.alias.is_none() {
        link::set_alias(host, ifb.index, &owner.alias())?;
    }
    if ifb.mtu != end.mtu {
        link::set_mtu(host, ifb.index, end.mtu)?;
    }
    if !ifb.up {
        link::set_up(host, ifb.index)?;
    }
    Ok(ifb)
}

/// The attachment's ifb.
///
/// # Errors
/// It is not there, or down.
pub fn check(host: &mut Netlink, req: &Request<Conf>, end: &Link) -> Result<Link, Error> {
    let owner = Owner::of(req);
    let ifb = find(host, &owner, end)?.ok_or_else(|| {
        let [first, second] = names(&owner);
        Error::internal(format!("get ifb device: Link not found: neither {first} nor {second} is of this attachment"))
    })?;
    if ifb.up { Ok(ifb) } else { Err(Error::internal(format!("{} is down", ifb.name))) }
}

/// Adds it to the result.
pub fn report(ifb: &Link, result: &mut Success) {
    result.interfaces.retain(|listed| !is_listed(ifb, listed));
    result.interfaces.push(ifb.interface());
}

/// Removes the attachment's ifb, and first what sends packets to it: a filter that redirects to a link which is gone
/// drops them. Goes on after a failure.
///
/// # Errors
/// What could not be removed.
pub fn remove(host: &mut Netlink, req: &Request<Conf>, end: Option<&Link>) -> Result<(), Error> {
    let _step = libcni::log::step("ifb");
    let mut failed = Vec::new();
    let mut note = |outcome: hostnet::Result<bool>| {
        outcome.unwrap_or_else(|error| {
            failed.push(Error::from(error));
            false
        })
    };
    let ifbs = list_removable(host, &Owner::of(req), end)?;
    if let Some(end) = end {
        let targets: Vec<u32> = ifbs.iter().map(|ifb| ifb.index).collect();
        if note(redirect::remove(host, end.index, &targets)) || !ifbs.is_empty() {
            note(ingress::remove_unused(host, end.index));
        }
    }
    for ifb in &ifbs {
        note(link::remove_by_index(host, ifb.index));
    }
    Error::join(failed)
}

/// What DEL removes: one ifb, or two where an ADD was killed.
fn list_removable(host: &mut Netlink, owner: &Owner, end: Option<&Link>) -> Result<Vec<Link>, Error> {
    let mut found = Vec::new();
    for (name, shared) in names(owner).iter().zip([true, false]) {
        let Some(ifb) = link::get(host, name)?.filter(|link| link.is_kind(KIND)) else { continue };
        let ours = match &ifb.alias {
            Some(alias) => *alias == owner.alias(),
            None => !shared || is_free(host, end, &ifb)?,
        };
        if ours {
            found.push(ifb);
        }
    }
    Ok(found)
}

/// Removes what says that it is of this network and of none of these attachments.
///
/// # Errors
/// What could not be removed.
pub fn remove_all_but(network: &NetworkName, valid: &[Attachment]) -> Result<(), Error> {
    let _step = libcni::log::step("ifb");
    let mut host = Netlink::open()?;
    let keep: Vec<String> = valid.iter().filter_map(|attachment| alias(network, attachment)).collect();
    let of_network = format!("{network} ");
    let is_left = |link: &&Link| {
        let alias = link.alias.as_deref().unwrap_or_default();
        let of_ours = link.is_kind(KIND) && link.name.starts_with(PREFIX) && alias.starts_with(&of_network);
        of_ours && !keep.iter().any(|valid| valid == alias)
    };
    let links = link::list(&mut host)?;
    let outcomes = links.iter().filter(is_left).map(|link| link::remove_by_index(&mut host, link.index));
    Error::join(outcomes.filter_map(|outcome| outcome.err().map(Error::from)).collect())
}

/// The alias of an attachment. One with names that cannot be has none, and keeps nothing.
fn alias(network: &NetworkName, attachment: &Attachment) -> Option<String> {
    let (container, ifname) = (attachment.container_id.parse().ok()?, attachment.ifname.parse().ok()?);
    Some(Owner { network: network.clone(), container, ifname }.alias())
}

fn find(host: &mut Netlink, owner: &Owner, end: &Link) -> Result<Option<Link>, Error> {
    for name in names(owner) {
        let Some(ifb) = link::get(host, &name)?.filter(|link| link.is_kind(KIND)) else { continue };
        let ours = match &ifb.alias {
            Some(alias) => *alias == owner.alias(),
            None => redirect::is_there(host, end.index, ifb.index)?,
        };
        if ours {
            return Ok(Some(ifb));
        }
    }
    Ok(None)
}

fn create(host: &mut Netlink, owner: &Owner, mtu: u32, undo: &mut Undo<'_>) -> Result<Link, Error> {
    let mut taken = None;
    for name in names(owner) {
        match ifb::create(host, &name, mtu) {
            Ok(ifb) => {
                let index = ifb.index;
                undo.push("remove the ifb", move || link::remove_by_index(&mut Netlink::open()?, index).map(drop));
                return Ok(ifb);
            }
            Err(error) if error.is_exists() => taken = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(taken.map_or_else(|| Error::internal("an ifb has no name"), Error::from))
}

/// Whether an ifb without an owner goes with this attachment. The reference makes one for a container and a network, and
/// its DEL asks no further; ours spares one that another interface uses. Where the attachment's own end is not known,
/// that one may be its own.
fn is_free(host: &mut Netlink, end: Option<&Link>, ifb: &Link) -> Result<bool, Error> {
    let Some(end) = end else { return Ok(true) };
    for link in link::list(host)?.iter().filter(|link| link.is_kind("veth") && link.index != end.index) {
        if redirect::is_there(host, link.index, ifb.index)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_listed(ifb: &Link, listed: &Interface) -> bool {
    listed.sandbox.is_empty() && listed.name == ifb.name
}
