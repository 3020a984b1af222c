//! An attachment's rules, newest first in each chain. Their comment is the container's id, as the reference writes and
//! looks for it; whose they are exactly is in a tag beside it.
//!
//! ```text
//! chain hostports {
//!     ip saddr 10.1.0.0/24 tcp dport 8080 meta mark set meta mark | 0x00002000 comment "ID"
//!     tcp dport 8080 dnat to 10.1.0.2:80 comment "ID"
//! }
//! chain masquerading {
//!     ip saddr 10.1.0.2 ip daddr 10.1.0.2 masquerade comment "ID"
//!     ip saddr 127.0.0.1 ip daddr 10.1.0.2 masquerade comment "ID"
//!     meta mark & 0x00002000 == 0x00002000 masquerade comment "CNI portfwd requiring masquerade"
//! }
//! ```
//!
//! The mark is ours: the reference masquerades the pod itself and the node alone, so that a neighbour of the pod gets no
//! answer through the node's address.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use hostnet::iptables::Version;
use hostnet::nft::{self, Direction, Expression, Operator, address, read_address, read_dnat, read_port};
use hostnet::ports::Mapping;
use libcni::types::Cidr;

use super::conditions;
use super::frame::jump;
use crate::conditions::Conditions;
use crate::conf::Masquerade;
use crate::pod::Forward;

/// The rules of chain `hostports`, in order.
pub fn of_hostports(forward: &Forward<'_>) -> Vec<Vec<Expression>> {
    forward.mappings().flat_map(|mapping| of_mapping(forward, mapping)).collect()
}

fn of_mapping(forward: &Forward<'_>, mapping: &Mapping) -> Vec<Vec<Expression>> {
    let rule = |source: Option<Cidr>, then: &[Expression]| {
        let host = mapping.address().map(Cidr::host);
        let mut rule = Vec::new();
        for (direction, network) in [(Direction::Source, source), (Direction::Destination, host)] {
            rule.extend(network.into_iter().flat_map(|network| address(direction, Operator::Equal, &network)));
        }
        rule.extend(nft::port(mapping.protocol, mapping.host_port.get()));
        rule.extend_from_slice(then);
        rule
    };
    if !forward.condition_words().is_empty() {
        return vec![rule(None, &[jump(&conditions::chain(forward.owner))])];
    }
    let mut rules = Vec::new();
    if let Some(bit) = forward.masquerade.bit() {
        let source = match forward.masquerade {
            Masquerade::All(_) => None,
            _ => Some(forward.pod.network()).filter(|network| !network.is_default()),
        };
        rules.push(rule(source, &nft::set_mark(bit)));
    }
    rules.push(rule(None, &nft::dnat(forward.pod.addr(), mapping.container_port.get())));
    rules
}

/// What the reference has in chain `hostports` for the same mappings.
pub fn of_reference(forward: &Forward<'_>) -> Vec<Vec<Expression>> {
    let no_conditions = Conditions::default();
    let forward = Forward { masquerade: &Masquerade::Off, conditions: &no_conditions, ..forward.clone() };
    of_hostports(&forward)
}

/// The rules of chain `masquerading`, in order.
pub fn of_masquerading(forward: &Forward<'_>) -> Vec<Vec<Expression>> {
    if forward.masquerade.mark().is_none() {
        return Vec::new();
    }
    let pod = forward.pod.addr();
    // IPv6 has no way out of the node for its loopback address.
    let loopback = (forward.version == Version::V4).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let sources = [Some(pod), loopback].into_iter().flatten();
    let rule = |source: IpAddr| {
        let mut rule = address(Direction::Source, Operator::Equal, &Cidr::host(source));
        rule.extend(address(Direction::Destination, Operator::Equal, &Cidr::host(pod)));
        rule.push(Expression::Masquerade);
        rule
    };
    sources.map(rule).collect()
}

/// The mapping that a rule stands for, with the address it leads to, where the rule says that.
pub fn read(expressions: &[Expression], version: Version) -> Option<(Mapping, Option<IpAddr>)> {
    let (protocol, host_port) = read_port(expressions)?;
    let to = read_dnat(expressions);
    let is_jump = matches!(expressions.last(), Some(Expression::Verdict(_)));
    if to.is_none() && !is_jump {
        return None;
    }
    let host_port = NonZeroU16::new(host_port)?;
    let container_port = to.map_or(Some(host_port), |to| NonZeroU16::new(to.port()))?;
    let host_ip = read_address(expressions, Direction::Destination, version == Version::V4).map(|host| host.addr());
    Some((Mapping { protocol, host_port, container_port, host_ip }, to.map(|to| to.ip())))
}
