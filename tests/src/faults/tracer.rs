//! The tracer: follows a plugin and all it starts from call to call, and strikes.
//!
//! All from one thread, which is the parent of the plugin: the kernel knows no other tracer, and other tests of this
//! process trace as well.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::operation::{datagram, messages};
use super::{Fault, Operation, Place, Run, Step, memory};
use crate::plugin::Outcome;

/// `PTRACE_SYSCALL_INFO_ENTRY` of linux/ptrace.h.
const ENTRY: u8 = 1;
/// How long those that outlive a plugin are held while something else is done.
const HELD: Duration = Duration::from_millis(100);
/// The number of no system call.
const NOTHING: u64 = u64::MAX;

/// Runs a command with `input` on its stdin; at `place`, `fault` strikes.
pub(crate) fn run(mut command: Command, input: &str, place: Place, fault: Fault<'_>) -> Run {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("run {}: {e}", command.get_program().display()));
    let plugin = Pid::from_raw(child.id().cast_signed());
    // It has done nothing yet when it waits for its stdin. Until it is that program it has another name.
    let name = command.get_program().to_string_lossy().into_owned();
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    let waits = format!("({name}) S");
    while !fs::read_to_string(format!("/proc/{plugin}/stat")).is_ok_and(|stat| stat.contains(&waits)) {
        thread::yield_now();
    }
    ptrace::attach(plugin).expect("trace a child");
    waitpid(plugin, None).expect("wait for the child to stop");
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(plugin, options).expect("trace what the child starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("write the configuration");
    drop(stdin);

    let mut tracer = Tracer::new(plugin, name, place, fault);
    ptrace::syscall(plugin, None).expect("let the child go on");
    tracer.watch();
    Run { outcome: outcome(&mut child, tracer.status), struck: tracer.struck, steps: tracer.steps }
}

fn outcome(child: &mut Child, status: Option<i32>) -> Outcome {
    let read = |pipe: &mut dyn Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("read what a plugin said");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let stdout = child.stdout.as_mut().map(|pipe| read(pipe)).unwrap_or_default();
    let stderr = child.stderr.as_mut().map(|pipe| read(pipe)).unwrap_or_default();
    Outcome { status, stdout, stderr }
}

struct Tracer<'a> {
    plugin: Pid,
    place: Place,
    fault: Fault<'a>,
    family: HashMap<Pid, Process>,
    /// How often a call that counts was about to be made.
    counted: usize,
    steps: Vec<Step>,
    struck: Option<Step>,
    /// Exit status of the plugin.
    status: Option<i32>,
}

#[derive(Clone, Default)]
struct Process {
    program: String,
    /// What its call is to be when it comes back, if not what the kernel makes of it.
    returns: Option<Returns>,
    /// Netlink sockets by descriptor: the protocol, and the port that the kernel gave it.
    sockets: HashMap<u64, (i32, u32)>,
    /// What is read next from a socket in place of the kernel's answer.
    refusal: Option<(u64, Vec<u8>)>,
}

#[derive(Clone)]
enum Returns {
    /// This value.
    Value(i64),
    /// The number of bytes put where the caller wants a datagram and its sender.
    Datagram(Vec<u8>),
    /// What the kernel says: the descriptor of a socket of this protocol.
    Socket(i32),
    /// What the kernel says: the port of a socket is at this address.
    Port(u64, u64),
}

impl<'a> Tracer<'a> {
    fn new(plugin: Pid, program: String, place: Place, fault: Fault<'a>) -> Self {
        let family = HashMap::from([(plugin, Process { program, ..Process::default() })]);
        Self { plugin, place, fault, family, counted: 0, steps: Vec::new(), struck: None, status: None }
    }

