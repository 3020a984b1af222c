//! The built `static`, driven as a runtime drives it. No namespace is needed: static never opens one.
#![cfg(test)] // tells clippy that the helper functions are tests too

mod add;
mod call;
mod config;
mod del_check;
mod reference;
