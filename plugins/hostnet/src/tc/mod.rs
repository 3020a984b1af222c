//! Traffic control, as far as shaping a pod needs it: the queueing discipline at the root of a link ([`tbf`]), the hook
//! where packets come in ([`ingress`]), and the filter that sends them through another link ([`redirect`]).
//!
//! The typed crate has no tbf, so its options are raw here. A filter is `u32`, as the reference's, and not `matchall`:
//! kernels are built without that one.

pub mod ingress;
pub mod redirect;
pub mod tbf;

use std::thread;
use std::time::{Duration, Instant};

use libcni::plugin::dry_run;
use netlink_packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use crate::error::{Error, Result};
use crate::link;
use crate::netlink::{Failure, Netlink};

/// The handle that the reference gives to the queueing discipline at a root, and we to ours.
const OURS: TcHandle = TcHandle { major: 1, minor: 0 };

/// Longest wait for others' requests about the filters of a queueing discipline that is to be removed, and the pause
/// between two attempts.
const BUSY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// What the kernel says of a place without a queueing discipline, and of a link that is gone.
const NOTHING_THERE: [i32; 3] = [libc::ENOENT, libc::EINVAL, libc::ENODEV];

/// A queueing discipline as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// `tbf`, `noqueue`, `clsact`…
    pub kind: String,
    handle: TcHandle,
    options: Vec<u8>,
}

impl Qdisc {
    /// Whether the kernel put it there by itself: what others set has a handle.
    pub fn is_default(&self) -> bool {
        self.handle == TcHandle::UNSPEC
    }

    /// Whether we or the reference put it at a root: a tbf, or the htb of the reference's 1.5.
    fn is_ours(&self) -> bool {
        self.handle == OURS && (self.kind == tbf::KIND || self.kind == "htb")
    }

    fn read(message: &TcMessage) -> Self {
        let mut qdisc = Self { kind: String::new(), handle: message.header.handle, options: Vec::new() };
        for attribute in &message.attributes {
            match attribute {
                TcAttribute::Kind(kind) => qdisc.kind.clone_from(kind),
                // Of a kind that the typed crate does not know: one raw attribute, which is the whole nest.
                TcAttribute::Options(options) => qdisc.options = options.first().map(value).unwrap_or_default(),
                _ => {}
            }
        }
        qdisc
    }
}

/// The queueing discipline that packets leave a link through; `None` where there is none, as on a link that is down, and
/// where there is no link.
///
/// # Errors
/// The kernel's refusal.
pub fn root(nl: &mut Netlink, index: u32) -> Result<Option<Qdisc>> {
    get(nl, index, TcHandle::ROOT, "root")
}

fn get(nl: &mut Netlink, index: u32, parent: TcHandle, place: &str) -> Result<Option<Qdisc>> {
    let request = message(index, parent);
    let doing = format!("get the {place} qdisc of");
    match nl.socket.get_echoed(RouteNetlinkMessage::GetQueueDiscipline(request)) {
        Ok(Some(RouteNetlinkMessage::NewQueueDiscipline(found))) => Ok(Some(Qdisc::read(&found))),
        Ok(Some(_)) => Err(about(nl, index, Failure::Answer("the kernel answered with something else".into()), &doing)),
        // One that the kernel does not show: `noop`, where nothing ever was, or is any more. It may also say EINVAL.
        Ok(None) => Ok(None),
        Err(failure) if failure.errno().is_some_and(|errno| NOTHING_THERE.contains(&errno)) => Ok(None),
        Err(failure) => Err(about(nl, index, failure, &doing)),
    }
}

/// Removes the queueing discipline of ours at a link's root, whichever it is. Whether there was one.
///
/// # Errors
/// The kernel's refusal.
pub fn remove_root(nl: &mut Netlink, index: u32) -> Result<bool> {
    let _step = libcni::log::step("shaper");
    let is_there = |nl: &mut Netlink| root(nl, index).map(|found| found.is_some_and(|qdisc| qdisc.is_ours()));
    if !is_there(nl)? {
        return Ok(false);
    }
    let mut request = message(index, TcHandle::ROOT);
    request.header.handle = OURS;
    remove(nl, index, request, "remove the root qdisc of", is_there)
}

/// Removes a queueing discipline. The kernel has three errnos for one that is gone meanwhile, so it is asked again. And it
/// says EBUSY while another process is about a filter there (Linux 6.6, "ongoing filter requests"): two DELs of one pod.
/// Nobody announces the end of that, which takes as long as a request.
fn remove(
    nl: &mut Netlink,
    index: u32,
    request: TcMessage,
    doing: &str,
    is_there: impl FnOnce(&mut Netlink) -> Result<bool>,
) -> Result<bool> {
    if dry_run::is_on() {
        let doing = format!("{doing} link number {index}");
        return Ok(is_there(nl)? && dry_run::notes(|| doing));
    }
    let end = Instant::now() + BUSY;
    let answer = loop {
        match nl.socket.request(RouteNetlinkMessage::DelQueueDiscipline(request.clone()), 0) {
            Err(failure) if failure.errno() == Some(libc::EBUSY) && Instant::now() < end => thread::sleep(PAUSE),
            answer => break answer,
        }
    };
    match answer {
        Ok(()) => Ok(true),
        Err(failure) if failure.errno() == Some(libc::ENODEV) => Ok(false),
        Err(failure) => match is_there(nl) {
            Ok(false) => Ok(false),
            _ => Err(about(nl, index, failure, doing)),
        },
    }
}

/// A request about what hangs at `parent` of the link of this index.
fn message(index: u32, parent: TcHandle) -> TcMessage {
    // The header of the kernel has an int where that of links has the same number unsigned.
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = parent;
    message
}

fn about(nl: &mut Netlink, index: u32, failure: Failure, doing: &str) -> Error {
    failure.doing(format!("{doing} link {}", link::describe(nl, index)))
}

/// The bytes of an attribute.
fn value(attribute: &TcOption) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

/// A message of a list in which others' filters stand, too. What the typed crate cannot read of them is not ours, and
/// must not fail this pod.
struct Lenient(Option<RouteNetlinkMessage>);

impl NetlinkDeserializable for Lenient {
    type Error = std::convert::Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> std::result::Result<Self, Self::Error> {
        Ok(Self(RouteNetlinkMessage::deserialize(header, payload).ok()))
    }
}

impl NetlinkSerializable for Lenient {
    fn message_type(&self) -> u16 {
        self.0.as_ref().map_or(0, NetlinkSerializable::message_type)
    }

    fn buffer_len(&self) -> usize {
        self.0.as_ref().map_or(0, Emitable::buffer_len)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Some(message) = &self.0 {
            message.emit(buffer);
        }
    }
}