    /// Until the last of them has ended.
    fn watch(&mut self) {
        loop {
            // Those of this thread: other tests wait for theirs.
            let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Err(Errno::ECHILD) => return,
                status => status.expect("wait for the children"),
            };
            let (pid, signal) = match status {
                WaitStatus::Exited(pid, status) => {
                    self.ended(pid, Some(status));
                    continue;
                }
                WaitStatus::Signaled(pid, ..) => {
                    self.ended(pid, None);
                    continue;
                }
                WaitStatus::PtraceSyscall(pid) => {
                    if self.stopped(pid) {
                        continue;
                    }
                    (pid, None)
                }
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                    self.executed(pid);
                    (pid, None)
                }
                WaitStatus::PtraceEvent(pid, ..) => {
                    self.started(pid);
                    (pid, None)
                }
                // A new process begins with it.
                WaitStatus::Stopped(pid, Signal::SIGSTOP) => (pid, None),
                WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
                _ => continue,
            };
            // One that was killed meanwhile is waited for next.
            let _ = ptrace::syscall(pid, signal);
        }
    }

    fn ended(&mut self, pid: Pid, status: Option<i32>) {
        self.family.remove(&pid);
        if pid == self.plugin {
            self.status = status;
        }
    }

    fn executed(&mut self, pid: Pid) {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Its sockets are closed, as all our descriptors are.
        self.family.insert(pid, Process { program, ..Process::default() });
    }

    fn started(&mut self, parent: Pid) {
        let child = ptrace::getevent(parent).ok().and_then(|child| i32::try_from(child).ok());
        if let Some(child) = child {
            let process = self.family.get(&parent).cloned().unwrap_or_default();
            self.family.entry(Pid::from_raw(child)).or_insert(Process { returns: None, ..process });
        }
    }

    /// Before a system call or after it. True: the process is not to go on.
    fn stopped(&mut self, pid: Pid) -> bool {
        // One that was killed meanwhile has no registers.
        let (Ok(info), Ok(mut regs)) = (ptrace::syscall_info(pid), ptrace::getregs(pid)) else { return false };
        if info.op != ENTRY {
            self.family.entry(pid).or_default().comes_back(pid, &mut regs);
            return false;
        }
        let process = self.family.entry(pid).or_default();
        process.calls(pid, &mut regs);
        let protocol = |fd| process.sockets.get(&fd).map(|(protocol, _)| *protocol);
        let Some(operation) = Operation::of(pid, &regs, protocol) else { return false };
        let step = Step { program: process.program.clone(), operation };
        if !(self.place.counts)(&step) {
            return false;
        }
        let is_here = self.counted == self.place.number && !matches!(self.fault, Fault::None);
        self.counted += 1;
        self.steps.push(step.clone());
        if is_here {
            self.struck = Some(step);
            return self.strike(pid, &mut regs);
        }
        false
    }

    fn strike(&mut self, pid: Pid, regs: &mut user_regs_struct) -> bool {
        match self.fault {
            Fault::None => false,
            Fault::KillAll => {
                for member in self.family.keys() {
                    let _ = kill(*member, Signal::SIGKILL);
                }
                true
            }
            Fault::KillPlugin(meanwhile) => {
                self.kill_plugin(pid, meanwhile);
                true
            }
            Fault::Refuse(errno) if self.struck.as_ref().is_some_and(Step::is_request) => {
                self.family.entry(pid).or_default().refuse(pid, regs, errno);
                false
            }
            Fault::Refuse(errno) | Fault::Fail(errno) => {
                self.family.entry(pid).or_default().skip(pid, regs, Returns::Value(-i64::from(errno as i32)));
                false
            }
        }
    }

    /// `stopped` stands at its call; the others run, or wait for it.
    fn kill_plugin(&mut self, stopped: Pid, meanwhile: &(dyn Fn() + Sync)) {
        kill(self.plugin, Signal::SIGKILL).expect("kill the plugin");
        loop {
            match waitpid(self.plugin, Some(WaitPidFlag::__WALL)).expect("wait for the plugin's end") {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => break,
                _ => {}
            }
        }
        self.ended(self.plugin, None);
        thread::scope(|scope| {
            let (done, waiting) = mpsc::channel::<()>();
            scope.spawn(move || {
                meanwhile();
                drop(done);
            });
            let _ = waiting.recv_timeout(HELD);
            if stopped != self.plugin {
                let _ = ptrace::syscall(stopped, None);
            }
            self.watch();
        });
    }
}

