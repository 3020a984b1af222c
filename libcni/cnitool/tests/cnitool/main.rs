//! The built binary, with scripts for plugins. Nothing here needs root or a network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod node;
mod validate;
mod verbs;
