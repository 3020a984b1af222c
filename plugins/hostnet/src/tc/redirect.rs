//! The filter that takes every packet which comes into a link and sends it out of another one.
//!
//! It stands behind all others: an agent's program that drops packets must see them before they leave for the other link,
//! from which they come back past its hook. The reference's stands first. Either is known by where it sends packets, not
//! by its place.

use libcni::plugin::dry_run;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType, TcAttribute,
    TcFilterU32, TcFilterU32Option, TcHandle, TcHeader, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key,
    TcU32Selector, TcU32SelectorFlags,
};

use super::{Lenient, about, message};
use crate::error::Result;
use crate::netlink::Netlink;
use crate::undo::Undo;

/// Filters of what comes in, at either kind of hook.
const INCOMING: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
/// Filters of what goes out, at `clsact`.
const OUTGOING: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };
/// Behind those that the kernel chooses, which are 49152 and less (`tcf_auto_prio` of net/sched/cls_api.c): a priority
/// has one kind and one protocol for everybody.
const PRIORITY: u16 = 0xff00;
/// `ETH_P_ALL` of linux/if_ether.h.
const ETH_P_ALL: u16 = 3;

/// The protocol in a filter's header.
const PROTOCOL: u32 = 0xffff;

/// A filter that redirects.
struct Redirect {
    header: TcHeader,
    /// The link that packets are sent out of; 0 where that is gone, and they are dropped.
    to: u32,
    /// Every packet is sent there. Those of others may choose: what an agent drops on purpose goes to nowhere as well.
    is_of_all: bool,
}

/// Whether everything that comes into the link `from` is sent out of the link `to`.
///
/// # Errors
/// The kernel's refusal.
pub fn is_there(nl: &mut Netlink, from: u32, to: u32) -> Result<bool> {
    Ok(list(nl, from)?.iter().any(|redirect| redirect.is_of_all && redirect.to == to))
}

/// The links that what comes into the link `from` is sent out of.
///
/// # Errors
/// The kernel's refusal.
pub fn targets(nl: &mut Netlink, from: u32) -> Result<Vec<u32>> {
    Ok(list(nl, from)?.iter().map(|redirect| redirect.to).collect())
}

/// Sends what comes into the link `from` out of the link `to`. A redirection of ours to another link ends, and one of
/// everything to a link that is gone, which would drop it before ours is asked. There must be a hook.
///
/// # Errors
/// The kernel's refusal.
pub fn ensure(nl: &mut Netlink, from: u32, to: u32, undo: &mut Undo<'_>) -> Result<()> {
    let _step = libcni::log::step("redirect");
    let is_right = |redirect: &Redirect| redirect.is_of_all && redirect.to == to;
    let (right, others): (Vec<_>, Vec<_>) = list(nl, from)?.into_iter().partition(is_right);
    for redirect in others.iter().filter(|redirect| redirect.drops_all() || redirect.header.info == info()) {
        remove_one(nl, from, redirect)?;
    }
    if !right.is_empty() {
        return Ok(());
    }
    let mut request = message(from, INCOMING);
    request.header.info = info();
    request.attributes = vec![TcAttribute::Kind(TcFilterU32::KIND.to_owned()), TcAttribute::Options(options(to))];
    let result = nl.socket.request(RouteNetlinkMessage::NewTrafficFilter(request), NLM_F_CREATE | NLM_F_EXCL);
    result.map_err(|failure| about(nl, from, failure, "redirect what comes into"))?;
    undo.push("remove the redirection", move || remove(&mut Netlink::open()?, from, &[to]).map(drop));
    Ok(())
}

/// Ends every redirection from one link to any of the others, and those of everything to links that are gone.
/// Whether there was one.
///
/// # Errors
/// The kernel's refusal.
pub fn remove(nl: &mut Netlink, from: u32, to: &[u32]) -> Result<bool> {
    let _step = libcni::log::step("redirect");
    let redirects = list(nl, from)?.into_iter().filter(|redirect| redirect.drops_all() || to.contains(&redirect.to));
    redirects.map(|redirect| remove_one(nl, from, &redirect)).try_fold(false, |any, one| Ok(one? | any))
}

