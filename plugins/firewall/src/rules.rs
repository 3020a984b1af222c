//! What a pod's rules are made from, and the verbs over the backends.

use std::net::IpAddr;

use hostnet::nft::Nft;
use hostnet::{Error, Undo, trial};
use libcni::Code;
use libcni::plugin::Network;

use crate::backend::Backend;
use crate::bridge::Bridge;
use crate::conf::Conf;
use crate::firewalld::Firewalld;
use crate::pod::Pod;
use crate::policy::Policy;
use crate::{iptables, nftables, sources};

/// What shall be there.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The bridge it hangs on, if it does.
    pub bridge: Option<&'a Bridge>,
    /// Its policy, the administrator's chain, the zone.
    pub conf: &'a Conf,
    /// Only what the policy needs: somebody else lets the pod's packets through.
    pub policy_only: bool,
}

impl<'a> Rules<'a> {
    /// Makes them. The pod's are removed again if the ADD fails; those that pods share stay.
    pub fn add(self, backend: Backend, undo: &mut Undo<'a>) -> Result<(), Error> {
        let _step = libcni::log::step("rules");
        let pod = self.pod;
        match backend {
            Backend::Iptables => {
                undo.push("remove the pod's rules", move || {
                    iptables::remove(&pod.tag(), &|tag| tag == pod.tag(), &[]).map(drop)
                });
                iptables::add(self)?;
                self.bridge.map_or(Ok(()), |bridge| where_nft(nftables::forget_policy(&bridge.name), ()))
            }
            Backend::Nftables => {
                undo.push("remove the pod's rules", move || nftables::remove(&|tag| tag == pod.tag()).map(drop));
                nftables::add(self)?;
                self.bridge.map_or(Ok(()), |bridge| iptables::forget_policy(&bridge.name))
            }
            Backend::Firewalld => {
                sources::add(pod, &self.conf.zone, undo)?;
                if self.conf.policy != Policy::Open {
                    return Self { policy_only: true, ..self }.add(Backend::of_rules(), undo);
                }
                let Some(bridge) = self.bridge else { return Ok(()) };
                iptables::forget_policy(&bridge.name)?;
                where_nft(nftables::forget_policy(&bridge.name), ())
            }
        }
    }

    /// Compares them with what is there; changes nothing.
    pub fn check(self, backend: Backend) -> Result<(), Error> {
        let _step = libcni::log::step("rules");
        match backend {
            Backend::Iptables => iptables::check(self),
            Backend::Nftables => nftables::check(self),
            Backend::Firewalld => {
                sources::check(self.pod, &self.conf.zone)?;
                if self.conf.policy == Policy::Open {
                    return Ok(());
                }
                Self { policy_only: true, ..self }.check(Backend::of_rules())
            }
        }
    }
}

/// Removes what [`Rules::add`] made for pods: the rules of the owners that `is_gone` says so of by their tag, in whatever
/// backend they are, and the reference's rules for these addresses. `words` stands in every such tag. Says whether there
/// were any, and what went wrong.
///
/// All is tried; a backend that does not work on this node has nothing to report.
pub fn remove(words: &str, is_gone: &dyn Fn(&str) -> bool, addresses: &[IpAddr]) -> (bool, Vec<Error>) {
    let _step = libcni::log::step("rules");
    let (mut found, mut errors) = (false, Vec::new());
    for outcome in [where_nft(nftables::remove(is_gone), false), iptables::remove(words, is_gone, addresses)] {
        match outcome {
            Ok(removed) => found |= removed,
            Err(error) => errors.push(error),
        }
    }
    (found, errors)
}

/// What came of nf_tables; where the kernel has none, nothing was there.
fn where_nft<T>(outcome: Result<T, Error>, nothing: T) -> Result<T, Error> {
    outcome.or_else(|error| if Nft::is_usable() { Err(error) } else { Ok(nothing) })
}

/// Whether an ADD could make rules now: they are made once, for a pod that is not on a bridge.
///
/// # Errors
/// Code 50, with the reason.
pub fn status(network: &Network<Conf>, backend: Backend) -> Result<(), libcni::Error> {
    if backend == Backend::Firewalld {
        let refusal = libcni::Error::new(Code::NOT_AVAILABLE, "firewalld does not run");
        return if Firewalld::is_running() { Ok(()) } else { Err(refusal) };
    }
    trial::run(network, |_, owner| {
        let pod = Pod { owner: owner.clone(), addresses: vec![IpAddr::V4(trial::POD)] };
        let mut undo = Undo::new();
        let tried = Rules { pod: &pod, bridge: None, conf: network.conf(), policy_only: false }.add(backend, &mut undo);
        // It ends with the namespace.
        undo.keep();
        tried
    })
}
