//! A plugin calls another one: bridge asks host-local for an address.
//!
//! The delegate sees what we were given: the same environment with another `CNI_COMMAND`, the same bytes on
//! stdin (specification, "Section 4: Plugin Delegation"). It has [`Network::delegate_deadline`] to answer.

use std::path::PathBuf;
use std::time::Duration;

use super::invoke::Started;
use super::{Invocation, also_says, decode_result, dry_run_of, find, has_dry_run};
use crate::plugin::{Command, Network, dry_run};
use crate::types::{Error, Success, Version};

/// The longest a DEL after a failed ADD may take: whoever waits for the ADD has waited already, and a runtime of ours
/// waits 20 s longer than for the ADD alone.
const ROLLBACK_DEADLINE: Duration = Duration::from_secs(15);

/// ADD; the result in whichever version the delegate printed it. If the delegate fails its DEL is called
/// before the error is returned, as the specification asks and the reference does not.
///
/// # Errors
/// The delegate is not in `CNI_PATH`, fails, or prints no result; code and message are its own.
pub fn add<C>(network: &Network<C>, plugin_type: &str) -> Result<Success, Error> {
    Delegate::new(network, plugin_type).add()
}

/// Begins an ADD: the delegate works beside its caller until [`Begun::end`].
///
/// Whoever begins one takes it back, too, if it fails: by [`undo_add`], after what would still use the delegate's answer.
///
/// # Errors
/// The delegate is not in `CNI_PATH`, or could not be started: there is nothing to take back.
pub fn begin_add<'a, C>(network: &'a Network<C>, plugin_type: &'a str) -> Result<Begun<'a>, Error> {
    Delegate::new(network, plugin_type).begin_add()
}

/// DEL.
///
/// # Errors
/// The delegate is not in `CNI_PATH`, or fails.
pub fn del<C>(network: &Network<C>, plugin_type: &str) -> Result<(), Error> {
    Delegate::new(network, plugin_type).call(Command::Del)
}

/// DEL in an ADD that has failed, which its runtime has waited for already: it gets 15 s.
///
/// # Errors
/// As [`del`].
pub fn undo_add<C>(network: &Network<C>, plugin_type: &str) -> Result<(), Error> {
    Delegate::new(network, plugin_type).undo_add()
}

/// CHECK.
///
/// # Errors
/// As [`del`].
pub fn check<C>(network: &Network<C>, plugin_type: &str) -> Result<(), Error> {
    Delegate::new(network, plugin_type).call(Command::Check)
}

/// STATUS.
///
/// # Errors
/// As [`del`].
pub fn status<C>(network: &Network<C>, plugin_type: &str) -> Result<(), Error> {
    Delegate::new(network, plugin_type).call(Command::Status)
}

/// GC, with the attachments to keep as we got them.
///
/// # Errors
/// As [`del`].
pub fn gc<C>(network: &Network<C>, plugin_type: &str) -> Result<(), Error> {
    Delegate::new(network, plugin_type).call(Command::Gc)
}

/// What a delegate is called with, whatever the verb.
pub(super) struct Delegate<'a> {
    pub(super) plugin_type: &'a str,
    pub(super) path: &'a [PathBuf],
    pub(super) stdin: &'a [u8],
    pub(super) version: Version,
    pub(super) deadline: Duration,
}

impl<'a> Delegate<'a> {
    fn new<C>(network: &'a Network<C>, plugin_type: &'a str) -> Self {
        Self {
            plugin_type,
            path: network.path(),
            stdin: network.stdin(),
            version: network.version(),
            deadline: network.delegate_deadline(),
        }
    }

    pub(super) fn add(&self) -> Result<Success, Error> {
        // If it cannot be started there is no DEL to call either.
        self.begin_add()?.end().map_err(|error| match self.undo_add() {
            Ok(()) => error,
            Err(del) => also_says(error, &format!("DEL after the failed ADD failed too: {del}")),
        })
    }

    pub(super) fn begin_add(&self) -> Result<Begun<'a>, Error> {
        let started = self.start(Command::Add, self.deadline)?;
        Ok(Begun { plugin_type: self.plugin_type, version: self.version, started })
    }

    fn undo_add(&self) -> Result<(), Error> {
        self.run(Command::Del, self.deadline.min(ROLLBACK_DEADLINE)).map(drop)
    }

    pub(super) fn call(&self, verb: Command) -> Result<(), Error> {
        if dry_run::is_on() && !has_dry_run(&find(self.plugin_type, self.path)?, self.deadline) {
            dry_run::note_unasked(self.plugin_type);
            return Ok(());
        }
        let answer = self.run(verb, self.deadline);
        if dry_run::is_on() { dry_run::note_answer(self.plugin_type, answer) } else { answer.map(drop) }
    }

    fn run(&self, verb: Command, deadline: Duration) -> Result<Vec<u8>, Error> {
        Ok(self.start(verb, deadline)?.end()?)
    }

    fn start(&self, verb: Command, deadline: Duration) -> Result<Started<'a>, Error> {
        let program = find(self.plugin_type, self.path)?;
        // In a dry run the delegate is asked for one, whatever the verb.
        let vars = if dry_run::is_on() { vec![dry_run_of(verb)] } else { Vec::new() };
        let invocation = Invocation { program, verb, vars, netns_override: true, stdin: self.stdin, deadline };
        Ok(invocation.start()?)
    }
}

/// An ADD that was begun. Dropped, it is waited for, and its answer is lost.
pub struct Begun<'a> {
    plugin_type: &'a str,
    version: Version,
    started: Started<'a>,
}

impl Begun<'_> {
    /// Waits for the delegate; the result in whichever version it printed it.
    ///
    /// # Errors
    /// The delegate fails, or prints no result; code and message are its own.
    pub fn end(self) -> Result<Success, Error> {
        let stdout = self.started.end()?;
        let named = |error: Error| error.context(format!("plugin type={:?}", self.plugin_type));
        decode_result(&stdout, self.version).map(|(_, success)| success).map_err(named)
    }
}
