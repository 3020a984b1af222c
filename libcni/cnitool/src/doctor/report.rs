//! What was found: one line a probe as soon as it is known, for people; one JSON object at the end, for machines.

use std::fmt;
use std::io::{self, Write};

use libcni::Error;
use libcni::types::json;
use serde_json::json;

use crate::unprinted;

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// It works; somebody should know something.
    Warn,
    Broken,
    /// It was not asked.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Broken => "broken",
            Self::Skipped => "skipped",
        })
    }
}

/// One probe's answer.
#[derive(Debug)]
pub struct Finding {
    probe: String,
    verdict: Verdict,
    detail: String,
    remedy: Option<String>,
}

/// Why packets do not pass, or something fails: in words, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub why: String,
    pub remedy: String,
}

impl Cause {
    pub fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

/// All of them.
pub struct Report {
    network: String,
    file: String,
    json: bool,
    findings: Vec<Finding>,
}

impl Report {
    /// Begins a report about a network.
    pub fn new(network: &str, file: &std::path::Path, json: bool) -> Self {
        let report = Self { network: network.to_owned(), file: file.display().to_string(), json, findings: Vec::new() };
        report.say(&format!("network {} ({})\n", report.network, report.file));
        report
    }

    /// It works.
    pub fn ok(&mut self, probe: impl Into<String>, detail: impl Into<String>) {
        self.add(probe.into(), Verdict::Ok, detail.into(), None);
    }

    /// It works; but.
    pub fn warn(&mut self, probe: impl Into<String>, cause: Cause) {
        self.add(probe.into(), Verdict::Warn, cause.why, Some(cause.remedy));
    }

    /// It does not work.
    pub fn broken(&mut self, probe: impl Into<String>, cause: Cause) {
        self.add(probe.into(), Verdict::Broken, cause.why, Some(cause.remedy));
    }

    /// It was not asked, for this reason.
    pub fn skipped(&mut self, probe: impl Into<String>, reason: impl Into<String>) {
        self.add(probe.into(), Verdict::Skipped, reason.into(), None);
    }

    fn add(&mut self, probe: String, verdict: Verdict, detail: String, remedy: Option<String>) {
        let mut lines = format!("  {verdict:<8} {probe:<15} {}\n", one_line(&detail));
        if let Some(remedy) = &remedy {
            lines.push_str(&format!("{:>11} {remedy}\n", "->"));
        }
        self.say(&lines);
        self.findings.push(Finding { probe, verdict, detail, remedy });
    }

    /// Whether something is broken so far.
    pub fn is_broken(&self) -> bool {
        self.count(Verdict::Broken) > 0
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// For people. That nobody listens any more is no reason to leave the pods where they are.
    fn say(&self, text: &str) {
        if !self.json {
            let mut stdout = io::stdout().lock();
            let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        }
    }

    /// Ends the report. `true`: nothing is broken.
    pub fn finish(&self) -> Result<bool, Error> {
        let [ok, warnings, broken, skipped] =
            [Verdict::Ok, Verdict::Warn, Verdict::Broken, Verdict::Skipped].map(|verdict| self.count(verdict));
        let text = match self.json {
            false => format!("{broken} broken, {warnings} to know, {ok} ok, {skipped} not asked\n"),
            true => {
                let probes = self.findings.iter().map(|finding| {
                    json!({
                        "probe": finding.probe, "verdict": finding.verdict.to_string(),
                        "detail": finding.detail, "remedy": finding.remedy,
                    })
                });
                let probes: Vec<_> = probes.collect();
                let whole = json!({
                    "network": self.network, "file": self.file, "healthy": broken == 0,
                    "broken": broken, "warnings": warnings, "probes": probes,
                });
                String::from_utf8_lossy(&json::pretty(&whole)).into_owned()
            }
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(unprinted)?;
        Ok(broken == 0)
    }
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" ")
}
