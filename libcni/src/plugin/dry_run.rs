//! What DEL or GC would remove, without removing it: the verb runs to its end, and at each place where it would change
//! something it notes what, and goes on as if it had been done. So what is said and what is done cannot part: they are
//! one code.
//!
//! It is asked for by a `CNI_COMMAND` of its own ([`PREFIX`] before the verb), and not by a key or another variable: a
//! plugin that does not know of it refuses an unknown command, where it would pass over a key and do the real thing. Most
//! do; a script may take whatever is neither ADD nor CHECK for DEL. So only who announces it in the answer to VERSION
//! ([`ANNOUNCEMENT`]) is asked, and only a plugin that keeps to it announces it ([`Plugin::DRY_RUN`](super::Plugin::DRY_RUN)).
//! A plugin that delegates asks its delegate in the same way.
//!
//! The mode is the process's, and never ends: a plugin lives for one verb.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::types::{Code, Error, Version, json};

/// Before `DEL` and `GC` in `CNI_COMMAND`. No other verb has a dry run: the others change nothing, or are ADD.
pub const PREFIX: &str = "PODWIRE_DRY_RUN_";

/// The key, with the value true, in the answer to VERSION of a plugin that has dry runs. Others who read that answer pass
/// over keys that they do not know.
pub const ANNOUNCEMENT: &str = "podwireDryRun";

/// What a dry run found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plan {
    /// What would be changed, each in words: `remove rule 7 of ip nat POSTROUTING`.
    pub changes: BTreeSet<String>,
    /// Plugins that have no dry run, and why: what they would remove is not known.
    pub silent: BTreeSet<String>,
}

impl Plan {
    /// Takes over what another one says.
    pub fn merge(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.silent.extend(other.silent);
    }

    /// Notes a plugin that was not asked.
    pub(crate) fn add_unasked(&mut self, plugin_type: &str) {
        self.silent.insert(format!("{plugin_type}: it does not announce a dry run, and was not asked"));
    }

    /// Takes over what a plugin answered. One that refuses the command, or says nothing, has no dry run.
    ///
    /// # Errors
    /// The plugin's own, beside that.
    pub fn merge_answer(&mut self, plugin_type: &str, answer: Result<Vec<u8>, Error>) -> Result<(), Error> {
        let why = match answer {
            Ok(stdout) => match json::from_slice::<Answer>(&stdout) {
                Ok(Answer { dry_run: Some(plan) }) => {
                    self.merge(plan);
                    return Ok(());
                }
                _ => "it answers nothing".to_owned(),
            },
            // A program that is not there has code 4 in nobody's answer.
            Err(error) if error.code() == Code::INVALID_ENVIRONMENT && error.msg().contains("CNI_COMMAND") => {
                error.msg().to_owned()
            }
            Err(error) => return Err(error),
        };
        self.silent.insert(format!("{plugin_type}: {why}"));
        Ok(())
    }
}

/// What is printed.
#[derive(Serialize, Deserialize)]
struct Answer {
    #[serde(rename = "dryRun")]
    dry_run: Option<Plan>,
}

static PLAN: OnceLock<Mutex<Plan>> = OnceLock::new();

/// From here on this process changes nothing.
pub(super) fn begin() {
    PLAN.get_or_init(Mutex::default);
}

/// Whether this is a dry run.
pub fn is_on() -> bool {
    PLAN.get().is_some()
}

/// Notes a change, if this is a dry run; then it must not be made.
pub fn notes(change: impl FnOnce() -> String) -> bool {
    let Some(plan) = PLAN.get() else { return false };
    plan.lock().unwrap_or_else(PoisonError::into_inner).changes.insert(change());
    true
}

/// Notes what a delegate answered.
pub(crate) fn note_answer(plugin_type: &str, answer: Result<Vec<u8>, Error>) -> Result<(), Error> {
    let Some(plan) = PLAN.get() else { return answer.map(drop) };
    plan.lock().unwrap_or_else(PoisonError::into_inner).merge_answer(plugin_type, answer)
}

/// Notes a delegate that was not asked.
pub(crate) fn note_unasked(plugin_type: &str) {
    if let Some(plan) = PLAN.get() {
        plan.lock().unwrap_or_else(PoisonError::into_inner).add_unasked(plugin_type);
    }
}

/// The answer of a plugin whose verb is done.
pub(super) fn answer() -> Vec<u8> {
    let plan = PLAN.get().map(|plan| plan.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default();
    serde_json::json!({ "cniVersion": Version::CURRENT, "dryRun": plan }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_those_who_know_and_of_those_who_do_not() {
        let mut plan = Plan::default();
        let known = br#"{"cniVersion":"1.1.0","dryRun":{"changes":["b","a"],"silent":["x: y"]}}"#;
        plan.merge_answer("ours", Ok(known.to_vec())).unwrap();
        plan.merge_answer("mute", Ok(Vec::new())).unwrap();
        let unknown = Error::new(Code::INVALID_ENVIRONMENT, "unknown CNI_COMMAND: PODWIRE_DRY_RUN_GC");
        plan.merge_answer("reference", Err(unknown)).unwrap();
        let failed = plan.merge_answer("ours", Err(Error::new(Code::INTERNAL, "no netlink"))).unwrap_err();
        assert_eq!(failed.msg(), "no netlink");
        assert_eq!(plan.changes.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b"]);
        let silent: Vec<&str> = plan.silent.iter().map(String::as_str).collect();
        let reference = "reference: unknown CNI_COMMAND: PODWIRE_DRY_RUN_GC";
        assert_eq!(silent, ["mute: it answers nothing", reference, "x: y"]);
    }

    /// A process that is in no dry run changes what it was told to.
    #[test]
    fn nothing_is_noted_otherwise() {
        assert!(!is_on() && !notes(|| unreachable!()));
        assert_eq!(note_answer("x", Err(Error::internal("e"))).unwrap_err().msg(), "e");
    }
}
