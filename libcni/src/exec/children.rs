//! That children can be waited for.
//!
//! Whoever starts a program may have set it to ignore SIGCHLD, and that survives `execve(2)`. The kernel then forgets a child
//! as soon as it ends: its exit status is lost, and its process id may mean another process by the time we signal it. Go's
//! runtime always has a handler, so the reference never sees this; a handler is what we set too, because setting the default
//! takes `unsafe`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Makes sure that ended children wait for us. [`plugin::run`](crate::plugin::run) does it; a runtime's `main` should.
///
/// # Errors
/// The handler cannot be set.
pub fn ensure_waitable() -> io::Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGCHLD, Arc::new(AtomicBool::new(false))).map(drop)
}
