//! `prevResult` on CHECK: which of its entries are the attachment's own, and whether the links they name are still what
//! ADD made.

use libcni::Error;
use libcni::plugin::Request;
use libcni::types::{Interface, Success};

use crate::link::{self, Link};
use crate::netlink::Netlink;

/// What `prevResult` says of the attachment.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The result, its addresses those of the pod's interface alone: others are of plugins chained after us.
    pub result: Success,
    /// The pod's interface.
    pub pod: Interface,
}

impl Listed {
    /// From the `prevResult` of a CHECK.
    ///
    /// # Errors
    /// There is none, or the pod's interface is not in it.
    pub fn of<C>(req: &Request<C>) -> Result<Self, Error> {
        let mut result = req.prev_result()?.ok_or_else(|| Error::internal("Required prevResult missing"))?;
        let (index, pod) = in_pod(req, &result)?;
        result.ips.retain(|ip| ip.interface.is_none_or(|interface| usize::try_from(interface) == Ok(index)));
        Ok(Self { result, pod })
    }

    /// The pod's end of the pair, as it is now. `may_be_down`: nobody has set it up.
    ///
    /// # Errors
    /// It is gone, of another kind, has another address, or is down.
    pub fn pod_end(&self, pod: &mut Netlink, may_be_down: bool) -> Result<Link, Error> {
        let Interface { name, mac, sandbox, .. } = &self.pod;
        let link = link::get(pod, name)?
            .ok_or_else(|| Error::internal(format!("Cannot find container link {name} in {sandbox}")))?;
        if !link.is_kind("veth") {
            return Err(Error::internal(format!("Error: Container interface {name} not of type veth")));
        }
        if let Some(found) = other_mac(&self.pod, &link) {
            return Err(Error::internal(format!("Interface {name} Mac {mac} doesn't match container Mac: {found}")));
        }
        if !link.up && !may_be_down {
            return Err(Error::internal(format!("Container interface {name} is down")));
        }
        Ok(link)
    }

    /// The host's end, found from the pod's, and the one that is listed.
    ///
    /// # Errors
    /// It is gone, not listed, has another address, or is down.
    pub fn host_end(&self, host: &mut Netlink, pod_end: &Link) -> Result<Link, Error> {
        let index = pod_end.parent.ok_or_else(|| Error::internal("the pod's end has no peer"))?;
        let end = link::get_by_index(host, index)?.ok_or_else(|| Error::internal("its end on the host is gone"))?;
        if !end.up {
            return Err(Error::internal(format!("{} is down", end.name)));
        }
        let is_end = |listed: &&Interface| listed.sandbox.is_empty() && listed.name == end.name;
        let listed = self.result.interfaces.iter().find(is_end);
        let listed = listed.ok_or_else(|| Error::internal(format!("{} is not in prevResult", end.name)))?;
        match other_mac(listed, &end) {
            Some(mac) => Err(Error::internal(format!("Interface {} Mac doesn't match: {mac} not found", end.name))),
            None => Ok(end),
        }
    }
}

/// The pod's interface, with its place in the result.
fn in_pod<C>(req: &Request<C>, result: &Success) -> Result<(usize, Interface), Error> {
    let ifname = req.ifname().as_str();
    let netns = req.netns()?.display().to_string();
    let mut named = result.interfaces.iter().enumerate().filter(|(_, listed)| listed.name == ifname).peekable();
    if named.peek().is_none() {
        return Err(Error::internal(format!("CNI created interface in container {ifname} not found in prevResult")));
    }
    let mut elsewhere = String::new();
    for (index, listed) in named {
        if listed.sandbox == netns {
            return Ok((index, listed.clone()));
        }
        elsewhere.clone_from(&listed.sandbox);
    }
    Err(Error::internal(format!("Sandbox in prevResult {elsewhere} doesn't match configured netns: {netns}")))
}

/// The address a link has in place of the one that is listed, if one is.
fn other_mac(listed: &Interface, link: &Link) -> Option<String> {
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    (!listed.mac.is_empty() && !listed.mac.eq_ignore_ascii_case(&mac)).then_some(mac)
}
