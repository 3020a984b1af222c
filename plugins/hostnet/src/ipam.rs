//! The lease of an attachment: what every main plugin asks of the IPAM plugin its configuration names. It is
//! always the binary that `CNI_PATH` has, also where that is one of ours.

use libcni::Error;
use libcni::exec::delegate::{self, Begun};
use libcni::plugin::{Network, Request};
use libcni::types::json::{self, Object};
use libcni::types::{Cidr, Success};
use serde_json::Value;

use crate::lock::Lock;
use crate::netlink::Netlink;
use crate::owner::Owner;
use crate::undo::Undo;
use crate::veth;

/// IPAM plugins that look at nothing but their configuration and their files. They can work while the interface is made;
/// others, like `dhcp`, speak over it.
const NEED_NO_INTERFACE: [&str; 2] = ["host-local", "static"];

/// A lease that is wanted. The IPAM plugin may be at work already.
#[must_use = "the lease is in it"]
pub struct Asked<'a, C> {
    req: &'a Request<C>,
    plugin: &'a str,
    subnets: Vec<Cidr>,
    begun: Option<Begun<'a>>,
}

/// Asks for a lease for an attachment that has no interface yet. It is released again if the ADD fails, when all else has
/// been undone: nobody is given an address that this pod still answers for.
///
/// A lease is the attachment's. Were another ADD of it at work, or had the pod its interface already, to release the lease would
/// be to release theirs. Who makes the interface need not fear that; who is asked before it is made holds the attachment's lock.
///
/// # Errors
/// The pod has an interface of that name; another ADD of the attachment is at work; there is no such IPAM plugin.
pub fn ask<'a, C>(
    req: &'a Request<C>,
    plugin: &'a str,
    owner: &Owner,
    pod: &mut Netlink,
    undo: &mut Undo<'a>,
) -> Result<Asked<'a, C>, Error> {
    let lock = if NEED_NO_INTERFACE.contains(&plugin) { Lock::of(owner)? } else { None };
    let begun = match lock {
        Some(lock) => {
            veth::check_free(pod, req.ifname().as_str())?;
            let _step = libcni::log::step("ipam");
            Some(begin(req, plugin, Some(lock), undo)?)
        }
        None => None,
    };
    Ok(Asked { req, plugin, subnets: subnets(req.document()), begun })
}

impl<'a, C> Asked<'a, C> {
    /// The lease.
    ///
    /// # Errors
    /// What the IPAM plugin says; or it gave no address, or one that is in none of the subnets it was told to use.
    pub fn lease(self, undo: &mut Undo<'a>) -> Result<Success, Error> {
        let _step = libcni::log::step("ipam");
        let begun = match self.begun {
            Some(begun) => begun,
            None => begin(self.req, self.plugin, None, undo)?,
        };
        let lease = begun.end()?;
        check_addresses(self.plugin, &self.subnets, &lease)?;
        Ok(lease)
    }
}

fn begin<'a, C>(
    req: &'a Request<C>,
    plugin: &'a str,
    lock: Option<Lock>,
    undo: &mut Undo<'a>,
) -> Result<Begun<'a>, Error> {
    let begun = delegate::begin_add(req, plugin)?;
    undo.push_last("release the lease", move || {
        let _until_then = lock;
        delegate::undo_add(req, plugin)
    });
    Ok(begun)
}

fn check_addresses(plugin: &str, subnets: &[Cidr], lease: &Success) -> Result<(), Error> {
    if lease.ips.is_empty() {
        return Err(Error::internal("IPAM plugin returned missing IP config").with_details(format!("type {plugin:?}")));
    }
    let is_ours = |addr| subnets.is_empty() || subnets.iter().any(|subnet| subnet.contains(addr));
    let Some(foreign) = lease.ips.iter().find(|ip| !is_ours(ip.address.addr())) else { return Ok(()) };
    let msg =
        format!("IPAM plugin {plugin:?} returned {}, which is in no subnet of the configuration", foreign.address);
    let subnets: Vec<String> = subnets.iter().map(Cidr::to_string).collect();
    Err(Error::internal(msg).with_details(subnets.join(", ")))
}

