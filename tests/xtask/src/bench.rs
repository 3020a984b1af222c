//! `cargo xtask bench`: the floor, ours and the reference side by side; and `budget`, which guards the ADD.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench::suite::Programs;
use bench::{Options, Outputs};
use tests::bins::{self, Workspace};

use crate::{debian, toolchain};

/// What the instructions are counted with, and what the plugins need for it.
const VALGRIND: [&str; 4] = ["valgrind", "iptables", "nftables", "iproute2"];

/// What was asked for.
pub struct Asked {
    /// The reference's directory, or the word `newest`.
    pub against: PathBuf,
    /// How many repetitions at most.
    pub repeat: Option<usize>,
    /// Parts of the names of rows; none means all.
    pub filters: Vec<String>,
    /// Where the numbers go.
    pub outputs: Outputs,
}

/// How long it takes, unless a number of repetitions was asked for.
const TIME: Duration = Duration::from_secs(160);

/// Builds what is measured, and measures it.
pub fn run(asked: Asked) -> Result<(), String> {
    let workspace = prepare(&debian::TOOLS)?;
    let programs = build(&workspace, reference(&asked.against, &workspace)?)?;
    let (time, repeat) = match asked.repeat {
        Some(repeat) => (Duration::MAX, repeat),
        None => (TIME, usize::MAX),
    };
    bench::run(&Options { programs, time, repeat, filters: asked.filters }, &asked.outputs)
}

/// Counts what an ADD takes, against the file or for it; false when it has grown.
pub fn budget(renew: bool) -> Result<bool, String> {
    let workspace = prepare(&VALGRIND)?;
    let programs = build(&workspace, PathBuf::new())?;
    let compiler = Command::new("rustc").arg("--version").output().map_err(|error| format!("run rustc: {error}"))?;
    let compiler = String::from_utf8_lossy(&compiler.stdout).trim().to_owned();
    bench::budget::run(&programs, &compiler, renew)
}

fn prepare(packages: &[&str]) -> Result<Workspace, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the bench needs root to make network namespaces".to_owned());
    }
    debian::install(packages)?;
    Workspace::read()
}

fn build(workspace: &Workspace, reference: PathBuf) -> Result<Programs, String> {
    let triple = toolchain::musl()?;
    println!("building the release binaries ...");
    let ours = bins::build("release", triple.as_deref())?;
    Ok(Programs { ours, reference, own: own(workspace, triple.as_deref())? })
}

fn reference(against: &Path, workspace: &Workspace) -> Result<PathBuf, String> {
    let directory = match against.to_str() {
        Some("newest") => debian::newest_reference(&workspace.target.join("reference"))?,
        _ => against.to_owned(),
    };
    match directory.join("bridge").is_file() {
        true => std::path::absolute(&directory).map_err(|error| format!("{}: {error}", directory.display())),
        false => Err(format!("no plugin bridge in {}", directory.display())),
    }
}

/// The bench's own programs, built as the plugins are.
fn own(workspace: &Workspace, triple: Option<&str>) -> Result<PathBuf, String> {
    let mut command = bins::cargo(&workspace.root);
    command.args(["build", "--quiet", "--release", "--package", "bench", "--bins"]);
    let mut products = workspace.target.clone();
    if let Some(triple) = triple {
        command.args(["--target", triple]);
        products.push(triple);
    }
    let status = command.status().map_err(|error| format!("run cargo build: {error}"))?;
    if status.success() { Ok(products.join("release")) } else { Err(format!("build the bench's programs: {status}")) }
}
