//! The built `host-local`, driven as a runtime drives it. No namespace is needed: host-local never opens one.
//!
//! Of the reference's checklist, "lock: file path, directory path" is not here: its locker takes either, ours is given the
//! directory (`src/lock.rs`), and `interop` sees that both programs take the same one (both at once).
#![cfg(test)] // tells clippy that the helper functions are tests too

mod add;
mod boots;
mod config;
mod del_check;
mod faults;
mod index;
mod interop;
mod machine;
mod node;
mod reclaim;
mod reuse;
mod scale;
mod steps;
