//! Real clients: container runtimes of Debian, as they come, drive our binaries, each in a machine of its own
//! (`tests::sandbox`). `cargo xtask test --clients` fetches their packages and runs these alone.
//!
//! `cfg(test)` on each module tells clippy that its helper functions are tests too.

#[cfg(test)]
mod containerd;
#[cfg(test)]
mod cri;
#[cfg(test)]
mod cri_api;
#[cfg(test)]
mod ctr;
#[cfg(test)]
mod node;
#[cfg(test)]
mod podman;
#[cfg(test)]
mod sandbox;
