//! `cargo xtask`: what is done with this repository, by one command each.
#![expect(clippy::print_stdout, reason = "a program for people; no CNI result goes through here")]

use std::path::PathBuf;
use std::process::ExitCode;

use ::bench::Outputs;
use lexopt::prelude::*;
use tests::bins;

mod bench;
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
cargo xtask bench [--against DIR] [--json FILE] [--svg FILE] [--repeat N] [ROW...]
                                         how long a pod takes: the kernel's floor, ours, the reference (as root)
cargo xtask budget [--renew]             instructions, system calls and processes of an ADD, against what they were
                                         (tests/bench/budget.json); fails where they have grown (as root)

  --against    the reference's directory (/usr/lib/cni), or `newest` for what Debian sid has
  --json       write all numbers to a file
  --svg        draw the table
  --repeat     so many repetitions, in place of as many as fit into three minutes
  --renew      write that file
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
    let (mut release, mut vm, mut clients, mut record, mut renew) = (false, false, false, false, false);
    let (mut against, mut repeat) = (PathBuf::from(bins::DEBIAN), None);
    let mut outputs = Outputs::default();
    while let Some(argument) = arguments.next().map_err(|e| e.to_string())? {
        match argument {
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(true);
            }
            Long("dir") => directory = path(&mut arguments)?,
            Long("against") => against = path(&mut arguments)?,
            Long("json") => outputs.json = Some(path(&mut arguments)?),
            Long("svg") => outputs.svg = Some(path(&mut arguments)?),
            Long("repeat") => repeat = Some(arguments.value().and_then(|n| n.parse()).map_err(|e| e.to_string())?),
            Long("release") => release = true,
            Long("renew") => renew = true,
            Long("vm") => vm = true,
            Long("clients") => clients = true,
            Long("record") => record = true,
            Value(word) if task.is_none() => task = Some(word.to_string_lossy().into_owned()),
            Value(word) => filters.push(word.to_string_lossy().into_owned()),
            other => return Err(format!("{}\n{HELP}", other.unexpected())),
        }
    }
    match task.as_deref() {
        Some("bench") => bench::run(bench::Asked { against, repeat, filters, outputs }).map(|()| true),
        Some("budget") => bench::budget(renew),
        Some("demo") => demo::run(),
        Some("install") => install::run(&directory).map(|()| true),
        Some("test") => suite::run(&suite::Options { release, vm, clients, record, filters }),
        Some(other) => Err(format!("no task {other:?}\n{HELP}")),
        None => Err(format!("what shall be done?\n{HELP}")),
    }
}

fn path(arguments: &mut lexopt::Parser) -> Result<PathBuf, String> {
    arguments.value().map(PathBuf::from).map_err(|error| error.to_string())
}
