//! The hook where packets come into a link, at which filters can stand: `clsact` (Linux 4.5), or `ingress`, which the
//! reference makes and which lacks the other direction.
//!
//! A link has one of the two, for everybody. What is there is used. Where nothing is, `clsact` is made: an agent that
//! comes later (eBPF programs are attached to it) makes sure that it is there, and would fail to make it beside an
//! `ingress`, or throw that out with our filter.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle};

use super::{Qdisc, about, message, redirect};
use crate::error::Result;
use crate::netlink::Netlink;
use crate::undo::Undo;

/// Either kind has this one.
const HANDLE: TcHandle = TcHandle { major: u16::MAX, minor: 0 };

/// The hook of a link, of either kind.
///
/// # Errors
/// The kernel's refusal.
pub fn get(nl: &mut Netlink, index: u32) -> Result<Option<Qdisc>> {
    super::get(nl, index, TcHandle::INGRESS, "ingress")
}

/// Makes the hook where there is none.
///
/// # Errors
/// The kernel's refusal.
pub fn ensure(nl: &mut Netlink, index: u32, undo: &mut Undo<'_>) -> Result<()> {
    let _step = libcni::log::step("redirect");
    if get(nl, index)?.is_some() {
        return Ok(());
    }
    let mut request = message(index, TcHandle::CLSACT);
    request.header.handle = HANDLE;
    request.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    match nl.socket.request(RouteNetlinkMessage::NewQueueDiscipline(request), NLM_F_CREATE | NLM_F_EXCL) {
        // Somebody else was faster: it is his, and stays.
        Err(failure) if failure.errno() == Some(libc::EEXIST) => return Ok(()),
        result => result.map_err(|failure| about(nl, index, failure, "make the clsact qdisc of"))?,
    }
    undo.push("remove the ingress hook", move || remove_unused(&mut Netlink::open()?, index).map(drop));
    Ok(())
}

/// Removes the hook if no filter stands there, in either direction. Whether it is gone by this.
///
/// # Errors
/// The kernel's refusal.
pub fn remove_unused(nl: &mut Netlink, index: u32) -> Result<bool> {
    if get(nl, index)?.is_none() || redirect::is_any_filter(nl, index)? {
        return Ok(false);
    }
    let mut request = message(index, TcHandle::INGRESS);
    request.header.handle = HANDLE;
    super::remove(nl, index, request, "remove the ingress qdisc of", |nl| get(nl, index).map(|found| found.is_some()))
}
