//! Every netlink request and every operation on a file, a process or a namespace fails once, with what it can really fail with.
//! An ADD that fails takes back all that it has made, by itself, and says what failed; one that goes on without is whole. A
//! DEL that fails says so, and the next one leaves nothing.

use nix::errno::Errno;
use serde_json::Value;
use tests::faults::{Fault, Operation, Place, Run, Step};
use tests::plugin::with_prev_result;

use crate::conf::{bridge, chain, ptp};
use crate::scene::{Healer, Scene, all};

/// What a call can fail with.
fn kinds(operation: &Operation) -> Vec<Fault<'static>> {
    let fail = |errnos: &[Errno]| errnos.iter().map(|errno| Fault::Fail(*errno)).collect();
    match operation {
        Operation::Request { .. } => vec![
            Fault::Refuse(Errno::EPERM),
            Fault::Fail(Errno::ENOBUFS),
            Fault::Refuse(Errno::EBUSY),
            Fault::Refuse(Errno::ENOSPC),
            Fault::Refuse(Errno::EINTR),
        ],
        Operation::File { call: "open", changes: false, .. } => fail(&[Errno::EPERM, Errno::EMFILE]),
        Operation::File { call: "write", path, .. } if path.starts_with("/proc/") => {
            fail(&[Errno::EPERM, Errno::EINTR])
        }
        Operation::File { call: "write", .. } => fail(&[Errno::ENOSPC, Errno::EINTR]),
        Operation::File { call: "unlink", .. } => fail(&[Errno::EPERM, Errno::EBUSY]),
        Operation::File { call: "flock", .. } => fail(&[Errno::ENOLCK, Errno::EINTR]),
        Operation::File { .. } => fail(&[Errno::ENOSPC, Errno::EPERM]),
        Operation::Other("setns" | "unshare" | "execve") => fail(&[Errno::EPERM]),
        Operation::Other("clone") => fail(&[Errno::EAGAIN, Errno::ENOMEM]),
        Operation::Other(_) => fail(&[Errno::EMFILE, Errno::ENOBUFS]),
    }
}

/// The faults that are tried at a call: all, or one that is another at the next call.
pub fn faults_of(operation: &Operation, number: usize) -> impl Iterator<Item = Fault<'static>> {
    let faults = kinds(operation);
    let count = if all() { faults.len() } else { 1 };
    faults.into_iter().cycle().skip(number).take(count)
}

/// What programs of others do is theirs.
pub fn counts(step: &Step) -> bool {
    step.is_ours()
}

/// What is wrong with what a plugin said, whatever it has done.
pub fn judge(run: &Run) -> String {
    let setns = |step: &Step| step.operation == Operation::Other("setns");
    match run.outcome.status {
        Some(0) => String::new(),
        Some(1) => wrong_words(run),
        // It could not come back to the node's namespace: it must neither go on nor undo anything where it is.
        None if run.struck.as_ref().is_some_and(setns) => String::new(),
        _ => format!("{}\n", run.outcome),
    }
}

/// The error has a code, names what was done beside the cause, and the cause.
fn wrong_words(run: &Run) -> String {
    let Ok(error) = serde_json::from_str::<Value>(&run.outcome.stdout) else {
        return format!("no JSON on stdout: {}\n", run.outcome);
    };
    let (msg, code) = (error["msg"].as_str().unwrap_or_default(), error["code"].as_u64().unwrap_or_default());
    let (doing, cause) = msg.rsplit_once(": ").unwrap_or_default();
    let is_named = doing.split_whitespace().count() > 1 && !cause.is_empty();
    if code == 0 || !is_named { format!("code {code}, {msg:?}\n") } else { String::new() }
}

/// Makes every `grid`th call of a verb fail, one after the other. The findings.
fn at_every_call(conf: &[Value], plugin: usize, verb: &str, grid: usize) -> String {
    at_every_call_in(&Scene::new(conf.to_vec(), Healer::Del), plugin, verb, grid)
}

