//! `127.0.0.1:PORT` on the node: a packet from there leaves the node only if the interface towards the pod has
//! `route_localnet`. The sysctl stays, as others may rely on it; but it also lets packets in from outside that are *to*
//! 127.0.0.0/8, and so to what the node keeps to itself (CVE-2020-8558). Those are dropped first:
//!
//! ```text
//! table ip cni_localnet {
//!     chain prerouting {
//!         type filter hook prerouting priority raw; policy accept;
//!         iifname != "lo" ip daddr 127.0.0.0/8 drop
//!     }
//! }
//! ```
//!
//! No honest packet on a wire has such a destination (RFC 1122, 3.2.1.3). At this priority it is still the one that was on the
//! wire: answers to masqueraded packets, and what others translate to 127.0.0.1, are not touched.

use std::net::IpAddr;

use hostnet::nft::{
    Batch, Chain, Direction, Expression, Family, Hook, InetHookNumber, MetaKey, Nft, Operator, Table, Verdict, address,
};
use hostnet::{Error, Netlink, link, route, sysctl};
use libcni::types::Cidr;

const TABLE: Table = Table { family: Family::Ip, name: "cni_localnet" };
const GUARD: Chain<'static> = TABLE.chain("prerouting");
/// Priority `raw` (`NF_IP_PRI_RAW`).
const HOOK: Hook = Hook { kind: "filter", at: InetHookNumber::PreRouting, priority: -300 };
const COMMENT: &str = "127.0.0.0/8 stays the node's own where portmap has set route_localnet";

/// Lets packets of the node's loopback address out towards the pod, and none in.
///
/// # Errors
/// The sysctl cannot be set.
pub fn ensure(host: &mut Netlink, pod: IpAddr) -> Result<(), Error> {
    let _step = libcni::log::step("route_localnet");
    let Some(key) = key(host, pod)? else { return Ok(()) };
    // Without nf_tables in the kernel it is as with the reference.
    if let Err(error) = guard() {
        libcni::log::warn(format_args!("portmap: {error}"));
    }
    match sysctl::set(host, &key, "1") {
        Err(error) => Err(Error::other("unable to enable route_localnet", error)),
        outcome => outcome,
    }
}

/// Whether they are let out.
///
/// # Errors
/// They are not.
pub fn check(host: &mut Netlink, pod: IpAddr) -> Result<(), Error> {
    let Some(key) = key(host, pod)? else { return Ok(()) };
    match sysctl::get(host, &key)? {
        Some(value) if value != "1" => Err(Error::other(format!("check sysctl {key}"), format!("{value}, not 1"))),
        _ => Ok(()),
    }
}

/// The sysctl of the link towards the pod; `None` where there is no route to it.
fn key(host: &mut Netlink, pod: IpAddr) -> Result<Option<String>, Error> {
    let Some(index) = route::link_towards(host, pod)? else { return Ok(None) };
    Ok(link::get_by_index(host, index)?.map(|link| format!("net/ipv4/conf/{}/route_localnet", link.name)))
}

fn guard() -> Result<(), Error> {
    Nft::default().settle(|nft| {
        let mut batch = Batch::default();
        let existed = nft.has_chain(GUARD)?;
        if existed && !nft.rules(GUARD)?.is_empty() {
            return Ok(batch);
        }
        batch.ensure_table(TABLE, Some(COMMENT));
        if !existed {
            batch.create_chain(GUARD, Some(HOOK), None);
        }
        batch.append_rule(GUARD, drop_rule(), None);
        Ok(batch)
    })
}

/// `iifname != "lo" ip daddr 127.0.0.0/8 drop`
fn drop_rule() -> Vec<Expression> {
    let mut lo = b"lo".to_vec();
    lo.resize(16, 0);
    let mut rule = vec![Expression::Meta(MetaKey::Iifname), Expression::Compare(Operator::NotEqual, lo)];
    let loopback = Cidr::new(IpAddr::from([127, 0, 0, 0]), 8);
    rule.extend(loopback.iter().flat_map(|network| address(Direction::Destination, Operator::Equal, network)));
    rule.push(Expression::Verdict(Verdict::Drop));
    rule
}
