//! What needs a kernel with bridge VLAN filtering and 8021q. Not every kernel has them: `cargo xtask test` runs these
//! in a virtual machine with Debian's if this one has not.
//!
//! Everything there is slow, so a test asks one host many questions.
//!
//! `cfg(test)` on each module tells clippy that its helper functions are tests too.

#[cfg(test)]
#[path = "../behaviour/bridge_conf.rs"]
#[expect(dead_code, reason = "shared with the tests that need no VLANs, which use more of it")]
mod bridge_conf;
#[cfg(test)]
mod check;
#[cfg(test)]
mod failed_add;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod port;
#[cfg(test)]
mod ports;
