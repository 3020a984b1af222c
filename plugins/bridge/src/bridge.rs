//! The bridge of the network, which all its pods share.
//!
//! It is made by the first ADD and stays. An ADD that made it and then fails takes it away again, unless
//! another pod has joined meanwhile; so that no pod joins a bridge that is being taken away, joining holds a
//! shared lock and taking away an exclusive one. The lock is flock(2) on the network namespace itself: it is
//! per namespace, as bridge names are, and leaves no file behind.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use hostnet::bridge::BridgeConf;
use hostnet::link::{self, Link};
use hostnet::{Error, Netlink, Undo, bridge};
use libcni::plugin::own_netns;

use crate::conf::Conf;

/// How long the lock is waited for, and the pause between two attempts.
const LOCK_WITHIN: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// The bridge, up and of the kind the configuration asks for.
pub fn ensure(host: &mut Netlink, conf: &Conf, undo: &mut Undo<'_>) -> Result<Link, Error> {
    let (bridge, created) = bridge::ensure(host, &wanted(conf))?;
    if created {
        let name = bridge.name.clone();
        undo.push("remove the bridge", move || remove_if_empty(&name));
    }
    if conf.promiscuous {
        link::set_promisc(host, bridge.index, true)?;
    }
    Ok(bridge)
}

/// The bridge that the configuration asks for.
pub fn wanted(conf: &Conf) -> BridgeConf<'_> {
    BridgeConf { name: conf.bridge.as_str(), mtu: conf.mtu, vlan_filtering: conf.vlan_filtering() }
}

/// While this is held, nobody takes a bridge without ports away, nor the gateway's interface of a VLAN without pods.
pub fn joining() -> Result<File, Error> {
    lock(File::try_lock_shared)
}

/// While this is held, nobody joins.
pub fn alone() -> Result<File, Error> {
    lock(File::try_lock)
}

fn remove_if_empty(name: &str) -> Result<(), Error> {
    let _alone = alone()?;
    let mut host = Netlink::open()?;
    let Some(bridge) = link::get(&mut host, name)? else { return Ok(()) };
    let ports = link::list(&mut host)?.iter().filter(|link| link.master == Some(bridge.index)).count();
    if ports == 0 {
        link::remove(&mut host, name)?;
    }
    Ok(())
}

/// Others hold it for less than a millisecond. One that is stopped must not stop everybody.
fn lock(attempt: impl Fn(&File) -> Result<(), TryLockError>) -> Result<File, Error> {
    let _step = libcni::log::step("lock");
    let doing = "lock the network namespace";
    let netns = File::open(own_netns()).map_err(|error| Error::io(doing, &error))?;
    let until = Instant::now() + LOCK_WITHIN;
    loop {
        match attempt(&netns) {
            Ok(()) => return Ok(netns),
            Err(TryLockError::Error(error)) => return Err(Error::io(doing, &error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(Error::other(doing, format!("held by another process for {LOCK_WITHIN:?}")));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    }
}
