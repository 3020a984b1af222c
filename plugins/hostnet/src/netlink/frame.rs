//! The framing of netlink: one datagram holds several messages, each behind a header of 16 bytes
//! (`struct nlmsghdr` of linux/netlink.h, native byte order).

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkSerializable, Parseable,
};

use super::failure::Failure;

/// `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END` of linux/netfilter/nfnetlink.h.
pub(super) const BATCH_BEGIN: u16 = 16;
pub(super) const BATCH_END: u16 = 17;
/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;

/// One message as it stands in a datagram.
pub(super) struct Frame<'a> {
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
    header: NetlinkHeader,
    payload: &'a [u8],
}

/// What a message says to the one who asked.
pub(super) enum Answer {
    /// The end: of a dump, or the acknowledgement or refusal of a request.
    Done(Result<(), Failure>),
    /// An object.
    Message,
    /// Nothing.
    Noise,
}

impl Frame<'_> {
    pub(super) fn answer(&self) -> Answer {
        match self.header.message_type {
            NLMSG_ERROR => Answer::Done(self.result(self.attributes_of_error())),
            // A refusal in the midst of a dump stands in the message that ends it.
            NLMSG_DONE => Answer::Done(self.result(self.payload.get(4..).unwrap_or_default())),
            NLMSG_NOOP => Answer::Noise,
            NLMSG_OVERRUN => Answer::Done(Err(Failure::Answer("the kernel lost data".to_owned()))),
            _ => Answer::Message,
        }
    }

    /// The message, typed.
    pub(super) fn parse<M: NetlinkDeserializable>(&self) -> Result<M, Failure> {
        M::deserialize(&self.header, self.payload)
            .map_err(|error| Failure::Answer(format!("cannot read the kernel's answer: {error}")))
    }

    /// The code at the start of an error or an end: 0, or a negative errno.
    fn result(&self, attributes: &[u8]) -> Result<(), Failure> {
        let code = self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if code >= 0 { Ok(()) } else { Err(Failure::kernel(code.saturating_neg(), attributes)) }
    }

    /// An error repeats the request's header, and where it is not capped the whole request, before the attributes.
    fn attributes_of_error(&self) -> &[u8] {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return &[];
        }
        let request = self.payload.get(4..).unwrap_or_default();
        let length = match self.flags & NLM_F_CAPPED {
            0 => request.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes)),
            _ => 0,
        };
        let skip = align(usize::try_from(length).unwrap_or(usize::MAX)).max(HEADER);
        request.get(skip..).unwrap_or_default()
    }
}

/// The messages of a datagram.
pub(super) struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0); // nothing follows a message that cannot be delimited
        let length = rest.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let message = if length < HEADER { None } else { rest.get(..length) };
        let header = message.and_then(|bytes| NetlinkHeader::parse(&NetlinkBuffer::new_checked(bytes).ok()?).ok());
        let (Some(header), Some(payload)) = (header, message.and_then(|bytes| bytes.get(HEADER..))) else {
            return Some(Err(Failure::Answer(format!("a message of {length} bytes in a datagram of {}", rest.len()))));
        };
        self.0 = rest.get(align(length)..).unwrap_or_default();
        Some(Ok(Frame {
            flags: header.flags,
            sequence: header.sequence_number,
            port: header.port_number,
            header,
            payload,
        }))
    }
}

/// Appends a message to a datagram; the length and the type are filled in here.
pub(super) fn append<M: NetlinkSerializable>(datagram: &mut Vec<u8>, message: &mut NetlinkMessage<M>) {
    message.finalize();
    let start = datagram.len();
    let length = message.buffer_len();
    datagram.resize(start + align(length), 0);
    if let Some(place) = datagram.get_mut(start..start + length) {
        message.serialize(place);
    }
}

/// A mark of an nf_tables batch: a header and `struct nfgenmsg` {family, version, subsystem (big endian)}.
pub(super) fn batch_mark(kind: u16, sequence: u32) -> Vec<u8> {
    let mut mark = Vec::with_capacity(HEADER + 4);
    mark.extend(20u32.to_ne_bytes());
    mark.extend(kind.to_ne_bytes());
    mark.extend(NLM_F_REQUEST.to_ne_bytes());
    mark.extend(sequence.to_ne_bytes());
    mark.extend(0u32.to_ne_bytes());
    mark.extend([0, 0]);
    mark.extend(NFTABLES.to_be_bytes());
    mark
}

/// Messages begin at multiples of 4 (`NLMSG_ALIGN`).
fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}
