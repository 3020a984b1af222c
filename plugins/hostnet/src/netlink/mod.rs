//! Talking netlink: the synchronous [`Socket`], and [`Netlink`], a network namespace with a socket in it.

mod failure;
mod frame;
mod socket;
mod wire;

pub use failure::{BatchError, Failure};
pub use socket::{Event, Socket};
