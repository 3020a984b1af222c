//! Matches as `nft` writes them: several expressions that together read like one phrase of its
//! language. The same bytes as `nft` sends, because it prints a rule back in words only if it
//! recognises the pattern.

use std::net::IpAddr;

use libcni::types::{Cidr, Mac};

use super::expression::{Expression, LINK_HEADER, MetaKey, NETWORK_HEADER, Operator};

/// `NFPROTO_IPV4` and `NFPROTO_IPV6` of linux/netfilter.h.
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;

/// Bytes of an interface name in a register (`IFNAMSIZ`).
const IFNAMSIZ: usize = 16;

/// Which of a packet's two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `saddr`
    Source,
    /// `daddr`
    Destination,
}

/// `meta nfproto ipv4`: in an `inet` table it must come before the first look at an address.
pub fn ip_version(ipv4: bool) -> [Expression; 2] {
    let version = if ipv4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
    [Expression::Meta(MetaKey::Nfproto), Expression::Compare(Operator::Equal, vec![version])]
}

/// `ip saddr 10.1.2.0/24`, `ip6 daddr != ff00::/8`: an address in (or not in) the network of `cidr`.
///
/// A prefix of whole bytes compares just these bytes, any other masks the address first.
pub fn address(direction: Direction, operator: Operator, cidr: &Cidr) -> Vec<Expression> {
    let bytes = octets(cidr.network().addr());
    let offset = address_offset(direction, cidr.is_ipv4());
    let prefix_len = usize::from(cidr.prefix_len());
    let whole = prefix_len / 8;
    if prefix_len % 8 == 0 && whole > 0 {
        let value = bytes.get(..whole).unwrap_or(&bytes).to_vec();
        return vec![load(offset, value.len()), Expression::Compare(operator, value)];
    }
    masked_address(direction, operator, cidr)
}

/// The same with a mask whatever the length: how older programs wrote whole bytes too.
pub fn masked_address(direction: Direction, operator: Operator, cidr: &Cidr) -> Vec<Expression> {
    let bytes = octets(cidr.network().addr());
    let offset = address_offset(direction, cidr.is_ipv4());
    let mask = (0..bytes.len()).map(|index| mask_byte(usize::from(cidr.prefix_len()), index)).collect();
    vec![load(offset, bytes.len()), Expression::Mask(mask), Expression::Compare(operator, bytes)]
}

/// `ip daddr`: the whole address, for a set to look it up in.
pub fn load_address(direction: Direction, ipv4: bool) -> Expression {
    load(address_offset(direction, ipv4), if ipv4 { 4 } else { 16 })
}

/// The network that a rule compares an address with for equality, in a table of one IP version.
pub fn read_address(expressions: &[Expression], direction: Direction, ipv4: bool) -> Option<Cidr> {
    let wanted = address_offset(direction, ipv4);
    let start = expressions.iter().position(|expression| {
        matches!(expression, Expression::Payload { base: NETWORK_HEADER, offset, .. } if *offset == wanted)
    })?;
    let (value, bits) = match expressions.get(start + 1..)? {
        [Expression::Compare(Operator::Equal, value), ..] => (value, value.len() * 8),
        [Expression::Mask(mask), Expression::Compare(Operator::Equal, value), ..] => {
            (value, mask.iter().map(|byte| byte.leading_ones() as usize).sum())
        }
        _ => return None,
    };
    let mut bytes = value.clone();
    bytes.resize(if ipv4 { 4 } else { 16 }, 0);
    let addr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Cidr::new(addr, u8::try_from(bits).ok()?)
}

/// `iifname "veth0"`: the interface the packet came in by.
pub fn iifname(name: &str) -> [Expression; 2] {
    interface(MetaKey::Iifname, Operator::Equal, name)
}

