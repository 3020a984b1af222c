//! One process, from its start to its end.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::namespace::PATH;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From before the spawn until the process was waited for.
    pub time: Duration,
    /// Exit status 0.
    pub good: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

/// Runs a program in the calling thread's namespaces. Its input is in the pipe before it starts, and its output (which
/// must fit into one) is read after its end, so that the bench does no work meanwhile.
pub fn run(program: &Path, arguments: &[String], environment: &[(&str, &str)], input: &str) -> Outcome {
    let failed = |error: io::Error| -> Outcome { panic!("run {}: {error}", program.display()) };
    try_run(program, arguments, environment, input).unwrap_or_else(failed)
}

fn try_run(program: &Path, arguments: &[String], environment: &[(&str, &str)], input: &str) -> io::Result<Outcome> {
    let (stdin, mut configuration) = io::pipe()?;
    configuration.write_all(input.as_bytes())?;
    drop(configuration);
    let (mut output, stdout) = io::pipe()?;
    let (mut complaint, stderr) = io::pipe()?;
    // No posix_spawn where PATH is searched: the program is named by its path.
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).envs(environment.iter().copied());
    command.stdin(stdin).stdout(stdout).stderr(stderr);

    let start = Instant::now();
    let status = command.spawn()?.wait()?;
    let time = start.elapsed();

    drop(command);
    let mut texts = [String::new(), String::new()];
    output.read_to_string(&mut texts[0])?;
    complaint.read_to_string(&mut texts[1])?;
    let [stdout, stderr] = texts;
    Ok(Outcome { time, good: status.success(), stdout, stderr })
}
