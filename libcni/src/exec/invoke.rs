//! One run of a plugin: its program, its environment, its stdin, and the time it has.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{self, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::pipes::{End, Input, Running, STDOUT_MAX, is_lost};
use crate::plugin::Command;
use crate::types::{Error, json};

/// How much of stderr goes into an error; [`Failure::stderr`] has more.
const QUOTED_MAX: usize = 4 << 10;
/// How long a program that is being written (ETXTBSY: an installer at work) is waited for.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// A year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A plugin to be run for one verb.
#[derive(Clone, Debug)]
pub struct Invocation<'a> {
    /// The program, as [`find`](super::find()) returned it.
    pub program: PathBuf,
    /// `CNI_COMMAND`.
    pub verb: Command,
    /// More variables, which replace those of our own environment; the rest of it is inherited.
    pub vars: Vec<(&'static str, OsString)>,
    /// Whether a `CNI_NETNS_OVERRIDE` of our own environment is passed on. A runtime that was itself started with
    /// it does not mean its plugins; a plugin that delegates does.
    pub netns_override: bool,
    /// What the plugin reads.
    pub stdin: &'a [u8],
    /// How long it may run; then it is killed, with its process group and its descendants.
    pub deadline: Duration,
}

impl<'a> Invocation<'a> {
    /// Runs the plugin and returns what it printed. What it wrote to stderr goes to our stderr if it succeeds,
    /// and into the error if it fails.
    ///
    /// # Errors
    /// The plugin's own error, or what went wrong with it: it could not be started, was killed, said nothing.
    pub fn run(&self) -> Result<Vec<u8>, Box<Failure>> {
        self.start()?.end()
    }

    /// Starts the plugin, which then works beside its caller.
    ///
    /// # Errors
    /// It could not be started.
    pub(super) fn start(&self) -> Result<Started<'a>, Box<Failure>> {
        let started = Instant::now();
        // As good as never, where the deadline is longer than the clock goes.
        let until = started.checked_add(self.deadline).unwrap_or(started + FOREVER);
        let plugin = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut call = Call { plugin, verb: self.verb, deadline: self.deadline, started };
        match self.spawn(until) {
            Ok(running) => Ok(Started { call, running }),
            // It said nothing because it never ran: that is our error and not the plugin's.
            Err(error) => {
                let msg = format!("failed to start plugin: exec {}: {error}", self.program.display());
                Err(call.failed(Error::internal(msg), b"", None))
            }
        }
    }

    /// Starts the program, in a process group of its own. While somebody has it open for writing the kernel says
    /// ETXTBSY; that is tried again for a while, and then it is the error.
    fn spawn(&self, until: Instant) -> io::Result<Running<'a>> {
        let (input, stdin) = Input::new(self.stdin)?;
        let mut command = process::Command::new(&self.program);
        command.env("CNI_COMMAND", self.verb.as_str()).process_group(0);
        if !self.netns_override {
            command.env_remove("CNI_NETNS_OVERRIDE");
        }
        for (name, value) in &self.vars {
            command.env(name, value);
        }
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let busy_until = until.min(Instant::now() + BUSY_MAX);
        let mut pause = Duration::from_millis(5);
        loop {
            match command.spawn() {
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() + pause < busy_until =>
                {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
                outcome => return Ok(Running::new(outcome?, input, until)),
            }
        }
    }
}

/// What a plugin was called for, and when.
struct Call {
    plugin: String,
    verb: Command,
    deadline: Duration,
    started: Instant,
}

impl Call {
    fn failed(&mut self, error: Error, stderr: &[u8], status: Option<ExitStatus>) -> Box<Failure> {
        Box::new(Failure {
            plugin: std::mem::take(&mut self.plugin),
            verb: self.verb,
            error,
            status,
            stderr: String::from_utf8_lossy(stderr).trim_end().to_owned(),
            elapsed: self.started.elapsed(),
        })
    }
}

/// A plugin at work. Dropped, it is waited for, and its answer is lost.
pub(super) struct Started<'a> {
    call: Call,
    running: Running<'a>,
}

