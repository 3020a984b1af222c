//! One line for each call of a plugin: who was connected to what, how long each step took, and what came of it.
//!
//! Off unless the environment (`PODWIRE_LOG`) or the configuration (the key `log`) names a target, and then free: no
//! clock is read, nothing is allocated, no system call is made. The configuration wins, as it is nearer to the network:
//! a node can log all calls and leave one network out (`"log": "off"`); of files it makes those below /var/log alone. A delegate inherits both, so an IPAM plugin
//! writes a line of its own; its `ppid` is the `pid` of who asked it.
//!
//! A log never fails a call: what is wrong with it goes to stderr, and the pod starts.
//!
//! Steps are timed where the work is done, in the modules of kernel objects, so that a plugin's story stays as it is:
//!
//! ```
//! # fn make() {}
//! fn create_veth() {
//!     let _step = libcni::log::step("veth");
//!     make();
//! }
//! ```

mod journal;
mod line;
mod target;
#[cfg(test)]
mod tests;
mod time;

use std::cell::Cell;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::types::{Error, Success, json};
use line::Line;
use target::{NamedBy, Target};

/// Names the target in the environment.
const VARIABLE: &str = "PODWIRE_LOG";
/// Names it in the configuration.
const KEY: &str = "log";
/// More remarks than these say nothing new.
const NOTES_MAX: usize = 20;

thread_local! {
    /// Whether there is a [`CALL`]. Of its own because it needs no destructor, and so costs one load.
    static ON: Cell<bool> = const { Cell::new(false) };
    /// The call that is being logged. A plugin's work is done by one thread, and tests run calls beside each other.
    static CALL: Cell<Option<Box<Call>>> = const { Cell::new(None) };
}

/// What is known of a call while it lasts.
struct Call {
    target: Target,
    began: SystemTime,
    clock: Instant,
    network: Option<String>,
    ips: Vec<String>,
    /// What took how long, in the order of the beginnings.
    steps: Vec<(String, Duration)>,
    /// Those that have not ended, by their place in `steps`; each is part of the one before it.
    open: Vec<usize>,
    notes: Vec<String>,
}

impl Call {
    fn new(target: Target) -> Self {
        Self {
            target,
            began: SystemTime::now(),
            clock: Instant::now(),
            network: None,
            ips: Vec::new(),
            steps: Vec::new(),
            open: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The place of a step within the one that is open. Steps of one name are one, with their times added.
    fn begin(&mut self, name: &str) -> usize {
        let outer = self.open.last().and_then(|place| self.steps.get(*place));
        let name = outer.map_or_else(|| name.to_owned(), |(outer, _)| format!("{outer}/{name}"));
        let place = self.steps.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.steps.push((name, Duration::ZERO));
            self.steps.len() - 1
        });
        self.open.push(place);
        place
    }

    fn end(&mut self, place: usize, took: Duration) {
        if let Some((_, sum)) = self.steps.get_mut(place) {
            *sum += took;
        }
        if let Some(last) = self.open.iter().rposition(|open| *open == place) {
            self.open.remove(last);
        }
    }
}

fn with(act: impl FnOnce(&mut Call)) {
    if !ON.get() {
        return;
    }
    if let Some(mut call) = CALL.take() {
        act(&mut call);
        CALL.set(Some(call));
    }
}

fn start(target: Target) {
    CALL.set(Some(Box::new(Call::new(target))));
    ON.set(true);
}

/// The log is the last to be read and the first to be broken: whoever looks for its lines looks here.
fn complain(why: &str) {
    say(format_args!("log: {why}"));
}

/// A line on stderr, in one write. That nobody reads it (`eprintln!` panics then) is no reason to fail.
fn say(text: fmt::Arguments<'_>) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Says on stderr, where the runtime's log has it, and in the line what did not fail the call and an operator should
/// know. It never fails: not every runtime reads what plugins say.
pub fn warn(text: fmt::Arguments<'_>) {
    say(text);
    note(|| text.to_string());
}

/// Starts the clock, if the environment names a target.
pub(super) fn open(var: &dyn Fn(&str) -> Option<OsString>) {
    let Some(text) = var(VARIABLE) else { return };
    match Target::of(&text, NamedBy::Environment) {
        Ok(Some(target)) => start(target),
        Ok(None) => {}
        Err(why) => complain(&format!("{VARIABLE}: {why}")),
    }
}

/// Takes the target that the configuration names, and the network's name. Where the environment names no target, the
/// clock starts here: the microseconds until then were spent on reading the configuration.
pub(super) fn configured(conf: &Value) {
    let Some(object) = conf.as_object() else { return };
    match json::get(object, KEY) {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => match Target::of(text.as_ref(), NamedBy::Configuration) {
            Ok(Some(target)) if ON.get() => with(|call| call.target = target),
            Ok(Some(target)) => start(target),
            Ok(None) => ON.set(false),
            Err(why) => complain(&format!("key {KEY:?}: {why}")),
        },
        Some(other) => complain(&format!("key {KEY:?}: expected a string, found {other}")),
    }
    with(|call| call.network = json::get(object, "name").and_then(Value::as_str).map(str::to_owned));
}

/// Notes what an ADD gave.
pub(super) fn result(success: &Success) {
    with(|call| call.ips = success.ips.iter().map(|ip| ip.address.to_string()).collect());
}

/// Writes the line. `about` is the plugin's [`ABOUT`](super::Plugin::ABOUT).
pub(super) fn close(about: &str, var: &dyn Fn(&str) -> Option<OsString>, error: Option<&Error>) {
    if !ON.replace(false) {
        return;
    }
    let Some(call) = CALL.take() else { return };
    if let Err(why) = call.target.write(&Line::new(&call, about, var, error)) {
        complain(&why);
    }
}

/// From here until the guard is dropped is one step of the call. A step that begins within another is a part of it, and
/// its name begins with the other's: `masquerade/iptables-restore`. `name` is a noun, out of a small choice: the name of
/// a container is none.
pub fn step(name: &str) -> Step {
    let mut place = None;
    with(|call| place = Some((call.begin(name), Instant::now())));
    Step(place)
}

/// A step that has begun; see [`step`].
#[derive(Debug)]
#[must_use = "dropped at once, it ends at once"]
pub struct Step(Option<(usize, Instant)>);

impl Drop for Step {
    fn drop(&mut self) {
        if let Some((place, began)) = self.0 {
            with(|call| call.end(place, began.elapsed()));
        }
    }
}

/// Adds a remark to the line: something that did not fail the call and that an operator should know. It is not written
/// anywhere else.
pub fn note(text: impl FnOnce() -> String) {
    with(|call| {
        if call.notes.len() < NOTES_MAX {
            call.notes.push(text());
        }
    });
}
