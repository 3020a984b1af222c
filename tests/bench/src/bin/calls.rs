//! Counts the system calls of a program and of what it starts: `calls FILE PROGRAM [ARGUMENT...]` adds one line to FILE
//! for each program, its path and its number of calls. A call of a process that has not executed its program yet
//! is its parent's.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// In place of FILE: become the program, as somebody's tracee.
const TRACED: &str = "--traced";

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let file = arguments.next().unwrap_or_default();
    let program: Vec<OsString> = arguments.collect();
    let outcome = if file == TRACED { become_program(&program) } else { count(&program, &file) };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("calls: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A tracee stops when it executes a program.
fn become_program(words: &[OsString]) -> Result<bool, String> {
    ptrace::traceme().map_err(|errno| format!("be traced: {errno}"))?;
    let (program, arguments) = words.split_first().ok_or("no program")?;
    Err(Command::new(program).args(arguments).exec().to_string())
}

fn count(words: &[OsString], file: &OsString) -> Result<bool, String> {
    let itself = env::current_exe().map_err(|error| error.to_string())?;
    let child = Command::new(itself).arg(TRACED).args(words).spawn().map_err(|error| error.to_string())?;
    let first = Pid::from_raw(child.id().cast_signed());
    waitpid(first, None).map_err(|errno| format!("wait for the program: {errno}"))?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(first, options).map_err(|errno| format!("trace the program: {errno}"))?;
    ptrace::syscall(first, None).map_err(|errno| format!("let the program run: {errno}"))?;

    let mut counts = Counts::default();
    counts.executed(first);
    let good = counts.watch(first)?;
    let lines = OpenOptions::new().create(true).append(true).open(file);
    let written = lines.and_then(|mut file| file.write_all(counts.lines().as_bytes()));
    written.map_err(|error| format!("write {}: {error}", file.display()))?;
    Ok(good)
}

#[derive(Default)]
struct Counts {
    /// What each process executes.
    programs: HashMap<Pid, String>,
    /// Stops by program: one before a call and one after it.
    stops: HashMap<String, usize>,
}

impl Counts {
    /// Until the last of them has ended. True: the first one ended well.
    fn watch(&mut self, first: Pid) -> Result<bool, String> {
        let mut good = false;
        loop {
            let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(nix::errno::Errno::ECHILD) => return Ok(good),
                Err(errno) => return Err(format!("wait: {errno}")),
                Ok(WaitStatus::Exited(pid, status)) => {
                    good |= pid == first && status == 0;
                    continue;
                }
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    let program = self.programs.get(&pid).cloned().unwrap_or_default();
                    *self.stops.entry(program).or_default() += 1;
                    (pid, None)
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                    if event == Event::PTRACE_EVENT_EXEC as i32 {
                        self.executed(pid);
                    } else if let Ok(number) = ptrace::getevent(pid) {
                        self.started(pid, number);
                    }
                    (pid, None)
                }
                // A new process begins with it.
                Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)) => (pid, None),
                Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
                Ok(_) => continue,
            };
            // One that was killed meanwhile is waited for next.
            let _ = ptrace::syscall(pid, signal);
        }
    }

    fn executed(&mut self, pid: Pid) {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        self.programs.insert(pid, program.display().to_string());
    }

    fn started(&mut self, parent: Pid, child: i64) {
        let program = self.programs.get(&parent).cloned().unwrap_or_default();
        self.programs.entry(Pid::from_raw(i32::try_from(child).unwrap_or_default())).or_insert(program);
    }

    fn lines(&self) -> String {
        self.stops.iter().map(|(program, stops)| format!("{program} {}\n", stops.div_ceil(2))).collect()
    }
}
