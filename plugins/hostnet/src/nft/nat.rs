//! Address translation in nf_tables: where a packet was going, marks, and a new destination. As `nft` writes them, which
//! prints a rule back in words only if it recognises the pattern (`nft --debug=netlink` 1.0.6).
//!
//! A destination is loaded into two registers, address and port, from which the translation takes it.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    Bitwise, DataAttribute, Expressions, Immediate, Meta, MetaKey, Operator, Register,
};

use super::Expression;
use super::expression::TRANSPORT_HEADER;
use super::matches::octets;
use crate::ports::Protocol;

/// `NFTA_FIB_DREG`, `NFTA_FIB_RESULT`, `NFTA_FIB_FLAGS` of linux/netfilter/nf_tables.h.
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`.
const FIB_ADDRTYPE: u32 = 3;
const FIB_DADDR: u32 = 2;
/// `RTN_LOCAL` of linux/rtnetlink.h.
const RTN_LOCAL: u32 = 2;

const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFTA_NAT_FLAGS: u16 = 7;
/// `NFT_NAT_DNAT`; `NFPROTO_IPV4`, `NFPROTO_IPV6`; `NF_NAT_RANGE_PROTO_SPECIFIED`.
const DNAT: u32 = 1;
const NFPROTO_IPV4: u32 = 2;
const NFPROTO_IPV6: u32 = 10;
const PROTO_SPECIFIED: u32 = 2;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Loads of what kind the destination address is: this node's own, somebody else's...
    DestinationType,
    /// Loads the new port into register 2.
    Port(u16),
    /// The loaded address, of this IP version, and the loaded port become the destination. The rule is over.
    Destination {
        /// The IP version.
        ipv4: bool,
    },
    /// Sets these bits of what is loaded.
    SetBits(u32),
    /// What is loaded becomes the packet's mark.
    Mark,
}

impl Nat {
    pub(super) fn write(self) -> Expressions {
        match self {
            Self::DestinationType => other(
                "fib",
                &[(NFTA_FIB_DREG, Register::Reg1.into()), (NFTA_FIB_RESULT, FIB_ADDRTYPE), (NFTA_FIB_FLAGS, FIB_DADDR)],
            ),
            Self::Port(port) => Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Reg2),
                Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
            ]),
            Self::Destination { ipv4 } => other(
                "nat",
                &[
                    (NFTA_NAT_TYPE, DNAT),
                    (NFTA_NAT_FAMILY, if ipv4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 }),
                    (NFTA_NAT_REG_ADDR_MIN, Register::Reg1.into()),
                    (NFTA_NAT_REG_PROTO_MIN, Register::Reg2.into()),
                    (NFTA_NAT_FLAGS, PROTO_SPECIFIED),
                ],
            ),
            Self::SetBits(bits) => Expressions::Bitwise(vec![
                Bitwise::SourceRegister(Register::Reg1),
                Bitwise::DestinationRegister(Register::Reg1),
                Bitwise::Length(4),
                Bitwise::Mask(DataAttribute::Value((!bits).to_ne_bytes().to_vec())),
                Bitwise::Xor(DataAttribute::Value(bits.to_ne_bytes().to_vec())),
            ]),
            Self::Mark => Expressions::Meta(vec![Meta::Key(MetaKey::Mark), Meta::SourceRegister(Register::Reg1)]),
        }
    }

    pub(super) fn read(data: &Expressions) -> Option<Self> {
        match data {
            Expressions::Other { expression_type, attributes } => match expression_type.as_str() {
                "fib" => (number(attributes, NFTA_FIB_RESULT) == Some(FIB_ADDRTYPE)
                    && number(attributes, NFTA_FIB_FLAGS) == Some(FIB_DADDR))
                .then_some(Self::DestinationType),
                "nat" => (number(attributes, NFTA_NAT_TYPE) == Some(DNAT))
                    .then(|| Self::Destination { ipv4: number(attributes, NFTA_NAT_FAMILY) == Some(NFPROTO_IPV4) }),
                _ => None,
            },
            Expressions::Immediate(list) => read_port_value(list),
            Expressions::Bitwise(list) => list.iter().find_map(|attribute| match attribute {
                Bitwise::Xor(DataAttribute::Value(bits)) => {
                    let bits = u32::from_ne_bytes(bits.as_slice().try_into().ok()?);
                    (bits != 0).then_some(Self::SetBits(bits))
                }
                _ => None,
            }),
            Expressions::Meta(list) => {
                let (set, mark) = (
                    list.iter().any(|attribute| matches!(attribute, Meta::SourceRegister(_))),
                    list.contains(&Meta::Key(MetaKey::Mark)),
                );
                (set && mark).then_some(Self::Mark)
            }
            _ => None,
        }
    }
}

/// A port, in the two bytes that nothing else here loads.
fn read_port_value(list: &[Immediate]) -> Option<Nat> {
    list.iter().find_map(|attribute| match attribute {
        Immediate::Data(DataAttribute::Value(bytes)) => {
            Some(Nat::Port(u16::from_be_bytes(bytes.as_slice().try_into().ok()?)))
        }
        _ => None,
    })
}

fn other(name: &str, numbers: &[(u16, u32)]) -> Expressions {
    let attributes = numbers.iter().map(|(kind, number)| DefaultNla::new(*kind, number.to_be_bytes().to_vec()));
    Expressions::Other { expression_type: name.to_owned(), attributes: attributes.collect() }
}

fn value(attributes: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    let found = attributes.iter().find(|attribute| attribute.kind() == kind)?;
    let mut bytes = vec![0; found.value_len()];
    found.emit_value(&mut bytes);
    Some(bytes)
}

fn number(attributes: &[DefaultNla], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(value(attributes, kind)?.try_into().ok()?))
}

/// `fib daddr type local`: to an address of this node.
pub fn destination_is_local() -> [Expression; 2] {
    let local = Expression::Compare(Operator::Equal, RTN_LOCAL.to_ne_bytes().to_vec());
    [Expression::Nat(Nat::DestinationType), local]
}

/// `tcp dport 8080`
pub fn port(protocol: Protocol, port: u16) -> [Expression; 4] {
    [
        Expression::Meta(MetaKey::L4Proto),
        Expression::Compare(Operator::Equal, vec![protocol.number()]),
        Expression::Payload { base: TRANSPORT_HEADER, offset: 2, len: 2 },
        Expression::Compare(Operator::Equal, port.to_be_bytes().to_vec()),
    ]
}

/// The port that a rule compares with.
pub fn read_port(expressions: &[Expression]) -> Option<(Protocol, u16)> {
    expressions.windows(4).find_map(|window| match window {
        [
            Expression::Meta(MetaKey::L4Proto),
            Expression::Compare(Operator::Equal, protocol),
            Expression::Payload { base: TRANSPORT_HEADER, offset: 2, len: 2 },
            Expression::Compare(Operator::Equal, port),
        ] => {
            let [number] = protocol.as_slice() else { return None };
            let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == *number)?;
            Some((protocol, u16::from_be_bytes(port.as_slice().try_into().ok()?)))
        }
        _ => None,
    })
}

/// `dnat to 10.1.0.2:80`
pub fn dnat(addr: IpAddr, port: u16) -> [Expression; 3] {
    let destination = Nat::Destination { ipv4: addr.is_ipv4() };
    [Expression::Value(octets(addr)), Expression::Nat(Nat::Port(port)), Expression::Nat(destination)]
}

/// The destination that a rule gives.
pub fn read_dnat(expressions: &[Expression]) -> Option<SocketAddr> {
    expressions.windows(3).find_map(|window| match window {
        [Expression::Value(addr), Expression::Nat(Nat::Port(port)), Expression::Nat(Nat::Destination { .. })] => {
            let v4 = <[u8; 4]>::try_from(addr.as_slice()).map(IpAddr::from);
            let addr = v4.or_else(|_| <[u8; 16]>::try_from(addr.as_slice()).map(IpAddr::from));
            Some(SocketAddr::new(addr.ok()?, *port))
        }
        _ => None,
    })
}

/// `meta mark set meta mark | 0x2000`
pub fn set_mark(bits: u32) -> [Expression; 3] {
    [Expression::Meta(MetaKey::Mark), Expression::Nat(Nat::SetBits(bits)), Expression::Nat(Nat::Mark)]
}

/// `meta mark & 0x2000 == 0x2000`
pub fn has_mark(bits: u32) -> [Expression; 3] {
    let bytes = bits.to_ne_bytes().to_vec();
    [Expression::Meta(MetaKey::Mark), Expression::Mask(bytes.clone()), Expression::Compare(Operator::Equal, bytes)]
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_netfilter::nftables::{ExpressionAttribute, ListAttribute};

    use super::*;

    fn read_back(expressions: &[Expression]) -> Vec<Expression> {
        expressions.iter().cloned().map(|expression| read_one(expression.write())).collect()
    }

    /// As bytes, which is how the kernel lists it.
    fn read_one(written: ListAttribute<ExpressionAttribute>) -> Expression {
        let ListAttribute::Element(attributes) = written else { panic!("{written:?}") };
        let [ExpressionAttribute::Name(name), ExpressionAttribute::Data(data)] = attributes.as_slice() else {
            panic!("{attributes:?}")
        };
        let mut bytes = vec![0; data.buffer_len()];
        data.emit(&mut bytes);
        Expression::read(name, Some(&bytes))
    }

    #[test]
    fn what_is_written_is_read() {
        let v6 = "fd00:77::2".parse().unwrap();
        let rules = [
            [&port(Protocol::Tcp, 8080)[..], &dnat(IpAddr::from([10, 77, 0, 2]), 80)].concat(),
            [&port(Protocol::Sctp, 9)[..], &dnat(v6, 65535)].concat(),
            [&port(Protocol::Udp, 53)[..], &set_mark(0x2000)].concat(),
            [&has_mark(1 << 31)[..], &[Expression::Masquerade]].concat(),
            destination_is_local().to_vec(),
        ];
        for rule in &rules {
            assert_eq!(read_back(rule), *rule);
        }
        let [tcp, sctp, mark, ..] = &rules;
        assert_eq!((read_port(tcp), read_dnat(tcp)), (Some((Protocol::Tcp, 8080)), "10.77.0.2:80".parse().ok()));
        assert_eq!((read_port(sctp), read_dnat(sctp)), (Some((Protocol::Sctp, 9)), "[fd00:77::2]:65535".parse().ok()));
        assert_eq!(read_dnat(mark), None);
        assert_eq!(read_port(&has_mark(1)), None);
    }

    /// `nft --debug=netlink`: `[ fib daddr type => reg 1 ]` and `[ nat dnat ip6 addr_min reg 1 proto_min reg 2 flags 0x2 ]`.
    #[test]
    fn the_numbers_are_those_of_nft() {
        let numbers = |expressions: Expressions| match expressions {
            Expressions::Other { attributes, .. } => {
                attributes.iter().map(|nla| (nla.kind(), number(&attributes, nla.kind()).unwrap())).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(numbers(Nat::DestinationType.write()), [(1, 1), (2, 3), (3, 2)]);
        assert_eq!(numbers(Nat::Destination { ipv4: false }.write()), [(1, 1), (2, 10), (3, 1), (5, 2), (7, 2)]);
    }
}
