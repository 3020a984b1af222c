//! Messages as bytes, read attribute by attribute: where the typed crates have no type, and where theirs takes apart much
//! more than is asked for.

use std::convert::Infallible;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

/// `struct nlattr`, before the value.
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// `NLA_TYPE_MASK`: without the flags for nesting and byte order.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A message: its type, and what follows the netlink header.
#[derive(Clone)]
pub struct Raw {
    pub(crate) kind: u16,
    pub(crate) payload: Vec<u8>,
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { kind: header.message_type, payload: payload.to_vec() })
    }
}

/// The attributes that stand in these bytes: type and value.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        // struct nlattr: length with this header, type, value, padding to 4 bytes.
        let ([len_low, len_high, kind_low, kind_high], _) = rest.split_first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([*len_low, *len_high]));
        let kind = u16::from_ne_bytes([*kind_low, *kind_high]) & NLA_TYPE_MASK;
        let value = rest.get(ATTRIBUTE_HEADER_LEN..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// What stands before an attribute's value of this length.
pub(crate) fn header(kind: u16, length: usize) -> [u8; ATTRIBUTE_HEADER_LEN] {
    let length = u16::try_from(ATTRIBUTE_HEADER_LEN + length).unwrap_or(u16::MAX);
    let ([a, b], [c, d]) = (length.to_ne_bytes(), kind.to_ne_bytes());
    [a, b, c, d]
}

/// An attribute with a value of 4 bytes in the machine's order, which needs no padding.
pub(crate) fn number(kind: u16, value: [u8; 4]) -> [u8; 8] {
    let ([a, b], [c, d], [e, f, g, h]) = (8u16.to_ne_bytes(), kind.to_ne_bytes(), value);
    [a, b, c, d, e, f, g, h]
}