fn remove_one(nl: &mut Netlink, from: u32, redirect: &Redirect) -> Result<bool> {
    if dry_run::notes(|| format!("remove the redirection of link number {from} to link number {}", redirect.to)) {
        return Ok(true);
    }
    let removed = match nl.socket.request(RouteNetlinkMessage::DelTrafficFilter(redirect.request()), 0) {
        Ok(()) => true,
        // Gone meanwhile: the filter, its priority, the hook, the link.
        Err(failure) => match list(nl, from) {
            Ok(left) if left.iter().any(|other| other.header == redirect.header) => {
                return Err(about(nl, from, failure, "remove the redirection of"));
            }
            _ => false,
        },
    };
    remove_shell(nl, from, redirect)?;
    Ok(removed)
}

/// Beside other filters of the kind, the last filter of a priority leaves an empty hash table there.
fn remove_shell(nl: &mut Netlink, from: u32, redirect: &Redirect) -> Result<()> {
    let left = dump(nl, from, INCOMING)?;
    let headers = left.iter().filter_map(|Lenient(filter)| match filter {
        Some(RouteNetlinkMessage::NewTrafficFilter(filter)) => Some(&filter.header),
        _ => None,
    });
    let mut of_priority = headers.filter(|header| header.info == redirect.header.info).peekable();
    // The low 12 bits of a handle are the filter's number in its table; those of tables have none.
    let is_shell = of_priority.peek().is_some() && of_priority.all(|header| header.handle.minor & 0xfff == 0);
    if is_shell && left.iter().all(|Lenient(filter)| filter.is_some()) {
        let mut request = redirect.request();
        request.header.handle = TcHandle::UNSPEC;
        // It does no harm: whoever is about to fill it has it.
        drop(nl.socket.request(RouteNetlinkMessage::DelTrafficFilter(request), 0));
    }
    Ok(())
}

/// Whether any filter stands at the hook of a link, whoever put it there.
pub(super) fn is_any_filter(nl: &mut Netlink, index: u32) -> Result<bool> {
    Ok(!dump(nl, index, INCOMING)?.is_empty() || !dump(nl, index, OUTGOING)?.is_empty())
}

fn list(nl: &mut Netlink, index: u32) -> Result<Vec<Redirect>> {
    let filters = dump(nl, index, INCOMING)?;
    Ok(filters.into_iter().filter_map(|Lenient(filter)| Redirect::read(filter?)).collect())
}

fn dump(nl: &mut Netlink, index: u32, parent: TcHandle) -> Result<Vec<Lenient>> {
    let request = Lenient(Some(RouteNetlinkMessage::GetTrafficFilter(message(index, parent))));
    match nl.socket.dump(request) {
        Err(failure) if failure.errno() == Some(libc::ENODEV) => Ok(Vec::new()),
        answer => answer.map_err(|failure| about(nl, index, failure, "list the filters of")),
    }
}

impl Redirect {
    /// About this filter.
    fn request(&self) -> TcMessage {
        TcMessage::from_parts(self.header.clone(), vec![TcAttribute::Kind(TcFilterU32::KIND.to_owned())])
    }

    fn drops_all(&self) -> bool {
        self.is_of_all && self.to == 0
    }

    fn read(message: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
        let options = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })?;
        let to = options.iter().find_map(target)?;
        let is_of_all = message.header.info & PROTOCOL == info() & PROTOCOL && options.iter().any(matches_all);
        Some(Self { header: message.header, to, is_of_all })
    }
}

/// Where a filter redirects to.
fn target(option: &TcOption) -> Option<u32> {
    let TcOption::U32(TcFilterU32Option::Action(actions)) = option else { return None };
    let mut options = actions.iter().flat_map(|action| &action.attributes).filter_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.find_map(|options| {
        options.iter().find_map(|option| match option {
            TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))
                if mirror.eaction == TcMirrorActionType::EgressRedir =>
            {
                Some(mirror.ifindex)
            }
            _ => None,
        })
    })
}

/// Whether a filter's selector lets every packet pass.
fn matches_all(option: &TcOption) -> bool {
    matches!(option, TcOption::U32(TcFilterU32Option::Selector(selector)) if selector.keys.iter().all(|key| key.mask == 0))
}

/// Priority and protocol, as they stand in a filter's header.
fn info() -> u32 {
    u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be())
}

/// A key that every packet matches, and the redirection.
fn options(to: u32) -> Vec<TcOption> {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    let class = TcHandle { major: 1, minor: 1 };
    let options = [
        TcFilterU32Option::ClassId(class),
        TcFilterU32Option::Selector(selector),
        TcFilterU32Option::Action(vec![action]),
    ];
    options.into_iter().map(TcOption::U32).collect()
}
