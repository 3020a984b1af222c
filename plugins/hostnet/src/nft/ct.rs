//! What conntrack knows of a packet's connection: the expression `ct`, which the typed crate does not have, and the
//! matches that `nft` makes of it.

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{Expressions, Operator};

use super::expression::Expression;

/// The expression's name.
pub(super) const NAME: &str = "ct";

/// `NFTA_CT_DREG` and `NFTA_CT_KEY` of linux/netfilter/nf_tables.h.
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;

/// `NFT_REG_1`
const REGISTER: u32 = 1;

/// What can be loaded of a connection; the numbers are those of `enum nft_ct_keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtKey {
    /// What the packet is in its connection: bits of `NF_CT_STATE_BIT`.
    State = 0,
    /// What the connection is: bits of `enum ip_conntrack_status`.
    Status = 2,
}

impl CtKey {
    fn read(number: u32) -> Option<Self> {
        [Self::State, Self::Status].into_iter().find(|key| *key as u32 == number)
    }
}

/// Bits of [`CtKey::State`].
pub mod ct_state {
    /// `ct state established,related`: neither the first packet of a connection nor an invalid one.
    pub const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
}

/// Bits of [`CtKey::Status`].
pub mod ct_status {
    /// `ct status dnat`: the connection's destination was rewritten (`IPS_DST_NAT`).
    pub const DNAT: u32 = 1 << 5;
}

impl CtKey {
    /// `ct state established,related` where `operator` is `NotEqual` (to none): one of the bits is set. With `Equal`,
    /// none of them is.
    pub fn any_of(self, bits: u32, operator: Operator) -> [Expression; 3] {
        let value = |number: u32| number.to_ne_bytes().to_vec();
        [Expression::Ct(self), Expression::Mask(value(bits)), Expression::Compare(operator, value(0))]
    }
}

pub(super) fn write(key: CtKey) -> Expressions {
    let number = |kind: u16, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let attributes = vec![number(NFTA_CT_DREG, REGISTER), number(NFTA_CT_KEY, key as u32)];
    Expressions::Other { expression_type: NAME.to_owned(), attributes }
}

/// `None` for a key that nobody here writes.
pub(super) fn read(attributes: &[DefaultNla]) -> Option<CtKey> {
    let key = attributes.iter().find(|attribute| attribute.kind() == NFTA_CT_KEY)?;
    let mut value = vec![0; key.value_len()];
    key.emit_value(&mut value);
    CtKey::read(u32::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that `nft --debug=netlink` shows for `ct state established,related` and `ct status dnat`.
    #[test]
    fn matches() {
        let [load, mask, compare] = CtKey::State.any_of(ct_state::ESTABLISHED_OR_RELATED, Operator::NotEqual);
        assert_eq!(load, Expression::Ct(CtKey::State));
        assert_eq!(mask, Expression::Mask(6u32.to_ne_bytes().to_vec()));
        assert_eq!(compare, Expression::Compare(Operator::NotEqual, vec![0; 4]));
        let [_, mask, _] = CtKey::Status.any_of(ct_status::DNAT, Operator::Equal);
        assert_eq!(mask, Expression::Mask(0x20u32.to_ne_bytes().to_vec()));
    }

    #[test]
    fn what_is_written_is_read() {
        for key in [CtKey::State, CtKey::Status] {
            let Expressions::Other { attributes, .. } = write(key) else { unreachable!() };
            assert_eq!(read(&attributes), Some(key));
        }
        assert_eq!(read(&[]), None);
    }
}