/// Releases the lease.
///
/// # Errors
/// What the IPAM plugin says.
pub fn del<C>(req: &Request<C>, plugin: &str) -> Result<(), Error> {
    let _step = libcni::log::step("ipam");
    delegate::del(req, plugin)
}

/// Whether the lease is still there.
///
/// # Errors
/// What the IPAM plugin says.
pub fn check<C>(req: &Request<C>, plugin: &str) -> Result<(), Error> {
    let _step = libcni::log::step("ipam");
    delegate::check(req, plugin)
}

/// Whether a lease could be had.
///
/// # Errors
/// What the IPAM plugin says.
pub fn status<C>(network: &Network<C>, plugin: &str) -> Result<(), Error> {
    let _step = libcni::log::step("ipam");
    delegate::status(network, plugin)
}

/// Releases the leases of attachments that are not valid; what the runtime said of them is passed on as it is.
///
/// # Errors
/// What the IPAM plugin says.
pub fn gc<C>(network: &Network<C>, plugin: &str) -> Result<(), Error> {
    let _step = libcni::log::step("ipam");
    delegate::gc(network, plugin)
}

/// Addresses like those that pods will get, one of each IP version that the configuration tells of. None where it says
/// nothing, as for a daemon's.
pub fn samples<C>(network: &Network<C>) -> Vec<Cidr> {
    let mut known = subnets(network.document());
    known.extend(addresses(network.document()));
    let of = |ipv4: bool| known.iter().find(|cidr| cidr.is_ipv4() == ipv4).copied();
    [of(true), of(false)].into_iter().flatten().collect()
}

/// The addresses that are written in the configuration, in `static`'s key.
fn addresses(document: &Value) -> Vec<Cidr> {
    let ipam = document.as_object().and_then(|conf| json::get(conf, "ipam")?.as_object());
    let written = ipam.and_then(|ipam| json::get(ipam, "addresses")).and_then(Value::as_array);
    let written = written.into_iter().flatten().filter_map(Value::as_object);
    written.filter_map(|address| json::get(address, "address")?.as_str()?.parse().ok()).collect()
}

/// The subnets that addresses are to come from, as far as the configuration says so in host-local's keys, which
/// other IPAM plugins have taken over. `static` is told each address; what else stands there means nothing to it.
fn subnets(document: &Value) -> Vec<Cidr> {
    let empty = Object::new();
    let object = |key| document.as_object().and_then(|conf| json::get(conf, key)?.as_object()).unwrap_or(&empty);
    let (ipam, runtime) = (object("ipam"), object("runtimeConfig"));
    if json::get(ipam, "addresses").is_some() {
        return Vec::new();
    }
    let sets = [json::get(ipam, "ranges"), json::get(runtime, "ipRanges")];
    let ranges = sets.into_iter().flatten().filter_map(Value::as_array).flatten().filter_map(Value::as_array).flatten();
    let ranges = ranges.filter_map(Value::as_object).chain([ipam]);
    ranges.filter_map(|range| json::get(range, "subnet")?.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_found_where_host_local_has_them() {
        let conf = r#"{"IPAM":{"subnet":"10.1.0.0/16","ranges":[[{"Subnet":"10.2.0.0/16"},{"subnet":"usePodCidr"}],[{"subnet":"fd00::/64"}]]},
            "runtimeConfig":{"ipRanges":[[{"subnet":"10.3.0.0/16"}]]}}"#;
        let subnets = |conf: &str| subnets(&json::parse(conf.as_bytes()).unwrap());
        let found: Vec<String> = subnets(conf).iter().map(Cidr::to_string).collect();
        assert_eq!(found, ["10.2.0.0/16", "fd00::/64", "10.3.0.0/16", "10.1.0.0/16"]);
        assert_eq!(subnets(r#"{"ipam":{"subnet":"10.1.0.0/16","addresses":[]}}"#), []);
        assert_eq!(subnets("{}"), []);
    }
}
