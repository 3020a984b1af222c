//! Ethernet frames as they stand, for what no honest sender would send: a foreign source MAC, a foreign ARP sender.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pnet_datalink::{Channel, Config};

use crate::namespace::Namespace;

/// Six bytes of a MAC address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];

/// Reads `02:00:00:00:00:01`.
#[track_caller]
pub fn mac(text: &str) -> Mac {
    let bytes: Vec<u8> = text.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes.try_into().unwrap_or_else(|_| panic!("{text:?} is not a MAC address"))
}

/// An ARP request "who has `target`?", with the Ethernet source and the ARP sender chosen apart.
pub fn arp_request(ethernet_source: Mac, sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, ethernet_source, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]); // Ethernet, IPv4, lengths 6 and 4, request
    frame.extend(sender_mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// A neighbour advertisement (RFC 4861, 4.4) to all nodes, unsolicited, "`target` is at `target_mac`".
pub fn neighbour_advertisement(ethernet_source: Mac, source: Ipv6Addr, target: Ipv6Addr, target_mac: Mac) -> Vec<u8> {
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0]; // advertisement, override
    icmp.extend(target.octets());
    icmp.extend([2, 1]); // option: target link-layer address, 8 bytes
    icmp.extend(target_mac);
    icmp_to_all_nodes(ethernet_source, source, icmp)
}

fn icmp_to_all_nodes(ethernet_source: Mac, source: Ipv6Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let length = u16::try_from(icmp.len()).unwrap_or_default().to_be_bytes();
    let sum = checksum(source, all_nodes, &icmp);
    icmp.splice(2..4, sum.to_be_bytes());

    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], ethernet_source, 0x86dd);
    frame.extend([0x60, 0, 0, 0, length[0], length[1], 58, 255]); // ICMPv6, hop limit 255
    frame.extend(source.octets());
    frame.extend(all_nodes.octets());
    frame.extend(icmp);
    frame
}

/// A router advertisement (RFC 4861, 4.2) to all nodes: "I am your default router, and `prefix`/64 is here".
pub fn router_advertisement(ethernet_source: Mac, source: Ipv6Addr, prefix: Ipv6Addr) -> Vec<u8> {
    let mut icmp = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0]; // hop limit 64, router for 1800 s
    icmp.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]); // prefix: on link, autonomous, 3600 s
    icmp.extend(prefix.octets());
    icmp.extend([1, 1]); // option: source link-layer address, 8 bytes
    icmp.extend(ethernet_source);
    icmp_to_all_nodes(ethernet_source, source, icmp)
}

/// Any frame: header, then `payload`.
pub fn raw(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(destination, source, ethertype);
    frame.extend(payload);
    frame
}

fn ethernet(destination: Mac, source: Mac, ethertype: u16) -> Vec<u8> {
    [&destination[..], &source[..], &ethertype.to_be_bytes()[..]].concat()
}

fn checksum(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> u16 {
    let length = u32::try_from(icmp.len()).unwrap_or_default();
    let pseudo = [&source.octets()[..], &destination.octets()[..], &length.to_be_bytes()[..], &[0, 0, 0, 58], icmp];
    let mut sum: u32 = 0;
    for pair in pseudo.concat().chunks(2) {
        sum += pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Sends a frame from where the calling thread is.
pub(crate) fn send(link: &str, frame: &[u8]) {
    let Channel::Ethernet(mut out, _) = open(link) else { panic!("{link} is not Ethernet") };
    out.send_to(frame, None).expect("the link takes frames").unwrap_or_else(|e| panic!("send on {link}: {e}"));
}

/// Sends a frame again and again from the moment that there is such a link, until `act` is done; returns how many times.
pub fn flood<T>(place: &Namespace, link: &str, frame: &[u8], act: impl FnOnce() -> T) -> (T, usize) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            place.enter(|| {
                let mut sent = 0;
                let mut out = None;
                while !done.load(Ordering::Relaxed) {
                    let Some(out) = &mut out else {
                        out = pnet_datalink::interfaces().iter().any(|found| found.name == link).then(|| open(link));
                        continue;
                    };
                    let Channel::Ethernet(out, _) = out else { panic!("{link} is not Ethernet") };
                    // As long as it is down it takes none.
                    sent += usize::from(matches!(out.send_to(frame, None), Some(Ok(()))));
                    thread::sleep(Duration::from_micros(200));
                }
                sent
            })
        });
        let outcome = act();
        done.store(true, Ordering::Relaxed);
        (outcome, flood.join().expect("the flood"))
    })
}

/// Watches a link while `act` runs, and for `patience` longer; returns the first frame which `wanted` accepts.
pub fn watch(
    place: &Namespace,
    link: &str,
    patience: Duration,
    act: impl FnOnce(),
    wanted: impl Fn(&[u8]) -> bool + Send + 'static,
) -> Option<Vec<u8>> {
    let link = link.to_owned();
    let Channel::Ethernet(_, mut frames) = place.enter(move || open(&link)) else { panic!("not an Ethernet link") };
    act();
    let end = Instant::now() + patience;
    while Instant::now() < end {
        match frames.next() {
            Ok(frame) if wanted(frame) => return Some(frame.to_vec()),
            _ => {} // another frame, or none within the read timeout
        }
    }
    None
}

fn open(link: &str) -> Channel {
    let interface = pnet_datalink::interfaces().into_iter().find(|found| found.name == link);
    let interface = interface.unwrap_or_else(|| panic!("no link {link}"));
    let config = Config { read_timeout: Some(Duration::from_millis(50)), promiscuous: false, ..Config::default() };
    pnet_datalink::channel(&interface, config).unwrap_or_else(|e| panic!("open {link} for frames: {e}"))
}
