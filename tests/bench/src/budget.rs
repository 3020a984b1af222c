//! The budget: the instructions, system calls and processes of an ADD, against a file of what they were. A guard
//! against growth that no machine's load can disturb.
//!
//! valgrind's callgrind counts the instructions: the programs are static, so no library of the machine's is among them,
//! and musl chooses no code by the machine's abilities. Processors' own counters would be quicker, but virtual machines,
//! in which CI runs, seldom have them. The system calls stand beside them because most of an ADD's time is the
//! kernel's; they do not depend on the compiler.
//!
//! What differs from machine to machine is the compiler (its version stands in the file) and the length of the kernel's
//! answers. From run to run the instructions move by 2 % and the system calls by 5 %, with ids and with what had to be
//! waited for, so the smallest of five is taken. Processes must not become more at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::process;
use crate::rounds::neighbours;
use crate::scenario::{Backend, FULL_STORE, Scenario, bridge, crowded};
use crate::seat::{Seat, Verb};
use crate::suite::{Programs, Suite};

/// Where Debian has it.
const VALGRIND: &str = "/usr/bin/valgrind";

/// How much more than in the file is an error, as a factor.
const LIMIT: f64 = 1.1;

/// How often each is counted.
const ATTEMPTS: usize = 5;

/// What one ADD took: a number for each `PLUGIN: instructions`, `PLUGIN: system calls`, and [`PROCESSES`].
type Count = BTreeMap<String, u64>;

/// The processes that the plugins start.
const PROCESSES: &str = "processes";

/// Counts, and compares with the file; or writes it. True: nothing has grown.
///
/// # Errors
/// The file cannot be used, or valgrind is not there.
pub fn run(programs: &Programs, compiler: &str, renew: bool) -> Result<bool, String> {
    let mut counts = BTreeMap::new();
    for scenario in scenarios(programs) {
        counts.insert(scenario.to_string(), count(scenario, programs)?);
    }
    let mut budget = read()?;
    let architecture = std::env::consts::ARCH;
    if renew {
        budget.insert(architecture.to_owned(), json!({"compiler": compiler, "ADD": counts}));
        return write(budget).map(|()| true);
    }
    let missing = || format!("{} has no numbers for {architecture}: add --renew, and commit them", path().display());
    let known = budget.get(architecture).ok_or_else(missing)?;
    let good = compare(&known["ADD"], &counts);
    if !good {
        let then = known["compiler"].as_str().unwrap_or_default();
        println!("counted then with {then}, now with {compiler}");
        println!("if it is meant, or the compiler's doing: cargo xtask budget --renew");
    }
    Ok(good)
}

fn scenarios(programs: &Programs) -> Vec<Scenario> {
    let all = [
        bridge(None, false),
        bridge(Some(Backend::Iptables), false),
        bridge(Some(Backend::Nftables), false),
        bridge(Some(Backend::Nftables), true),
        crowded(Backend::Nftables),
        Scenario::Portmap(Backend::Iptables),
        Scenario::Portmap(Backend::Nftables),
        FULL_STORE,
    ];
    all.into_iter().filter(|row| row.is_known_to(programs, Suite::Ours)).collect()
}

fn count(scenario: Scenario, programs: &Programs) -> Result<Count, String> {
    let others = neighbours(scenario, Suite::Ours, programs);
    let host = Arc::clone(others[0].host());
    let mut seat = Seat::new(&host, scenario, Suite::Ours, programs, 1);
    let mut least = Count::new();
    for _ in 0..ATTEMPTS {
        for attempt in [instructions, system_calls] {
            let counted = host.enter(|| attempt(&mut seat, programs));
            let counted = counted.ok_or_else(|| format!("{scenario}: the ADD failed while it was counted"))?;
            for (what, number) in counted {
                least.entry(what).and_modify(|fewest| *fewest = number.min(*fewest)).or_insert(number);
            }
            seat.run(Verb::Del);
        }
    }
    let (_, processes) = host.enter(|| seat.watch(Verb::Add)).ok_or_else(|| format!("{scenario}: the ADD failed"))?;
    least.insert(PROCESSES.to_owned(), processes);
    Ok(least)
}

