//! A running plugin: its three pipes, served by one poll loop without threads, and its end.
//!
//! The end is the end of the process, not of its pipes: a daemon that a plugin left behind may hold them for
//! ever. When the process has exited, what is in the pipes is read, with a short grace for helpers that are
//! still writing.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A plugin that prints more than this is stopped. A result of a thousand routes has some 100 KiB.
pub(super) const STDOUT_MAX: usize = 10 << 20;
/// What is kept of stderr: its end, where the cause is.
pub(super) const STDERR_TAIL: usize = 64 << 10;
/// How long the pipes of a plugin that has exited are listened to if somebody else holds them open.
const GRACE: Duration = Duration::from_millis(100);
/// How often we look whether a plugin has exited whose pipes stay open. Not more often: the kernel has its own tick
/// every few milliseconds, and a timeout before it must program the clock, which in a virtual machine costs 50 us a call.
const LOOK: Duration = Duration::from_millis(25);
/// A process closes its pipes some microseconds before it can be reaped: so often we only yield the processor, because
/// a sleep would take ten times as long.
const YIELDS: u32 = 100;
/// How long we wait for a killed process: one that is stuck in the kernel must not take us with it.
const REAP_MAX: Duration = Duration::from_secs(2);

/// How a plugin ended.
pub(super) enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed when its time was up.
    Deadline,
    /// It was killed for printing more than [`STDOUT_MAX`].
    TooMuchOutput,
}

/// What a plugin reads, and our end of the pipe that it reads it from.
pub(super) struct Input<'a> {
    pipe: Option<PipeWriter>,
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// The input, and the plugin's end of the pipe. What the pipe takes is in it before the plugin starts, which for nearly
    /// all is everything: it need not wait for us, nor we for it.
    pub(super) fn new(input: &'a [u8]) -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        set_nonblocking(writer.as_fd())?;
        let mut input = Self { pipe: Some(writer), rest: input };
        input.write()?;
        Ok((input, reader))
    }

    /// Writes what the pipe takes. A plugin that does not read its stdin (EPIPE) is as good as another.
    fn write(&mut self) -> io::Result<()> {
        let Some(pipe) = self.pipe.as_mut() else { return Ok(()) };
        while !self.rest.is_empty() {
            match pipe.write(self.rest) {
                Ok(written) => self.rest = self.rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        self.pipe = None;
        Ok(())
    }
}

/// A plugin's process and our ends of its pipes.
pub(super) struct Running<'a> {
    child: Child,
    stdin: Input<'a>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    until: Instant,
    ended: bool,
    /// What it printed so far.
    pub(super) out: Vec<u8>,
    /// The end of what it wrote to stderr so far.
    pub(super) err: Vec<u8>,
}

impl<'a> Running<'a> {
    /// A plugin that has just been started. Until [`end`](Self::end) nobody serves it.
    pub(super) fn new(mut child: Child, stdin: Input<'a>, until: Instant) -> Self {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Self { child, stdin, stdout, stderr, until, ended: false, out: Vec::new(), err: Vec::new() }
    }

    /// Serves the pipes until the plugin has exited or has to be killed, at the latest when its time is up.
    pub(super) fn end(&mut self) -> io::Result<End> {
        self.ended = true;
        let ended = self.serve_until_end();
        // A child that is gone has given its pid away.
        let gone = matches!(&ended, Err(error) if is_lost(error));
        if !gone && !matches!(ended, Ok(End::Exited(_))) {
            self.kill();
            // What it said before it was killed is the best hint at what it was doing.
            let _ = self.read();
        }
        self.err.drain(..self.err.len().saturating_sub(STDERR_TAIL));
        ended
    }

