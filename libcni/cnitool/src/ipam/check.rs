//! `cnitool ipam check`: what does not fit together, and what to do about each.

use std::collections::BTreeMap;
use std::net::IpAddr;

use libcni::runtime::Runtime;
use serde_json::{Value, json};

use super::attachments::{Key, Known, State};
use super::entry::addresses;
use super::leases::{Holder, Lease};
use super::networks::Network;

/// Something that does not fit.
struct Finding {
    /// One word for machines.
    kind: &'static str,
    network: Option<String>,
    what: String,
    /// What to do.
    advice: String,
}

/// Everything that was found.
#[derive(Default)]
pub struct Report {
    findings: Vec<Finding>,
    /// What nobody could tell, for reasons that will not go away.
    notes: Vec<String>,
    /// What could not be looked at.
    pub failed: Vec<String>,
}

impl Report {
    /// That of these networks.
    pub fn of(known: &Known, runtime: &Runtime, is_wanted: &dyn Fn(&str) -> bool) -> Self {
        let mut report = Self { failed: known.failed(), ..Self::default() };
        for lease in known.leases.iter().filter(|lease| is_wanted(&lease.network)) {
            report.judge_lease(known, lease);
        }
        report.find_twice(known, is_wanted);
        for network in known.networks.all.iter().filter(|network| is_wanted(network.name())) {
            report.find_without_lease(known, network);
            report.find_unowned(known, network, runtime);
        }
        report.judge_cache(known, is_wanted);
        report.judge_ifbs(known, is_wanted);
        report
    }

    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, kind: &'static str, network: &str, what: String, advice: String) {
        self.findings.push(Finding { kind, network: Some(network.to_owned()), what, advice });
    }

    fn judge_lease(&mut self, known: &Known, lease: &Lease) {
        let (network, address, file) = (&lease.network, lease.address, lease.file.display());
        let verdict = known.judge_lease(lease);
        let who = known.key(lease).map(|key| named(&key)).unwrap_or_default();
        match (&lease.holder, verdict.state) {
            (Holder::Empty, _) => {
                let advice = gc_or(known, network, || format!("remove {file}"));
                self.add("lease-empty", network, format!("the lease {address} is empty: {file}"), advice);
            }
            (Holder::Unreadable(why), _) => {
                let what = format!("the lease {address} cannot be read, {why}: {file}");
                self.add("lease-unreadable", network, what, format!("look at {file}, and remove it"));
            }
            (_, State::Stale) => {
                let advice = gc_or(known, network, || format!("remove {file}"));
                self.add("lease-stale", network, format!("{address} is leased to {who}: {}", verdict.why), advice);
            }
            (_, State::Unknown) if !verdict.may_pass => {
                let what = format!("{address} is leased to {who}, and nothing shows that it lives: {}", verdict.why);
                self.add("lease-unknown", network, what, format!("if no runtime has the container, remove {file}"));
            }
            _ => {}
        }
        let of = known
            .networks
            .get(network)
            .filter(|network| lease.file.parent().is_some_and(|dir| network.directories.iter().any(|one| one == dir)));
        if of.is_some_and(|network| network.is_foreign(address)) {
            let what = format!("{address} of {who} is in no range of the network any more");
            self.add("lease-outside", network, what, "recreate the pod, or put the range back".to_owned());
        }
    }

    fn find_twice(&mut self, known: &Known, is_wanted: &dyn Fn(&str) -> bool) {
        let mut leases: BTreeMap<IpAddr, Vec<&Lease>> = BTreeMap::new();
        for lease in &known.leases {
            leases.entry(lease.address).or_default().push(lease);
        }
        for (address, leases) in leases.iter().filter(|(_, leases)| leases.len() > 1) {
            if let Some(wanted) = leases.iter().find(|lease| is_wanted(&lease.network)) {
                let files: Vec<String> = leases.iter().map(|lease| lease.file.display().to_string()).collect();
                let what = format!("{address} is leased twice: {}", files.join(", "));
                let advice = "give the networks ranges that do not overlap; see cnitool validate".to_owned();
                self.add("lease-twice", &wanted.network, what, advice);
            }
        }
        for (address, keys) in known.twice() {
            if let Some(wanted) = keys.iter().find(|key| is_wanted(&key.network)) {
                let pods: Vec<String> =
                    keys.iter().map(|key| format!("{} of network {}", named(key), key.network)).collect();
                let what = format!("{address} is the address of two pods: {}", pods.join(", "));
                self.add("address-twice", &wanted.network, what, "recreate the younger pod".to_owned());
            }
        }
    }

    /// Pods that live, and have an address of host-local that is not leased to them.
    fn find_without_lease(&mut self, known: &Known, network: &Network) {
        if network.directories.is_empty() {
            return;
        }
        let name = network.name();
        for (key, verdict) in known.attachments(name).iter().filter(|(_, verdict)| verdict.state == State::Alive) {
            let mine = || known.leases.iter().filter(|lease| known.key(lease).as_ref() == Some(key));
            let advice = || "recreate the pod: its address may be given to another".to_owned();
            let Some(entry) = known.entry(key) else {
                if mine().next().is_none() {
                    let what = format!("{} has no lease: {}", named(key), verdict.why);
                    self.add("pod-without-lease", name, what, advice());
                }
                continue;
            };
            for address in addresses(entry).into_iter().filter(|address| !network.is_foreign(*address)) {
                if !mine().any(|lease| lease.address == address) {
                    let of_network = |lease: &&Lease| lease.address == address && lease.network == name;
                    let other = known.leases.iter().find(of_network).and_then(|lease| known.key(lease));
                    let other = other.map_or("nobody".to_owned(), |other| named(&other));
                    let what = format!("{} has {address}, which is leased to {other}", named(key));
                    self.add("pod-without-lease", name, what, advice());
                }
            }
        }
    }

    /// What the plugins have that is of nobody we know.
    fn find_unowned(&mut self, known: &Known, network: &Network, runtime: &Runtime) {
        let name = network.name();
        if let Err(error) = known.check_named(name) {
            return self.failed.push(format!("network {name}: {error}"));
        }
        let attachments = known.attachments(name);
        let (plan, errors) = runtime.gc_dry_run(&network.list, &known.valid(name, attachments.keys()));
        for change in plan.changes.iter().filter(|change| !change.starts_with("remove the empty lease")) {
            let advice = gc_or(known, name, || format!("{change}, by hand"));
            let what = format!("of no attachment that is known: {}", change.strip_prefix("remove ").unwrap_or(change));
            self.add("unowned", name, what, advice);
        }
        let silent = plan.silent.iter();
        self.notes.extend(silent.map(|why| format!("network {name}: what this plugin has is not known: {why}")));
        self.failed.extend(errors.iter().map(|error| format!("network {name}: {error}")));
    }

    fn judge_cache(&mut self, known: &Known, is_wanted: &dyn Fn(&str) -> bool) {
        for entry in known.remembered.entries.iter().filter(|entry| is_wanted(entry.network.as_str())) {
            let verdict = known.judge_entry(entry);
            if verdict.state == State::Stale {
                let (key, name) = (Key::of(entry), entry.network.as_str());
                let what = format!("the cache has {}: {}", named(&key), verdict.why);
                let advice = gc_or(known, name, || "remove the entry".to_owned());
                self.add("cache-stale", name, what, advice);
            }
        }
        for file in &known.remembered.unreadable {
            let network = known.networks.all.iter().map(Network::name);
            let network =
                network.filter(|name| name.parse().is_ok_and(|name| !file.candidates(&name).is_empty())).max();
            if network.is_none_or(is_wanted) {
                self.findings.push(Finding {
                    kind: "cache-unreadable",
                    network: network.map(str::to_owned),
                    what: format!("the cache entry {} cannot be read: {}", file.file.display(), file.why),
                    advice: "remove it if its container is gone; until then gc keeps what it may be of".to_owned(),
                });
            }
        }
    }

    fn judge_ifbs(&mut self, known: &Known, is_wanted: &dyn Fn(&str) -> bool) {
        for ifb in &known.node.idle_ifbs {
            let network = ifb.alias.as_deref().and_then(|alias| alias.split(' ').next());
            let is_told = self.findings.iter().any(|finding| finding.what.contains(&format!("link {} ", ifb.name)));
            if network.is_none_or(is_wanted) && !is_told {
                self.findings.push(Finding {
                    kind: "ifb-idle",
                    network: network.map(str::to_owned),
                    what: format!("nothing sends packets to the link {}", ifb.name),
                    advice: format!("ip link del {}", ifb.name),
                });
            }
        }
    }

    /// For people: a line for each, with what to do below it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let network = finding.network.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
            text.push_str(&format!("{network}{} [{}]\n    {}\n", finding.what, finding.kind, finding.advice));
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        for failed in &self.failed {
            text.push_str(&format!("not looked at: {failed}\n"));
        }
        text.push_str(&format!("findings: {}\n", self.findings.len()));
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let finding =
            |one: &Finding| json!({ "kind": one.kind, "network": one.network, "what": one.what, "advice": one.advice });
        json!({
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "notes": self.notes,
            "notLookedAt": self.failed,
        })
    }
}

fn named(key: &Key) -> String {
    if key.ifname.is_empty() { key.container.clone() } else { format!("{} {}", key.container, key.ifname) }
}

/// What to do about something that GC removes, where there can be a GC of the network.
fn gc_or(known: &Known, network: &str, otherwise: impl FnOnce() -> String) -> String {
    match known.networks.get(network) {
        Some(found) if !found.list.disable_gc() => format!("cnitool gc {network}"),
        _ => otherwise(),
    }
}
