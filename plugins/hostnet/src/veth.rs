//! Veth pairs between the host and a pod. A pair is made by one message that carries names, namespace, MTU, address
//! and bridge of both ends: there is no moment at which a half-made one can be seen, and nothing to rename or move.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use libcni::types::{Mac, NetworkName};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use sha2::{Digest, Sha512};

use crate::error::{Error, Result};
use crate::link::{self, Link};
use crate::mark;
use crate::netlink::Netlink;
use crate::owner::Owner;
use crate::sysctl;
use crate::undo::Undo;
use crate::valid::Valid;

/// How long an end may take to come up; the reference gives it as much.
const UP_WITHIN: Duration = Duration::from_millis(2550);

/// The queues of an end. Left to itself, the kernel (6.1 does, and 6.18) makes one for each processor there could be, then
/// takes all but one out of use and waits for every processor meanwhile, with the lock that all changes of links need.
/// What it does not make cannot be put into use later, by `ethtool -L`.
const ONE_QUEUE: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

/// What a pair shall be.
#[derive(Clone, Debug)]
pub struct VethConf<'a, I> {
    /// The name of the pod's end.
    pub pod_name: &'a str,
    /// Names for the host's end; the first one that is free is taken ([`host_names`]).
    pub host_names: I,
    /// The address of the pod's end; `None` for a random one.
    pub mac: Option<Mac>,
    /// The MTU of both ends in bytes; `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// The index of the bridge that the host's end becomes a port of.
    pub master: Option<u32>,
    /// The network of the attachment that it is for, if it is for one ([`mark`]).
    pub network: Option<&'a NetworkName>,
}

/// A pair, both ends down.
#[derive(Clone, Debug)]
pub struct Veth {
    /// The host's end.
    pub host: Link,
    /// The pod's end.
    pub pod: Link,
}

