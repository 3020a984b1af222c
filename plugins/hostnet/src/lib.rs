//! What podwire's plugins ask of the kernel. This is the only crate that talks to it, and the only one with
//! `unsafe`. One module is one noun of the kernel; README.md has the rules of the house.

pub mod error;
pub mod iptables;
pub mod masquerade;
pub mod netlink;
pub mod nft;
pub mod owner;
mod process;
pub mod spoof_check;

pub use error::{Error, Result};
pub use netlink::Socket;
pub use owner::Owner;
