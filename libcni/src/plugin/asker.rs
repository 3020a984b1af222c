//! Whoever called this plugin: whether there is still somebody to hear the answer.
//!
//! A plugin that is killed, by a runtime that lost patience or for want of memory, leaves the plugin that it had started
//! (host-local, for an address) alive. The runtime calls DEL next, which may well be over before the orphan goes on: what
//! the orphan then makes nobody takes away. So an ADD that makes what outlives it asks here first, once it holds the lock under
//! which DEL would have to come as well; and so does a GC, whose list of what is valid is of a moment that is over. A DEL does
//! not: its outcome is nothing that anybody must hear, and a caller may well have closed what it does not read.
//!
//! The pipe on stdout tells, and not the parent's process id: that is somebody else's (a subreaper's) also when the parent
//! was gone before this process asked for it the first time, and the kernel's signal at the parent's death
//! (`PR_SET_PDEATHSIG`) comes, too, when a thread of a living parent ends, as those of the reference do.

use std::io;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::types::Error;

/// Nobody reads what is printed any more: stdout is a pipe, and its other end is closed. A file, a terminal or `/dev/null` is
/// always there.
///
/// # Errors
/// That is so.
pub fn ensure_asked() -> Result<(), Error> {
    if is_read(io::stdout().as_fd()) {
        return Ok(());
    }
    Err(Error::internal("whoever called this plugin is gone: what it made now, no DEL would take away"))
}

fn is_read(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    // Without a wish, what is told is an error or a hang-up.
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_err() || !fds.iter().any(|fd| fd.any().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_pipe_without_a_reader() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(is_read(writer.as_fd()));
        drop(reader);
        assert!(!is_read(writer.as_fd()));
        assert!(is_read(File::create("/dev/null").unwrap().as_fd()));
        assert!(is_read(tempfile::tempfile().unwrap().as_fd()));
    }
}
