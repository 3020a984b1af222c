//! What rules are made of. A rule is a list of expressions that load, compare and decide; each is a
//! value here that writes itself as attributes and reads itself back.
//!
//! All work on register 1, which holds 16 bytes: what is loaded last is compared next. (Concatenated
//! keys of maps will need more; then the register becomes a field.)

use netlink_packet_core::ParseableParametrized;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, Payload,
    Register, Verdict as VerdictCode, VerdictAttribute,
};

pub use netlink_packet_netfilter::nftables::{MetaKey, Operator};

use super::ct::{self, CtKey};
use super::nat::Nat;
use super::source_nat;
use crate::netlink::raw;

/// `NF_DROP` and `NF_ACCEPT` of linux/netfilter.h.
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// Attributes of linux/netfilter/nf_tables.h that are read here; the register of a verdict is 0 (`NFT_REG_VERDICT`).
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// `NFT_LOOKUP_F_INV` of linux/netfilter/nf_tables.h.
const LOOKUP_INVERTED: u32 = 1;

/// Payload counted from the link header (`NFT_PAYLOAD_LL_HEADER`).
pub const LINK_HEADER: u32 = 0;
/// Payload counted from the IP header (`NFT_PAYLOAD_NETWORK_HEADER`).
pub const NETWORK_HEADER: u32 = 1;

/// Payload counted from the header after it, TCP's or UDP's (`NFT_PAYLOAD_TRANSPORT_HEADER`).
pub const TRANSPORT_HEADER: u32 = 2;

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads something known about the packet: the interface it came in by, its protocol...
    Meta(MetaKey),
    /// Loads something known about the connection that the packet belongs to.
    Ct(CtKey),
    /// Loads bytes of the packet.
    Payload {
        /// `LINK_HEADER` or `NETWORK_HEADER`.
        base: u32,
        /// Bytes from there.
        offset: u32,
        /// How many bytes.
        len: u32,
    },
    /// Keeps the bits of the mask.
    Mask(Vec<u8>),
    /// The rule ends here unless the comparison holds.
    Compare(Operator, Vec<u8>),
    /// Loads this value.
    Value(Vec<u8>),
    /// The rule ends here unless what is loaded is in the set, or, `inverted`, is not in it.
    Lookup {
        /// The set's name.
        set: String,
        /// Its number in the batch that makes it: [`super::Batch::create_anonymous_set`].
        id: Option<u32>,
        /// In it, or not in it.
        inverted: bool,
    },
    /// Decides.
    Verdict(Verdict),
    /// The source address becomes that of the outgoing interface.
    Masquerade,
    /// The same, and the source port becomes a random one.
    MasqueradeFullyRandom,
    /// The source address becomes what is loaded.
    SourceNat {
        /// Which IP version's.
        ipv4: bool,
        /// The source port becomes a random one.
        random_fully: bool,
    },
    /// A step of address translation, or towards it.
    Nat(Nat),
    /// An expression that this program never writes, by its name.
    Other(String),
}

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this base chain.
    Accept,
    /// It is dropped.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// On in that chain, and back here after it.
    Jump(String),
    /// On in that chain for good.
    Goto(String),
}

impl Expression {
    /// As an element of a rule's list of expressions.
    pub(super) fn write(self) -> ListAttribute<ExpressionAttribute> {
        let reg = Register::Reg1;
        let expressions = match self {
            Self::Meta(key) => Expressions::Meta(vec![Meta::DestinationRegister(reg), Meta::Key(key)]),
            Self::Ct(key) => ct::write(key),
            Self::Payload { base, offset, len } => Expressions::Payload(vec![
                Payload::DestinationRegister(reg),
                Payload::Base(base),
                Payload::Offset(offset),
                Payload::Len(len),
            ]),
            Self::Mask(mask) => Expressions::Bitwise(vec![
                Bitwise::SourceRegister(reg),
                Bitwise::DestinationRegister(reg),
                Bitwise::Length(u32::try_from(mask.len()).unwrap_or(u32::MAX)),
                Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
                Bitwise::Mask(DataAttribute::Value(mask)),
            ]),
            Self::Compare(operator, data) => Expressions::Cmp(vec![
                Cmp::SourceRegister(reg),
                Cmp::Op(operator),
                Cmp::Data(DataAttribute::Value(data)),
            ]),
            Self::Value(value) => Expressions::Immediate(vec![
                Immediate::DestinationRegister(reg),
                Immediate::Data(DataAttribute::Value(value)),
            ]),
            Self::Lookup { set, id, inverted } => {
                let mut list = vec![Lookup::Set(set), Lookup::SourceRegister(reg)];
                list.extend(id.map(Lookup::SetId));
                list.extend(inverted.then_some(Lookup::Flags(LOOKUP_INVERTED)));
                Expressions::Lookup(list)
            }
            Self::Verdict(verdict) => Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Verdict),
                Immediate::Data(DataAttribute::Verdict(verdict.write())),
            ]),
            Self::Nat(nat) => nat.write(),
            Self::Masquerade => source_nat::write_masquerade(false),
            Self::MasqueradeFullyRandom => source_nat::write_masquerade(true),
            Self::SourceNat { ipv4, random_fully } => source_nat::write(ipv4, random_fully, reg),
            Self::Other(expression_type) => Expressions::Other { expression_type, attributes: Vec::new() },
        };
        expressions.into()
    }

    /// From its name and its data, as a rule's list of expressions has them.
    pub(super) fn read(name: &str, data: Option<&[u8]>) -> Self {
        let known = match data {
            // Extensions of iptables. For each attribute the typed crate writes all the bytes out, in case there is an
            // error to report: of a comment of 256 bytes that is 0.4 ms.
            Some(_) if matches!(name, "match" | "target") => None,
            Some(data) if !is_whole(name, data) => None,
            // Of which most rules are made, and for the same reason.
            Some(data) if name == "payload" => read_payload(data),
            Some(data) if name == "cmp" => read_compare(data),
            Some(data) if name == "immediate" && number(data, NFTA_IMMEDIATE_DREG) == Some(0) => read_verdict(data),
            Some(data) => Expressions::parse_with_param(data, Some(name.to_owned())).ok().and_then(Self::read_data),
            // An expression without parameters may come without data.
            None => (name == "masq").then_some(Self::Masquerade),
        };
        known.unwrap_or_else(|| Self::Other(name.to_owned()))
    }

    fn read_data(data: Expressions) -> Option<Self> {
        if let Some(nat) = Nat::read(&data) {
            return Some(Self::Nat(nat));
        }
        match data {
            Expressions::Meta(list) => find(list, |attribute| match attribute {
                Meta::Key(key) => Some(Self::Meta(key)),
                _ => None,
            }),
            Expressions::Bitwise(list) => find(list, |attribute| match attribute {
                Bitwise::Mask(DataAttribute::Value(mask)) => Some(Self::Mask(mask)),
                _ => None,
            }),
            Expressions::Immediate(list) => find(list, |attribute| match attribute {
                Immediate::Data(DataAttribute::Value(value)) => Some(Self::Value(value)),
                _ => None,
            }),
            Expressions::Lookup(list) => read_lookup(list),
            Expressions::Other { expression_type, attributes } if expression_type == ct::NAME => {
                ct::read(&attributes).map(Self::Ct)
            }
            Expressions::Other { expression_type, attributes } => source_nat::read(&expression_type, &attributes),
            _ => None,
        }
    }
}

