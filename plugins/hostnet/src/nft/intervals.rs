//! Networks as a set keeps them: the intervals of addresses that they cover, and of each interval the first address
//! and the one behind its last.
//!
//! The same elements as `nft` makes of networks in braces: intervals that touch or overlap are one (the kernel refuses
//! overlaps), before them stands an end at address 0, and one that goes to the last address has no end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use libcni::types::Cidr;
use netlink_packet_netfilter::nftables::{DataAttribute, ListAttribute, SetElementAttribute, SetElementFlags};

/// The addresses of some networks of one IP version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intervals {
    ipv4: bool,
    /// In order, with a gap between each two.
    ranges: Vec<RangeInclusive<u128>>,
}

/// An element of a set of intervals.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// An address as it stands in a packet.
    pub(super) key: Vec<u8>,
    /// An interval ends before it, or begins with it.
    pub(super) end: bool,
}

impl Intervals {
    /// What the networks of this IP version among these cover.
    pub fn of<'a>(networks: impl Iterator<Item = &'a Cidr>, ipv4: bool) -> Self {
        let ours = networks.filter(|network| network.is_ipv4() == ipv4);
        let mut all: Vec<_> = ours.map(covered_by).collect();
        all.sort_by_key(|range| *range.start());
        let mut ranges: Vec<RangeInclusive<u128>> = Vec::new();
        for range in all {
            match ranges.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => ranges.push(range),
            }
        }
        Self { ipv4, ranges }
    }

    /// Whether no address is among them.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The network whose addresses these are, if it is one.
    pub fn as_network(&self) -> Option<Cidr> {
        let [range] = self.ranges.as_slice() else { return None };
        let bits = if self.ipv4 { 32 } else { 128 };
        let host_bits = (range.start() ^ range.end()).count_ones();
        let network = Cidr::new(self.address(*range.start()), u8::try_from(bits - host_bits).ok()?)?;
        (covered_by(&network) == *range).then_some(network)
    }

    /// Which IP version's addresses these are.
    pub fn is_ipv4(&self) -> bool {
        self.ipv4
    }

    /// The elements of the set, in order.
    pub fn elements(&self) -> Vec<Element> {
        let last = if self.ipv4 { u128::from(u32::MAX) } else { u128::MAX };
        let element = |value, end| Element { key: super::octets(self.address(value)), end };
        let mut elements = Vec::new();
        if self.ranges.first().is_some_and(|first| *first.start() > 0) {
            elements.push(element(0, true));
        }
        for range in &self.ranges {
            elements.push(element(*range.start(), false));
            if *range.end() < last {
                elements.push(element(range.end() + 1, true));
            }
        }
        elements
    }

    fn address(&self, value: u128) -> IpAddr {
        match u32::try_from(value) {
            Ok(v4) if self.ipv4 => Ipv4Addr::from_bits(v4).into(),
            _ => Ipv6Addr::from_bits(value).into(),
        }
    }
}

impl Element {
    pub(super) fn write(&self) -> ListAttribute<SetElementAttribute> {
        let mut attributes = Vec::new();
        if self.end {
            attributes.push(SetElementAttribute::Flags(SetElementFlags::IntervalEnd));
        }
        attributes.push(SetElementAttribute::Key(DataAttribute::Value(self.key.clone())));
        ListAttribute::Element(attributes)
    }
}

fn covered_by(network: &Cidr) -> RangeInclusive<u128> {
    number(network.network().addr())..=number(network.last())
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(networks: &[&str], ipv4: bool) -> Intervals {
        let networks: Vec<Cidr> = networks.iter().map(|text| text.parse().unwrap()).collect();
        Intervals::of(networks.iter(), ipv4)
    }

    fn elements(networks: &[&str], ipv4: bool) -> Vec<String> {
        let print = |element: &Element| {
            let addr = match <[u8; 4]>::try_from(element.key.as_slice()) {
                Ok(v4) => IpAddr::from(v4),
                Err(_) => IpAddr::from(<[u8; 16]>::try_from(element.key.as_slice()).unwrap()),
            };
            format!("{addr}{}", if element.end { " end" } else { "" })
        };
        intervals(networks, ipv4).elements().iter().map(print).collect()
    }

    /// The expected values are those of `nft --debug=netlink` (1.0.6).
    #[test]
    fn the_elements_are_those_of_nft() {
        assert_eq!(
            elements(&["10.0.0.0/8", "192.168.0.0/16", "240.0.0.0/4", "fd00::/8"], true),
            ["0.0.0.0 end", "10.0.0.0", "11.0.0.0 end", "192.168.0.0", "192.169.0.0 end", "240.0.0.0"]
        );
        assert_eq!(
            elements(&["192.168.7.0/24", "12.0.0.0/8", "192.168.0.0/16", "10.0.0.0/8", "11.0.0.0/8"], true),
            ["0.0.0.0 end", "10.0.0.0", "13.0.0.0 end", "192.168.0.0", "192.169.0.0 end"]
        );
        assert_eq!(elements(&["0.0.0.0/1"], true), ["0.0.0.0", "128.0.0.0 end"]);
        assert_eq!(
            elements(&["fd00::/8", "2001:db8::5/32", "10.0.0.0/8", "ff00::/8"], false),
            [":: end", "2001:db8::", "2001:db9:: end", "fd00::", "fe00:: end", "ff00::"]
        );
        assert_eq!(elements(&["fd00::/8"], true), [""; 0]);
        assert!(intervals(&["fd00::/8"], true).is_empty());
    }

    #[test]
    fn one_network_is_known() {
        for (networks, ipv4, network) in [
            (&["10.0.0.0/8"][..], true, Some("10.0.0.0/8")),
            (&["10.0.0.0/9", "10.128.0.0/9"], true, Some("10.0.0.0/8")),
            (&["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"], true, None),
            (&["11.0.0.0/8", "12.0.0.0/8"], true, None),
            (&["10.0.0.0/8", "12.0.0.0/8"], true, None),
            (&["fd00::7/128", "10.0.0.0/8"], false, Some("fd00::7/128")),
            (&["fd00::/64"], false, Some("fd00::/64")),
            (&["fd00::/64"], true, None),
        ] {
            let found = intervals(networks, ipv4).as_network().map(|network| network.to_string());
            assert_eq!(found.as_deref(), network, "{networks:?}");
        }
    }
}
