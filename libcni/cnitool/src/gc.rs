//! `cnitool gc` without a namespace: detaches what is certainly gone, and tells the plugins what is not.
//!
//! A runtime's GC knows which containers it has. This one is told by nobody, and finds out ([`crate::ipam`]): what does
//! not certainly belong to a container that is gone is kept. With `--dry-run` the same plugins are asked the same, and
//! say what they would remove ([`libcni::plugin::dry_run`]). Without it they are asked too, before they are told: what
//! is removed is said, and who was asked says it.
//!
//! Whose ADD is at work shows nowhere yet, so nothing is removed while one is ([`lock::GC`]). After each container and each
//! network the lock is let go of, for ADDs to come in between.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libcni::lock::{self, Lock};
use libcni::plugin::dry_run::Plan;
use libcni::runtime::{Attachment, ConfList, Runtime};
use libcni::types::json;
use libcni::{Code, Error};
use serde_json::{Value, json};

use crate::ipam::{self, Key, Known, State, Verdict};
use crate::{conf_dir, print};

/// How long ADDs are waited for, in all. One takes a fraction of a second; where they overlap for so long, a GC is for later.
const PATIENCE: Duration = Duration::from_secs(60);

/// `gc [--dry-run] [NET...]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// None means all.
    pub networks: Vec<String>,
    /// Every remembered attachment, as `gc NET NETNS` does; only as a dry run.
    pub all: bool,
    pub dry_run: bool,
    pub json: bool,
    pub cache_dir: Option<PathBuf>,
}

/// What was, or would be, done about a network.
#[derive(Default)]
struct Outcome {
    network: String,
    is_disabled: bool,
    /// Who is detached, and why.
    detached: Vec<(Key, String)>,
    plan: Plan,
    errors: Vec<String>,
}

/// Does it, or says what it would do. `false`: something failed.
///
/// # Errors
/// Something that could show a container to live cannot be looked at: then nothing is removed. There is no such network.
pub fn run(call: &Call) -> Result<bool, Error> {
    let runtime = ipam::runtime(call.cache_dir.as_ref());
    let known = Known::read(&conf_dir(), &runtime)?;
    if let Some(unknown) = call.networks.iter().find(|name| known.networks.get(name).is_none()) {
        let msg = format!("no network {unknown:?}, neither in {} nor in the cache", conf_dir().display());
        return Err(Error::new(Code::INVALID_CONFIG, msg).with_details(known.networks.broken.join("; ")));
    }
    if !call.all {
        match call.dry_run {
            true => ipam::warn_of_view(&known),
            false => known.check_view()?,
        }
        known.check_seen()?;
    }
    let is_wanted = |name: &str| call.networks.is_empty() || call.networks.iter().any(|wanted| wanted == name);
    let networks = known.networks.all.iter().filter(|network| is_wanted(network.name()));
    let gc = Gc { call, runtime: &runtime, known: &known, patience: Cell::new(PATIENCE) };
    let outcomes: Vec<Outcome> = networks.map(|network| gc.of(&network.list)).collect();
    let text = match call.json {
        true => [json::pretty(&report(&outcomes)), b"\n".to_vec()].concat(),
        false => outcomes.iter().map(|outcome| outcome.text(call.dry_run)).collect::<String>().into_bytes(),
    };
    print(&text)?;
    Ok(outcomes.iter().all(|outcome| outcome.errors.is_empty()))
}

struct Gc<'a> {
    call: &'a Call,
    runtime: &'a Runtime,
    known: &'a Known,
    /// What is left of it.
    patience: Cell<Duration>,
}

