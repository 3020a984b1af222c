//! A program that is run to its end: input given, output collected, and killed when its time is over.
//! A plugin that hangs keeps a pod from starting and kubelet from asking again. Nor does it outlive the plugin: one that
//! waits for iptables' lock while a runtime loses patience would make its rules after the DEL that follows.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;
use crate::sys;

/// Directories that are searched after those of `PATH`: runtimes start plugins with all kinds of it.
const SYSTEM_DIRS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Longest run of a program. iptables waits 5 seconds for its lock, per our own command line.
const DEADLINE: Duration = Duration::from_secs(30);

/// Between looks at whether a program that has closed its output has ended too.
const EXIT_POLL: Duration = Duration::from_millis(1);

/// What a program left.
#[derive(Debug)]
pub struct Output {
    /// Exit status; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about, without white space around it.
    pub stderr: String,
}

/// Where a program is: the first executable file of that name in `PATH` and the system's directories.
pub fn find(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;

    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    dirs.chain(SYSTEM_DIRS.map(PathBuf::from)).map(|dir| dir.join(name)).find(|file| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

/// Runs a program with `input` as its standard input.
pub fn run(program: &Path, args: &[&str], input: &[u8]) -> Result<Output, Error> {
    let _step = libcni::log::step(program.file_name().and_then(OsStr::to_str).unwrap_or("program"));
    run_within(program, args, input, DEADLINE)
}

fn run_within(program: &Path, args: &[&str], input: &[u8], limit: Duration) -> Result<Output, Error> {
    let doing = || format!("run {} {}", program.display(), args.join(" "));
    let deadline = Instant::now() + limit;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::end_with_us(&mut command);
    let mut child = command.spawn().map_err(|error| Error::io(doing(), &error))?;
    let outcome = talk(&mut child, input, deadline).and_then(|(stdout, stderr)| {
        let status = wait(&mut child, deadline)?;
        Ok(Output { code: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).trim().to_owned() })
    });
    outcome.map_err(|error| {
        // It may have ended by itself in the meantime; either way it is reaped.
        let _ = child.kill();
        let _ = child.wait();
        match error.kind() {
            ErrorKind::TimedOut => Error::other(doing(), format!("not finished after {} s", limit.as_secs_f32())),
            _ => Error::io(doing(), &error),
        }
    })
}

/// Feeds the program and reads both its outputs to their ends.
fn talk(child: &mut Child, mut input: &[u8], deadline: Instant) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut stdin, mut stdout, mut stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while stdout.is_some() || stderr.is_some() {
        if input.is_empty() {
            stdin = None;
        }
        let ready = {
            let fds = [
                stdin.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)),
                stdout.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
                stderr.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
            ];
            wait_ready(fds, deadline)?
        };
        let [write_in, read_out, read_err] = ready;
        if write_in && let Some(pipe) = &mut stdin {
            // A pipe that is ready takes a page without blocking; a reader that went away says why on stderr.
            let piece = input.get(..4096).unwrap_or(input);
            match pipe.write(piece) {
                Ok(written) => input = input.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => input = &[],
            }
        }
        if read_out {
            drain(&mut stdout, &mut out)?;
        }
        if read_err {
            drain(&mut stderr, &mut err)?;
        }
    }
    Ok((out, err))
}

/// Which of the pipes are ready, or at their end.
fn wait_ready(fds: [Option<PollFd<'_>>; 3], deadline: Instant) -> io::Result<[bool; 3]> {
    let present = [fds[0].is_some(), fds[1].is_some(), fds[2].is_some()];
    let mut open: Vec<PollFd<'_>> = fds.into_iter().flatten().collect();
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    match poll(&mut open, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut ready = open.iter().map(|fd| fd.any().unwrap_or(true));
    Ok(present.map(|there| there && ready.next().unwrap_or(false)))
}

/// Reads what is there; at the end the pipe is closed.
fn drain(pipe: &mut Option<impl Read>, collected: &mut Vec<u8>) -> io::Result<()> {
    let Some(open) = pipe else { return Ok(()) };
    let mut piece = [0; 4096];
    match open.read(&mut piece) {
        Ok(0) => *pipe = None,
        Ok(len) => collected.extend_from_slice(piece.get(..len).unwrap_or_default()),
        Err(error) if error.kind() == ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The exit status. A program that has closed its outputs is as good as gone.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        std::thread::sleep(EXIT_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8], limit: Duration) -> Result<Output, Error> {
        run_within(Path::new("/bin/sh"), &["-c", script], input, limit)
    }

    #[test]
    fn input_output_and_exit_status() {
        let long = vec![b'x'; 1_000_000];
        let output = shell("cat; echo oops >&2; exit 3", &long, DEADLINE).unwrap();
        assert_eq!((output.code, output.stdout == long, output.stderr.as_str()), (Some(3), true, "oops"));
    }

    #[test]
    fn a_program_that_does_not_read_its_input() {
        let output = shell("exit 4", &vec![b'x'; 1_000_000], DEADLINE).unwrap();
        assert_eq!(output.code, Some(4));
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let started = Instant::now();
        for script in ["exec sleep 60", "exec sleep 60 >&- 2>&-"] {
            let error = shell(script, b"", Duration::from_millis(100)).unwrap_err();
            assert!(error.to_string().contains("not finished after 0.1 s"), "{error}");
        }
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn programs_are_found_or_not() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("no-such-program"), None);
        assert!(run(Path::new("/no/such/program"), &["-x"], b"").unwrap_err().is_not_found());
    }
}