impl Started<'_> {
    /// Waits for the plugin, as [`Invocation::run`] does.
    ///
    /// # Errors
    /// As there.
    pub(super) fn end(mut self) -> Result<Vec<u8>, Box<Failure>> {
        let ended = self.running.end();
        let (out, err) = (&self.running.out, &self.running.err);
        let (error, status) = match ended {
            Ok(End::Exited(status)) if status.success() => {
                let _ = io::stderr().write_all(err);
                return Ok(std::mem::take(&mut self.running.out));
            }
            Ok(End::Exited(status)) => (diagnose(out, err, &describe(status)), Some(status)),
            // What it printed until then is not an answer.
            Ok(End::Deadline) => {
                let reason = format!("killed: it did not end within {:?}", self.call.deadline);
                (diagnose(b"", err, &reason), None)
            }
            Ok(End::TooMuchOutput) => {
                let reason = format!("killed: it printed more than {} MiB", STDOUT_MAX >> 20);
                (diagnose(b"", err, &reason), None)
            }
            Err(error) if is_lost(&error) => {
                let reason = "its exit status is lost: SIGCHLD is ignored, or somebody else waits for our children";
                (diagnose(b"", err, reason), None)
            }
            Err(error) => (diagnose(b"", err, &format!("killed: its pipes failed: {error}")), None),
        };
        Err(self.call.failed(error, err, status))
    }
}

/// What a failed plugin's output says (the texts before the colon are the reference's).
fn diagnose(stdout: &[u8], stderr: &[u8], reason: &str) -> Error {
    let quoted = |text: &[u8]| format!("{:?}", tail(String::from_utf8_lossy(text).trim_end()));
    let unknown = |msg: String| Error::new(crate::Code::UNKNOWN, msg);
    if !stdout.trim_ascii().is_empty() {
        return match Error::from_json(stdout) {
            Some(error) if error.msg().is_empty() => {
                Error::new(error.code(), format!("netplugin failed with no error message: {reason}"))
                    .with_details(error.details())
            }
            Some(error) => error,
            None => {
                let why = json::parse(stdout).err().map_or("not an error object".to_owned(), |error| error.to_string());
                let printed = quoted(stdout);
                unknown(format!("netplugin failed but error parsing its diagnostic message {printed}: {why}"))
                    .with_details(reason)
            }
        };
    }
    match stderr.trim_ascii() {
        [] => unknown(format!("netplugin failed with no error message: {reason}")),
        text => unknown(format!("netplugin failed: {}: {reason}", quoted(text))),
    }
}

/// The end of a text, cut at a character.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(QUOTED_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

/// In the reference's words, but the signal by its number.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A plugin failed: who, at what, how, and what it said.
#[derive(Clone, Debug)]
pub struct Failure {
    plugin: String,
    verb: Command,
    error: Error,
    status: Option<ExitStatus>,
    stderr: String,
    elapsed: Duration,
}

impl Failure {
    /// The plugin's type.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// What it was asked to do.
    pub fn verb(&self) -> Command {
        self.verb
    }

    /// Its own error as it printed it, or what we know in its stead (code 0).
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// How it exited; `None` if it did not start or we killed it.
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// The last 64 KiB it wrote to stderr.
    pub fn stderr(&self) -> &str {
        &self.stderr
    }

    /// How long it ran.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.plugin, self.verb.as_str(), self.error)
    }
}

impl std::error::Error for Failure {}

impl From<Box<Failure>> for Error {
    /// Code and message stay; the details get what they do not say: who it was where the plugin did not
    /// speak for itself, and the end of its log.
    fn from(failure: Box<Failure>) -> Self {
        let mut details = Vec::new();
        if !failure.error.details().is_empty() {
            details.push(failure.error.details().to_owned());
        }
        if failure.error.code() == crate::Code::UNKNOWN {
            let elapsed = failure.elapsed.as_secs_f64();
            details.push(format!("{} {} after {elapsed:.3} s", failure.plugin, failure.verb.as_str()));
        }
        let said = tail(&failure.stderr);
        if !said.is_empty() && !failure.error.msg().starts_with("netplugin failed: ") {
            details.push(format!("stderr: {said:?}"));
        }
        failure.error.with_details(details.join("; "))
    }
}