impl Gc<'_> {
    fn of(&self, list: &ConfList) -> Outcome {
        let name = list.name().as_str();
        let mut outcome = Outcome { network: name.to_owned(), is_disabled: list.disable_gc(), ..Outcome::default() };
        if outcome.is_disabled {
            return outcome;
        }
        let attachments = self.known.attachments(name);
        let is_doomed = |key: &Key, state: State| match self.call.all {
            true => self.known.entry(key).is_some(),
            false => state == State::Stale,
        };
        let (doomed, kept): (Vec<_>, Vec<_>) =
            attachments.into_iter().partition(|(key, verdict)| is_doomed(key, verdict.state));
        let mut failed = BTreeSet::new();
        for (key, verdict) in doomed {
            let done = match self.call.dry_run {
                true => Ok(self.would_detach(list, &key, verdict, &mut outcome)),
                false => self.without_adds().and_then(|_alone| self.detach(list, &key, &mut outcome)),
            };
            match done {
                Ok(Some(why)) => outcome.detached.push((key, why)),
                Ok(None) => {}
                Err(error) => {
                    outcome.add_error(&error);
                    failed.insert(key);
                }
            }
        }
        if self.call.dry_run && !self.call.all {
            let valid = self.known.valid(name, kept.iter().map(|(key, _)| key));
            let (plan, errors) = match self.known.check_named(name) {
                Ok(()) => self.runtime.gc_dry_run(list, &valid),
                Err(error) => (Plan::default(), vec![error]),
            };
            outcome.plan.merge(plan);
            outcome.errors.extend(errors.iter().map(Error::to_string));
        } else if !self.call.dry_run {
            match self.without_adds() {
                Ok(_alone) => self.tell(list, &failed, &mut outcome),
                Err(error) => outcome.add_error(&error),
            }
        }
        let unreadable = self.known.remembered.unreadable.iter();
        let unreadable = unreadable.filter(|file| !file.candidates(list.name()).is_empty());
        outcome.errors.extend(unreadable.map(|file| {
            format!(
                "the cache entry {} cannot be read, so what it may be of is kept: {}",
                file.file.display(),
                file.why
            )
        }));
        outcome
    }

    /// Waits until no ADD is at work, and keeps others out as long as the lock is held.
    fn without_adds(&self) -> Result<Lock, Error> {
        let began = Instant::now();
        let lock = Lock::alone(Path::new(lock::GC), self.patience.get());
        self.patience.set(self.patience.get().saturating_sub(began.elapsed()));
        lock.map_err(|error| busy(&error))
    }

    /// Tells the plugins what is valid: all that is not certainly gone, and what could not be detached, which may still
    /// use its address. It is looked at anew: a pod that was added meanwhile is.
    fn tell(&self, list: &ConfList, failed: &BTreeSet<Key>, outcome: &mut Outcome) {
        let name = list.name().as_str();
        let now = match self.now().and_then(|now| now.check_named(name).map(|()| now)) {
            Ok(now) => now,
            Err(error) => return outcome.errors.push(error.to_string()),
        };
        let attachments = now.attachments(name);
        let is_kept = |(key, verdict): &(&Key, &Verdict)| verdict.state != State::Stale || failed.contains(key);
        let kept = attachments.iter().filter(is_kept).map(|(key, _)| key);
        let valid = now.valid(name, kept.chain(failed));
        let ask = || self.runtime.gc_dry_run(list, &valid).0;
        let tell = || match self.runtime.gc_plugins(list, Some(&valid)) {
            errors if errors.is_empty() => Ok(()),
            errors => Err(errors),
        };
        let told = outcome.changes_of(ask, tell);
        outcome.errors.extend(told.err().iter().flatten().map(Error::to_string));
    }

    /// What is known at this moment.
    fn now(&self) -> Result<Known, Error> {
        let now = Known::read(&conf_dir(), self.runtime)?;
        now.check_seen()?;
        Ok(now)
    }

    /// Detaches what is certainly gone, and says why it is. It is judged anew: the DELs before took their time, and a
    /// runtime may have attached it again. `None`: then there is nothing to do.
    fn detach(&self, list: &ConfList, key: &Key, outcome: &mut Outcome) -> Result<Option<String>, Error> {
        let named = |error: Error| error.context(format!("failed to detach {} {}", key.container, key.ifname));
        let now = self.now().map_err(named)?;
        let verdict = now.attachments(&key.network).remove(key);
        let Some(verdict) = verdict.filter(|verdict| verdict.state == State::Stale) else { return Ok(None) };
        let Some(attachment) = attachment(&now, key, verdict.state) else { return Ok(None) };
        let done = outcome.changes_of(|| self.plan(list, &attachment).0, || self.runtime.del(list, &attachment));
        done.map_err(named)?;
        Ok(Some(verdict.why))
    }

    /// What [`Gc::detach`] would do.
    fn would_detach(&self, list: &ConfList, key: &Key, verdict: Verdict, outcome: &mut Outcome) -> Option<String> {
        let attachment = attachment(self.known, key, verdict.state)?;
        let (plan, errors) = self.plan(list, &attachment);
        outcome.plan.merge(plan);
        outcome.errors.extend(errors.iter().map(Error::to_string));
        Some(verdict.why)
    }

    /// What a DEL removes.
    fn plan(&self, list: &ConfList, attachment: &Attachment) -> (Plan, Vec<Error>) {
        let (mut plan, errors) = self.runtime.del_dry_run(list, attachment);
        let file = self.runtime.cache_file(list, attachment);
        if file.exists() {
            plan.changes.insert(format!("remove the cache entry {}", file.display()));
        }
        (plan, errors)
    }
}

