//! Faults: one run of a plugin, with all the programs it starts, in which something goes wrong at a system call of our
//! choice: it is killed there, or the call fails.
//!
//! The calls that count are those that change something, or ask for it ([`Operation`]), numbered from the reading of stdin in
//! the order in which the whole family makes them. A fault strikes when the call is about to be made. (To be killed after
//! a call that changes something is to be killed before the next one.) The tracer is `ptrace`, by hand and not by
//! strace, because only so a request can be refused as the kernel refuses: the datagram is not sent, and the answer that
//! the plugin reads is ours.

mod memory;
mod operation;
mod tracer;

use std::fmt;

use nix::errno::Errno;

pub use operation::Operation;
pub(crate) use tracer::run;

use crate::plugin::Outcome;

/// What goes wrong.
#[derive(Clone, Copy)]
pub enum Fault<'a> {
    /// Nothing: the run is only looked at.
    None,
    /// The plugin and all it has started are killed at once, as the kernel does it to a control group.
    KillAll,
    /// The plugin alone is killed, as a runtime that lost patience does it. The others stand still where they are until
    /// this has ended (or has waited for them for a while), and then go on.
    KillPlugin(&'a (dyn Fn() + Sync)),
    /// The system call is not made and returns this.
    Fail(Errno),
    /// A netlink request does not arrive; what the plugin reads is the kernel's refusal with this. Other calls fail.
    Refuse(Errno),
}

impl fmt::Debug for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing"),
            Self::KillAll => f.write_str("all killed"),
            Self::KillPlugin(_) => f.write_str("the plugin killed"),
            Self::Fail(errno) => write!(f, "fails with {errno:?}"),
            Self::Refuse(errno) => write!(f, "refused with {errno:?}"),
        }
    }
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The calls that count.
    pub counts: fn(&Step) -> bool,
    /// Which of them, from 0; past the last one nothing goes wrong.
    pub number: usize,
}

/// One system call that counts.
#[derive(Clone, Debug)]
pub struct Step {
    /// The program that makes it.
    pub program: String,
    /// What it is.
    pub operation: Operation,
}

impl Step {
    /// Whether it is made by a program of ours, and not by one that it starts.
    pub fn is_ours(&self) -> bool {
        !self.program.starts_with("xtables-") && self.program != "sh"
    }

    /// A datagram to the kernel.
    pub fn is_request(&self) -> bool {
        matches!(self.operation, Operation::Request { .. })
    }

    /// A call that changes something, made by whomever.
    pub fn changes(&self) -> bool {
        self.operation.changes()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.program, self.operation)
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    /// What the plugin said.
    pub outcome: Outcome,
    /// The call at which the fault struck; None: it was over before.
    pub struck: Option<Step>,
    /// The calls that counted, up to the fault and after it.
    pub steps: Vec<Step>,
}
