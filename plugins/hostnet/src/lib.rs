//! What podwire's plugins ask of the kernel. This is the only crate that talks to it, and the only one with
//! `unsafe`. One module is one noun of the kernel; README.md has the rules of the house.

pub mod addr;
pub mod announcement;
pub mod bridge;
pub mod conntrack;
pub mod egress;
pub mod endpoint;
pub mod error;
pub mod forwarding;
pub mod ifb;
pub mod ipam;
pub mod iptables;
pub mod link;
pub mod lock;
pub mod masquerade;
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
