//! The result of an ADD, in every version, through one shape.
//!
//! A result of any version is read into [`Success`], which has the fields of 1.1.0, and written in any
//! version from it; the conversion between two versions is one reading and one writing. Fields this crate
//! does not know are kept where they stood and written again, at every level.
//!
//! Source: specification, "ADD Success", and the older texts for the shapes before 1.0.0.

mod fields;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::cidr::Cidr;
use super::json::Object;
use super::version::Version;

/// What an ADD made. Indices of [`IpConfig::interface`] point into `interfaces`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Success {
    /// Every interface made or adopted, host side and pod side mixed.
    pub interfaces: Vec<Interface>,
    /// Addresses, in the order of allocation.
    pub ips: Vec<IpConfig>,
    /// Routes in the pod.
    pub routes: Vec<Route>,
    /// Name servers for the pod.
    pub dns: Dns,
    /// Fields we do not know.
    pub extra: Object,
}

/// A network interface of the result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    /// Its name in its namespace.
    pub name: String,
    /// Hardware address, as text: it need not be Ethernet's. Empty if unknown.
    pub mac: String,
    /// Bytes; 1.1.0.
    pub mtu: Option<u32>,
    /// Path of the namespace it is in; empty on the host.
    pub sandbox: String,
    /// Path of a vhost-user socket; 1.1.0.
    pub socket_path: String,
    /// PCI address of the device; 1.1.0.
    pub pci_id: String,
    /// Fields we do not know.
    pub extra: Object,
}

/// An address of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct IpConfig {
    /// Index into [`Success::interfaces`]; IPAM plugins leave it out.
    pub interface: Option<i64>,
    /// The address with its prefix length.
    pub address: Cidr,
    /// The gateway of its subnet.
    pub gateway: Option<IpAddr>,
    /// Fields we do not know.
    pub extra: Object,
}

/// A route of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Destination.
    pub dst: Cidr,
    /// Next hop; without it the gateway of the address of the same family is meant.
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// Advertised TCP segment size in bytes.
    pub advmss: Option<u32>,
    /// Metric; lower wins.
    pub priority: Option<u32>,
    /// Routing table; absent is the main one.
    pub table: Option<u32>,
    /// Scope as in `rtnetlink(7)`: 0 universe, 200 site, 253 link, 254 host.
    pub scope: Option<u8>,
    /// Fields we do not know.
    pub extra: Object,
}

/// Name resolution in the pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dns {
    /// Addresses of name servers, by priority.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: String,
    /// Search domains, by priority.
    pub search: Vec<String>,
    /// Options for the resolver.
    pub options: Vec<String>,
    /// Fields we do not know.
    pub extra: Object,
}

impl Dns {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl IpConfig {
    /// An address that no interface has yet.
    pub fn new(address: Cidr, gateway: Option<IpAddr>) -> Self {
        Self { interface: None, address, gateway, extra: Object::new() }
    }
}

impl Route {
    /// A route with nothing but a destination and perhaps a next hop.
    pub fn new(dst: Cidr, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None, extra: Object::new() }
    }
}

/// The three shapes a result has had.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// 0.1.0 and 0.2.0: `ip4` and `ip6`.
    PerFamily,
    /// 0.3.0 to 0.4.0: `ips[].version`.
    WithFamily,
    /// 1.0.0 and later.
    Current,
}

impl Shape {
    fn of(version: Version) -> Self {
        match version {
            Version::V0_1_0 | Version::V0_2_0 => Self::PerFamily,
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => Self::WithFamily,
            Version::V1_0_0 | Version::V1_1_0 => Self::Current,
        }
    }
}
