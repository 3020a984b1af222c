//! From a process's environment and stdin to one verb of a [`Plugin`], and from its outcome to stdout.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{getpid, gettid};
use serde::Deserialize;

use super::env::{Command, Environment};
use super::log;
use super::request::{ConfOf, Network, Request};
use super::{Plugin, dry_run};
use crate::lock::{self, Lock};
use crate::types::version::{self, Version};
use crate::types::{Code, Error, NetworkName, json};

/// The most that is read from stdin, in bytes. What is decoded takes up to a hundred times as much memory, in a process
/// that runs as root. A result with ten thousand routes has one megabyte; Kubernetes takes no object above 1.5.
const STDIN_MAX: u64 = 4 << 20;

/// The longest an ADD waits for a GC. One that takes as long hangs, and the container's runtime waits too.
const GC_PATIENCE: Duration = Duration::from_secs(60);

/// Runs a plugin: the whole of its `main`.
///
/// The environment is checked, stdin is read, the verb is called, and one JSON document is printed: a
/// result, the versions, or an error with exit status 1. Without `CNI_COMMAND` it says on stderr what the
/// plugin is and exits with 0.
pub fn run<P: Plugin>(plugin: &P) -> ExitCode {
    report_panics(P::ABOUT);
    // If it fails only a plugin that starts others is worse off, and it says so then.
    let _ = crate::exec::ensure_waitable();
    let mut stdout = Vec::new();
    let beside_gc = || keep_gc_out(Path::new(lock::GC), GC_PATIENCE);
    let status = serve(plugin, &|name| std::env::var_os(name), &mut std::io::stdin(), &mut stdout, &beside_gc);
    match print(&stdout) {
        Ok(()) => ExitCode::from(status),
        // Whoever asked has gone away (EPIPE): there is nobody to tell but the log.
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "failed to write to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Straight to stdout, in one write if it takes all: the standard library's would keep what follows the last newline for a
/// write of its own, for which whoever waits for the answer wakes once more.
fn print(mut text: &[u8]) -> std::io::Result<()> {
    while !text.is_empty() {
        match nix::unistd::write(std::io::stdout(), text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A panic is a defect, but the runtime still gets CNI error JSON.
fn report_panics(about: &'static str) {
    std::panic::set_hook(Box::new(move |panic| {
        let error = Error::internal(format!("this plugin has a defect: {panic}"));
        log::close(about, &|name| std::env::var_os(name), Some(&error));
        let _ = print(&error.to_json(Version::CURRENT));
        std::process::exit(1);
    }));
}

/// [`run`] with everything outside the process passed in, for a plugin's own tests: `var` is the environment, what
/// would be printed goes to `stdout`. No lock is taken. Returns the exit status.
pub fn dispatch<P: Plugin>(
    plugin: &P,
    var: &dyn Fn(&str) -> Option<OsString>,
    stdin: &mut dyn Read,
    stdout: &mut Vec<u8>,
) -> u8 {
    serve(plugin, var, stdin, stdout, &|| None)
}

/// The same with what an ADD holds from before its work until its end.
pub(super) fn serve<P: Plugin>(
    plugin: &P,
    var: &dyn Fn(&str) -> Option<OsString>,
    stdin: &mut dyn Read,
    stdout: &mut Vec<u8>,
    keep_gc_out: &dyn Fn() -> Option<Lock>,
) -> u8 {
    let mut version = Version::CURRENT;
    let Some(env) = Environment::read(var, P::DRY_RUN).transpose() else {
        let versions: Vec<&str> = P::VERSIONS.iter().map(|version| version.as_str()).collect();
        let about = format!("{}\nCNI protocol versions supported: {}\n", P::ABOUT, versions.join(", "));
        let _ = std::io::stderr().write_all(about.as_bytes());
        return 0;
    };
    log::open(var);
    let outcome = env.and_then(|env| match env.is(Command::Version) {
        true => Ok(supported_versions::<P>()),
        false => answer(plugin, &env, stdin, &mut version, keep_gc_out),
    });
    log::close(P::ABOUT, var, outcome.as_ref().err());
    match outcome {
        Ok(text) => {
            *stdout = text;
            0
        }
        Err(error) => {
            *stdout = error.to_json(version);
            1
        }
    }
}

/// The answer to VERSION: one line, and the only output that ends with a newline.
fn supported_versions<P: Plugin>() -> Vec<u8> {
    let mut answer = json::Object::new();
    answer.insert("cniVersion".to_owned(), Version::CURRENT.as_str().into());
    if P::DRY_RUN {
        answer.insert(dry_run::ANNOUNCEMENT.to_owned(), true.into());
    }
    answer.insert("supportedVersions".to_owned(), serde_json::json!(P::VERSIONS));
    format!("{}\n", serde_json::Value::from(answer)).into_bytes()
}

/// The keys that are checked before a plugin sees anything.
#[derive(Default, Deserialize)]
struct Head {
    #[serde(rename = "cniVersion")]
    cni_version: Option<String>,
    name: Option<String>,
}

/// Every verb but VERSION. `version` is set as soon as it is known, for the error that may follow.
fn answer<P: Plugin>(
    plugin: &P,
    env: &Environment,
    stdin: &mut dyn Read,
    version: &mut Version,
    keep_gc_out: &dyn Fn() -> Option<Lock>,
) -> Result<Vec<u8>, Error> {
    let text = read_stdin(stdin)?;
    let undecodable =
        |error: json::Error| Error::new(Code::DECODING_FAILURE, format!("error unmarshall network config: {error}"));
    let value = json::parse(&text).map_err(undecodable)?;
    log::configured(&value);
    // `null` is a network without a name, as in the reference.
    let head: Head = json::from_value::<Option<_>>(&value).map_err(undecodable)?.unwrap_or_default();
    let name: NetworkName = head.name.unwrap_or_default().parse()?;
    let command = env
        .command
        .clone()
        .map_err(|unknown| Error::new(Code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND: {unknown}")))?;
    *version = check_version(command, head.cni_version.as_deref(), P::VERSIONS)?;
    if matches!(command, Command::Add | Command::Del) {
        refuse_own_netns(env)?;
    }
    if env.dry_run {
        dry_run::begin();
    }
    let network = Network::read(name, *version, value, text, env)?;
    let _gc_is_out = (command == Command::Add).then(keep_gc_out);
    let answer = call(plugin, command, network, env)?;
    Ok(if env.dry_run { dry_run::answer() } else { answer })
}

/// Takes [`lock::GC`] beside other ADDs. It never fails one: where there can be no such file, or a GC takes all that time,
/// a container that starts matters more.
pub(super) fn keep_gc_out(file: &Path, patience: Duration) -> Option<Lock> {
    match Lock::shared(file, patience) {
        Ok(lock) => return Some(lock),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let waited = patience.as_secs();
            log::warn(format_args!("a GC has had {} for {waited} s; this ADD goes on beside it", file.display()));
        }
        Err(error) => {
            log::note(|| format!("no lock against a GC beside this ADD: {}: {error}", file.display()));
        }
    }
    None
}

fn read_stdin(stdin: &mut dyn Read) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    stdin
        .take(STDIN_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| Error::new(Code::IO_FAILURE, format!("error reading from stdin: {error}")))?;
    if text.len() as u64 > STDIN_MAX {
        let msg = format!("the network config on stdin has more than {} MiB", STDIN_MAX >> 20);
        return Err(Error::new(Code::DECODING_FAILURE, msg));
    }
    Ok(text)
}

fn call<P: Plugin>(
    plugin: &P,
    command: Command,
    network: Network<ConfOf<P>>,
    env: &Environment,
) -> Result<Vec<u8>, Error> {
    match command {
        Command::Gc => plugin.gc(&network)?,
        Command::Status => plugin.status(&network)?,
        Command::Version => return Ok(supported_versions::<P>()),
        Command::Add | Command::Del | Command::Check => {
            let req = Request::new(network, env).ok_or_else(|| {
                Error::new(Code::INVALID_ENVIRONMENT, "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing")
            })?;
            match command {
                Command::Add => return add(plugin, &req),
                Command::Del => plugin.del(&req)?,
                _ => plugin.check(&req)?,
            }
        }
    }
    Ok(Vec::new())
}

/// A result that the version cannot say fails the ADD, and a failed ADD leaves nothing.
fn add<P: Plugin>(plugin: &P, req: &Request<ConfOf<P>>) -> Result<Vec<u8>, Error> {
    let success = plugin.add(req)?;
    success.to_json(req.version()).inspect(|_| log::result(&success)).map_err(|error| match plugin.del(req) {
        Ok(()) => error,
        Err(del) => Error::new(error.code(), format!("{error}; DEL after the failed ADD failed too: {del}")),
    })
}

/// Whether the configuration's version knows the verb and the plugin speaks it. Which versions know a verb is
/// decided by number, which versions are spoken by text: 1.0 is not 1.0.0.
fn check_version(command: Command, config: Option<&str>, spoken: &[Version]) -> Result<Version, Error> {
    let config = config.unwrap_or_default();
    let since = match command {
        Command::Check => Some(Version::V0_4_0),
        Command::Gc | Command::Status => Some(Version::V1_1_0),
        _ => None,
    };
    if let Some(since) = since {
        let verb = command.as_str();
        let incompatible = |who: &str| {
            Error::new(Code::INCOMPATIBLE_VERSION, format!("{who} version does not allow {verb}"))
                .with_details(format!("{verb} is of {since} and later; cniVersion is {config:?}"))
        };
        let number = version::number(config).ok_or_else(|| {
            Error::new(Code::DECODING_FAILURE, format!("cniVersion {config:?} is not a version number"))
        })?;
        if version::number(since.as_str()).is_some_and(|since| number < since) {
            return Err(incompatible("config"));
        }
        if spoken.iter().all(|version| version::number(version.as_str()).is_some_and(|version| version < number)) {
            return Err(incompatible("plugin"));
        }
    }
    Version::of_config(Some(config)).ok().filter(|version| spoken.contains(version)).ok_or_else(|| {
        Error::new(Code::INCOMPATIBLE_VERSION, "incompatible CNI versions")
            .with_details(format!("config is {config:?}, plugin supports {}", version::quoted(spoken)))
    })
}

/// The calling thread's network namespace. That of a plugin's only thread is the process's, which is found in two steps less:
/// `/proc` makes what stands below it when somebody first looks, and that is a good part of an ADD's beginning.
pub fn own_netns() -> &'static Path {
    let is_first = gettid() == getpid();
    Path::new(if is_first { "/proc/self/ns/net" } else { "/proc/thread-self/ns/net" })
}

/// A plugin that worked in its own namespace would take the node's network down. The reference finds out
/// when it is done; here nothing has happened yet.
fn refuse_own_netns(env: &Environment) -> Result<(), Error> {
    let Some(netns) = env.netns.as_deref().filter(|_| !env.netns_override) else { return Ok(()) };
    // What cannot be opened is the plugin's to judge: on DEL it may be gone.
    let Ok(theirs) = std::fs::metadata(netns) else { return Ok(()) };
    let own = std::fs::metadata(own_netns()).map_err(|error| {
        Error::new(Code::INVALID_NETNS, format!("failed to look at the plugin's own network namespace: {error}"))
    })?;
    if (theirs.dev(), theirs.ino()) != (own.dev(), own.ino()) {
        return Ok(());
    }
    Err(Error::new(Code::INVALID_NETNS, "plugin's netns and netns from CNI_NETNS should not be the same")
        .with_details(netns.display().to_string()))
}
