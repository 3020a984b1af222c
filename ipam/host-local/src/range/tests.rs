use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn written(subnet: &str, start: &str, end: &str) -> Written {
    let addr = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
    Written { subnet: Some(subnet.parse().unwrap()), start: addr(start), end: addr(end), gateway: None }
}

fn set(ranges: &[(&str, &str, &str)]) -> RangeSet {
    let ranges: Vec<Written> = ranges.iter().map(|(subnet, start, end)| written(subnet, start, end)).collect();
    RangeSet::new(&ranges).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The reference's range_test.go: ends, gateway.
#[test]
fn what_is_not_written() {
    for (subnet, range, gateway) in [
        ("192.0.2.0/24", "192.0.2.1-192.0.2.254", "192.0.2.1"),
        ("192.0.2.0/25", "192.0.2.1-192.0.2.126", "192.0.2.1"),
        ("192.0.2.12/30", "192.0.2.13-192.0.2.14", "192.0.2.13"),
        ("2001:db8:1::/64", "2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff", "2001:db8:1::1"),
        ("2001:db8::/126", "2001:db8::1-2001:db8::3", "2001:db8::1"),
        ("0.0.0.0/0", "0.0.0.1-255.255.255.254", "0.0.0.1"),
        ("::/0", "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1"),
    ] {
        let checked = Range::new(&written(subnet, "", "")).unwrap();
        assert_eq!((checked.to_string().as_str(), checked.gateway()), (range, ip(gateway)), "{subnet}");
    }
}

#[test]
fn contains_its_ends() {
    let range = Range::new(&written("192.0.2.0/24", "192.0.2.40", "192.0.2.50")).unwrap();
    for (addr, inside) in
        [("192.0.2.39", false), ("192.0.2.40", true), ("192.0.2.50", true), ("192.0.2.51", false), ("::1", false)]
    {
        assert_eq!(range.contains(ip(addr)), inside, "{addr}");
    }
    let range = Range::new(&written("2001:db8:1::/64", "2001:db8:1::40", "2001:db8:1::50")).unwrap();
    for (addr, inside) in
        [("2001:db8:1::3f", false), ("2001:db8:1::40", true), ("2001:db8:1::50", true), ("2001:db8:1::51", false)]
    {
        assert_eq!(range.contains(ip(addr)), inside, "{addr}");
    }
}

/// The reference's table of overlaps.
#[test]
fn overlaps() {
    for (one, other, expected) in [
        (("10.1.2.0/24", "", ""), ("10.1.3.0/24", "", ""), false),
        (("0.0.0.0/24", "", ""), ("::/24", "", ""), false),
        (("10.1.2.0/24", "", ""), ("10.1.2.0/24", "", ""), true),
        (("10.1.0.0/16", "", ""), ("10.1.2.0/24", "", ""), true),
        (("10.1.0.0/22", "10.1.0.10", "10.1.1.0"), ("10.1.0.0/22", "10.1.1.1", "10.1.1.9"), false),
        (("10.1.0.0/22", "10.1.0.10", "10.1.1.0"), ("10.1.0.0/22", "10.1.1.0", "10.1.1.9"), true),
    ] {
        let (one, other) = (set(&[one]), set(&[other]));
        assert_eq!((one.overlaps(&other), other.overlaps(&one)), (expected, expected), "{one} {other}");
    }
}

fn order(set: &RangeSet, last: Option<&str>) -> Vec<String> {
    set.candidates(last.map(ip)).map(|addr| addr.to_string()).collect()
}

#[test]
fn round_robin() {
    let one = set(&[("192.168.1.0/29", "", "")]);
    assert_eq!(order(&one, None), ["192.168.1.2", "192.168.1.3", "192.168.1.4", "192.168.1.5", "192.168.1.6"]);
    assert_eq!(order(&one, Some("192.168.1.5"))[..2], ["192.168.1.6", "192.168.1.2"]);
    assert_eq!(order(&one, Some("192.168.1.6")).last().unwrap(), "192.168.1.6");
    assert_eq!(order(&one, Some("10.0.0.1")), order(&one, None));
    let two = set(&[("192.168.1.0/30", "", ""), ("192.168.2.0/30", "", "")]);
    assert_eq!(order(&two, Some("192.168.1.2")), ["192.168.2.2", "192.168.1.2"]);
    assert_eq!(order(&two, Some("192.168.2.2")), ["192.168.1.2", "192.168.2.2"]);
    let explicit = set(&[("192.168.1.0/30", "192.168.1.0", "192.168.1.3")]);
    assert_eq!(order(&explicit, None), ["192.168.1.0", "192.168.1.2", "192.168.1.3"]);
    // The end of all numbers.
    let end = set(&[("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126", "", "")]);
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    assert_eq!(order(&end, Some(last)), ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", last]);
}

#[test]
fn a_huge_range_costs_nothing() {
    let all = set(&[("::/0", "", "")]);
    assert_eq!(order(&set(&[("::/126", "", "")]), None), ["::2", "::3"]);
    assert_eq!(all.size(), u128::MAX - 1);
    assert_eq!(all.candidates(None).next(), Some(ip("::2")));
}

/// Ranges inside 10.0.0.0/22, disjoint, each with a gateway somewhere in it.
fn any_set() -> impl Strategy<Value = RangeSet> {
    let cuts = proptest::collection::btree_set(1u32..1023, 2..10);
    (cuts, proptest::collection::vec(0u32..1024, 5)).prop_map(|(cuts, gateways)| {
        let base = 0x0a00_0000;
        let cuts: Vec<u32> = cuts.into_iter().collect();
        let ranges: Vec<Written> = cuts
            .chunks_exact(2)
            .zip(gateways)
            .map(|(cut, gateway)| Written {
                subnet: Some("10.0.0.0/22".parse().unwrap()),
                start: Some(Ipv4Addr::from_bits(base + cut[0]).into()),
                end: Some(Ipv4Addr::from_bits(base + cut[1]).into()),
                gateway: Some(Ipv4Addr::from_bits(base + gateway).into()),
            })
            .collect();
        RangeSet::new(&ranges).unwrap()
    })
}

proptest! {
    /// Each address once, none but those of the ranges, never a gateway; and the order is a rotation.
    #[test]
    fn candidates_are_all_and_once(set in any_set(), last in 0u32..1024) {
        let last = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + last));
        let from_start: Vec<IpAddr> = set.candidates(None).collect();
        let from_last: Vec<IpAddr> = set.candidates(Some(last)).collect();
        let distinct: HashSet<&IpAddr> = from_last.iter().collect();
        prop_assert_eq!(distinct.len(), from_last.len());
        prop_assert_eq!(set.size(), from_last.len() as u128);
        let expected: Vec<IpAddr> = (0x0a00_0000u32..0x0a00_0400)
            .map(|number| IpAddr::from(Ipv4Addr::from_bits(number)))
            .filter(|addr| set.contains(*addr) && !set.is_gateway(*addr))
            .collect();
        prop_assert_eq!(&from_start, &expected);
        let after = if set.contains(last) { expected.iter().filter(|addr| **addr <= last).count() } else { 0 };
        let mut rotated = expected;
        rotated.rotate_left(after);
        prop_assert_eq!(from_last, rotated);
    }

    #[test]
    fn any_subnet_is_checked_without_a_panic(addr: IpAddr, len in 0u8..=128, start: Option<IpAddr>, end: Option<IpAddr>) {
        if let Some(subnet) = Cidr::new(addr, len) {
            let subnet = Some(subnet.network());
            let [start, end] = [start, end].map(|addr| addr.map(|addr| addr.to_canonical()));
            if let Ok(range) = Range::new(&Written { subnet, start, end, gateway: None }) {
                prop_assert!(range.contains(range.start) && range.contains(range.end) && range.start <= range.end);
                let set = RangeSet(vec![range]);
                prop_assert!(set.candidates(Some(range.end)).take(3).all(|addr| set.contains(addr)));
                set.size();
            }
        }
    }
}
