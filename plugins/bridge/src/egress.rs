//! How the pod's packets leave the node: with the node's address, if `ipMasq` says so.

use hostnet::nft::Nft;
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
    undo.push("remove the masquerade rules", || masquerade::remove(owner, &port::addresses_of_others(req)?));
    masquerade::add(owner, conf.masquerade_backend, &lease::addresses(result))
}

/// Removes the rules of either backend, whatever the configuration says by now.
pub fn remove(nft: &mut Nft, req: &Request<Conf>, owner: &Owner) -> Result<(), Error> {
    masquerade::remove_over(nft, owner, &port::addresses_of_others(req)?)
}
