//! A plugin that is killed in the middle of its work (out of memory, a runtime out of patience), at a system call of
//! our choice: it is traced by `ptrace`, and stops there.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Runs `command` up to a system call, counted from the reading of stdin, and kills it there. Returns when the
/// programs it had started are over as well. False: it was over before.
///
/// All from one thread: the kernel knows no other tracer.
#[expect(clippy::zombie_processes, reason = "waitpid has seen its end already, where there is one")]
pub(crate) fn at_call(call: usize, mut command: Command, input: &str) -> bool {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("run {}: {e}", command.get_program().display()));
    let pid = Pid::from_raw(child.id().cast_signed());
    // It has done nothing yet when it waits for its stdin. Until it is that program it has another name.
    let name = command.get_program().to_string_lossy().into_owned();
    let waits = format!("({}) S", name.rsplit('/').next().unwrap_or_default());
    wait_until(|| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(&waits)));
    ptrace::attach(pid).expect("trace a child");
    waitpid(pid, None).expect("wait for the child to stop");
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()).expect("write the configuration");
    // Two stops a call: before it and after it.
    let mut signal = None;
    for _ in 0..2 * call {
        ptrace::syscall(pid, signal).expect("let the child go on");
        signal = match waitpid(pid, None).expect("wait for the child") {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => None,
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::Exited(_, 0) => return false,
            other => panic!("{name}: {other:?}"),
        };
    }
    end(child, pid);
    true
}

/// What it had started goes on without it, a moment.
fn end(mut child: Child, pid: Pid) {
    let orphans = children(pid);
    child.kill().expect("kill the child");
    child.wait().expect("wait for the child's end");
    wait_until(|| orphans.iter().all(|orphan| !is_running(orphan)));
}

fn children(parent: Pid) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("list the processes").flatten();
    let pids = all.filter_map(|entry| entry.file_name().into_string().ok());
    let of_parent = |pid: &String| field(pid, 1).is_some_and(|ppid| ppid == parent.to_string());
    pids.filter(|pid| pid.starts_with(|first: char| first.is_ascii_digit())).filter(of_parent).collect()
}

/// An orphan may stay a zombie for as long as its new parent likes.
fn is_running(pid: &str) -> bool {
    field(pid, 0).is_some_and(|state| state != "Z")
}

/// A field of /proc/PID/stat behind the name, which may have spaces: the state, the parent, and so on.
fn field(pid: &str, place: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(place).map(str::to_owned)
}

/// Nobody tells when a process falls asleep, or when another's child ends.
fn wait_until(happened: impl Fn() -> bool) {
    while !happened() {
        thread::yield_now();
    }
}
