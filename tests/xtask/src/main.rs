//! `cargo xtask`: what is done with this repository, by one command each.
#![expect(clippy::print_stdout, reason = "a program for people; no CNI result goes through here")]

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;

mod debian;
mod demo;
mod install;
mod suite;
mod superuser;
mod toolchain;
mod vm;

const HELP: &str = "\
cargo xtask demo                         a node, two pods and an internet, wired and taken apart again
cargo xtask test [--release] [--vm | --clients [--record]] [FILTER...]
                                         install what the tests drive, build, run every test (as root)
cargo xtask install [--dir DIR]          put the release binaries into DIR (/opt/cni/bin)

  --release    test the release build, not the quick one
  --vm         run the VLAN tests in a virtual machine even where this kernel could
  --clients    run the tests with containerd and podman, and no others
  --record     keep what these call, for the behaviour tests
";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well; an error is for what could not even be tried.
fn run() -> Result<bool, String> {
    let mut arguments = lexopt::Parser::from_env();
    let (mut task, mut filters) = (None, Vec::new());
    let mut directory = PathBuf::from("/opt/cni/bin");
    let (mut release, mut vm, mut clients, mut record) = (false, false, false, false);
    while let Some(argument) = arguments.next().map_err(|e| e.to_string())? {
        match argument {
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(true);
            }
            Long("dir") => directory = arguments.value().map_err(|e| e.to_string())?.into(),
            Long("release") => release = true,
            Long("vm") => vm = true,
            Long("clients") => clients = true,
            Long("record") => record = true,
            Value(word) if task.is_none() => task = Some(word.to_string_lossy().into_owned()),
            Value(word) => filters.push(word.to_string_lossy().into_owned()),
            other => return Err(format!("{}\n{HELP}", other.unexpected())),
        }
    }
    match task.as_deref() {
        Some("demo") => demo::run(),
        Some("install") => install::run(&directory).map(|()| true),
        Some("test") => suite::run(&suite::Options { release, vm, clients, record, filters }),
        Some(other) => Err(format!("no task {other:?}\n{HELP}")),
        None => Err(format!("what shall be done?\n{HELP}")),
    }
}
