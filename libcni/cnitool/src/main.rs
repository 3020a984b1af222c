//! cnitool: drive CNI plugins from the command line.
//!
//! `add|check|del|gc|status NET NETNS` keep the contract of the reference's cnitool: its environment variables, what
//! goes to stdout, the exit status (0 or 1), the container id. Beyond it: one clear line for an error, `validate` for
//! configurations before they are used, `plugins` for what is installed, and `ipam` for who has which address and what
//! is left over; `gc` without a namespace removes that.

mod arguments;
mod gc;
mod help;
mod ipam;
mod nearest;
mod network;
mod plugins;
mod validate;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use libcni::{Code, Error};

use arguments::Action;

/// Where configurations are unless `NETCONFPATH` says otherwise.
const CONF_DIR: &str = "/etc/cni/net.d";
/// Where plugins are usually installed: `validate` and `plugins` look there if `CNI_PATH` is not set.
const PLUGIN_DIR: &str = "/opt/cni/bin";

fn main() -> ExitCode {
    let action = libcni::exec::ensure_waitable()
        .map_err(|error| Error::new(Code::IO_FAILURE, format!("cannot handle SIGCHLD: {error}")))
        .and_then(|()| arguments::parse(std::env::args_os().skip(1)));
    // Where 1 is an answer, not to know is another one.
    let refused = if matches!(action, Ok(Action::Ipam(_))) { ExitCode::from(2) } else { ExitCode::FAILURE };
    match action.and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let line: Vec<String> = error.to_string().lines().map(|line| line.trim().to_owned()).collect();
            let _ = writeln!(io::stderr(), "{}", line.join(" "));
            refused
        }
    }
}

/// Does what was asked. `false`: it was done, and the answer is no.
fn run(action: Action) -> Result<bool, Error> {
    match action {
        Action::Help(topic) => print(help::text(topic.as_deref())?.as_bytes())?,
        Action::Version => print(help::version().as_bytes())?,
        Action::Network(call) => print(&network::run(&call)?)?,
        Action::Ipam(call) => return ipam::run(&call),
        Action::Gc(call) => return gc::run(&call),
        Action::Plugins => return plugins::list(&plugin_dirs().0, &mut io::stdout().lock()).map_err(unprinted),
        Action::Validate(targets) => {
            let (dirs, chosen) = plugin_dirs();
            let targets = if targets.is_empty() { vec![conf_dir()] } else { targets };
            return validate::run(&targets, &dirs, chosen, &mut io::stdout().lock());
        }
    }
    Ok(true)
}

/// One write to stdout, and nothing else goes there.
fn print(text: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush()).map_err(unprinted)
}

fn unprinted(error: io::Error) -> Error {
    Error::new(Code::IO_FAILURE, format!("failed to write to stdout: {error}"))
}

/// A variable; the empty text and no variable are the same.
fn variable(name: &str) -> Result<Option<String>, Error> {
    match std::env::var_os(name).map(std::ffi::OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Err(text)) => Err(Error::new(Code::INVALID_ENVIRONMENT, format!("{name} is not UTF-8: {text:?}"))),
    }
}

/// The directory of configurations.
fn conf_dir() -> PathBuf {
    std::env::var_os("NETCONFPATH").filter(|dir| !dir.is_empty()).map_or_else(|| CONF_DIR.into(), PathBuf::from)
}

/// `CNI_PATH`, and whether it is set; the usual directory if it is not.
fn plugin_dirs() -> (Vec<PathBuf>, bool) {
    match std::env::var_os("CNI_PATH").filter(|path| !path.is_empty()) {
        Some(path) => (std::env::split_paths(&path).filter(|dir| !dir.as_os_str().is_empty()).collect(), true),
        None => (vec![PLUGIN_DIR.into()], false),
    }
}
