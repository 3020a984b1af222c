//! How the pod's packets leave the node: with the node's address, if `ipMasq` says so.

use hostnet::{Error, Owner, Undo, masquerade};
use libcni::plugin::Request;
use libcni::types::Success;

use crate::conf::Conf;
use crate::{lease, port};

/// Masquerades the pod's addresses.
pub fn ensure<'a>(
    req: &'a Request<Conf>,
    owner: &'a Owner,
    result: &Success,
    undo: &mut Undo<'a>,
) -> Result<(), Error> {
    let conf = req.conf();
    if !conf.masquerade {
        return Ok(());
    }
    let own = lease::addresses(result);
    let taken_back = own.clone();
    undo.push("remove the masquerade rules", move || masquerade::remove(owner, &port::addresses_but(req, &taken_back)));
    masquerade::add(owner, conf.masquerade_backend, &own)
}

/// Removes the rules of either backend, whatever the configuration says by now. The pod's interface is gone
/// already: addresses that are still there are those of others.
pub fn remove(req: &Request<Conf>, owner: &Owner) -> Result<(), Error> {
    masquerade::remove(owner, &port::addresses_but(req, &[]))
}
