//! firewall: lets the packets of a pod pass the node, and keeps from a bridge's pods what its ingress policy forbids. It
//! works in a chain, behind the plugin that makes the interface.
//!
//! ADD, for the addresses of the plugin before: with `isolated`, the pod's port of the bridge is isolated from others;
//! then, with iptables, the chains and jumps that pods share, the rules of the bridge's policy and three rules for each
//! address; with nftables, the same in a table of its own; with firewalld, a source of a zone for each address, and the
//! policy's rules in one of the other two. The result is the one of the plugin before.
//!
//! DEL removes the rules of the pod's addresses, by their owner and in whatever backend they are, and the sources of the
//! zone. What pods share stays, the rules of policies too: they are of a bridge, and the newest ADD says which it has. GC
//! removes rules and sources of attachments that are no more.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

mod backend;
mod bridge;
mod conf;
mod firewalld;
mod iptables;
mod lock;
mod nftables;
mod pod;
mod policy;
mod rules;
mod sources;

use std::collections::HashSet;
use std::process::ExitCode;

use hostnet::{Owner, Undo};
use libcni::plugin::{self, Network, Plugin, Request};
use libcni::types::Version;
use libcni::{Error, Success};

use crate::backend::Backend;
use crate::bridge::Bridge;
use crate::conf::Conf;
use crate::pod::{Pod, prev_result};
use crate::policy::Policy;
use crate::rules::Rules;

struct Firewall;

impl Plugin for Firewall {
    type Conf = Conf;
    const ABOUT: &'static str = concat!("CNI firewall plugin v", env!("CARGO_PKG_VERSION"));
    /// As the reference.
    const VERSIONS: &'static [Version] = &[Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<Conf>) -> Result<Success, Error> {
        let conf = req.conf();
        let result = prev_result(req)?;
        result.check_version(req.version())?;
        let pod = Pod::of(req, &result);
        let bridge = Bridge::get(&result, conf.policy)?;
        let rules = Rules { pod: &pod, bridge: bridge.as_ref(), conf, policy_only: false };
        let backend = conf.backend.unwrap_or_else(Backend::of_node);
        let _lock = lock::take();
        let mut undo = Undo::new();
        if let Some(bridge) = bridge.as_ref().filter(|_| conf.policy == Policy::Isolated) {
            bridge.isolate(&mut undo)?;
        }
        rules.add(backend, &mut undo)?;
        undo.keep();
        Ok(result)
    }

    fn del(&self, req: &Request<Conf>) -> Result<(), Error> {
        let pod = Pod::for_del(req);
        let _lock = lock::take();
        let (found, mut errors) = rules::remove(&pod.tag(), &|tag| tag == pod.tag(), &pod.addresses);
        let is_named = req.conf().backend == Some(Backend::Firewalld);
        // firewalld takes long for each question, and what had rules of its own is no source that nobody owns.
        let unowned = if is_named || !found { pod.addresses.as_slice() } else { &[] };
        errors.extend(sources::remove(&|tag| tag == pod.tag(), &req.conf().zone, unowned, is_named));
        Error::join(errors.into_iter().map(Error::from).collect())
    }

    fn check(&self, req: &Request<Conf>) -> Result<(), Error> {
        let conf = req.conf();
        let result = prev_result(req)?;
        let pod = Pod::of(req, &result);
        let bridge = Bridge::get(&result, conf.policy)?;
        let rules = Rules { pod: &pod, bridge: bridge.as_ref(), conf, policy_only: false };
        Ok(rules.check(conf.backend.unwrap_or_else(Backend::of_node))?)
    }

    fn gc(&self, network: &Network<Conf>) -> Result<(), Error> {
        let Some(valid) = network.valid_attachments() else { return Ok(()) };
        let of_network = Owner::nft_network_prefix(network.name());
        let tags = valid.iter().filter_map(|attachment| {
            let (container, ifname) = (attachment.container_id.parse().ok()?, attachment.ifname.parse().ok()?);
            Some(Owner { network: network.name().clone(), container, ifname }.nft_comment_prefix())
        });
        let tags: HashSet<String> = tags.collect();
        let is_gone = |tag: &str| tag.starts_with(&of_network) && !tags.contains(tag);
        let _lock = lock::take();
        let (_, mut errors) = rules::remove(&of_network, &is_gone, &[]);
        errors.extend(sources::remove(&is_gone, &network.conf().zone, &[], false));
        Error::join(errors.into_iter().map(Error::from).collect())
    }

    fn status(&self, network: &Network<Conf>) -> Result<(), Error> {
        rules::status(network, network.conf().backend.unwrap_or_else(Backend::of_node))
    }
}

fn main() -> ExitCode {
    plugin::run(&Firewall)
}