/// Creates a pair. Both ends are down: the kernel refuses to create a peer that is up, and the host's end must refuse
/// router advertisements before it is up, which is seen to here.
///
/// # Errors
/// `container interface "eth0" already exists in …`, no free host name, or the kernel's refusal.
pub fn create<I>(host: &mut Netlink, pod: &mut Netlink, conf: &VethConf<'_, I>) -> Result<Veth>
where
    I: IntoIterator<Item = String> + Clone,
{
    let _step = libcni::log::step("veth");
    // For an MTU out of its range (68 to 65535) the kernel's driver has no words of its own.
    let mtu = conf.mtu.map(|mtu| format!(" of mtu {mtu}")).unwrap_or_default();
    let doing = || format!("create veth pair {}{mtu}", conf.pod_name);
    for name in conf.host_names.clone() {
        let request = message(pod, conf, &name);
        match host.socket.request(RouteNetlinkMessage::NewLink(request), NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => return look_up(host, pod, &name, conf.pod_name),
            // The kernel does not say which of the two names is taken.
            Err(failure) if failure.errno() == Some(libc::EEXIST) => check_free(pod, conf.pod_name)?,
            Err(failure) => return Err(failure.doing(doing())),
        }
    }
    Err(Error::other(doing(), "no name is free for the host's end"))
}

/// Whether the pod has no interface of this name yet.
///
/// # Errors
/// `container interface "eth0" already exists in …`, or the kernel's refusal.
pub fn check_free(pod: &mut Netlink, pod_name: &str) -> Result<()> {
    match link::get(pod, pod_name)? {
        Some(_) => {
            let what = format!("container interface {pod_name:?} already exists in {}", pod.netns());
            Err(Error::os(what, libc::EEXIST))
        }
        None => Ok(()),
    }
}

/// The pair goes if the ADD fails.
pub fn undo_create(veth: &Veth, undo: &mut Undo<'_>) {
    let name = veth.host.name.clone();
    undo.push("remove the veth pair", move || link::remove(&mut Netlink::open()?, &name).map(drop));
}

/// Waits until the host's end has a carrier and counts as up. On a bridge with STP, which listens for half a minute,
/// that is before it forwards.
///
/// # Errors
/// It does not within 2.55 s.
pub fn wait_up(host: &mut Netlink, veth: &Veth) -> Result<()> {
    let _step = libcni::log::step("carrier");
    link::wait_up(host, veth.host.index, UP_WITHIN).map(drop)
}

/// Removes the owner's pair, by its end in the pod. Gone already is fine. `false`: the interface of that name is another
/// attachment's, and stays. A runtime sends DEL for an ADD that failed, and it may have failed because another network had
/// the name already.
///
/// # Errors
/// The kernel's refusal.
pub fn remove(pod: Option<&mut Netlink>, owner: &Owner) -> Result<bool> {
    let _step = libcni::log::step("veth");
    let Some(pod) = pod else { return remove_host_end(owner).map(|()| true) };
    let Some(inside) = link::get(pod, owner.ifname.as_str())? else { return Ok(true) };
    if host_end(&mut Netlink::open()?, &inside)?.is_some_and(|end| is_anothers(&end, owner)) {
        return Ok(false);
    }
    link::remove_by_index(pod, inside.index).map(|_| true)
}

/// The host's end of the pair whose end in the pod is `inside`; `None` where that is no veth, or its other end is not on
/// the host. An index says little in another namespace, so it must point back, too.
///
/// # Errors
/// The kernel's refusal.
pub fn host_end(host: &mut Netlink, inside: &Link) -> Result<Option<Link>> {
    let (Some(index), Some(_), true) = (inside.parent, inside.parent_netns, inside.is_kind("veth")) else {
        return Ok(None);
    };
    let end = link::get_by_index(host, index)?;
    Ok(end.filter(|end| end.is_kind("veth") && end.parent == Some(inside.index)))
}

/// Whether a host's end says that it is another attachment's. The reference's say nothing.
pub fn is_anothers(end: &Link, owner: &Owner) -> bool {
    owner_of(end).is_some_and(|named| named != *owner)
}

/// A namespace whose path is gone may live on, held by a process: then the pair is there as well, and answers for an
/// address that somebody else is about to get. The host's end is found by its name, and known by its alias: another
/// pod's may have the same name.
fn remove_host_end(owner: &Owner) -> Result<()> {
    let mut host = Netlink::open()?;
    for name in host_names(owner) {
        let found = link::get(&mut host, &name)?;
        let is_ours = |end: &Link| end.alias == Some(owner.alias()) || mark::is_unfinished(end, &owner.network);
        if found.is_some_and(|end| end.is_kind("veth") && is_ours(&end)) {
            link::remove(&mut host, &name)?;
        }
    }
    Ok(())
}

/// Removes the pairs of this network's attachments that are not valid, also where the pod's end is in a namespace that
/// lives: its address is about to be given to somebody else. The reference's pairs do not say whose they are, and stay.
///
/// # Errors
/// What could not be removed; the others are.
pub fn remove_all_but(valid: &Valid) -> Result<()> {
    let _step = libcni::log::step("veth");
    let mut host = Netlink::open()?;
    let mut failed = Vec::new();
    for link in link::list(&mut host)?.iter().filter(|link| is_stale(link, valid)) {
        failed.extend(link::remove_by_index(&mut host, link.index).err().map(|error| error.to_string()));
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::other(format!("remove stale veth pairs of network {}", valid.network()), failed.join("; ")))
}

fn is_stale(link: &Link, valid: &Valid) -> bool {
    if link.is_kind("veth") && mark::is_unfinished(link, valid.network()) {
        return !valid.owners().any(|owner| host_names(owner).any(|name| name == link.name));
    }
    owner_of(link).is_some_and(|owner| valid.is_stale(&owner))
}

/// Whose a host's end is. Anybody may write an alias: the name must be of the same owner.
fn owner_of(link: &Link) -> Option<Owner> {
    let owner = link.alias.as_deref().filter(|_| link.is_kind("veth")).and_then(Owner::from_alias);
    owner.filter(|owner| host_names(owner).any(|name| name == link.name))
}

fn message<I>(pod: &Netlink, conf: &VethConf<'_, I>, host_name: &str) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(conf.pod_name.to_owned()));
    peer.attributes.push(LinkAttribute::NetNsFd(pod.netns().as_fd().as_raw_fd()));
    peer.attributes.extend(conf.mac.map(|mac| LinkAttribute::Address(mac.bytes().to_vec())));
    peer.attributes.extend(conf.mtu.map(LinkAttribute::Mtu));
    peer.attributes.extend(ONE_QUEUE);

    let mut host = LinkMessage::default();
    host.attributes.push(LinkAttribute::IfName(host_name.to_owned()));
    let mark = conf.network.map(|network| mark::address(network, host_name));
    host.attributes.extend(mark.map(|mac| LinkAttribute::Address(mac.bytes().to_vec())));
    host.attributes.extend(conf.mtu.map(LinkAttribute::Mtu));
    host.attributes.extend(conf.master.map(LinkAttribute::Controller));
    host.attributes.extend(ONE_QUEUE);
    host.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    host
}

fn look_up(host: &mut Netlink, pod: &mut Netlink, host_name: &str, pod_name: &str) -> Result<Veth> {
    let gone = || Error::os(format!("create veth pair {pod_name}"), libc::ENODEV);
    let ends = link::get(host, host_name).and_then(|host| Ok((host, link::get(pod, pod_name)?)));
    match ends {
        Ok((Some(mut end), Some(pod))) => {
            refuse_router_advertisements(host, &mut end);
            Ok(Veth { host: end, pod })
        }
        other => {
            // Nobody else knows of the pair yet: it cannot stay.
            link::remove(host, host_name)?;
            Err(other.err().unwrap_or_else(gone))
        }
    }
}

/// Keeps a host-side interface from taking addresses and routes from what a pod sends (CVE-2020-10749). It must be
/// down still. Without IPv6, or with an MTU too small for it, there is nothing to refuse; a `/proc/sys` that
/// cannot be written (plugins in an unprivileged container) does not keep a pod from its network, as with the reference.
pub(crate) fn refuse_router_advertisements(host: &Netlink, link: &mut Link) {
    if link.accept_ra != Some(true) {
        return;
    }
    match sysctl::set(host, &format!("net/ipv6/conf/{}/accept_ra", link.name), "0") {
        Ok(()) => link.accept_ra = Some(false),
        Err(error) if error.is_not_found() => {}
        Err(error) => libcni::log::warn(format_args!("{} may accept router advertisements: {error}", link.name)),
    }
}

/// Names for the host's end: `veth` and 8 hex digits, as the reference's, but derived from the owner, so that an
/// operator and a repeated ADD come to the same name. Ten of them.
pub fn host_names(owner: &Owner) -> impl Iterator<Item = String> + Clone + use<> {
    names(&[owner.network.as_str(), owner.container.as_str(), owner.ifname.as_str()])
}

/// Names of the same form for a pair that belongs to something else than an attachment.
pub fn names(of: &[&str]) -> impl Iterator<Item = String> + Clone + use<> {
    let base = of.iter().fold(Sha512::new(), |hash, part| hash.chain_update(part).chain_update([0]));
    (0u8..10).map(move |attempt| {
        let hash = base.clone().chain_update([attempt]).finalize();
        let digits = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("veth{digits}")
    })
}
