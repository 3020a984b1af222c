//! Faults at every step: a plugin, or all it has started, is killed at every system call that changes something, or the call
//! fails. What is there afterwards is compared to the last rule with what was there before.
//!
//! A part of the places is tried, as many as a minute allows; `PODWIRE_FAULTS=all` tries every one. Registers are those
//! of x86_64.
//!
//! `cfg(test)` on each module tells clippy that its helper functions are tests too.
#![cfg(all(target_arch = "x86_64", target_env = "gnu"))]

#[cfg(test)]
mod conf;
#[cfg(test)]
mod failing;
#[cfg(test)]
mod first;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod scene;
