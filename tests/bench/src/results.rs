//! The numbers: samples by section, row and suite, and what is made of them.

use crate::scenario::Scenario;
use crate::suite::{Programs, Suite};

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// One ADD at a time.
    Add,
    /// One CHECK at a time.
    Check,
    /// One DEL at a time.
    Del,
    /// Many ADDs at once: until the last one has ended.
    BurstWall,
    /// Many ADDs at once: each one.
    BurstEach,
    /// Peak memory of the largest process of an ADD.
    Memory,
    /// Processes and threads that an ADD starts.
    Tasks,
    /// Sizes of files.
    Size,
}

impl Section {
    /// In the order of the table.
    pub const ALL: [Self; 8] =
        [Self::Add, Self::Check, Self::Del, Self::BurstWall, Self::BurstEach, Self::Memory, Self::Tasks, Self::Size];

    /// Its heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Add => "ADD, one at a time (ms)",
            Self::Check => "CHECK, one at a time (ms)",
            Self::Del => "DEL, one at a time (ms)",
            Self::BurstWall => "ADD of 60 pods, 16 at once: all (ms)",
            Self::BurstEach => "ADD of 60 pods, 16 at once: each (ms)",
            Self::Memory => "Peak memory of a process of an ADD (KiB)",
            Self::Tasks => "Processes and threads that an ADD starts",
            Self::Size => "Binaries (KiB)",
        }
    }

    /// Which percentile stands beside the median, and its name.
    pub const fn high(self) -> Option<(f64, &'static str)> {
        match self {
            Self::Add | Self::Check | Self::Del => Some((0.95, "p95")),
            Self::BurstEach => Some((0.99, "p99")),
            Self::BurstWall => Some((1.0, "max")),
            Self::Memory | Self::Tasks | Self::Size => None,
        }
    }

    /// Whether a difference is a speed.
    pub const fn is_time(self) -> bool {
        self.high().is_some()
    }
}

/// The samples of one row and suite.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    samples: Vec<f64>,
    /// How many calls failed, among the samples.
    pub failures: usize,
    /// What the first one that failed said.
    pub complaint: Option<String>,
    /// The smallest number of different addresses that a burst gave out.
    pub addresses: Option<usize>,
}

impl Cell {
    /// One more.
    pub fn push(&mut self, sample: f64) {
        let place = self.samples.partition_point(|other| *other < sample);
        self.samples.insert(place, sample);
    }

    /// One more that may have failed.
    pub fn push_answer(&mut self, milliseconds: f64, complaint: Option<String>) {
        self.push(milliseconds);
        self.failures += usize::from(complaint.is_some());
        self.complaint = self.complaint.take().or(complaint);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.samples.len()
    }

    /// Half are not larger.
    pub fn median(&self) -> Option<f64> {
        self.percentile(0.5)
    }

    /// The smallest sample that this part of the samples (0 to 1) does not exceed; `None` where there is none.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is a small positive number")]
    pub fn percentile(&self, part: f64) -> Option<f64> {
        let rank = (part * self.samples.len() as f64).ceil().max(1.0) as usize;
        self.samples.get(rank - 1).copied()
    }
}

/// A row of a section.
#[derive(Clone, Debug)]
pub struct Line {
    /// The part of the table.
    pub section: Section,
    /// What was measured.
    pub row: String,
    /// Floor, ours, the reference.
    pub cells: [Cell; 3],
}

impl Line {
    /// The cell of a suite.
    pub fn cell(&self, suite: Suite) -> &Cell {
        &self.cells[suite as usize]
    }

    /// How many times as large the median of one suite is as that of another.
    pub fn ratio(&self, of: Suite, to: Suite) -> Option<f64> {
        Some(self.cell(of).median()? / self.cell(to).median()?)
    }
}

/// All numbers of a run.
#[derive(Clone, Debug)]
pub struct Results {
    /// What was run.
    pub programs: Programs,
    /// How many repetitions there were.
    pub repetitions: usize,
    /// The rows, in the order in which they came.
    pub lines: Vec<Line>,
}

impl Results {
    /// None yet.
    pub fn new(programs: &Programs) -> Self {
        Self { programs: programs.clone(), repetitions: 0, lines: Vec::new() }
    }

    /// The cell, made if it is not there.
    pub fn cell(&mut self, section: Section, row: &str, suite: Suite) -> &mut Cell {
        let known = self.lines.iter().position(|line| line.section == section && line.row == row);
        let place = known.unwrap_or_else(|| {
            self.lines.push(Line { section, row: row.to_owned(), cells: Default::default() });
            self.lines.len() - 1
        });
        &mut self.lines[place].cells[suite as usize]
    }

    /// The rows of a section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.section == section)
    }

    /// The row of a scenario, if it was measured.
    pub fn line(&self, section: Section, scenario: Scenario) -> Option<&Line> {
        let row = scenario.to_string();
        self.section(section).find(|line| line.row == row)
    }

    /// A median, if it was measured.
    pub fn median(&self, section: Section, scenario: Scenario, suite: Suite) -> Option<f64> {
        self.line(section, scenario)?.cell(suite).median()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest-rank definition: <https://en.wikipedia.org/wiki/Percentile>, its examples.
    #[test]
    fn percentiles() {
        let mut cell = Cell::default();
        assert_eq!(cell.median(), None);
        for sample in [50.0, 20.0, 15.0, 40.0, 35.0] {
            cell.push(sample);
        }
        let percentiles = [0.05, 0.3, 0.4, 0.5, 1.0].map(|part| cell.percentile(part).unwrap());
        assert_eq!(percentiles, [15.0, 20.0, 20.0, 35.0, 50.0]);
    }
}
