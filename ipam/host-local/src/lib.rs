//! `host-local`: addresses from ranges, kept in files on this host.
//!
//! It makes no kernel object. ADD reserves one address of every range set, by a file
//! `<dataDir>/<network>/<address>` that names the container and its interface; DEL removes the files of that
//! pair. Everything is done under one lock, which is the reference's: both suites may work on the same
//! directory at the same time, and each understands what the other left. Nothing is reserved for a caller that is gone: when
//! bridge is killed while host-local waits for the lock, the DEL that follows may have been under it first. Nor does GC go on
//! then: pods that its list does not name may have come since. A DEL does: the attachment is to go, whoever hears of it.
//!
//! - [`conf`]: the keys and the rules between them.
//! - [`range`]: the arithmetic of ranges.
//! - [`allocate`]: which address is next, and what a failed ADD takes back.
//! - [`store`]: the files of a network; [`lease`]: one of them; [`lock`]: the lock.
//! - [`boot`]: which leases are of an earlier boot, and why that can be known; [`stamp`], [`living`] and `mounts` tell it.
//! - [`resting`]: addresses that were freed a moment ago.
//! - [`owners`]: the index that spares reading all leases, and why it can be believed.
//! - [`resolv_conf`]: name servers for the result.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

pub mod allocate;
pub mod boot;
pub mod conf;
pub mod lease;
pub mod living;
pub mod lock;
mod mounts;
pub mod owners;
pub mod range;
pub mod resolv_conf;
pub mod resting;
pub mod stamp;
pub mod store;

use libcni::plugin::{Network, Plugin, Request, ensure_asked};
use libcni::{Code, Error, Success};

pub use conf::HostLocalConf;
use lease::Owner;
use store::Store;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct HostLocal;

impl Plugin for HostLocal {
    type Conf = HostLocalConf;
    const ABOUT: &'static str = concat!("CNI host-local plugin v", env!("CARGO_PKG_VERSION"));
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<HostLocalConf>) -> Result<Success, Error> {
        let conf = req.conf();
        conf.refuse_second_of_family(req.version())?;
        let dns = conf.resolv_conf.as_deref().map(resolv_conf::read).transpose()?.unwrap_or_default();
        let mut store = Store::open(&conf.directory(req.name()), lock::WAIT)?.with_cooldown(conf.cooldown);
        ensure_asked()?;
        let ips = allocate::all(&mut store, conf, &owner(req))?;
        Ok(Success { ips, routes: conf.routes.clone(), dns, ..Success::default() })
    }

    fn del(&self, req: &Request<HostLocalConf>) -> Result<(), Error> {
        match Store::open_existing(&req.conf().directory(req.name()), lock::WAIT)? {
            Some(store) => store.with_cooldown(req.conf().cooldown).release_owner(&owner(req)),
            None => Ok(()),
        }
    }

    fn check(&self, req: &Request<HostLocalConf>) -> Result<(), Error> {
        let owner = owner(req);
        let lost = || Error::internal(format!("host-local: Failed to find address added by container {owner}"));
        let store = Store::open_existing(&req.conf().directory(req.name()), lock::WAIT)?;
        let mut store = store.ok_or_else(lost)?.read_only();
        if store.held_by(owner.key())?.is_empty() && store.held_by(owner.id())?.is_empty() {
            return Err(lost());
        }
        for ip in req.prev_result()?.unwrap_or_default().ips {
            let address = ip.address.addr();
            if req.conf().sets.iter().any(|set| set.contains(address)) {
                store.check_holder(address, &owner)?;
            }
        }
        Ok(())
    }

    fn gc(&self, network: &Network<HostLocalConf>) -> Result<(), Error> {
        let Some(valid) = network.valid_attachments() else { return Ok(()) };
        match Store::open_existing(&network.conf().directory(network.name()), lock::WAIT)? {
            Some(store) => {
                ensure_asked()?;
                store.with_cooldown(network.conf().cooldown).release_all_but(valid)
            }
            None => Ok(()),
        }
    }

    fn status(&self, network: &Network<HostLocalConf>) -> Result<(), Error> {
        let unavailable = |error: Error| Error::new(Code::NOT_AVAILABLE, error.msg()).with_details(error.details());
        let dir = network.conf().directory(network.name());
        let mut store = Store::open(&dir, lock::STATUS_WAIT).map_err(|error| unavailable(error.into()))?;
        store.check_writable().map_err(|error| unavailable(error.into()))?;
        for (index, set) in network.conf().sets.iter().enumerate() {
            allocate::check_free(&mut store, index, set).map_err(unavailable)?;
        }
        Ok(())
    }
}

fn owner(req: &Request<HostLocalConf>) -> Owner {
    Owner::new(req.container_id(), req.ifname())
}