    fn serve_until_end(&mut self) -> io::Result<End> {
        let output = [self.stdout.as_ref().map(AsFd::as_fd), self.stderr.as_ref().map(AsFd::as_fd)];
        for fd in output.into_iter().flatten() {
            set_nonblocking(fd)?;
        }
        let mut looks = 0_u32;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.drain()?;
                return Ok(if self.out.len() > STDOUT_MAX { End::TooMuchOutput } else { End::Exited(status) });
            }
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(End::Deadline);
            }
            if !self.open().is_empty() {
                self.serve(left.min(LOOK))?;
            } else if looks < YIELDS {
                looks += 1;
                std::thread::yield_now();
            } else {
                std::thread::sleep(left.min(LOOK));
            }
            if self.out.len() > STDOUT_MAX {
                return Ok(End::TooMuchOutput);
            }
        }
    }

    /// Reads what an exited plugin left in its pipes.
    fn drain(&mut self) -> io::Result<()> {
        self.stdin.pipe = None;
        let until = Instant::now() + GRACE;
        loop {
            self.read()?;
            let left = until.saturating_duration_since(Instant::now());
            if self.open().is_empty() || left.is_zero() || self.out.len() > STDOUT_MAX {
                return Ok(());
            }
            self.serve(left)?;
        }
    }

    fn open(&self) -> Vec<BorrowedFd<'_>> {
        let fds = [
            self.stdin.pipe.as_ref().map(AsFd::as_fd),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        fds.into_iter().flatten().collect()
    }

    /// Waits for the pipes, at most `timeout`, and serves them.
    fn serve(&mut self, timeout: Duration) -> io::Result<()> {
        let writes = self.stdin.pipe.is_some();
        let mut fds: Vec<PollFd<'_>> = self
            .open()
            .into_iter()
            .enumerate()
            .map(|(index, fd)| {
                PollFd::new(fd, if writes && index == 0 { PollFlags::POLLOUT } else { PollFlags::POLLIN })
            })
            .collect();
        // Rounded up: a timeout of 0 ms would spin.
        let millis = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX).saturating_add(1);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.stdin.write()?;
        self.read()
    }

    fn read(&mut self) -> io::Result<()> {
        read_available(&mut self.stdout, &mut self.out, |out| out.len() <= STDOUT_MAX)?;
        read_available(&mut self.stderr, &mut self.err, |err| {
            if err.len() > 2 * STDERR_TAIL {
                err.drain(..err.len() - STDERR_TAIL);
            }
            true
        })
    }

    /// Kills the plugin, its process group, and its descendants in groups of their own: a delegate that lived
    /// on would finish its ADD after the DEL. The pid is ours until it is reaped, so it cannot mean another.
    fn kill(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        let mut family = Vec::new();
        stop_family(pid, &mut family);
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        for pid in family {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let until = Instant::now() + REAP_MAX;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A plugin that works on while what it was to help with is taken back would do its part after all.
impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end();
        }
    }
}

/// Whether somebody else has reaped the child, or the kernel because SIGCHLD is ignored.
pub(super) fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ECHILD as i32)
}

/// Stops a process, then its children and so on, and collects them. The child of a stopped process stays at
/// least a zombie, so that its pid cannot be given to another before it is killed.
fn stop_family(pid: i32, family: &mut Vec<i32>) {
    if family.contains(&pid) || kill(Pid::from_raw(pid), Signal::SIGSTOP).is_err() {
        return;
    }
    family.push(pid);
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for thread in threads.flatten() {
        // Absent on a kernel without CONFIG_PROC_CHILDREN; the process group is killed all the same.
        let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
            stop_family(child, family);
        }
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads what is there, as long as `go_on` says so. At the end of the stream the pipe becomes `None`.
fn read_available(
    pipe: &mut Option<impl Read>,
    into: &mut Vec<u8>,
    mut go_on: impl FnMut(&mut Vec<u8>) -> bool,
) -> io::Result<()> {
    let Some(source) = pipe else { return Ok(()) };
    let mut chunk = [0; 4 << 10];
    while go_on(into) {
        match source.read(&mut chunk) {
            Ok(0) => {
                *pipe = None;
                return Ok(());
            }
            Ok(count) => into.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
