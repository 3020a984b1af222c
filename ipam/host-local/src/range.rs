//! Ranges of addresses and sets of ranges: what lies in them, and in which order addresses are tried.
//!
//! Addresses are numbers here (IPv4 in the low 32 bits); only what comes in and goes out is an [`IpAddr`].
//! Messages are the reference's, because people search for them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use libcni::types::Cidr;

/// A range as it is written: texts are addresses, but nothing is known of how they fit together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// `subnet`.
    pub subnet: Option<Cidr>,
    /// `rangeStart`.
    pub start: Option<IpAddr>,
    /// `rangeEnd`.
    pub end: Option<IpAddr>,
    /// `gateway`.
    pub gateway: Option<IpAddr>,
}

/// Why a range or a set is refused: the key to blame (empty: the set as a whole), and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct Invalid {
    /// The key of the range, like `rangeStart`.
    pub key: &'static str,
    /// The range's index in its set.
    pub index: usize,
    msg: String,
}

fn invalid(key: &'static str, msg: String) -> Invalid {
    Invalid { key, index: 0, msg }
}

/// Addresses `start` to `end`, both included, of one subnet. The gateway is never handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: Cidr,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
}

impl Range {
    /// Completes and checks a range: without `rangeStart` it begins after the network address, without
    /// `rangeEnd` it ends before the broadcast address (IPv6 has none), without `gateway` that is the first
    /// address of the subnet. Written ends may be the network and the broadcast address.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(written: &Written) -> Result<Self, Invalid> {
        let subnet = written.subnet.ok_or_else(|| invalid("subnet", "IP <nil> not v4 nor v6: no subnet".into()))?;
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix_len() > bits - 2 {
            return Err(invalid("subnet", format!("Network {subnet} too small to allocate from")));
        }
        let network = subnet.network();
        if network != subnet {
            let (len, addr) = (subnet.prefix_len(), network.addr());
            let rule = format!("For a subnet mask of length {len} the network address is {addr}");
            return Err(invalid("subnet", format!("Network has host bits set. {rule}")));
        }
        let ipv4 = subnet.is_ipv4();
        let (first, last) = (number(subnet.addr()) + 1, number(subnet.last()) - u128::from(ipv4));
        let inside = |addr: &IpAddr| subnet.contains(*addr);
        let start = written.start.unwrap_or_else(|| address(first, ipv4));
        let reversed = written.end.is_some_and(|end| inside(&end) && start > end);
        if !inside(&start) || reversed {
            return Err(invalid("rangeStart", format!("RangeStart {start} not in network {subnet}")));
        }
        let end = written.end.unwrap_or_else(|| address(last, ipv4));
        if !inside(&end) || end < start {
            return Err(invalid("rangeEnd", format!("RangeEnd {end} not in network {subnet}")));
        }
        let gateway = written.gateway.unwrap_or_else(|| address(first, ipv4));
        Ok(Self { subnet, start, end, gateway })
    }

    /// The address with the subnet's prefix length.
    pub fn cidr(&self, addr: IpAddr) -> Cidr {
        Cidr::new(addr, self.subnet.prefix_len()).unwrap_or_else(|| Cidr::host(addr))
    }

    /// The gateway: as written, or the first address of the subnet.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Whether `addr` lies between the range's ends.
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.subnet.is_ipv4() && (self.start..=self.end).contains(&addr)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }

    fn numbers(&self) -> RangeInclusive<u128> {
        number(self.start)..=number(self.end)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// Ranges of one family, of which an ADD gets one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// A set of ranges that share no address.
    ///
    /// # Errors
    /// There is no range, one is invalid, families are mixed, or two overlap.
    pub fn new(written: &[Written]) -> Result<Self, Invalid> {
        let numbered =
            |(index, written): (usize, &Written)| Range::new(written).map_err(|error| Invalid { index, ..error });
        let ranges = written.iter().enumerate().map(numbered).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = ranges.first() else { return Err(invalid("", "empty range set".into())) };
        for (index, range) in ranges.iter().enumerate() {
            if range.subnet.is_ipv4() != first.subnet.is_ipv4() {
                return Err(Invalid { index, ..invalid("subnet", "mixed address families".into()) });
            }
            if let Some(other) = ranges.iter().take(index).find(|other| other.overlaps(range)) {
                return Err(Invalid { index, ..invalid("subnet", format!("subnets {other} and {range} overlap")) });
            }
        }
        Ok(Self(ranges))
    }

    /// Whether every gateway lies in the subnet of its range, as it must to be reached.
    ///
    /// # Errors
    /// One does not. The reference hands such a gateway to the pod, which then has no network.
    pub fn check_gateways(&self) -> Result<(), Invalid> {
        match self.0.iter().enumerate().find(|(_, range)| !range.subnet.contains(range.gateway)) {
            Some((index, range)) => {
                let msg = format!("gateway {} not in network {}", range.gateway, range.subnet);
                Err(Invalid { index, ..invalid("gateway", msg) })
            }
            None => Ok(()),
        }
    }

    /// Whether the set is of IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.0.iter().any(|range| range.subnet.is_ipv4())
    }

    /// The range that an address lies in.
    pub fn range_of(&self, addr: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(addr))
    }

    /// Whether an address lies in one of the ranges.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.range_of(addr).is_some()
    }

    /// Whether the two sets share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|its| range.overlaps(its)))
    }

    /// Whether an address is the gateway of any range of the set. The reference looks only at the range the
    /// address lies in, and so hands out one range's gateway from another.
    pub fn is_gateway(&self, addr: IpAddr) -> bool {
        self.0.iter().any(|range| range.gateway == addr)
    }

    /// Every address that may be handed out, once, in the order of round robin: from the one after `last` on,
    /// through the ranges in their order and round again, `last` itself at the end. If `last` is none of the
    /// set's, from the first on.
    pub fn candidates(&self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
        let ipv4 = self.is_ipv4();
        let all = self.rotated(last).into_iter().flatten().map(move |number| address(number, ipv4));
        all.filter(|addr| !self.is_gateway(*addr))
    }

    /// The ranges from behind `last` on; the range it lies in is in two pieces, the first and the last.
    fn rotated(&self, last: Option<IpAddr>) -> Vec<RangeInclusive<u128>> {
        let mut spans: Vec<_> = self.0.iter().map(Range::numbers).collect();
        let at = last.and_then(|last| Some((self.0.iter().position(|range| range.contains(last))?, number(last))));
        let Some((index, last)) = at else { return spans };
        spans.rotate_left(index);
        let own = spans.remove(0);
        if last < *own.end() {
            spans.insert(0, last + 1..=*own.end());
        }
        spans.push(*own.start()..=last);
        spans
    }

    /// How many addresses can be handed out.
    pub fn size(&self) -> u128 {
        let all = |range: &Range| (range.numbers().end() - range.numbers().start()).saturating_add(1);
        let mut gateways: Vec<IpAddr> = self.0.iter().map(Range::gateway).filter(|addr| self.contains(*addr)).collect();
        gateways.sort();
        gateways.dedup();
        self.0.iter().map(all).fold(0, u128::saturating_add).saturating_sub(gateways.len() as u128)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(Range::to_string).collect();
        f.write_str(&ranges.join(","))
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number that came from an address of that family.
fn address(number: u128, ipv4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if ipv4 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}
#[cfg(test)]
mod tests;
