//! VLAN filtering is not in every kernel that runs these tests, so the messages are checked byte by byte: against
//! linux/if_bridge.h by hand, and against the parser of netlink-packet-route.

use netlink_packet_core::{Emitable, Parseable};

use super::*;

fn bytes(message: &LinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

/// `struct bridge_vlan_info`: flags and vid, behind an attribute header of type 2 (`IFLA_BRIDGE_VLAN_INFO`).
fn info(flags: u16, vid: u16) -> [u8; 8] {
    let mut bytes = [8, 0, 2, 0, 0, 0, 0, 0];
    bytes[4..6].copy_from_slice(&flags.to_ne_bytes());
    bytes[6..].copy_from_slice(&vid.to_ne_bytes());
    bytes
}

#[test]
fn a_trunk_is_ranges() {
    let messages = vlan_messages(7, &[101..=101, 200..=210], BridgeVlanInfoFlags::empty());
    let [message] = messages.as_slice() else { panic!("{messages:?}") };
    let sent = bytes(message);
    // struct ifinfomsg: AF_BRIDGE (7), index 7.
    assert_eq!(sent[..16], [7, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // IFLA_AF_SPEC (26) of 4 + 8 + 3 * 8 bytes, IFLA_BRIDGE_FLAGS (0) = BRIDGE_FLAGS_MASTER (1).
    assert_eq!((u16::from_ne_bytes([sent[16], sent[17]]), sent[18]), (36, 26));
    assert_eq!(sent[20..28], [6, 0, 0, 0, 1, 0, 0, 0]);
    // BRIDGE_VLAN_INFO_RANGE_BEGIN is 8, RANGE_END is 16.
    assert_eq!(sent[28..], [info(0, 101), info(8, 200), info(16, 210)].concat());
    assert_eq!(LinkMessage::parse(&sent).unwrap(), *message);
}

#[test]
fn an_access_port_is_pvid_and_untagged() {
    let flags = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
    let messages = vlan_messages(7, &[100..=100], flags);
    // BRIDGE_VLAN_INFO_PVID is 2, UNTAGGED is 4.
    assert_eq!(bytes(&messages[0])[28..], info(6, 100));
}

#[test]
fn every_second_vlan_fits() {
    let ranges: Vec<_> = (1..=4094).step_by(2).map(|vid| vid..=vid).collect();
    let messages = vlan_messages(7, &ranges, BridgeVlanInfoFlags::empty());
    assert_eq!(messages.len(), 3);
    let mut read: Vec<_> =
        messages.iter().flat_map(|message| read_vlans(&LinkMessage::parse(&bytes(message)).unwrap())).collect();
    read.sort_unstable_by_key(|vlan| vlan.vid);
    assert!(read.iter().map(|vlan| vlan.vid..=vlan.vid).eq(ranges));
}

#[test]
fn ranges_are_read_back() {
    let mut message = message(7);
    let flags = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
    let begin = BridgeVlanInfo { flags: BridgeVlanInfoFlags::RangeBegin, vid: 10 };
    let end = BridgeVlanInfo { flags: BridgeVlanInfoFlags::RangeEnd, vid: 12 };
    message.attributes.push(LinkAttribute::AfSpecBridge(vec![
        AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid: 1 }),
        AfSpecBridge::VlanInfo(begin),
        AfSpecBridge::VlanInfo(end),
    ]));
    let tagged = |vid| Vlan { vid, pvid: false, untagged: false };
    let expected = [Vlan { vid: 1, pvid: true, untagged: true }, tagged(10), tagged(11), tagged(12)];
    assert_eq!(read_vlans(&LinkMessage::parse(&bytes(&message)).unwrap()), expected);
}

#[test]
fn filtering_is_asked_for_only_where_wanted() {
    let conf = |vlan_filtering| BridgeConf { name: "br0", mtu: Some(1400), vlan_filtering };
    let data = |message: LinkMessage| {
        let parsed = LinkMessage::parse(&bytes(&message)).unwrap();
        assert!(parsed.attributes.contains(&LinkAttribute::Mtu(1400)));
        parsed.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => {
                infos.contains(&LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])))
            }
            _ => false,
        })
    };
    assert!(data(new_bridge(&conf(true))) && !data(new_bridge(&conf(false))));
}

#[test]
fn addresses_are_local_and_unicast() {
    for _ in 0..100 {
        let [first, ..] = random_mac().bytes();
        assert_eq!(first & 3, 2);
    }
    assert_ne!(random_mac(), random_mac());
}

#[test]
fn port_options() {
    let mut message = message(9);
    message.attributes.push(port_attribute(&Port { hairpin: true, isolated: false }));
    let sent = bytes(&message);
    // IFLA_PROTINFO | NLA_F_NESTED, then IFLA_BRPORT_MODE (4) and IFLA_BRPORT_ISOLATED (33), one byte each.
    assert_eq!(u16::from_ne_bytes([sent[18], sent[19]]), 0x8000 | 12);
    assert_eq!(sent[20..], [5, 0, 4, 0, 1, 0, 0, 0, 5, 0, 33, 0, 0, 0, 0, 0]);
}
