//! Whether this process sees the node that it judges. A pod is gone if nothing shows it, so that one who sees only a part
//! takes what he does not see for gone.
//!
//! Most such views look like any other from inside. Certain is this: the node's own network belongs with the node's own
//! processes, and who has the one without the other (a pod with `hostNetwork` and without `hostPID`) sees no pod at all.
//! Who has neither is on a node of its own, as far as anybody can tell: that of kind, an LXC container.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use libcni::runtime::Cached;
use libcni::{Code, Error};

use super::attachments::{Key, Known};
use super::entry::{addresses, is_in};
use super::leases::Lease;
use super::node::id_of;

/// `PROC_PID_INIT_INO` of linux/proc_ns.h: the pid namespace that the kernel began with.
const INITIAL_PID: &str = "pid:[4026531836]";
/// `PROC_USER_INIT_INO` of the same.
const INITIAL_USER: &str = "user:[4026531837]";

/// Which of the namespaces that the kernel began with this process is in. `None`: that cannot be seen.
#[derive(Clone, Copy, Debug)]
struct View {
    pid: Option<bool>,
    net: Option<bool>,
}

impl Known {
    /// Whether the node may be seen as a whole from here.
    ///
    /// # Errors
    /// Certainly not: living pods are not seen, and would count as gone.
    pub fn check_view(&self) -> Result<(), Error> {
        let Some(why) = View::here().partial().map(str::to_owned).or_else(|| self.own_attachment()) else {
            return Ok(());
        };
        let msg = format!("the node cannot be seen from here, and what is not seen would count as gone: {why}");
        Err(Error::new(Code::INVALID_ENVIRONMENT, msg).with_details(
            "run it on the node itself, or in a container that has the node's network and pid namespaces and its /etc/cni, \
             /var/lib/cni and /run",
        ))
    }

    /// Why this network namespace is a pod's own.
    fn own_attachment(&self) -> Option<String> {
        if View::here().net == Some(true) {
            return None;
        }
        let is_here = |key: &Key, address: &IpAddr| {
            let here = self.node.addresses.iter().any(|(there, ifname)| there == address && *ifname == key.ifname);
            here && !self.node.with(*address).any(|(_, _, ifname)| ifname == key.ifname)
        };
        let is_own = |entry: &Cached| {
            let id = entry.attachment.netns.as_deref().and_then(id_of);
            let leads_here = id.is_some() && id == self.node.own && entry.netns_is_gone().is_none();
            let vouches = || entry.netns_id.is_some() || is_in(entry, &self.node.links, &self.node.addresses);
            let key = Key::of(entry);
            (leads_here && vouches()) || addresses(entry).iter().any(|address| is_here(&key, address))
        };
        let entry = self.remembered.entries.iter().find(|entry| is_own(entry)).map(Key::of);
        let of_lease = |lease: &Lease| self.key(lease).filter(|key| is_here(key, &lease.address));
        let Key { network, container, ifname } = entry.or_else(|| self.leases.iter().find_map(of_lease))?;
        Some(format!("this network namespace is that of container {container}, with {ifname} on network {network}"))
    }
}

/// Whether root is root here: who may look into all processes that there are.
pub fn is_of_initial_user() -> bool {
    is_initial("user", INITIAL_USER) == Some(true)
}

fn is_initial(kind: &str, name: &str) -> Option<bool> {
    fs::read_link(format!("/proc/self/ns/{kind}")).ok().map(|link| link == Path::new(name))
}

impl View {
    fn here() -> Self {
        // The kernel registers this one for the namespace that it began with, and for no other.
        let net = match Path::new("/proc/sys/net/core/netdev_max_backlog").exists() {
            true => Some(true),
            false => Path::new("/proc/sys/net/ipv4").exists().then_some(false),
        };
        Self { pid: is_initial("pid", INITIAL_PID), net }
    }

    fn partial(self) -> Option<&'static str> {
        match (self.pid, self.net) {
            (None, _) => Some("/proc does not show the node's processes, and who is in which namespace"),
            (Some(false), Some(true)) => Some(
                "this is the network of the node, but not its pid namespace, so that the processes of its pods cannot be \
                 seen (in a pod: hostNetwork without hostPID)",
            ),
            (Some(false), None) => Some(
                "this is not the pid namespace of the node, and /proc/sys/net does not show whether it is the node's network",
            ),
            (Some(true), _) | (Some(false), Some(false)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views() {
        let is_partial = |pid, net| View { pid, net }.partial().is_some();
        // The node; a namespace of the node; kind.
        assert!(!is_partial(Some(true), Some(true)) && !is_partial(Some(true), Some(false)));
        assert!(!is_partial(Some(false), Some(false)) && !is_partial(Some(true), None));
        assert!(is_partial(Some(false), Some(true)) && is_partial(Some(false), None));
        assert!(is_partial(None, Some(true)) && is_partial(None, Some(false)) && is_partial(None, None));
    }
}
