//! Whether the kernel has what it takes: each of the objects of an ADD is made once.

use hostnet::tc::tbf::{self, Bucket, Tbf};
use hostnet::tc::{ingress, redirect};
use hostnet::{Netlink, Result, Undo, ifb};

const ANY: Tbf = Tbf { rate: 1_000_000, limit: 100_000, bucket: Bucket::Bytes(100_000) };

/// Makes them where they are gone soon ([`hostnet::trial`]).
///
/// # Errors
/// What the kernel lacks, or does not let us do.
pub fn try_out(nl: &mut Netlink) -> Result<()> {
    // Nothing is to be undone: it ends with the namespace.
    let mut undo = Undo::new();
    let tried = try_with(nl, &mut undo);
    undo.keep();
    tried
}

fn try_with(nl: &mut Netlink, undo: &mut Undo<'_>) -> Result<()> {
    let ifb = ifb::create(nl, ifb::PREFIX, 1500)?;
    tbf::ensure(nl, ifb.index, &ANY, undo)?;
    ingress::ensure(nl, ifb.index, undo)?;
    redirect::ensure(nl, ifb.index, ifb.index, undo)
}
