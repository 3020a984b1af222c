//! The built `host-local`, driven as a runtime drives it. No namespace is needed: host-local never opens one.
#![cfg(test)] // tells clippy that the helper functions are tests too
#![cfg(test)]

mod add;
mod config;
mod del_check;
mod faults;
mod index;
mod interop;
mod node;
mod scale;