fn at_every_call_in(scene: &Scene, plugin: usize, verb: &str, grid: usize) -> String {
    let mut findings = String::new();
    let clean = scene.with_fault(verb, plugin, Place { counts, number: 0 }, Fault::None);
    assert!(clean.steps.len() > 4, "only {} calls: nothing was tested", clean.steps.len());
    scene.heal(Healer::Del);
    let grid = if all() { 1 } else { grid };
    for (number, step) in clean.steps.iter().enumerate().step_by(grid) {
        for fault in faults_of(&step.operation, number) {
            let found = one(scene, plugin, verb, Place { counts, number }, fault);
            if !found.is_empty() {
                findings += &format!("{verb}, {number}, {step}, {fault:?}:\n{found}\n");
                scene.heal(Healer::Del);
            }
        }
    }
    findings
}

fn one(scene: &Scene, plugin: usize, verb: &str, place: Place, fault: Fault<'_>) -> String {
    let results = scene.prepare(verb, plugin);
    let before = (verb == "ADD").then(|| scene.state());
    let run = scene.strike(verb, plugin, &results, place, fault);
    let mut findings = judge(&run);
    match (run.outcome.status, before) {
        (Some(1), Some(before)) => findings += &scene.difference_from(&before),
        (Some(0), Some(_)) => {
            let result = serde_json::from_str(&run.outcome.stdout).unwrap_or_default();
            let check = scene.check(plugin, &result);
            if check.status != Some(0) {
                findings += &format!("it went on, and CHECK says {check}\n");
            }
        }
        // A DEL that says success has done it all; of the chain's others the bridge is still to come.
        (Some(0), None) if plugin == 0 => findings += &scene.difference(),
        _ => {}
    }
    scene.heal(Healer::Del);
    findings + &scene.difference()
}

fn bridge_fails(backend: &str) {
    let mut findings = String::new();
    for verb in ["ADD", "DEL"] {
        findings += &at_every_call(&bridge(backend), 0, verb, 2);
    }
    assert!(findings.is_empty(), "{findings}");
}

#[test]
fn bridge_iptables() {
    bridge_fails("iptables");
}

#[test]
fn bridge_nftables() {
    bridge_fails("nftables");
}

fn chain_fails(backend: &str) {
    let mut findings = String::new();
    let conf = chain(backend);
    for plugin in 1..conf.len() {
        for verb in ["ADD", "DEL"] {
            findings += &at_every_call(&conf, plugin, verb, 3);
        }
    }
    assert!(findings.is_empty(), "{findings}");
}

#[test]
fn chain_iptables() {
    chain_fails("iptables");
}

#[test]
fn chain_nftables() {
    chain_fails("nftables");
}

#[test]
fn ptp_nftables() {
    let findings = ["ADD", "DEL"].map(|verb| at_every_call(&ptp("nftables"), 0, verb, 3)).concat();
    assert!(findings.is_empty(), "{findings}");
}

/// Those that have rules of iptables, on a node whose iptables are the legacy ones.
#[test]
fn chain_legacy() {
    let mut findings = String::new();
    for plugin in 0..3 {
        for verb in ["ADD", "DEL"] {
            let scene = Scene::of_legacy(chain("iptables")[..3].to_vec(), Healer::Del);
            findings += &at_every_call_in(&scene, plugin, verb, 7);
        }
    }
    assert!(findings.is_empty(), "{findings}");
}

/// The masquerade rules of a container's interfaces on one network share a chain in iptables, and which addresses are still there
/// is asked in the pod. A namespace looks like an empty file, as does what is left of one that is gone.
#[test]
fn a_namespace_that_cannot_be_opened_is_not_gone() {
    let conf = &bridge("iptables")[0];
    let scene = Scene::empty(vec![conf.clone()]);
    let (host, pod) = (&scene.host, &scene.pod);
    let bridge = host.plugin("bridge");
    let first = bridge.add(conf, pod, "eth0").success();
    bridge.add(conf, pod, "eth1").success();
    let is_netns = |step: &Step| step.to_string().contains("open /run/netns/");
    let place = Place { counts: is_netns, number: 0 };
    let run = bridge.with_fault("DEL", conf, (pod, "eth1"), place, Fault::Fail(Errno::EPERM));
    assert!(run.outcome.failure()["msg"].as_str().unwrap().contains("/run/netns/"), "{}", run.outcome);
    let check = || bridge.check(with_prev_result(conf, &first), pod, "eth0").success();
    check();
    bridge.del(conf, pod, "eth1").success();
    check();
}