/// Whether the attributes that hold a value hold one: the typed crate panics where such a nest is empty or cut.
fn is_whole(name: &str, data: &[u8]) -> bool {
    let holds_value: &[u16] = match name {
        "immediate" => &[2],     // NFTA_IMMEDIATE_DATA
        "cmp" => &[3],           // NFTA_CMP_DATA
        "bitwise" => &[4, 5, 7], // NFTA_BITWISE_MASK, _XOR and _DATA
        _ => &[],
    };
    let mut values = raw::attributes(data).filter(|(kind, _)| holds_value.contains(kind));
    values.all(|(_, value)| raw::attributes(value).next().is_some())
}

fn find<T, U>(list: Vec<T>, wanted: impl FnMut(T) -> Option<U>) -> Option<U> {
    list.into_iter().find_map(wanted)
}

/// The value of an attribute that is a number; nf_tables has the order of the network.
fn number(data: &[u8], kind: u16) -> Option<u32> {
    raw::find(data, kind)?.try_into().ok().map(u32::from_be_bytes)
}

fn read_payload(data: &[u8]) -> Option<Expression> {
    Some(Expression::Payload {
        base: number(data, NFTA_PAYLOAD_BASE)?,
        offset: number(data, NFTA_PAYLOAD_OFFSET)?,
        len: number(data, NFTA_PAYLOAD_LEN)?,
    })
}

fn read_compare(data: &[u8]) -> Option<Expression> {
    let value = raw::find(raw::find(data, NFTA_CMP_DATA)?, NFTA_DATA_VALUE)?;
    Some(Expression::Compare(number(data, NFTA_CMP_OP)?.into(), value.to_vec()))
}

fn read_verdict(data: &[u8]) -> Option<Expression> {
    let verdict = raw::find(raw::find(data, NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT)?;
    let chain = raw::find(verdict, NFTA_VERDICT_CHAIN).and_then(|name| name.strip_suffix(&[0]));
    let chain = chain.map(|name| String::from_utf8_lossy(name).into_owned());
    Verdict::read(number(verdict, NFTA_VERDICT_CODE)?.into(), chain).map(Expression::Verdict)
}

fn read_lookup(list: Vec<Lookup>) -> Option<Expression> {
    let (mut set, mut inverted) = (None, false);
    for attribute in list {
        match attribute {
            Lookup::Set(name) => set = Some(name),
            Lookup::Flags(flags) => inverted = flags & LOOKUP_INVERTED != 0,
            _ => {}
        }
    }
    Some(Expression::Lookup { set: set?, id: None, inverted })
}

impl Verdict {
    fn write(self) -> Vec<VerdictAttribute> {
        let (code, chain) = match self {
            Self::Accept => (VerdictCode::Other(NF_ACCEPT), None),
            Self::Drop => (VerdictCode::Other(NF_DROP), None),
            Self::Return => (VerdictCode::Return, None),
            Self::Jump(chain) => (VerdictCode::Jump, Some(chain)),
            Self::Goto(chain) => (VerdictCode::Goto, Some(chain)),
        };
        let mut attributes = vec![VerdictAttribute::Code(code)];
        attributes.extend(chain.map(VerdictAttribute::Chain));
        attributes
    }

    fn read(code: VerdictCode, chain: Option<String>) -> Option<Self> {
        match code {
            VerdictCode::Other(NF_ACCEPT) => Some(Self::Accept),
            VerdictCode::Other(NF_DROP) => Some(Self::Drop),
            VerdictCode::Return => Some(Self::Return),
            VerdictCode::Jump => chain.map(Self::Jump),
            VerdictCode::Goto => chain.map(Self::Goto),
            _ => None,
        }
    }
}
