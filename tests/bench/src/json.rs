//! All numbers, for programs.

use std::fs;
use std::thread;

use serde_json::{Value, json};

use crate::goals;
use crate::results::{Line, Results};
use crate::suite::Suite;

/// One document: times in milliseconds, memory and sizes in KiB.
pub fn render(results: &Results) -> String {
    let read = |path: &str| fs::read_to_string(path).map_or(String::new(), |text| text.trim().to_owned());
    let lines: Vec<Value> = results.lines.iter().map(line).collect();
    let goals = goals::all(results).into_iter().map(|goal| {
        let met = goal.measured.is_some().then_some(goal.met);
        json!({"what": goal.what, "wanted": goal.wanted, "measured": goal.measured, "met": met})
    });
    let document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "reference": results.programs.reference.display().to_string(),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": thread::available_parallelism().map_or(0, usize::from),
        "load": read("/proc/loadavg"),
        "repetitions": results.repetitions,
        "lines": lines,
        "goals": goals.collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn line(line: &Line) -> Value {
    let mut object = json!({"section": line.section.title(), "row": line.row});
    for suite in Suite::ALL {
        let cell = line.cell(suite);
        if cell.count() > 0 {
            let mut numbers = json!({"median": cell.median(), "min": cell.percentile(0.0), "samples": cell.count(), "failures": cell.failures});
            if let Some((part, name)) = line.section.high() {
                numbers[name] = json!(cell.percentile(part));
            }
            if let Some(addresses) = cell.addresses {
                numbers["addresses"] = json!(addresses);
            }
            object[suite.name()] = numbers;
        }
    }
    object
}