impl Process {
    /// What must be known of a call when it comes back.
    fn calls(&mut self, pid: Pid, regs: &mut user_regs_struct) {
        match i64::try_from(regs.orig_rax) {
            Ok(libc::SYS_socket) if i32::try_from(regs.rdi) == Ok(libc::AF_NETLINK) => {
                self.returns = Some(Returns::Socket(i32::try_from(regs.rdx).unwrap_or_default()));
            }
            Ok(libc::SYS_getsockname) if self.sockets.contains_key(&regs.rdi) => {
                self.returns = Some(Returns::Port(regs.rdi, regs.rsi));
            }
            Ok(libc::SYS_recvfrom) => {
                if let Some((_, answer)) = self.refusal.take_if(|(fd, _)| *fd == regs.rdi) {
                    self.skip(pid, regs, Returns::Datagram(answer));
                }
            }
            _ => {}
        }
    }

    fn skip(&mut self, pid: Pid, regs: &mut user_regs_struct, returns: Returns) {
        self.returns = Some(returns);
        regs.orig_rax = NOTHING;
        ptrace::setregs(pid, *regs).expect("change a call");
    }

    /// The datagram counts as sent. Of a batch the first message is refused.
    fn refuse(&mut self, pid: Pid, regs: &mut user_regs_struct, errno: Errno) {
        let datagram = datagram(pid, regs);
        let messages = messages(&datagram);
        let refused = if messages.len() > 1 { messages.get(1) } else { messages.first() };
        let port = self.sockets.get(&regs.rdi).map_or(0, |(_, port)| *port);
        // `struct nlmsghdr`, the error number, and the header that is refused (its type and number do).
        let (kind, sequence) = refused.copied().unwrap_or_default();
        let mut answer = Vec::new();
        answer.extend(36_u32.to_ne_bytes());
        answer.extend(u16::try_from(libc::NLMSG_ERROR).unwrap_or_default().to_ne_bytes());
        answer.extend(0x100_u16.to_ne_bytes()); // NLM_F_CAPPED
        answer.extend(sequence.to_ne_bytes());
        answer.extend(port.to_ne_bytes());
        answer.extend((-(errno as i32)).to_ne_bytes());
        answer.extend(16_u32.to_ne_bytes());
        answer.extend(kind.to_ne_bytes());
        answer.extend(1_u16.to_ne_bytes());
        answer.extend(sequence.to_ne_bytes());
        answer.extend(port.to_ne_bytes());
        self.refusal = Some((regs.rdi, answer));
        let sent = i64::try_from(datagram.len()).unwrap_or_default();
        self.skip(pid, regs, Returns::Value(sent));
    }

    fn comes_back(&mut self, pid: Pid, regs: &mut user_regs_struct) {
        let Some(returns) = self.returns.take() else { return };
        let result = regs.rax.cast_signed();
        let value = match returns {
            Returns::Value(value) => value,
            Returns::Datagram(answer) => {
                memory::write(pid, regs.rsi, &answer);
                if regs.r8 != 0 {
                    // `struct sockaddr_nl`: the kernel is port 0.
                    memory::write(pid, regs.r8, &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                    memory::write(pid, regs.r9, &12_u32.to_ne_bytes());
                }
                i64::try_from(answer.len()).unwrap_or_default()
            }
            Returns::Socket(protocol) => {
                if let Ok(fd) = u64::try_from(result) {
                    self.sockets.insert(fd, (protocol, 0));
                }
                return;
            }
            Returns::Port(fd, address) => {
                let name = memory::read(pid, address, 8);
                let port = name.last_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
                if let Some((_, known)) = self.sockets.get_mut(&fd) {
                    *known = port;
                }
                return;
            }
        };
        regs.rax = value.cast_unsigned();
        ptrace::setregs(pid, *regs).expect("change what a call returns");
    }
}
