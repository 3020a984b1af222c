//! What podwire's plugins ask of the kernel. This is the only crate that talks to it, and the only one with
//! `unsafe`. One module is one noun of the kernel; README.md has the rules of the house.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

pub mod addr;
pub mod announcement;
pub mod bridge;
pub mod capture;
pub mod conntrack;
pub mod egress;
pub mod endpoint;
pub mod error;
pub mod forwarding;
pub mod icmp;
pub mod ifb;
pub mod ipam;
pub mod iptables;
pub mod link;
pub mod lock;
pub mod mark;
pub mod masquerade;
pub mod neighbour;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod owner;
pub mod ports;
pub mod prev_result;
mod process;
pub mod route;
pub mod spoof_check;
mod sys;
pub mod sysctl;
pub mod tc;
pub mod trial;
pub mod undo;
pub mod valid;
pub mod veth;

pub use error::{Error, Result};
pub use netlink::{Netlink, Socket};
pub use netns::Netns;
pub use owner::Owner;
pub use undo::Undo;
pub use valid::Valid;
