//! The steps that take back what an ADD has done so far. They run in reverse when the [`Undo`] is dropped, so that
//! every `?` on the way leaves the node as it was, and do not run once the ADD has kept them.

use std::fmt;

type Step<'a> = Box<dyn FnOnce() -> Result<(), String> + 'a>;

/// Steps to take back, the last first.
#[derive(Default)]
#[must_use = "dropped at once, it undoes at once"]
pub struct Undo<'a> {
    steps: Vec<(String, Step<'a>)>,
}

impl<'a> Undo<'a> {
    /// Nothing to take back yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step. `what` says what it does (`remove the veth pair`); a failure is written to stderr, since
    /// the error that led here is the one to report.
    pub fn push<E: fmt::Display>(&mut self, what: impl Into<String>, step: impl FnOnce() -> Result<(), E> + 'a) {
        self.steps.push((what.into(), Box::new(|| step().map_err(|error| error.to_string()))));
    }

    /// Adds a step that comes after all others, those that are added later among them.
    pub fn push_last<E: fmt::Display>(&mut self, what: impl Into<String>, step: impl FnOnce() -> Result<(), E> + 'a) {
        self.push(what, step);
        self.steps.rotate_right(1);
    }

    /// All went well: what was done stays.
    pub fn keep(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        let _step = libcni::log::step("undo");
        while let Some((what, step)) = self.steps.pop() {
            let _step = libcni::log::step(&what);
            if let Err(error) = step() {
                libcni::log::warn(format_args!("undo: {what}: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    fn steps(log: &Rc<RefCell<Vec<u32>>>) -> Undo<'static> {
        let mut undo = Undo::new();
        for step in 1..=3 {
            let log = log.clone();
            undo.push("note the step", move || {
                log.borrow_mut().push(step);
                if step == 2 { Err("refused") } else { Ok(()) }
            });
        }
        undo
    }

    #[test]
    fn reverse_order_and_past_failures() {
        let log = Rc::default();
        drop(steps(&log));
        assert_eq!(*log.borrow(), [3, 2, 1]);
    }

    #[test]
    fn the_last_of_all() {
        let log = Rc::default();
        let mut undo = steps(&log);
        let last = Rc::clone(&log);
        undo.push_last("note the last", move || {
            last.borrow_mut().push(0);
            Ok::<_, &str>(())
        });
        drop(undo);
        assert_eq!(*log.borrow(), [3, 2, 1, 0]);
    }

    #[test]
    fn kept() {
        let log = Rc::default();
        steps(&log).keep();
        assert!(log.borrow().is_empty());
    }
}
