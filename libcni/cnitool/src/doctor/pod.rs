//! A temporary pod: a network namespace of our own that the network's plugins connect.
//!
//! The namespace has no file: it is held by a descriptor, by whose path the plugins find it, and ends with this process
//! however that ends.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, AsRawFd};

use hostnet::link::{self, Link};
use hostnet::{Netlink, Netns};
use libcni::runtime::{Attachment, ConfList, Runtime};
use libcni::types::json::Object;
use libcni::{Error, Success};
use serde_json::json;

/// What container ids of temporary pods begin with.
pub const PREFIX: &str = "podwire-doctor-";
/// The pod's interface.
pub const IFNAME: &str = "eth0";

/// A pod that has been added.
pub struct Pod {
    /// Its own side.
    pub nl: Netlink,
    pub attachment: Attachment,
    pub result: Success,
    /// Its interface.
    pub link: Link,
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Copy, Debug)]
pub struct HostPort {
    pub node: NonZeroU16,
    pub pod: NonZeroU16,
}

impl Pod {
    /// ADD. If that fails, the runtime has taken back what was made.
    pub fn add(runtime: &Runtime, list: &ConfList, id: &str, port: Option<HostPort>) -> Result<Self, Error> {
        let mut nl = Netlink::open_in(Netns::create()?)?;
        if let Some(loopback) = link::get(&mut nl, "lo")? {
            link::set_up(&mut nl, loopback.index)?;
        }
        let path = format!("/proc/{}/fd/{}", std::process::id(), nl.netns().as_fd().as_raw_fd());
        let mut attachment = Attachment::new(id.parse()?, Some(path.into()), IFNAME.parse()?);
        if let Some(port) = port {
            let mapping = json!([{"hostPort": port.node, "containerPort": port.pod, "protocol": "tcp"}]);
            attachment.capability_args = Object::from_iter([("portMappings".to_owned(), mapping)]);
        }
        let (_, result) = runtime.add(list, &attachment)?;
        match link::get(&mut nl, IFNAME)? {
            Some(link) => Ok(Self { nl, attachment, result, link }),
            None => {
                let undone = runtime.del(list, &attachment);
                let error = Error::internal(format!("ADD succeeded, but the pod has no {IFNAME}"));
                Err(undone.err().map_or(error.clone(), |del| error.with_details(format!("DEL failed, too: {del}"))))
            }
        }
    }

    /// Its container id.
    pub fn id(&self) -> &str {
        self.attachment.container_id.as_str()
    }

    /// Its addresses of one IP version.
    pub fn addresses(&self, ipv4: bool) -> Vec<IpAddr> {
        self.result.ips.iter().map(|ip| ip.address.addr()).filter(|addr| addr.is_ipv4() == ipv4).collect()
    }

    /// Its gateway of one IP version.
    pub fn gateway(&self, ipv4: bool) -> Option<IpAddr> {
        self.result.ips.iter().filter_map(|ip| ip.gateway).find(|gateway| gateway.is_ipv4() == ipv4)
    }

    /// The names of the node's links that its result names.
    pub fn host_links(&self) -> Vec<&str> {
        let on_node = self.result.interfaces.iter().filter(|interface| interface.sandbox.is_empty());
        on_node.map(|interface| interface.name.as_str()).collect()
    }
}
