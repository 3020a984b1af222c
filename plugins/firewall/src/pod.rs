//! The pod whose packets are let through: who it is, and its addresses.

use std::collections::HashSet;
use std::net::IpAddr;

use hostnet::Owner;
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

    /// What a rule's comment begins with if the rule is this pod's.
    pub fn tag(&self) -> String {
        self.owner.nft_comment_prefix()
    }

    /// The comment that says so, and in words.
    pub fn comment(&self) -> String {
        String::from_utf8_lossy(&self.owner.nft_comment()).into_owned()
    }
}

/// The result of the plugin before, without which there are no addresses.
pub fn prev_result(req: &Request<Conf>) -> Result<Success, Error> {
    req.prev_result()?.ok_or_else(|| {
        Error::new(Code::INVALID_CONFIG, "missing prevResult from earlier plugin")
            .with_details("firewall works in a chain, behind the plugin that makes the interface")
    })
}
