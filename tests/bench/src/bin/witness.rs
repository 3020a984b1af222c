//! Runs a program as the only one of a process namespace, and says what it took: the peak memory of its largest
//! process in KiB, and how many tasks (processes and threads) it started besides its own. The times are not worth
//! anything: `witness PROGRAM [ARGUMENT...]`, with the two numbers on the last line of stderr.
//!
//! It is a program of its own because a process inherits the peak of the one that starts it: a small one starts it.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};

/// Says that the namespace is there already.
const INSIDE: &str = "--inside";

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).peekable();
    let outcome = if arguments.next_if(|first| first == INSIDE).is_some() {
        let program = arguments.next().unwrap_or_default();
        own_proc().and_then(|()| watch(Command::new(program).args(arguments)))
    } else {
        // Its first child is the namespace's first process, and outlives all others.
        unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).map_err(|errno| errno.to_string()).and_then(|()| {
            let status = Command::new(itself()?).arg(INSIDE).args(arguments).status();
            status.map(|status| status.success()).map_err(|error| error.to_string())
        })
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("witness: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The Go runtime's way to its own namespace is `/proc/PID/task/TID`: with the numbers that hold here.
fn own_proc() -> Result<(), String> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none))
        .map_err(|errno| format!("mount /proc: {errno}"))
}

fn watch(command: &mut Command) -> Result<bool, String> {
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let first = child.id();
    let good = child.wait().map_err(|error| error.to_string())?.success();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|errno| errno.to_string())?.max_rss();
    // Process ids of a namespace are given out in order, so the next one tells how many there were.
    let mut next = Command::new(itself()?)
        .arg(INSIDE)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("count the processes: {error}"))?;
    let tasks = next.id().saturating_sub(first + 1);
    drop(next.wait());
    eprintln!("{peak} {tasks}");
    Ok(good)
}

fn itself() -> Result<PathBuf, String> {
    env::current_exe().map_err(|error| error.to_string())
}
