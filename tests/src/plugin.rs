//! A plugin, run as a runtime runs it: environment, configuration on stdin, exit status, JSON on stdout.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bins;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
use crate::faults::{self, Fault, Place, Run, Step};
use crate::host::Host;
use crate::namespace::PATH;
use crate::pod::Pod;

/// Nothing a plugin does takes this long; a test that hangs says where.
const DEADLINE: Duration = Duration::from_secs(60);

/// One binary on one host. Variables set here hold for every call.
#[derive(Clone, Debug)]
pub struct Plugin<'a> {
    host: &'a Host,
    program: PathBuf,
    env: BTreeMap<String, Option<String>>,
    limit: Duration,
}

impl<'a> Plugin<'a> {
    pub(crate) fn new(host: &'a Host, directory: &Path, name: &str) -> Self {
        let cni_path = Some(directory.display().to_string());
        Self {
            host,
            program: directory.join(name),
            env: BTreeMap::from([("CNI_PATH".to_owned(), cni_path)]),
            limit: DEADLINE,
        }
    }

    /// Sets a variable, over what the call itself would set.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Display) -> Self {
        self.env.insert(key.to_owned(), Some(value.to_string()));
        self
    }

    /// Leaves a variable out.
    #[must_use]
    pub fn without_env(mut self, key: &str) -> Self {
        self.env.insert(key.to_owned(), None);
        self
    }

    /// Kills the plugin, and it alone, when a call takes longer than this.
    #[must_use]
    pub fn killed_after(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// ADD. `conf` is JSON text or a [`Value`].
    pub fn add(&self, conf: impl Display, pod: &Pod, ifname: &str) -> Outcome {
        self.attachment("ADD", &conf, pod, ifname)
    }

    /// DEL. Give `prevResult` in `conf` if the runtime would ([`with_prev_result`]).
    pub fn del(&self, conf: impl Display, pod: &Pod, ifname: &str) -> Outcome {
        self.attachment("DEL", &conf, pod, ifname)
    }

    /// CHECK; `conf` needs the `prevResult` of the ADD ([`with_prev_result`]).
    pub fn check(&self, conf: impl Display, pod: &Pod, ifname: &str) -> Outcome {
        self.attachment("CHECK", &conf, pod, ifname)
    }

    /// GC; `conf` carries `cni.dev/valid-attachments`.
    pub fn gc(&self, conf: impl Display) -> Outcome {
        self.call("GC", &conf, &[])
    }

    /// STATUS.
    pub fn status(&self, conf: impl Display) -> Outcome {
        self.call("STATUS", &conf, &[])
    }

    /// VERSION.
    pub fn version(&self) -> Outcome {
        self.call("VERSION", &r#"{"cniVersion":"1.0.0"}"#, &[])
    }

    /// The binary.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// ADD or DEL, killed with all it has started before its `number`th call that changes something, from 0. False: it was
    /// over before.
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    pub fn killed_at(&self, number: usize, verb: &str, conf: impl Display, pod: &Pod, ifname: &str) -> bool {
        let place = Place { counts: Step::changes, number };
        self.with_fault(verb, conf, (pod, ifname), place, Fault::KillAll).struck.is_some()
    }

    /// A verb in which something goes wrong.
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    pub fn with_fault(
        &self,
        verb: &str,
        conf: impl Display,
        (pod, ifname): (&Pod, &str),
        place: Place,
        fault: Fault<'_>,
    ) -> Run {
        let (id, netns) = (pod.id(), pod.path().display().to_string());
        let command = self.command(verb, &[("CNI_CONTAINERID", &id), ("CNI_NETNS", &netns), ("CNI_IFNAME", ifname)]);
        let conf = conf.to_string();
        self.host.enter(|| faults::run(command, &conf, place, fault))
    }

    fn attachment(&self, command: &str, conf: &dyn Display, pod: &Pod, ifname: &str) -> Outcome {
        let (id, netns) = (pod.id(), pod.path().display().to_string());
        self.call(command, conf, &[("CNI_CONTAINERID", &id), ("CNI_NETNS", &netns), ("CNI_IFNAME", ifname)])
    }

    /// Any verb with no variables but those that were set: a call that was made elsewhere.
    pub fn call_as_set(&self, verb: &str, conf: impl Display) -> Outcome {
        self.call(verb, &conf, &[])
    }

    fn call(&self, verb: &str, conf: &dyn Display, variables: &[(&str, &str)]) -> Outcome {
        run_in(self.host, self.command(verb, variables), &conf.to_string(), self.limit)
    }

    fn command(&self, verb: &str, variables: &[(&str, &str)]) -> Command {
        let mut env = BTreeMap::from([("CNI_COMMAND".to_owned(), Some(verb.to_owned()))]);
        env.extend(variables.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))));
        env.extend(self.env.clone());
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", PATH);
        command.envs(env.into_iter().filter_map(|(key, value)| Some((key, value?))));
        command
    }
}

