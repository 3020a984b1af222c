//! The sizes of the binaries, and whether they are static.

use std::fs;
use std::path::Path;

use crate::results::{Results, Section};
use crate::suite::{Programs, Suite};

/// Adds a row for each plugin that both suites have, and one for their sum.
pub fn add(programs: &Programs, results: &mut Results) {
    let mut names: Vec<String> = fs::read_dir(&programs.ours)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| programs.reference.join(name).is_file())
        .collect();
    names.sort();
    let sum = format!("these {} together", names.len());
    for (suite, directory) in [(Suite::Ours, &programs.ours), (Suite::Reference, &programs.reference)] {
        let sizes: Vec<(&String, f64)> = names.iter().map(|name| (name, kib(&directory.join(name)))).collect();
        let total = sizes.iter().map(|(_, size)| size).sum();
        for (name, size) in sizes {
            results.cell(Section::Size, name, suite).push(size);
        }
        results.cell(Section::Size, &sum, suite).push(total);
    }
}

fn kib(path: &Path) -> f64 {
    fs::metadata(path).map_or(0, |file| file.len().div_ceil(1024)) as f64
}

/// Whether no program header of this ELF file (64 bits) names an interpreter.
pub fn is_static(path: &Path) -> bool {
    let file = fs::read(path).unwrap_or_default();
    let number = |at: usize, length: usize| {
        let bytes = file.get(at..at.saturating_add(length)).unwrap_or_default();
        bytes.iter().rev().fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte))
    };
    // e_phoff, e_phentsize, e_phnum; p_type PT_INTERP.
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    file.starts_with(b"\x7fELF") && (0..count).all(|place| number(headers + place * size, 4) != 3)
}
