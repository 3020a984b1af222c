//! The `nft` program, for the one thing that only it can do: to understand conditions that somebody wrote in its language.

use libcni::plugin::dry_run;

use crate::error::Error;
use crate::process;

/// Whether there is such a program.
pub fn is_installed() -> bool {
    process::find("nft").is_some()
}

/// Runs commands of nft's language as one transaction. What comes from outside has been checked before it comes here.
///
/// # Errors
/// There is no such program, or it refuses; in its own words.
pub fn run(commands: &[String]) -> Result<(), Error> {
    let doing = "run nft";
    let program = process::find("nft").ok_or_else(|| Error::other(doing, "not in PATH"))?;
    if dry_run::is_on() {
        return Err(Error::other(doing, "a dry run changes nothing"));
    }
    let mut input = commands.join("\n");
    input.push('\n');
    let output = process::run(&program, &["-f", "-"], input.as_bytes())?;
    if output.code == Some(0) { Ok(()) } else { Err(Error::other(doing, output.stderr)) }
}