/// `cnitool` on one host.
#[derive(Clone, Debug)]
pub struct Cnitool<'a> {
    host: &'a Host,
    conf_dir: PathBuf,
    env: BTreeMap<String, String>,
}

impl<'a> Cnitool<'a> {
    pub(crate) fn new(host: &'a Host, conf_dir: &Path) -> Self {
        Self { host, conf_dir: conf_dir.to_owned(), env: BTreeMap::new() }
    }

    /// Sets a variable (CAP_ARGS, CNI_ARGS, CNI_IFNAME ...).
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Display) -> Self {
        self.env.insert(key.to_owned(), value.to_string());
        self
    }

    /// `cnitool VERB NET NETNS`, with VERB add, del, check, gc or status.
    pub fn call(&self, verb: &str, network: &str, pod: &Pod) -> Outcome {
        self.run(&[verb, network, &pod.path().display().to_string()])
    }

    /// `cnitool ARGUMENTS`.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let directory = bins::directory();
        let mut command = Command::new(directory.join("cnitool"));
        command.args(arguments).env_clear().env("PATH", PATH);
        command.env("CNI_PATH", &directory).env("NETCONFPATH", &self.conf_dir).envs(&self.env);
        run_in(self.host, command, "", DEADLINE)
    }
}

/// What a process said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit status; None when a signal ended it.
    pub status: Option<i32>,
    /// Standard output, as it is.
    pub stdout: String,
    /// Standard error, as it is.
    pub stderr: String,
}

impl Outcome {
    /// The JSON it printed after exit status 0; Null when it printed nothing. Panics when it failed.
    #[track_caller]
    pub fn success(&self) -> Value {
        assert!(self.status == Some(0), "expected success\n{self}");
        if self.stdout.trim().is_empty() { Value::Null } else { self.json() }
    }

    /// The text it printed after exit status 0. Panics when it failed.
    #[track_caller]
    pub fn success_text(&self) -> &str {
        assert!(self.status == Some(0), "expected success\n{self}");
        &self.stdout
    }

    /// The CNI error it printed after exit status 1. Panics on anything else, also on stdout that is not an error.
    #[track_caller]
    pub fn failure(&self) -> Value {
        assert!(self.status == Some(1), "expected exit status 1\n{self}");
        let error = self.json();
        assert!(error["code"].is_number() && error["msg"].is_string(), "expected a CNI error\n{self}");
        error
    }

    /// The code of [`Outcome::failure`].
    #[track_caller]
    pub fn code(&self) -> u64 {
        self.failure()["code"].as_u64().unwrap_or_else(|| panic!("no code\n{self}"))
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("stdout is not one JSON document: {e}\n{self}"))
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit status: {:?}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr)
    }
}

/// A configuration with the result of an earlier ADD, as a runtime gives it to CHECK and DEL.
#[must_use]
pub fn with_prev_result(conf: &Value, result: &Value) -> Value {
    let mut conf = conf.clone();
    conf["prevResult"] = result.clone();
    conf
}

fn run_in(host: &Host, mut command: Command, input: &str, limit: Duration) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output: Output = host.enter(|| {
        let program = command.get_program().to_owned();
        let mut child = command.spawn().unwrap_or_else(|e| panic!("run {}: {e}", program.display()));
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let id = Pid::from_raw(child.id().cast_signed());
        let (done, waiting) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                if waiting.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let _ = kill(id, Signal::SIGKILL);
                }
            });
            drop(stdin.write_all(input.as_bytes())); // whoever does not read its input gets none
            drop(stdin);
            let output = child.wait_with_output().expect("wait for the process");
            drop(done);
            output
        })
    });
    Outcome {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