/// As it was added, if anybody remembers; with its name alone otherwise, if that is whole. What is gone has no namespace:
/// the path that is remembered may lead to a living pod's by now, or to the node's own, and DEL would remove its links.
fn attachment(known: &Known, key: &Key, state: State) -> Option<Attachment> {
    let Some(entry) = known.entry(key) else {
        return Some(Attachment::new(key.container.parse().ok()?, None, key.ifname.parse().ok()?));
    };
    let mut attachment = entry.attachment.clone();
    if state == State::Stale || !ipam::leads_home(entry) {
        attachment.netns = None;
    }
    Some(attachment)
}

/// Why there is no lock.
fn busy(error: &io::Error) -> Error {
    if error.kind() != ErrorKind::WouldBlock {
        return Error::new(Code::IO_FAILURE, format!("failed to lock {}: {error}", lock::GC));
    }
    let msg = format!(
        "ADDs, or another gc, were at work whenever we looked, for {} s in all; a pod whose ADD is at work shows nowhere, \
         so what is left over is kept: try again when fewer pods start",
        PATIENCE.as_secs()
    );
    Error::new(Code::TRY_AGAIN_LATER, msg).with_details(lock::GC)
}

impl Outcome {
    /// Once: of many attachments each may wait for the same.
    fn add_error(&mut self, error: &Error) {
        let text = error.to_string();
        if !self.errors.contains(&text) {
            self.errors.push(text);
        }
    }

    /// Does something, and takes over what it changed: what was planned before, without what is planned still if it failed.
    fn changes_of<E>(&mut self, plan: impl Fn() -> Plan, change: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut planned = plan();
        let done = change();
        if done.is_err() {
            let left = plan().changes;
            planned.changes.retain(|change| !left.contains(change));
        }
        self.plan.merge(planned);
        done
    }

    fn text(&self, dry_run: bool) -> String {
        let Self { network, .. } = self;
        let mut lines = Vec::new();
        if self.is_disabled {
            lines.push("nothing is done: \"disableGC\" is set".to_owned());
        }
        let (detached, removed) = if dry_run { ("would detach", "would remove") } else { ("detached", "removed") };
        lines.extend(
            self.detached.iter().map(|(key, why)| format!("{detached} {} {}: {why}", key.container, key.ifname)),
        );
        lines.extend(self.plan.changes.iter().map(|change| match change.strip_prefix("remove ") {
            Some(what) => format!("{removed} {what}"),
            // A command of iptables, for the most part.
            None => format!("{}: {change}", if dry_run { "would do" } else { "done" }),
        }));
        lines.extend(self.plan.silent.iter().map(|why| format!("what this plugin {removed} is not known: {why}")));
        lines.extend(self.errors.iter().map(|error| format!("error: {error}")));
        if lines.is_empty() {
            lines.push("nothing to remove".to_owned());
        }
        lines.iter().map(|line| format!("{network}: {line}\n")).collect()
    }
}

fn report(outcomes: &[Outcome]) -> Value {
    let network = |one: &Outcome| {
        let detach = one
            .detached
            .iter()
            .map(|(key, why)| json!({ "container": key.container, "interface": key.ifname, "why": why }));
        json!({
            "network": one.network,
            "disabled": one.is_disabled,
            "detach": detach.collect::<Vec<_>>(),
            "remove": one.plan.changes,
            "notKnown": one.plan.silent,
            "errors": one.errors,
        })
    };
    json!({ "networks": outcomes.iter().map(network).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_lock_says_why() {
        let waited = busy(&io::Error::new(ErrorKind::WouldBlock, "somebody holds it"));
        assert!(waited.code() == Code::TRY_AGAIN_LATER && waited.to_string().contains("try again"), "{waited}");
        let refused = busy(&io::Error::from_raw_os_error(30));
        assert!(refused.to_string().contains("/run/cni/gc.lock: Read-only file system"), "{refused}");
    }
}
