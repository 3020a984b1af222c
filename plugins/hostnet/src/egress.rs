//! How a pod's packets leave the node: with the node's address, if `ipMasq` says so. The same step in every plugin that
//! routes a pod; what the rules are is [`masquerade`]'s.

use std::net::IpAddr;

use libcni::plugin::Request;
use libcni::types::{Cidr, Code, IfName, IpConfig};

use crate::error::Result;
use crate::masquerade::{self, Backend};
use crate::netlink::Netlink;
use crate::nft::Nft;
use crate::owner::Owner;
use crate::undo::Undo;
use crate::{addr, link};

/// The keys `ipMasq` and `ipMasqBackend`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Egress {
    masquerade: bool,
    backend: Option<Backend>,
}

impl Egress {
    /// From the keys as they are written.
    ///
    /// # Errors
    /// Code 7: `ipMasqBackend` is no backend.
    pub fn new(ip_masq: bool, backend: Option<&str>) -> std::result::Result<Self, libcni::Error> {
        let backend = backend.map(str::parse).transpose();
        let refuse = |error| libcni::Error::new(Code::INVALID_CONFIG, format!("ipMasqBackend: {error}"));
        Ok(Self { masquerade: ip_masq, backend: backend.map_err(refuse)? })
    }

    /// Masquerades the pod's addresses.
    ///
    /// # Errors
    /// The rules could not be made; some may be there until `undo` has run.
    pub fn ensure<'a, C>(
        self,
        req: &'a Request<C>,
        owner: &'a Owner,
        ips: &[IpConfig],
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        if !self.masquerade {
            return Ok(());
        }
        undo.push("remove the masquerade rules", || {
            let mut pod = Netlink::open_if_any(req.netns_if_any())?;
            masquerade::remove(owner, &addresses_of_others(pod.as_mut(), req.ifname())?)
        });
        masquerade::add(owner, self.backend, &addresses(ips))
    }

    /// Compares the rules with what [`ensure`](Self::ensure) makes.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(self, owner: &Owner, ips: &[IpConfig]) -> Result<()> {
        if self.masquerade { masquerade::check(owner, self.backend, &addresses(ips)) } else { Ok(()) }
    }
}

/// Removes the rules of either backend, whatever the configuration says by now. `pod` is `None` where it is gone.
///
/// # Errors
/// Rules are left behind.
pub fn remove(nft: &mut Nft, pod: Option<&mut Netlink>, owner: &Owner) -> Result<()> {
    masquerade::remove_over(nft, owner, &addresses_of_others(pod, &owner.ifname)?)
}

fn addresses(ips: &[IpConfig]) -> Vec<Cidr> {
    ips.iter().map(|ip| ip.address).collect()
}

/// The addresses of the pod's other interfaces: with iptables, the masquerade rules of a container's interfaces on
/// one network share a chain. None where the pod is gone.
fn addresses_of_others(pod: Option<&mut Netlink>, ifname: &IfName) -> Result<Vec<IpAddr>> {
    let Some(pod) = pod else { return Ok(Vec::new()) };
    let own = link::get(pod, ifname.as_str())?.map_or(0, |link| link.index);
    let others = addr::list_of_others(pod, own)?;
    Ok(others.iter().map(|address| address.cidr.addr()).collect())
}
