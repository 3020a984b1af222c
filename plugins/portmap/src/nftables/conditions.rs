//! Conditions, which are written in nft's language, so the `nft` program must understand them. They are in a chain of the
//! attachment's own, to which its rules in `hostports` jump: `nft` cannot write whose a rule is, and the rules that all
//! share are not touched (the reference puts conditions there, where they are everybody's).
//!
//! ```text
//! chain conditions-HASH-HASH {
//!     ip saddr != 192.0.2.0/24 ip saddr 10.1.0.0/24 tcp dport 8080 meta mark set meta mark | 0x2000
//!     ip saddr != 192.0.2.0/24 tcp dport 8080 dnat to 10.1.0.2:80
//! }
//! ```

use std::net::SocketAddr;

use hostnet::iptables::Version;
use hostnet::nft::{self, Expression, Rule, Verdict};
use hostnet::ports::Mapping;
use hostnet::{Error, Owner};

use super::frame::table;
use crate::conf::Masquerade;
use crate::pod::Forward;

const BEGIN: &str = "conditions-";

/// The attachment's chain.
pub fn chain(owner: &Owner) -> String {
    format!("{BEGIN}{}", owner.nft_comment_prefix())
}

/// The chain that a rule of an attachment jumps to.
pub fn led_to(rule: &Rule) -> Option<String> {
    rule.expressions().into_iter().find_map(|expression| match expression {
        Expression::Verdict(Verdict::Jump(to)) if to.starts_with(BEGIN) => Some(to),
        _ => None,
    })
}

/// Makes the attachment's chains, or fills them anew, of all IP versions that have conditions.
///
/// # Errors
/// `nft` refuses; nothing was changed.
pub fn ensure(forwards: &[Forward<'_>]) -> Result<(), Error> {
    let mut commands = Vec::new();
    for forward in forwards.iter().filter(|forward| !forward.condition_words().is_empty()) {
        let (table, chain) = (table(forward.version), chain(forward.owner));
        commands.push(format!("add table {table}"));
        commands.extend(["add", "flush"].map(|verb| format!("{verb} chain {table} {chain}")));
        let rules = forward.mappings().flat_map(|mapping| rules(forward, mapping));
        commands.extend(rules.map(|rule| format!("add rule {table} {chain} {rule}")));
    }
    if commands.is_empty() {
        Ok(())
    } else {
        nft::run(&commands).map_err(|error| Error::other("apply conditions", error))
    }
}

fn rules(forward: &Forward<'_>, mapping: &Mapping) -> Vec<String> {
    let ip = if forward.version == Version::V4 { "ip" } else { "ip6" };
    let conditions = forward.condition_words().join(" ");
    let host = mapping.address().map(|addr| format!("{ip} daddr {addr} ")).unwrap_or_default();
    let matches = format!("{host}{} dport {}", mapping.protocol, mapping.host_port);
    let mut rules = Vec::new();
    if let Some(bit) = forward.masquerade.bit() {
        let source = match forward.masquerade {
            Masquerade::All(_) => String::new(),
            _ => format!("{ip} saddr {} ", forward.pod.network()),
        };
        rules.push(format!("{conditions} {source}{matches} meta mark set meta mark | {bit:#x}"));
    }
    let to = SocketAddr::new(forward.pod.addr(), mapping.container_port.get());
    rules.push(format!("{conditions} {matches} dnat to {to}"));
    rules
}
