//! What is behind a host: one machine that knows the host's addresses and nothing of its pods.
//!
//! It has no route to any pod, so an answer that comes back proves that the host put its own address on the packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use crate::echo::Echo;
use crate::namespace::{Namespace, number};
use crate::pod::Pod;

/// The machine behind the host's link `uplink`. Addresses are of the documentation ranges.
#[derive(Debug)]
pub struct Internet {
    pod: Pod,
}

impl Internet {
    /// Where the internet is, IPv4.
    pub const V4: &str = "198.51.100.2";
    /// Where the internet is, IPv6.
    pub const V6: &str = "2001:db8:51::2";
    /// The host's own address on `uplink`, IPv4.
    pub const HOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    /// The host's own address on `uplink`, IPv6.
    pub const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1));

    pub(crate) fn create(host: &Namespace) -> Self {
        let pod = Pod::create(host, &format!("internet-{}", number()));
        host.run(&format!("ip link add uplink type veth peer name eth0 netns {}", pod.name()));
        pod.run("ip link set lo up");
        for (place, link, v4, v6) in [
            (host, "uplink", Self::HOST_V4.to_string(), Self::HOST_V6.to_string()),
            (&*pod, "eth0", Self::V4.to_owned(), Self::V6.to_owned()),
        ] {
            place.set_sysctl(&format!("net/ipv6/conf/{link}/accept_ra"), "0");
            place.run(&format!("ip address add {v4}/24 dev {link}"));
            place.run(&format!("ip address add {v6}/64 dev {link} nodad"));
            place.run(&format!("ip link set {link} up"));
        }
        host.run(&format!("ip route add default via {}", Self::V4));
        host.run(&format!("ip -6 route add default via {}", Self::V6));
        host.set_sysctl("net/ipv4/ip_forward", "1");
        host.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        Self { pod }
    }

    /// A new echo server out there.
    pub fn listen(&self) -> Echo {
        self.pod.listen()
    }
}

impl Deref for Internet {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.pod
    }
}
