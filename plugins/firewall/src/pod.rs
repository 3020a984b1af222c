//! The pod whose packets are let through: who it is, and its addresses.

use std::collections::HashSet;
use std::net::IpAddr;

use hostnet::{Netlink, Owner, addr, link};
use libcni::plugin::Request;
use libcni::{Code, Error, Success};

use crate::conf::Conf;

/// A pod on a network.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Whose the rules are.
    pub owner: Owner,
    /// All addresses of the result, whichever interface they are of: the reference does not ask either.
    pub addresses: Vec<IpAddr>,
}

impl Pod {
    /// The pod of a request, with the addresses of the plugin before.
    pub fn of(req: &Request<Conf>, result: &Success) -> Self {
        let mut seen = HashSet::new();
        let addresses = result.ips.iter().map(|ip| ip.address.addr()).filter(|address| seen.insert(*address)).collect();
        Self { owner: Owner::of(req), addresses }
    }

    /// The pod of a DEL. Where no result is remembered, or none that can be read, its addresses are those that its interface
    /// still has: rules of the reference name no owner. Without either there are none, and its tag to go by.
    pub fn for_del(req: &Request<Conf>) -> Self {
        let result = req.prev_result().ok().flatten().unwrap_or_default();
        let mut pod = Self::of(req, &result);
        if pod.addresses.is_empty() {
            pod.addresses = of_interface(req).unwrap_or_default();
        }
        pod
    }

    /// What a rule's comment begins with if the rule is this pod's.
    pub fn tag(&self) -> String {
        self.owner.nft_comment_prefix()
    }

    /// The comment that says so, and in words.
    pub fn comment(&self) -> String {
        String::from_utf8_lossy(&self.owner.nft_comment()).into_owned()
    }
}

/// The addresses of the pod's interface that are unique on the node.
fn of_interface(req: &Request<Conf>) -> Result<Vec<IpAddr>, hostnet::Error> {
    let Some(mut pod) = Netlink::open_if_any(req.netns_if_any())? else { return Ok(Vec::new()) };
    let Some(link) = link::get(&mut pod, req.ifname().as_str())? else { return Ok(Vec::new()) };
    let addresses = addr::list(&mut pod, link.index)?.into_iter().map(|address| address.cidr.addr());
    Ok(addresses.filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())).collect())
}

/// The result of the plugin before, without which there are no addresses.
pub fn prev_result(req: &Request<Conf>) -> Result<Success, Error> {
    req.prev_result()?.ok_or_else(|| {
        Error::new(Code::INVALID_CONFIG, "missing prevResult from earlier plugin")
            .with_details("firewall works in a chain, behind the plugin that makes the interface")
    })
}
