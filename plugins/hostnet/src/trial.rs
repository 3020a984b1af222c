//! STATUS: whether the kernel and the node's programs have what an ADD takes. It is tried, in a network namespace of its
//! own, which is gone with all that was made in it however this ends: to ask for the kernel's configuration would miss
//! what is a module, and a list of what is needed would be a second home for what the code does.

use std::net::Ipv4Addr;

use libcni::Code;
use libcni::plugin::Network;

use crate::error::Result;
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::owner::Owner;

/// Whose the things are that are made. Nobody sees them.
const CONTAINER: &str = "trial";

/// An address to make rules for, where no configuration tells of one (TEST-NET-1, RFC 5737).
pub const POD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The pod's end of a pair, if the trial makes one.
const IFNAME: &str = "eth0";

/// Runs `f` in a new network namespace, over a socket of it.
///
/// # Errors
/// Code 50: what the kernel lacks, or does not let us do, in the words of the operation that failed.
pub fn run<C>(
    network: &Network<C>,
    f: impl FnOnce(&mut Netlink, &Owner) -> Result<()>,
) -> std::result::Result<(), libcni::Error> {
    let owner = owner(network)?;
    let tried = Netns::create().and_then(|netns| netns.enter(|| f(&mut Netlink::open()?, &owner))?);
    tried.map_err(|error| libcni::Error::new(Code::NOT_AVAILABLE, error.to_string()))
}

fn owner<C>(network: &Network<C>) -> std::result::Result<Owner, libcni::Error> {
    Ok(Owner { network: network.name().clone(), container: CONTAINER.parse()?, ifname: IFNAME.parse()? })
}