/// `oifname != "veth0"`: a comparison of an interface's whole name; the key is `Iifname` or `Oifname`.
pub fn interface(key: MetaKey, operator: Operator, name: &str) -> [Expression; 2] {
    let mut value = name.as_bytes().to_vec();
    value.resize(IFNAMSIZ, 0);
    [Expression::Meta(key), Expression::Compare(operator, value)]
}

/// `ether saddr 02:42:ac:11:00:02`, in a table where every packet has an Ethernet header.
pub fn ether_source(mac: Mac) -> [Expression; 2] {
    let load = Expression::Payload { base: LINK_HEADER, offset: 6, len: 6 };
    [load, Expression::Compare(Operator::Equal, mac.bytes().to_vec())]
}

fn load(offset: u32, len: usize) -> Expression {
    // An address has 16 bytes at most.
    Expression::Payload { base: NETWORK_HEADER, offset, len: u32::try_from(len).unwrap_or(16) }
}

/// Where the address stands in the IP header.
fn address_offset(direction: Direction, ipv4: bool) -> u32 {
    match (direction, ipv4) {
        (Direction::Source, true) => 12,
        (Direction::Destination, true) => 16,
        (Direction::Source, false) => 8,
        (Direction::Destination, false) => 24,
    }
}

/// An address as it stands in a packet.
pub fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Byte `index` of a mask of `prefix_len` one bits.
fn mask_byte(prefix_len: usize, index: usize) -> u8 {
    match prefix_len.saturating_sub(index * 8) {
        0 => 0,
        bits @ 1..8 => !(u8::MAX >> bits),
        _ => u8::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    /// The expected values are those of `nft --debug=netlink` (1.0.6).
    #[test]
    fn whole_bytes_are_compared_as_they_are() {
        assert_eq!(
            address(Direction::Destination, Operator::NotEqual, &cidr("10.1.2.14/24")),
            [
                Expression::Payload { base: NETWORK_HEADER, offset: 16, len: 3 },
                Expression::Compare(Operator::NotEqual, vec![10, 1, 2])
            ]
        );
        assert_eq!(
            address(Direction::Destination, Operator::Equal, &cidr("ff00::/8")),
            [
                Expression::Payload { base: NETWORK_HEADER, offset: 24, len: 1 },
                Expression::Compare(Operator::Equal, vec![0xff])
            ]
        );
        assert_eq!(
            address(Direction::Source, Operator::Equal, &cidr("10.1.2.14/32")),
            [
                Expression::Payload { base: NETWORK_HEADER, offset: 12, len: 4 },
                Expression::Compare(Operator::Equal, vec![10, 1, 2, 14])
            ]
        );
    }

    #[test]
    fn other_prefixes_are_masked() {
        for (text, mask, value) in [
            ("224.0.0.0/4", vec![0xf0, 0, 0, 0], vec![224, 0, 0, 0]),
            ("10.1.2.14/22", vec![255, 255, 0xfc, 0], vec![10, 1, 0, 0]),
            ("0.0.0.0/0", vec![0; 4], vec![0; 4]),
        ] {
            assert_eq!(
                address(Direction::Destination, Operator::NotEqual, &cidr(text)),
                [
                    Expression::Payload { base: NETWORK_HEADER, offset: 16, len: 4 },
                    Expression::Mask(mask),
                    Expression::Compare(Operator::NotEqual, value)
                ],
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_are_read_back_from_both_forms() {
        for text in ["10.1.2.14/32", "10.1.0.0/16", "10.1.0.0/22", "2001:db8::e/128", "2001:db8::/61"] {
            let cidr = cidr(text);
            for form in [address, masked_address] {
                let expressions = form(Direction::Source, Operator::Equal, &cidr);
                assert_eq!(read_address(&expressions, Direction::Source, cidr.is_ipv4()), Some(cidr), "{text}");
                assert_eq!(read_address(&expressions, Direction::Destination, cidr.is_ipv4()), None, "{text}");
            }
        }
        assert_eq!(read_address(&[], Direction::Source, true), None);
    }
}
