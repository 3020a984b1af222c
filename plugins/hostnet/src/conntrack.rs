//! Connection tracking: the flows that the node follows, and forgetting those whose address translation is out of date.
//! A UDP flow never ends by itself while somebody keeps sending, and goes on to where its first packet was sent.
//!
//! Numbers: linux/netfilter/nfnetlink_conntrack.h. The kernel is asked for the flows of one protocol, and port or pod,
//! alone (`CTA_FILTER`, since Linux 5.8); older ones answer with all flows, so what comes is looked at here again.

use std::net::IpAddr;

use libcni::plugin::dry_run;
use netlink_packet_core::{DefaultNla, Emitable};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::error::{Error, Result};
use crate::netlink::Socket;
use crate::netlink::raw::{Raw, find};
use crate::ports::Protocol;

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_NEW`, `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const CT_NEW: u16 = 0x0100;
const CT_GET: u16 = 0x0101;
const CT_DELETE: u16 = 0x0102;

/// `struct nfgenmsg`: family, version, resource.
const HEADER_LEN: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_FLAG(CTA_IP_SRC)`, `(CTA_PROTO_NUM)` and `(CTA_PROTO_DST_PORT)` of the kernel's nf_conntrack_netlink.c.
const FLAG_IP_SRC: u32 = 1 << 0;
const FLAG_PROTO_NUM: u32 = 1 << 3;
const FLAG_DST_PORT: u32 = 1 << 5;

/// Of a nested attribute (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;

/// Which flows to list. All that is said must hold.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Of IPv4 or of IPv6.
    pub ipv4: bool,
    /// Their protocol.
    pub protocol: Protocol,
    /// The port that the first packet was sent to.
    pub port: Option<u16>,
    /// Who answers.
    pub answers_from: Option<IpAddr>,
}

/// A flow, as the kernel follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its protocol's number.
    pub protocol: u8,
    /// The address that the first packet was sent to.
    pub to: IpAddr,
    /// The port that the first packet was sent to.
    pub port: u16,
    /// Who answers: another address than `to` where the destination is translated.
    pub answers_from: IpAddr,
    ipv4: bool,
    /// What names it to the kernel, as the kernel sent it.
    identity: Vec<DefaultNla>,
}

/// A connection to the kernel's table of flows, in the network namespace in which it was opened.
pub struct Conntrack(Socket);

impl Conntrack {
    /// Over a socket that replays what connection tracking once said.
    #[cfg(feature = "replay")]
    pub fn over(socket: Socket) -> Self {
        Self(socket)
    }

    /// Opens it.
    ///
    /// # Errors
    /// There is no such socket.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(NETLINK_NETFILTER);
        Ok(Self(socket.map_err(|failure| failure.doing("open a netfilter socket"))?))
    }

    /// The flows that match.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn list(&mut self, filter: &Filter) -> Result<Vec<Flow>> {
        let mut answers = self.0.dump(question(filter, true));
        // What a kernel does not filter by, we do.
        if answers.as_ref().is_err_and(|failure| matches!(failure.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL))) {
            answers = self.0.dump(question(filter, false));
        }
        let answers = match answers {
            // No connection tracking here, so no flows.
            Err(failure) if matches!(failure.errno(), Some(libc::EINVAL | libc::ENOENT)) => return Ok(Vec::new()),
            answers => answers.map_err(|failure| failure.doing("list tracked flows"))?,
        };
        Ok(answers.iter().filter_map(flow).filter(|flow| filter.matches(flow)).collect())
    }

    /// Forgets a flow: its next packet is its first. Whether it was there.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove(&mut self, flow: &Flow) -> Result<bool> {
        if dry_run::notes(|| format!("forget the tracked flow to {} port {}", flow.to, flow.port)) {
            return Ok(true);
        }
        match self.0.request(message(CT_DELETE, flow.ipv4, &flow.identity), 0) {
            Ok(()) => Ok(true),
            Err(failure) => {
                let error: Error = failure.doing(format!("forget the tracked flow to {} port {}", flow.to, flow.port));
                if error.is_not_found() { Ok(false) } else { Err(error) }
            }
        }
    }
}

impl Filter {
    fn matches(&self, flow: &Flow) -> bool {
        flow.ipv4 == self.ipv4
            && flow.protocol == self.protocol.number()
            && self.port.is_none_or(|port| flow.port == port)
            && self.answers_from.is_none_or(|addr| flow.answers_from == addr)
    }
}

fn message(kind: u16, ipv4: bool, attributes: &[DefaultNla]) -> Raw {
    let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 };
    let mut payload = vec![u8::try_from(family).unwrap_or_default(), 0, 0, 0];
    payload.extend(emit(attributes));
    Raw { kind, payload }
}

fn question(filter: &Filter, in_kernel: bool) -> Raw {
    if !in_kernel {
        return message(CT_GET, filter.ipv4, &[]);
    }
    let mut protocol = vec![DefaultNla::new(CTA_PROTO_NUM, vec![filter.protocol.number()])];
    let mut orig_flags = FLAG_PROTO_NUM;
    if let Some(port) = filter.port {
        protocol.push(DefaultNla::new(CTA_PROTO_DST_PORT, port.to_be_bytes().to_vec()));
        orig_flags |= FLAG_DST_PORT;
    }
    let mut attributes = vec![nest(CTA_TUPLE_ORIG, &[nest(CTA_TUPLE_PROTO, &protocol)])];
    let mut reply_flags = 0;
    // Kernels filter out the IPv6 address that they are asked for, and answer with all others: there we choose.
    if let Some(IpAddr::V4(addr)) = filter.answers_from {
        let source = DefaultNla::new(CTA_IP_V4_SRC, addr.octets().to_vec());
        attributes.push(nest(CTA_TUPLE_REPLY, &[nest(CTA_TUPLE_IP, &[source])]));
        reply_flags = FLAG_IP_SRC;
    }
    let flags = |kind, flags: u32| DefaultNla::new(kind, flags.to_ne_bytes().to_vec());
    let flags = [flags(CTA_FILTER_ORIG_FLAGS, orig_flags), flags(CTA_FILTER_REPLY_FLAGS, reply_flags)];
    attributes.push(nest(CTA_FILTER, &flags));
    message(CT_GET, filter.ipv4, &attributes)
}

fn flow(answer: &Raw) -> Option<Flow> {
    if answer.kind != CT_NEW {
        return None;
    }
    let ipv4 = i32::from(*answer.payload.first()?) == libc::AF_INET;
    let attributes = answer.payload.get(HEADER_LEN..)?;
    let (orig, reply) = (find(attributes, CTA_TUPLE_ORIG)?, find(attributes, CTA_TUPLE_REPLY)?);
    let protocol = find(orig, CTA_TUPLE_PROTO)?;
    let identity = [(CTA_TUPLE_ORIG | NESTED, find(attributes, CTA_TUPLE_ORIG)), (CTA_ID, find(attributes, CTA_ID))];
    let zone = (CTA_ZONE, find(attributes, CTA_ZONE));
    let identity = identity.into_iter().chain([zone]);
    Some(Flow {
        protocol: *find(protocol, CTA_PROTO_NUM)?.first()?,
        to: address(find(orig, CTA_TUPLE_IP)?, CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        port: u16::from_be_bytes(find(protocol, CTA_PROTO_DST_PORT)?.try_into().ok()?),
        answers_from: address(find(reply, CTA_TUPLE_IP)?, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        ipv4,
        identity: identity.filter_map(|(kind, value)| Some(DefaultNla::new(kind, value?.to_vec()))).collect(),
    })
}

fn nest(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NESTED, emit(attributes))
}

fn emit(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn address(attributes: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    match find(attributes, v4) {
        Some(bytes) => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        None => Some(<[u8; 16]>::try_from(find(attributes, v6)?).ok()?.into()),
    }
}
