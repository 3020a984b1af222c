//! Find a plugin, invoke it, delegate to it.
//!
//! A plugin is a program that is started for one verb. Both halves of the protocol start plugins: a runtime
//! those of a network ([`crate::runtime`]), and a plugin those it delegates to ([`delegate`]). What both need
//! is here: [`find()`] looks in `CNI_PATH`, [`Invocation`] runs the program with a deadline and bounded output.

mod children;
pub mod delegate;
mod find;
mod invoke;
mod pipes;
mod version;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

pub use children::ensure_waitable;
pub use find::find;
pub use invoke::{Failure, Invocation};
pub use version::versions;
pub(crate) use version::{has_dry_run, versions_within};

use std::ffi::OsString;

use crate::plugin::{Command, dry_run};
use crate::types::{Code, Error, Success, Version};

/// The result an ADD printed. Where it names no version the configuration's is assumed.
///
/// # Errors
/// Code 6 if it is no result, code 1 if its version is none we know.
pub(crate) fn decode_result(stdout: &[u8], assumed: Version) -> Result<(Version, Success), Error> {
    if stdout.trim_ascii().is_empty() {
        return Err(Error::new(Code::DECODING_FAILURE, "the plugin succeeded but printed no result"));
    }
    Success::from_json(stdout, assumed).map_err(|error| error.context("failed to read the plugin's result"))
}

/// The variable that makes a dry run of a verb.
pub(crate) fn dry_run_of(verb: Command) -> (&'static str, OsString) {
    ("CNI_COMMAND", format!("{}{}", dry_run::PREFIX, verb.as_str()).into())
}

/// The same error with more details.
pub(crate) fn also_says(error: Error, more: &str) -> Error {
    let details = if error.details().is_empty() { more.to_owned() } else { format!("{}; {more}", error.details()) };
    error.with_details(details)
}
