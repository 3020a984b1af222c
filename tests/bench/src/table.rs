//! The table and the goals as text.

use std::fmt::Write;

use crate::goals;
use crate::results::{Cell, Line, Results, Section};
use crate::suite::Suite;

const ROW: usize = 42;
const CELL: usize = 17;

/// The table.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    let _ =
        writeln!(text, "\n{} repetitions, reference: {}", results.repetitions, results.programs.reference.display());
    for section in Section::ALL {
        let lines: Vec<&Line> = results.section(section).collect();
        if lines.is_empty() {
            continue;
        }
        let high = section.high().map(|(_, name)| format!(" {name}")).unwrap_or_default();
        let _ = write!(text, "\n{:<ROW$}", section.title());
        for suite in Suite::ALL {
            let _ = write!(text, "{:>CELL$}", format!("{}{high}", suite.name()));
        }
        let _ = writeln!(text, "{:>12}{:>16}", "ours/floor", "reference/ours");
        for line in lines {
            row(&mut text, line);
        }
    }
    text
}

fn row(text: &mut String, line: &Line) {
    let name: String = line.row.chars().take(ROW - 3).collect();
    let _ = write!(text, "  {name:<0$}", ROW - 2);
    for suite in Suite::ALL {
        let _ = write!(text, "{:>CELL$}", cell(line, suite));
    }
    let _ = write!(text, "{:>12}", ratio(line, Suite::Ours, Suite::Floor));
    let _ = write!(text, "{:>16}", ratio(line, Suite::Reference, Suite::Ours));
    let _ = writeln!(text, "{}", remarks(line));
}

fn cell(line: &Line, suite: Suite) -> String {
    let (median, high) = numbers(line, suite);
    let failed = if line.cell(suite).failures > 0 { "!" } else { "" };
    if high.is_empty() { median } else { format!("{failed}{median} {high:>7}") }
}

/// Median and percentile of a cell as they are printed: `-` where nothing was measured, nothing where there is none.
pub fn numbers(line: &Line, suite: Suite) -> (String, String) {
    let cell = line.cell(suite);
    let Some(median) = cell.median() else { return ("-".to_owned(), String::new()) };
    let high = line.section.high().and_then(|(part, _)| cell.percentile(part));
    let print = |number: f64| match number {
        _ if !line.section.is_time() => format!("{number:.0}"),
        ..10.0 => format!("{number:.2}"),
        ..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    };
    (print(median), high.map(print).unwrap_or_default())
}

/// A ratio of medians; `-` where one is missing.
pub fn ratio(line: &Line, of: Suite, to: Suite) -> String {
    line.ratio(of, to).filter(|ratio| ratio.is_finite()).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// Failures, and addresses given twice.
fn remarks(line: &Line) -> String {
    let mut text = String::new();
    for suite in Suite::ALL {
        let Cell { failures, complaint, addresses, .. } = line.cell(suite);
        if *failures > 0 {
            let words = complaint.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
            let first: String = words.chars().take(160).collect();
            let _ =
                write!(text, "\n    ! {}: {failures} of {} failed: {first}", suite.name(), line.cell(suite).count());
        }
        if let Some(addresses) = addresses.filter(|addresses| *addresses < 60) {
            let _ = write!(text, "\n    ! {}: {addresses} different addresses for 60 pods", suite.name());
        }
    }
    text
}

/// The goals beside what was measured.
pub fn goals(results: &Results) -> String {
    let mut text = format!("{:<56}{:<28}{:<10}measured\n", "Goal", "wanted", "");
    for goal in goals::all(results) {
        let (measured, met) = match &goal.measured {
            Some(measured) => (measured.as_str(), if goal.met { "met" } else { "NOT met" }),
            None => ("-", ""),
        };
        let _ = writeln!(text, "  {:<54}{:<28}{met:<10}{measured}", goal.what, goal.wanted);
    }
    text
}
