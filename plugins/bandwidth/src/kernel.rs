//! Whether the kernel has what it takes. It is tried in a namespace of its own, which is gone with all that was made in it
//! however this ends; to ask for the kernel's configuration would miss what is a module.

use hostnet::tc::tbf::{self, Bucket, Tbf};
use hostnet::tc::{ingress, redirect};
use hostnet::{Netlink, Netns, Result, Undo, ifb};

const ANY: Tbf = Tbf { rate: 1_000_000, limit: 100_000, bucket: Bucket::Bytes(100_000) };

/// Makes each of the objects of an ADD once.
///
/// # Errors
/// What the kernel lacks, or does not let us do.
pub fn check() -> Result<()> {
    let mut nl = Netlink::open_in(Netns::create()?)?;
    // Nothing is to be undone: it ends with the namespace.
    let mut undo = Undo::new();
    let tried = try_in(&mut nl, &mut undo);
    undo.keep();
    tried
}

fn try_in(nl: &mut Netlink, undo: &mut Undo<'_>) -> Result<()> {
    let ifb = ifb::create(nl, ifb::PREFIX, 1500)?;
    tbf::ensure(nl, ifb.index, &ANY, undo)?;
    ingress::ensure(nl, ifb.index, undo)?;
    redirect::ensure(nl, ifb.index, ifb.index, undo)
}
