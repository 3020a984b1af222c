//! The rules, in the words in which `iptables -S` prints them, so that what is written can be compared with what is there.
//!
//! ```text
//! -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"NET\" id: \"ID\"" -m multiport --dports 8080 -j CNI-DN-...
//! -A CNI-DN-... -s 10.1.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
//! -A CNI-DN-... -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
//! -A CNI-DN-... -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.2:80
//! -A CNI-DN-... -m comment --comment "HASH-HASH, net: NET, if: eth0, id: ID"
//! ```
//!
//! All are the reference's but the last one, which does nothing and says whose the chain is.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use hostnet::Owner;
use hostnet::iptables::{Version, quote};
use hostnet::ports::{Mapping, Protocol};
use libcni::types::Cidr;

use crate::conf::{Mark, Masquerade};
use crate::pod::Forward;

/// Leads from the ports of all attachments to their chains.
pub const ENTRIES: &str = "CNI-HOSTPORT-DNAT";
/// Sets the mark.
pub const SET_MARK: &str = "CNI-HOSTPORT-SETMARK";
/// Masquerades what is marked.
pub const MASQUERADE: &str = "CNI-HOSTPORT-MASQ";
/// What [`ENTRIES`] was for source translation before the reference's 0.7.
pub const OLD_ENTRIES: &str = "CNI-HOSTPORT-SNAT";

/// Ports in one rule (`XT_MULTI_PORTS` of linux/netfilter/xt_multiport.h).
const PORTS_PER_RULE: usize = 15;
/// Longest comment.
const COMMENT_MAX: usize = 255;

/// The jump from PREROUTING and OUTPUT: only what is for this node. Behind what others put there (CVE-2019-9946).
pub fn entry_jump(from: &str) -> String {
    format!("-A {from} -m addrtype --dst-type LOCAL -j {ENTRIES}")
}

/// The jump from POSTROUTING. It stands first, before what else may accept the packet.
pub fn masquerade_jump() -> String {
    format!("-A POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" -j {MASQUERADE}")
}

/// The one rule of [`SET_MARK`].
pub fn set_mark(bit: u32) -> String {
    format!("-A {SET_MARK} -m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark {bit:#x}/{bit:#x}")
}

/// The one rule of [`MASQUERADE`].
pub fn masquerade(bit: u32) -> String {
    format!("-A {MASQUERADE} -m mark --mark {bit:#x}/{bit:#x} -j MASQUERADE")
}

/// The comment of an attachment's entries.
pub fn comment(owner: &Owner) -> String {
    let mut comment = format!("{}id: \"{}\"", comment_of_network(owner.network.as_str()), owner.container);
    if comment.len() > COMMENT_MAX {
        // The reference writes a character more than iptables keeps.
        comment.truncate(COMMENT_MAX - 2);
        comment.push_str("..");
    }
    comment
}

/// What the comments of a network's entries begin with.
pub fn comment_of_network(network: &str) -> String {
    format!("dnat name: \"{network}\" ")
}

/// The rule that says whose a chain is.
pub fn tag(chain: &str, owner: &Owner) -> String {
    let tag = String::from_utf8_lossy(&owner.nft_comment()).into_owned();
    format!("-A {chain} -m comment --comment {}", quote(&tag))
}

/// The rules of an attachment's chain, without the tag.
pub fn of_chain(forward: &Forward<'_>, chain: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    let rules = forward.mappings().flat_map(|mapping| of_mapping(forward, chain, mapping));
    rules.filter(|rule| seen.insert(rule.clone())).collect()
}

fn of_mapping(forward: &Forward<'_>, chain: &str, mapping: &Mapping) -> Vec<String> {
    let (protocol, port) = (mapping.protocol, mapping.host_port);
    let rule = |source: Option<Cidr>, then: &str| {
        let mut rule = format!("-A {chain}");
        let matches = [(" -s", source), (" -d", mapping.address().map(Cidr::host))];
        for (option, network) in matches {
            if let Some(network) = network {
                // Writing to a String does not fail.
                let _ = write!(rule, "{option} {network}");
            }
        }
        let _ = write!(rule, " -p {protocol} -m {protocol} --dport {port} {then}");
        rule
    };
    let mut rules = Vec::new();
    if let Some(mark) = forward.masquerade.mark() {
        let jump = match mark {
            Mark::Bit(_) => format!("-j {SET_MARK}"),
            Mark::Chain(chain) => format!("-j {chain}"),
        };
        match forward.masquerade {
            // Any source: iptables does not print that.
            Masquerade::All(_) => rules.push(rule(None, &jump)),
            _ => {
                let network = forward.pod.network();
                rules.push(rule((!network.is_default()).then_some(network), &jump));
                rules.extend(loopback(forward.version).map(|source| rule(Some(source), &jump)));
            }
        }
    }
    let to = SocketAddr::new(forward.pod.addr(), mapping.container_port.get());
    rules.push(rule(None, &format!("-j DNAT --to-destination {to}")));
    rules
}

/// What the node calls itself. IPv6 has no way out of the node for it.
fn loopback(version: Version) -> Option<Cidr> {
    (version == Version::V4).then(|| Cidr::host(std::net::Ipv4Addr::LOCALHOST.into()))
}

/// An attachment's rules in [`ENTRIES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The protocol.
    pub protocol: Protocol,
    /// The node's ports, at most 15.
    pub ports: Vec<u16>,
}

impl Entry {
    /// As many as are needed. Like the reference's they name the ports of mappings of the other IP version, too.
    pub fn all(mappings: &[Mapping]) -> Vec<Self> {
        let mut entries = Vec::new();
        for protocol in Protocol::ALL {
            let of_protocol = mappings.iter().filter(|mapping| mapping.protocol == protocol);
            let ports: Vec<u16> = of_protocol.map(|mapping| mapping.host_port.get()).collect();
            entries.extend(ports.chunks(PORTS_PER_RULE).map(|ports| Self { protocol, ports: ports.to_vec() }));
        }
        entries
    }

    /// The rule, behind its `-A CHAIN` or `-I CHAIN NUMBER`.
    pub fn matches(&self, owner: &Owner, conditions: &[String], chain: &str) -> String {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let (protocol, comment, ports) = (self.protocol, quote(&comment(owner)), ports.join(","));
        let mut rule = format!("-p {protocol} -m comment --comment {comment} -m multiport --dports {ports}");
        for word in conditions {
            let _ = write!(rule, " {}", if word == "!" { word.clone() } else { quote(word) });
        }
        let _ = write!(rule, " -j {chain}");
        rule
    }
}
