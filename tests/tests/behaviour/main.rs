//! Behaviour of the built binaries: a module a subject, one executable because linking is slow.
//!
//! `cfg(test)` on each module tells clippy that its helper functions are tests too.

#[cfg(test)]
mod lab;
