//! `cnitool doctor`: does the network work, and if not, why not.
//!
//! In order: what can be seen without a pod ([`checks`]); then, unless that already says that pods would fail or do
//! harm, two temporary pods on the real configuration and the questions they are asked ([`probes`]); then DEL, and whether
//! everything is as it was. Whatever happens in between, the pods are deleted: by [`trial::Trial`], or if we are killed, by
//! the next doctor ([`record`]).

mod ask;
mod cause;
mod checks;
mod node;
mod pod;
mod probes;
mod record;
mod report;
mod subject;
mod trial;

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hostnet::Netlink;
use libcni::runtime::{CACHE_DIR, ConfList, Runtime};
use libcni::{Code, Error};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{conf_dir, plugin_dirs};
use node::Before;
use record::Records;
use report::Report;
use subject::{Facts, Subject};
use trial::Trial;

/// What is asked of us.
#[derive(Debug, Default, PartialEq)]
pub struct Call {
    /// The network; the first of the directory if it is not named.
    pub net: Option<String>,
    /// Machines read it.
    pub json: bool,
    /// Addresses to ask from the pod as well.
    pub targets: Vec<IpAddr>,
    /// `--cache-dir`.
    pub cache_dir: Option<PathBuf>,
}

/// Whether somebody wants us to end. Plugins are not disturbed: they have process groups of their own.
#[derive(Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    fn on_signals() -> Result<Self, Error> {
        let wanted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, wanted.clone())
                .map_err(|error| Error::new(Code::IO_FAILURE, format!("cannot handle signal {signal}: {error}")))?;
        }
        Ok(Self(wanted))
    }

    /// Fails if so.
    pub fn unless(&self) -> Result<(), Error> {
        match self.is_wanted() {
            true => Err(Error::new(Code::UNKNOWN, "interrupted; the temporary pods were removed")),
            false => Ok(()),
        }
    }

    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Examines a network and prints what is found. `false`: something is broken.
///
/// # Errors
/// It could not be examined: not root, no such network, another doctor at work, a signal.
pub fn run(call: &Call) -> Result<bool, Error> {
    if std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0) {
        return Err(Error::new(Code::INVALID_ENVIRONMENT, "doctor makes pods, which takes root: try it with sudo"));
    }
    let dir = conf_dir();
    let subject = Subject::choose(&dir, call.net.as_deref())?;
    let stop = Stop::on_signals()?;
    let records = Records::take(call.cache_dir.as_deref().unwrap_or(Path::new(CACHE_DIR)))?;
    let (path, chosen) = plugin_dirs();
    let mut runtime = Runtime::new(path.clone());
    if let Some(dir) = &call.cache_dir {
        runtime = runtime.with_cache_dir(dir.clone());
    }
    let mut host = Netlink::open()?;
    let mut report = Report::new(&subject.name, &subject.file, call.json);
    trial::remove_leftovers(&mut host, &runtime, &records, &dir, &mut report)?;
    checks::configuration(&subject, &dir, (&path, chosen), &mut report)?;
    if let Ok(list) = &subject.list {
        examine(list, host, (&runtime, &records), (&call.targets, &stop), &mut report)?;
    }
    report.finish()
}

/// A network whose configuration can be loaded.
fn examine(
    list: &ConfList,
    mut host: Netlink,
    (runtime, records): (&Runtime, &Records),
    (targets, stop): (&[IpAddr], &Stop),
    report: &mut Report,
) -> Result<(), Error> {
    if report.is_broken() {
        report.skipped("add", "the configuration is to be mended first");
        return Ok(());
    }
    let facts = Facts::of(list);
    let before = Before::look(&mut host)?;
    checks::network(&mut host, &facts, &before, report)?;
    if !report.is_broken() {
        checks::status(runtime, list, report);
    }
    checks::node(&mut host, &facts, &before, report)?;
    if report.is_broken() {
        report.skipped("add", "no pod is made before that is mended");
        return Ok(());
    }
    if let Some(why) = subject::takes_devices(list) {
        report.skipped("add", why);
        return Ok(());
    }
    stop.unless()?;
    let (facts, before) = (&facts, &before);
    let mut trial = Trial {
        host,
        runtime,
        list,
        facts,
        before,
        records,
        pods: Vec::new(),
        ids: Vec::new(),
        switched: Vec::new(),
        made: None,
    };
    let asked = probes::run(&mut trial, targets, stop, report);
    trial.end(report);
    asked.and_then(|()| stop.unless())
}
