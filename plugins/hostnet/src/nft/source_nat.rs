//! The expressions that change a packet's source, `masq` and `nat`, which the typed crate does not have: their
//! attributes, as bytes.
//!
//! Numbers: `enum nft_masq_attributes` and `enum nft_nat_attributes` of linux/netfilter/nf_tables.h.

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{Expressions, Register};

use super::expression::Expression;
use super::matches::{NFPROTO_IPV4, NFPROTO_IPV6};

const NFTA_MASQ_FLAGS: u16 = 1;

const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_FLAGS: u16 = 7;

/// `NFT_NAT_SNAT`
const SOURCE: u32 = 0;

/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY` of linux/netfilter/nf_nat.h. The kernel adds flags of its own.
const RANDOM_FULLY: u32 = 1 << 4;

pub(super) fn write_masquerade(random_fully: bool) -> Expressions {
    let attributes = if random_fully { vec![number(NFTA_MASQ_FLAGS, RANDOM_FULLY)] } else { Vec::new() };
    Expressions::Other { expression_type: "masq".to_owned(), attributes }
}

pub(super) fn write(ipv4: bool, random_fully: bool, address: Register) -> Expressions {
    let mut attributes = vec![
        number(NFTA_NAT_TYPE, SOURCE),
        number(NFTA_NAT_FAMILY, u32::from(if ipv4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 })),
        number(NFTA_NAT_REG_ADDR_MIN, address.into()),
    ];
    if random_fully {
        attributes.push(number(NFTA_NAT_FLAGS, RANDOM_FULLY));
    }
    Expressions::Other { expression_type: "nat".to_owned(), attributes }
}

/// `None` for another expression, and for one that changes the destination or a port to given ones.
pub(super) fn read(name: &str, attributes: &[DefaultNla]) -> Option<Expression> {
    let random_fully = |flags: u16| value(attributes, flags).is_some_and(|flags| flags & RANDOM_FULLY != 0);
    match name {
        "masq" if attributes.iter().all(|attribute| attribute.kind() == NFTA_MASQ_FLAGS) => {
            let random = random_fully(NFTA_MASQ_FLAGS);
            Some(if random { Expression::MasqueradeFullyRandom } else { Expression::Masquerade })
        }
        "nat" if value(attributes, NFTA_NAT_TYPE) == Some(SOURCE) => {
            let ipv4 = value(attributes, NFTA_NAT_FAMILY) == Some(u32::from(NFPROTO_IPV4));
            Some(Expression::SourceNat { ipv4, random_fully: random_fully(NFTA_NAT_FLAGS) })
        }
        _ => None,
    }
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn value(attributes: &[DefaultNla], kind: u16) -> Option<u32> {
    let found = attributes.iter().find(|attribute| attribute.kind() == kind)?;
    let mut bytes = [0; 4];
    (found.value_len() == bytes.len()).then(|| found.emit_value(&mut bytes))?;
    Some(u32::from_be_bytes(bytes))
}
