//! `static`: the addresses that are written in the configuration, or that the runtime asks for.
//!
//! It keeps nothing and makes nothing, so ADD only reads ([`conf`]), DEL and GC have nothing to do, and STATUS is
//! good as soon as the configuration is. Two pods that are given the same address are not noticed: that is what
//! `host-local` is for.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

pub mod conf;

use libcni::plugin::{Plugin, Request};
use libcni::types::{Error, IfName, IpConfig, Success};

pub use conf::StaticConf;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Static;

impl Plugin for Static {
    type Conf = StaticConf;
    const ABOUT: &'static str = concat!("CNI static plugin v", env!("CARGO_PKG_VERSION"));
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<StaticConf>) -> Result<Success, Error> {
        let conf = req.conf();
        conf.refuse_second_of_family(req.version())?;
        for doubt in conf.doubts() {
            libcni::log::warn(format_args!("static: {doubt}"));
        }
        Ok(Success { ips: conf.ips.clone(), routes: conf.routes.clone(), dns: conf.dns.clone(), ..Success::default() })
    }

    fn del(&self, _: &Request<StaticConf>) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, req: &Request<StaticConf>) -> Result<(), Error> {
        let result = req.prev_result()?.ok_or_else(|| Error::internal("Required prevResult missing"))?;
        req.conf().ips.iter().try_for_each(|configured| check_ip(configured, &result.ips, req.ifname()))
    }
}

/// Whether an address is in `prevResult` as it is configured. Where no gateway is configured any will do: the plugin
/// that delegates to this one (`bridge` with `isGateway`) fills in its own.
fn check_ip(configured: &IpConfig, found: &[IpConfig], ifname: &IfName) -> Result<(), Error> {
    let (cidr, gateway) = (configured.address, configured.gateway);
    let lost = |what: &str, details: String| {
        Err(Error::internal(format!("static: Failed to {what} on interface {ifname}")).with_details(details))
    };
    let mut same = found.iter().filter(|ip| ip.address.addr() == cidr.addr()).peekable();
    let Some(first) = same.peek().map(|ip| describe(ip)) else {
        let found: Vec<String> = found.iter().map(describe).collect();
        return lost(&format!("find addr {}", cidr.addr()), format!("prevResult has [{}]", found.join(", ")));
    };
    if same.any(|ip| ip.address == cidr && (gateway.is_none() || ip.gateway == gateway)) {
        return Ok(());
    }
    let details = format!("configured is {}, prevResult has {first}", describe(configured));
    lost(&format!("match addr {}", cidr.addr()), details)
}

/// `10.1.0.2/24 with gateway 10.1.0.1`.
fn describe(ip: &IpConfig) -> String {
    match ip.gateway {
        Some(gateway) => format!("{} with gateway {gateway}", ip.address),
        None => format!("{} without a gateway", ip.address),
    }
}
