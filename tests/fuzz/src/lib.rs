//! Everything of podwire that reads what a stranger wrote, each as a function of bytes that panics when a promise is
//! broken: not only "no panic", but what is accepted prints as itself, and what is converted keeps its addresses.
//!
//! Two drivers call the same functions: cargo-fuzz (`fuzz/`, a workspace of its own, as it needs nightly), and
//! `tests/mutations.rs`, which mutates the seeds with a fixed sequence of random numbers on any toolchain.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken promise is a panic: that is how both drivers learn of it"
)]

mod config;
mod leases;
mod mutate;
mod netlink;
mod runtime;
mod words;

pub use mutate::{Mutator, seeds};

/// A reader of strangers' bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of the directory with its seeds, and of the binary for cargo-fuzz.
    pub name: &'static str,
    /// Reads; panics where a promise is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "args", run: words::args },
    Target { name: "cache", run: runtime::cache },
    Target { name: "config", run: config::config },
    Target { name: "conflist", run: runtime::conflist },
    Target { name: "iptables", run: words::iptables },
    Target { name: "lease", run: leases::lease },
    Target { name: "netlink", run: netlink::netlink },
    Target { name: "owner", run: words::owner },
    Target { name: "owners", run: leases::owners },
    Target { name: "resolv-conf", run: leases::resolv_conf },
    Target { name: "result", run: runtime::result },
    Target { name: "words", run: words::words },
];

/// The target of this name.
///
/// # Panics
/// There is none.
pub fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"))
}