/// Runs ADD in callgrind, from a thread that is on the host already. Other people's programs are not counted.
fn instructions(seat: &mut Seat, _: &Programs) -> Option<Count> {
    let profiles = directory()?;
    let out = format!("--callgrind-out-file={}", profiles.path().join("out.%p").display());
    let skip = "--trace-children-skip=/usr/*,/bin/*,/sbin/*";
    if !add_under(seat, Path::new(VALGRIND), &["--tool=callgrind", "-q", "--trace-children=yes", skip, &out]) {
        return None;
    }
    let mut counts = Count::new();
    for profile in fs::read_dir(profiles.path()).ok()?.flatten() {
        let text = fs::read_to_string(profile.path()).ok()?;
        let after = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let program = Path::new(after("cmd:")?.split(' ').next()?).file_name()?.to_str()?;
        *counts.entry(format!("{program}: instructions")).or_default() += after("totals:")?.parse::<u64>().ok()?;
    }
    Some(counts)
}

/// Runs ADD under the bench's own `calls`, in the same way.
fn system_calls(seat: &mut Seat, programs: &Programs) -> Option<Count> {
    let lists = directory()?;
    let list = lists.path().join("calls").display().to_string();
    if !add_under(seat, &programs.own.join("calls"), &[&list]) {
        return None;
    }
    let mut counts = Count::new();
    for line in fs::read_to_string(list).ok()?.lines() {
        let (path, number) = line.rsplit_once(' ')?;
        let Ok(program) = Path::new(path).strip_prefix(&programs.ours) else { continue };
        *counts.entry(format!("{}: system calls", program.display())).or_default() += number.parse::<u64>().ok()?;
    }
    Some(counts)
}

/// Runs ADD with a tool before each plugin. True: it went well.
fn add_under(seat: &mut Seat, tool: &Path, options: &[&str]) -> bool {
    let mut good = true;
    seat.each(Verb::Add, |program, _, environment, input| {
        let program = program.display().to_string();
        let arguments: Vec<String> = options.iter().copied().chain([program.as_str()]).map(str::to_owned).collect();
        let outcome = process::run(tool, &arguments, environment, input);
        good &= outcome.good;
        outcome
    });
    good
}

fn directory() -> Option<TempDir> {
    tempfile::Builder::new().prefix("podwire-bench-").tempdir().ok()
}

fn compare(known: &Value, counts: &BTreeMap<String, Count>) -> bool {
    let mut good = true;
    println!("{:<42}{:<28}{:>12}{:>12}", "ADD", "", "then", "now");
    for (row, count) in counts {
        for (what, now) in count {
            let Some(then) = known[row][what].as_u64() else {
                println!("{row:<42}{what:<28}{:>12}{now:>12}  not guarded yet: --renew", "-");
                continue;
            };
            let limit = if what == PROCESSES { 1.0 } else { LIMIT };
            let grown = *now as f64 > then as f64 * limit;
            good &= !grown;
            let change = if then > 0 { 100.0 * (*now as f64 / then as f64 - 1.0) } else { 0.0 };
            let verdict = if grown { "  GROWN" } else { "" };
            println!("{row:<42}{what:<28}{then:>12}{now:>12}{change:>+8.1} %{verdict}");
        }
    }
    good
}

fn path() -> PathBuf {
    tests::bins::root().join("tests/bench/budget.json")
}

fn read() -> Result<Map<String, Value>, String> {
    let path = path();
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(format!("read {}: {error}", path.display())),
    }
}

fn write(budget: Map<String, Value>) -> Result<(), String> {
    let text = format!("{:#}\n", Value::Object(budget));
    print!("{text}");
    fs::write(path(), text).map_err(|error| format!("write {}: {error}", path().display()))
}
