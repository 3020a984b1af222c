//! `cnitool ipam`: who has which address, and what is left over. Nothing is changed.
//!
//! What is known comes from four sides: the leases, the cache in which every runtime that uses libcni (containerd,
//! CRI-O, podman, nerdctl, Nomad) remembers its attachments, the links and namespaces of this node, and the plugins
//! themselves, which say in a dry run of GC what they have that nobody owns.

mod attachments;
mod check;
mod entry;
mod leases;
mod list;
mod networks;
mod node;
mod rules;
mod view;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use libcni::runtime::Runtime;
use libcni::types::json;
use libcni::{Code, Error};

pub use attachments::{Key, Known, State, Verdict};
pub use entry::leads_home;

use crate::{conf_dir, plugin_dirs, print};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    List,
    Check,
}

/// `ipam list` and `ipam check`.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    pub what: What,
    /// None means all.
    pub networks: Vec<String>,
    pub json: bool,
    pub cache_dir: Option<PathBuf>,
}

/// A runtime as the environment and the options have it.
pub fn runtime(cache_dir: Option<&PathBuf>) -> Runtime {
    let runtime = Runtime::new(plugin_dirs().0).with_netns_override();
    match cache_dir {
        Some(dir) => runtime.with_cache_dir(dir.clone()),
        None => runtime,
    }
}

/// Answers. `false`: `check` found something.
///
/// # Errors
/// Something could not be looked at, and nothing was found in the rest.
pub fn run(call: &Call) -> Result<bool, Error> {
    let runtime = runtime(call.cache_dir.as_ref());
    let known = Known::read(&conf_dir(), &runtime)?;
    warn_of_view(&known);
    let is_wanted = |network: &str| call.networks.is_empty() || call.networks.iter().any(|wanted| wanted == network);
    let now = SystemTime::now();
    match call.what {
        What::List => {
            let listing = list::Listing::of(&known, &is_wanted);
            print(&if call.json { line(&listing.json(now)) } else { listing.text(now).into_bytes() })?;
            unseen(&known.failed()).map(|()| true)
        }
        What::Check => {
            let report = check::Report::of(&known, &runtime, &is_wanted);
            print(&if call.json { line(&report.json()) } else { report.text().into_bytes() })?;
            if report.is_clean() { unseen(&report.failed).map(|()| true) } else { Ok(false) }
        }
    }
}

/// Says on stderr what [`Known::check_view`] has to say.
pub fn warn_of_view(known: &Known) {
    if let Err(error) = known.check_view() {
        let _ = writeln!(io::stderr(), "warning: {error}");
    }
}

fn line(value: &serde_json::Value) -> Vec<u8> {
    [json::pretty(value), b"\n".to_vec()].concat()
}

fn unseen(failed: &[String]) -> Result<(), Error> {
    match failed {
        [] => Ok(()),
        all => Err(Error::new(Code::IO_FAILURE, format!("not everything could be looked at: {}", all.join("; ")))),
    }
}
