//! The [Container Network Interface](https://www.cni.dev/docs/spec/), specification 0.1.0 to 1.1.0.
//!
//! A CNI plugin is a short-lived program: it gets environment variables and JSON on stdin, and
//! answers with JSON on stdout. This crate is the protocol and nothing else; it never talks to the
//! kernel's network code.
//!
//! - [`types`]: what travels. Results of every version, errors, strict names and addresses.
//! - [`plugin`]: to write a plugin. Implement [`plugin::Plugin`], call [`plugin::run`].
//! - [`exec`]: find a plugin, invoke it with a deadline, delegate to it.
//! - [`lock`]: to have something to oneself on this node, and to keep ADDs out while a GC looks who lives.
//! - [`regular_file`]: to open what is kept below a directory without being led out of it.
//! - [`runtime`]: to drive plugins. Load a network's configuration; ADD, CHECK, DEL, GC, STATUS.
#![deny(clippy::print_stderr)] // it panics where nobody reads: libcni::log::warn

#[cfg(feature = "allocator")]
mod allocator;
pub mod exec;
pub mod lock;
pub mod plugin;
pub mod regular_file;
pub mod runtime;
pub mod types;

pub use plugin::log;
pub use types::error::{Code, Error};
pub use types::result::Success;
pub use types::version::Version;

/// The examples of README.md are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
