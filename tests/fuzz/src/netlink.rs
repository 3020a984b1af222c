//! What the kernel answers, as far as it is decoded: a recording is one datagram after the other, each behind its length
//! (four bytes, little endian).
//!
//! The kernel is not a stranger, but a kernel of ten years from now is, and so are the links, rules and filters of others
//! in its answers.

use std::cell::RefCell;

use hostnet::conntrack::{Conntrack, Filter};
use hostnet::nft::{self, Family, Nft, Table};
use hostnet::ports::Protocol;
use hostnet::{Netlink, Socket, addr, bridge, link, route, tc};

fn datagrams(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX).min(rest.len());
        datagrams.push(rest[..length].to_vec());
        bytes = &rest[length..];
    }
    datagrams
}

/// There are two lists, of IPv4 and of IPv6, so the recording is played twice.
fn routes(nl: &mut Netlink, said: &[Vec<u8>]) -> hostnet::Result<Vec<route::Route>> {
    nl.socket = Socket::replaying([said, said].concat());
    route::list(nl, &route::Filter::default())
}

pub fn netlink(bytes: &[u8]) {
    thread_local! {
        static HOST: RefCell<Netlink> = RefCell::new(Netlink::replaying(Vec::new()).expect("/proc"));
    }
    let said = datagrams(bytes);
    HOST.with(|host| {
        let nl = &mut host.borrow_mut();
        let mut ask = |question: &mut dyn FnMut(&mut Netlink)| {
            nl.socket = Socket::replaying(said.clone());
            question(nl);
        };
        ask(&mut |nl| {
            for link in link::list(nl).unwrap_or_default() {
                assert!(link.name.len() <= bytes.len());
            }
        });
        ask(&mut |nl| drop(link::get(nl, "v0")));
        ask(&mut |nl| drop(bridge::vlans(nl, 3)));
        ask(&mut |nl| drop(addr::list(nl, 2)));
        ask(&mut |nl| drop(addr::list_of_others(nl, 0)));
        ask(&mut |nl| drop(routes(nl, &said)));
        ask(&mut |nl| drop(route::link_towards(nl, [10, 1, 0, 2].into())));
        ask(&mut |nl| drop(tc::root(nl, 3)));
        ask(&mut |nl| drop(tc::tbf::get(nl, 3)));
        ask(&mut |nl| drop(tc::ingress::get(nl, 4)));
        ask(&mut |nl| drop(tc::redirect::is_there(nl, 4, 5)));
    });
    for (family, name, chain, set) in [
        (Family::Inet, "cni_plugins_masquerade", "masq_checks", "s"),
        (Family::Ip, "cni_hostport", "prerouting", "x"),
        (Family::Ip, "nat", "CNI-DN-x", "x"),
    ] {
        let table = Table { family, name };
        let nft = || Nft::over(Socket::replaying(said.clone()));
        drop(nft().chains(table));
        drop(nft().elements(table, set));
        for rule in nft().rules(table.chain(chain)).unwrap_or_default() {
            let expressions = rule.expressions();
            assert!(expressions.len() <= bytes.len());
            let _ = (rule.handle(), rule.comment(), rule.tag(), rule.extension("multiport"), format!("{rule:?}"));
            let _ = (nft::read_port(&expressions), nft::read_dnat(&expressions));
            for ipv4 in [true, false] {
                let _ = nft::read_address(&expressions, nft::Direction::Source, ipv4);
            }
        }
    }
    for ipv4 in [true, false] {
        let filter = Filter { ipv4, protocol: Protocol::Udp, port: None, answers_from: None };
        drop(Conntrack::over(Socket::replaying(said.clone())).list(&filter));
    }
}

#[cfg(test)]
mod tests {
    use hostnet::Result;

    use super::*;
    use crate::mutate::seeds;

    /// How much the recordings say: without this a target that passes over every message would be content with all.
    #[test]
    fn the_recordings_are_read() {
        let recordings = seeds("netlink");
        let most = |question: &dyn Fn(&mut Netlink) -> usize| {
            let ask = |bytes: &Vec<u8>| question(&mut Netlink::replaying(datagrams(bytes)).unwrap());
            recordings.iter().map(ask).max().unwrap()
        };
        fn count<T>(list: Result<Vec<T>>) -> usize {
            list.map_or(0, |list| list.len())
        }
        assert!(most(&|nl| count(link::list(nl))) >= 5);
        assert!(most(&|nl| count(addr::list_of_others(nl, 0))) >= 4);
        let read = |bytes: &Vec<u8>| count(routes(&mut Netlink::replaying(Vec::new()).unwrap(), &datagrams(bytes)));
        assert!(recordings.iter().filter(|bytes| read(bytes) >= 2).count() >= 2);
        assert!(most(&|nl| usize::from(link::get(nl, "v0").is_ok_and(|link| link.is_some()))) == 1);
        let over = |recording: &Vec<u8>| Nft::over(Socket::replaying(datagrams(recording)));
        let masquerade = Table { family: Family::Inet, name: "cni_plugins_masquerade" };
        let rules = |recording| over(recording).rules(masquerade.chain("masq_checks")).unwrap_or_default();
        let all: Vec<_> = recordings.iter().flat_map(rules).collect();
        let is_ours = |comment: &[u8]| comment.starts_with(b"bb82bb83e4c2720d-");
        assert!(all.iter().any(|rule| rule.comment().is_some_and(is_ours)), "{all:?}");
        assert!(all.iter().any(|rule| rule.expressions().contains(&nft::Expression::Masquerade)), "{all:?}");
        let elements = |recording| over(recording).elements(masquerade, "s").unwrap_or_default().len();
        assert!(recordings.iter().any(|recording| elements(recording) >= 4));
        let filter = Filter { ipv4: true, protocol: Protocol::Udp, port: None, answers_from: None };
        let flows = |recording| Conntrack::over(Socket::replaying(datagrams(recording))).list(&filter);
        assert!(recordings.iter().any(|recording| flows(recording).is_ok_and(|flows| !flows.is_empty())));
    }
}
