//! A pod of one scenario and one suite, wired and taken apart again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tests::{Host, Pod};

use crate::process::{self, Outcome};
use crate::scenario::Scenario;
use crate::suite::{Programs, Suite};

/// What a runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// ADD.
    Add,
    /// CHECK.
    Check,
    /// DEL.
    Del,
}

impl Verb {
    /// In the order in which they come in a pod's life.
    pub const ALL: [Self; 3] = [Self::Add, Self::Check, Self::Del];

    /// As the specification spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
        }
    }
}

/// The answer to a verb: the plugins of the chain together.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The sum of the processes' times.
    pub time: Duration,
    /// What went wrong, if something did.
    pub complaint: Option<String>,
}

/// A pod.
pub struct Seat {
    host: Arc<Host>,
    pod: Pod,
    number: u16,
    bridge: u32,
    suite: Suite,
    scenario: Scenario,
    programs: Programs,
    chain: Vec<(&'static str, Value)>,
    /// What the last ADD said.
    result: Value,
}

impl Seat {
    /// A pod on this host. `number` tells it from others of the floor there.
    pub fn new(host: &Arc<Host>, scenario: Scenario, suite: Suite, programs: &Programs, number: u16) -> Self {
        let (host, pod) = (Arc::clone(host), host.pod());
        let bridge = host.link("cni0").and_then(|link| link["ifindex"].as_u64()).and_then(|n| u32::try_from(n).ok());
        Self {
            host,
            pod,
            number,
            bridge: bridge.unwrap_or_default(),
            suite,
            scenario,
            programs: programs.clone(),
            chain: scenario.chain(),
            result: Value::Null,
        }
    }

    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The pod.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The address that the last ADD gave.
    pub fn address(&self) -> Option<String> {
        match self.suite {
            Suite::Floor => Some(self.floor_addresses().remove(0)),
            _ => Some(self.result.pointer("/ips/0/address")?.as_str()?.to_owned()),
        }
    }

    /// Runs a verb from a thread of its own.
    pub fn run(&mut self, verb: Verb) -> Answer {
        let host = Arc::clone(&self.host);
        host.enter(|| self.call(verb))
    }

    /// Runs a verb from a thread that is on the host already.
    pub fn call(&mut self, verb: Verb) -> Answer {
        let mut answer = Answer::default();
        self.each(verb, |program, arguments, environment, input| {
            let outcome = process::run(program, arguments, environment, input);
            answer.time += outcome.time;
            if !outcome.good {
                answer.complaint = Some(format!("{} {}", outcome.stdout.trim(), outcome.stderr.trim()));
            }
            outcome
        });
        answer
    }

    /// Runs a verb under the eyes of `witness`, from a thread that is on the host already: the peak of the largest process in KiB, and the tasks that were
    /// started besides the plugins themselves.
    pub fn watch(&mut self, verb: Verb) -> Option<(u64, u64)> {
        let witness = self.programs.witness();
        let (mut peak, mut tasks) = (0, 0);
        let mut good = true;
        self.each(verb, |program, arguments, environment, input| {
            let mut all = vec![program.display().to_string()];
            all.extend(arguments.iter().cloned());
            let outcome = process::run(&witness, &all, environment, input);
            let said = outcome.stderr.lines().last().and_then(|line| line.split_once(' '));
            let numbers = said.and_then(|(peak, tasks)| Some((peak.parse().ok()?, tasks.parse().ok()?)));
            let (one, started): (u64, u64) = numbers.unwrap_or_default();
            good &= outcome.good && one > 0;
            (peak, tasks) = (peak.max(one), tasks + started);
            outcome
        });
        good.then_some((peak, tasks))
    }

    /// Runs the processes of a verb by `run`: program, arguments, environment, input.
    pub fn each(&mut self, verb: Verb, mut run: impl FnMut(&Path, &[String], &[(&str, &str)], &str) -> Outcome) {
        let netns = self.pod.path().display().to_string();
        let Some(directory) = self.programs.directory(self.suite) else {
            if let Some(arguments) = self.floor_arguments(verb, &netns) {
                run(&self.programs.floor(), &arguments, &[], "");
            }
            return;
        };
        let (id, path) = (self.pod.id(), directory.display().to_string());
        let environment = [
            ("CNI_COMMAND", verb.name()),
            ("CNI_CONTAINERID", &id),
            ("CNI_NETNS", &netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", &path),
        ];
        let mut chain: Vec<_> = self.chain.iter().collect();
        if verb == Verb::Del {
            chain.reverse();
        }
        if verb == Verb::Add {
            self.result = Value::Null;
        }
        for (plugin, conf) in chain {
            let mut conf = conf.clone();
            if !self.result.is_null() {
                conf["prevResult"] = self.result.clone();
            }
            let outcome = run(&directory.join(plugin), &[], &environment, &conf.to_string());
            if verb == Verb::Add {
                self.result = serde_json::from_str(&outcome.stdout).unwrap_or_default();
            }
        }
    }

    /// It has no CHECK.
    fn floor_arguments(&self, verb: Verb, netns: &str) -> Option<Vec<String>> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match verb {
            Verb::Check => None,
            Verb::Del => Some(owned(&["del", netns])),
            Verb::Add => {
                let rules = if self.scenario.has_floor_rules() { "nftables" } else { "none" };
                let (name, bridge) = (format!("floor{}", self.number), self.bridge.to_string());
                let mut arguments = owned(&["add", netns, &name, &bridge, rules]);
                arguments.extend(self.floor_addresses());
                Some(arguments)
            }
        }
    }

    fn floor_addresses(&self) -> Vec<String> {
        let [high, low] = self.number.to_be_bytes();
        // The upper half of the network, which host-local has not reached.
        let mut addresses = vec![format!("10.88.{}.{low}/16=10.88.0.1", 128 | high)];
        if matches!(self.scenario, Scenario::Bridge { dual_stack: true, .. }) {
            addresses.push(format!("fd88::f:{:x}/64=fd88::1", self.number));
        }
        addresses
    }
}
