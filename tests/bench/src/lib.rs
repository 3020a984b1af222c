//! The bench: what a pod's network costs, measured as a container runtime would see it, from the start of a process
//! to its end. Three suites side by side in one run: the floor (`bin/floor.rs`: what the kernel alone charges), ours,
//! and the reference's.
//!
//! Only the ratios within one run are worth anything: machines differ, and so do the hours of one machine. So every
//! repetition runs everything once, one after the other, and what disturbs one suite disturbs the others.
//!
//! All of it happens in hosts and pods of the lab (the package `tests`), so nothing is seen outside of them.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "as in the lab: what goes wrong here is told to a person, who is also who reads the table"
)]

pub mod budget;
pub mod burst;
pub mod goals;
pub mod json;
pub mod process;
pub mod results;
pub mod rounds;
pub mod scenario;
pub mod seat;
pub mod size;
pub mod suite;
pub mod svg;
pub mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::results::Results;
use crate::scenario::Scenario;
use crate::suite::Programs;

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the programs are.
    pub programs: Programs,
    /// How long all of it may take, unless the machine is so busy that the fewest repetitions take longer.
    pub time: Duration,
    /// How many repetitions there are at most.
    pub repeat: usize,
    /// Parts of the names of rows; none means all.
    pub filters: Vec<String>,
}

/// Where the numbers go beside the table.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// All numbers.
    pub json: Option<PathBuf>,
    /// A picture of the table.
    pub svg: Option<PathBuf>,
}

/// Measures, and prints the table and the goals.
///
/// # Errors
/// A file that cannot be written. What fails in the lab panics.
pub fn run(asked: &Options, outputs: &Outputs) -> Result<(), String> {
    let anew = |error: std::io::Error| format!("write the programs anew: {error}");
    let directory = tempfile::tempdir().map_err(anew)?;
    let options = &Options { programs: asked.programs.written_anew(directory.path()).map_err(anew)?, ..asked.clone() };
    let chosen = |scenario: &Scenario| {
        let name = scenario.to_string();
        options.filters.is_empty() || options.filters.iter().any(|filter| name.contains(filter))
    };
    let scenarios: Vec<Scenario> = scenario::all(&options.programs).into_iter().filter(chosen).collect();
    let mut results = Results::new(&asked.programs);
    let (crowded, alone): (Vec<Scenario>, Vec<Scenario>) = scenarios.iter().partition(|row| row.is_crowded());
    let start = Instant::now();
    let deadline = |percent: u32| start.checked_add(options.time.saturating_mul(percent) / 100);
    rounds::run(options, &alone, deadline(55), &mut results);
    burst::run(options, &alone, deadline(70), &mut results);
    for (place, row) in (1..).zip(&crowded) {
        rounds::run(options, &[*row], deadline(70 + 15 * place), &mut results);
    }
    size::add(&options.programs, &mut results);

    println!("{}", table::render(&results));
    println!("{}", table::goals(&results));
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text).map_err(|error| format!("write {}: {error}", path.display()))
    };
    outputs.json.as_ref().map_or(Ok(()), |path| write(path, json::render(&results)))?;
    outputs.svg.as_ref().map_or(Ok(()), |path| write(path, svg::render(&results)))
}
