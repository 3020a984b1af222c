//! What there is, as text that can be compared: taken before ADD and after DEL, the two must be equal.
//!
//! Left out is what changes by itself (counters, timers, handles, neighbour entries, carrier, link-local addresses) and
//! what stays by contract: tables and chains that iptables itself makes on first use and never removes, the frame of the
//! nftables masquerade (all but the rules in `masq_checks`), and host-local's `lock`, `last_reserved_ip.*` and `.owners`,
//! which say where to go on and where to look, not who has what.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::host::Host;
use crate::namespace::Namespace;
use crate::pod::Pod;

/// One thing that exists: where it is listed, the link it belongs to, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fact {
    section: &'static str,
    link: Option<String>,
    text: String,
}

/// Everything of a host or a pod that a plugin may have touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    facts: Vec<Fact>,
}

impl State {
    pub(crate) fn of_host(host: &Host) -> Self {
        let mut state = Self::of_network(host);
        state.add_files(&host.store(), "");
        state
    }

    /// A node that is no [`Host`], with its store as it is seen by the caller.
    pub(crate) fn of_node(place: &Namespace, store: &Path) -> Self {
        let mut state = Self::of_network(place);
        state.add_files(store, "");
        state
    }

    pub(crate) fn of_pod(pod: &Pod) -> Self {
        Self::of_network(pod)
    }

    fn of_network(place: &Namespace) -> Self {
        let mut state = Self { facts: Vec::new() };
        state.add_links(place);
        state.add_addresses(place);
        state.add_routes(place);
        state.add_vlans(place);
        state.add_nft(place);
        state.add_iptables(place, "iptables-save");
        state.add_iptables(place, "ip6tables-save");
        state.add_sysctls(place);
        state
    }

    /// The same without a link and all that hangs on it: a bridge stays by contract.
    #[must_use]
    pub fn without_link(&self, name: &str) -> Self {
        let facts = self.facts.iter().filter(|fact| fact.link.as_deref() != Some(name)).cloned().collect();
        Self { facts }
    }

    /// The same without a section: `links`, `addresses`, `routes`, `policy`, `vlans`, `nft`, `iptables-save`,
    /// `ip6tables-save`, `sysctls`, `files`.
    #[must_use]
    pub fn without(&self, section: &str) -> Self {
        Self { facts: self.facts.iter().filter(|fact| fact.section != section).cloned().collect() }
    }

    /// The lines of one section.
    pub fn section(&self, name: &str) -> Vec<&str> {
        self.facts.iter().filter(|fact| fact.section == name).map(|fact| fact.text.as_str()).collect()
    }

    /// What is gone since `before` (`-`) and what is new (`+`); empty when nothing changed.
    pub fn difference(&self, before: &Self) -> String {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (before.facts.iter().collect(), self.facts.iter().collect());
        let gone = old.difference(&new).map(|fact| format!("- {}: {}\n", fact.section, fact.text));
        let came = new.difference(&old).map(|fact| format!("+ {}: {}\n", fact.section, fact.text));
        gone.chain(came).collect()
    }

    /// Panics with the difference if there is one.
    #[track_caller]
    pub fn assert_same(&self, before: &Self) {
        let difference = self.difference(before);
        assert!(difference.is_empty(), "the state is not what it was before:\n{difference}");
        assert!(self == before, "the order of the rules changed:\n{before}\n{self}");
    }

    fn add(&mut self, section: &'static str, link: Option<&str>, text: String) {
        self.facts.push(Fact { section, link: link.map(str::to_owned), text });
    }

    fn add_links(&mut self, place: &Namespace) {
        for mut link in list(place.ip("-d link show")) {
            forget_carrier(&mut link);
            let name = link["ifname"].as_str().map(str::to_owned);
            self.add("links", name.as_deref(), link.to_string());
        }
    }

    fn add_addresses(&mut self, place: &Namespace) {
        for link in list(place.ip("address show")) {
            let name = link["ifname"].as_str();
            for address in
                list(link["addr_info"].clone()).into_iter().filter(|address| !comes_by_itself(&address["local"]))
            {
                let (local, length, scope) = (&address["local"], &address["prefixlen"], &address["scope"]);
                let label = address["label"].as_str().unwrap_or_default();
                let text = format!("{} {local}/{length} scope {scope} {label}", name.unwrap_or_default());
                self.add("addresses", name, text.replace('"', ""));
            }
        }
    }

    fn add_routes(&mut self, place: &Namespace) {
        for family in ["-4", "-6"] {
            let all = list(place.ip(&format!("-d {family} route show table all")));
            // The kernel adds an IPv6 address's local route some time after the address, which is compared.
            let follows = |route: &Value| family == "-6" && route["type"] == "local" && route["table"] == "local";
            for mut route in all.into_iter().filter(|route| !comes_by_itself(&route["dst"]) && !follows(route)) {
                if let Some(fields) = route.as_object_mut() {
                    // "linkdown" and the like follow the link, some of them late.
                    fields.retain(|key, _| key != "flags" && key != "expires");
                }
                let link = route["dev"].as_str().map(str::to_owned);
                self.add("routes", link.as_deref(), format!("{family} {route}"));
            }
            for rule in list(place.ip(&format!("{family} rule show"))) {
                self.add("policy", None, format!("{family} {rule}"));
            }
        }
        self.facts.sort();
    }

    fn add_vlans(&mut self, place: &Namespace) {
        let output = place.try_run("bridge -j vlan show");
        // A kernel without VLAN filtering has nothing to show, and says so with an error.
        let Ok(all) = serde_json::from_slice(&output.stdout) else { return };
        for port in list(all) {
            self.add("vlans", port["ifname"].as_str(), port.to_string());
        }
    }

    fn add_nft(&mut self, place: &Namespace) {
        let Some(text) = output_of(place, "nft -j list ruleset") else { return };
        let ruleset: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("nft -j: {e}: {text}"));
        let mut objects = list(ruleset["nftables"].clone());
        objects.retain(|object| object.get("metainfo").is_none());
        let of_iptables: Vec<bool> = objects.iter().map(|object| is_left_by_iptables(object, &objects)).collect();
        for (mut object, skip) in objects.into_iter().zip(of_iptables) {
            if !skip && !is_masquerade_frame(&object) {
                forget_counters(&mut object);
                self.add("nft", None, object.to_string());
            }
        }
    }

    fn add_iptables(&mut self, place: &Namespace, program: &'static str) {
        let Some(text) = output_of(place, program) else { return };
        let mut table = "";
        for line in text.lines() {
            match line.get(..1) {
                Some("*") => table = line,
                Some(":") if line.contains(" - [") => {
                    let chain = line.split(' ').next().unwrap_or_default();
                    self.add(program, None, format!("{table} {chain}"));
                }
                // Built-in chains: their policy, without the counters, unless it is the usual one.
                Some(":") if !line.contains(" ACCEPT [") => {
                    let chain = line.split('[').next().unwrap_or_default();
                    self.add(program, None, format!("{table} {chain}"));
                }
                Some("-") => self.add(program, None, format!("{table} {line}")),
                _ => {}
            }
        }
    }

    fn add_sysctls(&mut self, place: &Namespace) {
        const OF_LINKS: [&str; 8] = [
            "ipv4/conf/*/forwarding",
            "ipv4/conf/*/arp_notify",
            "ipv4/conf/*/rp_filter",
            "ipv4/conf/*/route_localnet",
            "ipv6/conf/*/forwarding",
            "ipv6/conf/*/accept_ra",
            "ipv6/conf/*/accept_dad",
            "ipv6/conf/*/disable_ipv6",
        ];
        let names: Vec<String> = ["all", "default"].map(str::to_owned).into_iter().chain(link_names(place)).collect();
        let facts = place.enter(|| {
            let mut facts = Vec::new();
            for (name, pattern) in names.iter().flat_map(|name| OF_LINKS.map(|pattern| (name, pattern))) {
                let key = pattern.replace('*', name);
                if let Ok(value) = fs::read_to_string(format!("/proc/sys/net/{key}")) {
                    facts.push((name.clone(), format!("{key} = {}", value.trim_end())));
                }
            }
            facts
        });
        for (link, text) in facts {
            self.add("sysctls", Some(&link), text);
        }
    }

    fn add_files(&mut self, directory: &Path, below: &str) {
        let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("read {}: {e}", directory.display()));
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{below}/{name}");
            if entry.path().is_dir() {
                self.add_files(&entry.path(), &path);
            } else if !["lock", ".owners"].contains(&name.as_str()) && !name.starts_with("last_reserved_ip.") {
                let text = fs::read(entry.path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                self.add("files", None, format!("{path}: {:?}", text.unwrap_or_default()));
            }
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts.iter().try_for_each(|fact| writeln!(f, "{}: {}", fact.section, fact.text))
    }
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Forgets what follows the other end of a cable, or time: the kernel gets to it when it gets to it.
fn forget_carrier(link: &mut Value) {
    const CARRIER: [&str; 8] = [
        "operstate",
        "state",
        "root_id",
        "root_port",
        "root_path_cost",
        "topology_change",
        "topology_change_ack",
        "topology_change_detected",
    ];
    match link {
        Value::Object(fields) => {
            fields.retain(|key, _| !key.ends_with("_timer") && !CARRIER.contains(&key.as_str()));
            fields.values_mut().for_each(forget_carrier);
        }
        Value::Array(flags) => flags.retain(|flag| flag != "LOWER_UP" && flag != "NO-CARRIER"),
        _ => {}
    }
}

/// Link-local and multicast addresses of IPv6: the kernel gives them to a link some time after its carrier.
fn comes_by_itself(address: &Value) -> bool {
    address.as_str().is_some_and(|text| text.starts_with("fe80:") || text.starts_with("ff00:"))
}

fn link_names(place: &Namespace) -> Vec<String> {
    list(place.ip("link show")).iter().filter_map(|link| Some(link["ifname"].as_str()?.to_owned())).collect()
}

/// What a program prints, or None when it is not installed (the demo; `cargo xtask test` installs it).
fn output_of(place: &Namespace, line: &str) -> Option<String> {
    let program = line.split(' ').next().unwrap_or_default();
    crate::namespace::find(program)?;
    Some(place.run(line))
}

/// A table or base chain of the names that iptables uses, with no rule in it.
fn is_left_by_iptables(object: &Value, all: &[Value]) -> bool {
    const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    let (table, chain) = match (object.get("table"), object.get("chain")) {
        (Some(table), _) => (&table["name"], None),
        (None, Some(chain)) if chain.get("hook").is_some() => (&chain["table"], Some(&chain["name"])),
        _ => return false,
    };
    // "bridge" is the spoof check's: its table and base chain stay as well.
    let of_iptables = |family: &Value| family == "ip" || family == "ip6" || family == "bridge";
    let body = object.as_object().and_then(|fields| fields.values().next());
    let Some(family) = body.map(|body| &body["family"]) else { return false };
    let used = all.iter().any(|other| {
        let inside = |kind: &str| other.get(kind).filter(|o| o["family"] == *family && o["table"] == *table);
        match chain {
            Some(chain) => inside("rule").is_some_and(|rule| rule["chain"] == *chain),
            None => inside("rule").or(inside("set")).is_some() || inside("chain").is_some_and(|c| c["hook"].is_null()),
        }
    });
    of_iptables(family) && TABLES.iter().any(|name| table == name) && !used
}

/// The table and chains of the nftables masquerade, and the rules that are the same for every pod.
fn is_masquerade_frame(object: &Value) -> bool {
    const TABLE: &str = "cni_plugins_masquerade";
    let of_chain = object.get("chain").is_some_and(|chain| chain["table"] == TABLE);
    let of_rule = object.get("rule").is_some_and(|rule| rule["table"] == TABLE && rule["chain"] != "masq_checks");
    object.get("table").is_some_and(|table| table["name"] == TABLE) || of_chain || of_rule
}

fn forget_counters(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !["handle", "packets", "bytes"].contains(&key.as_str()));
            fields.values_mut().for_each(forget_counters);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_counters),
        _ => {}
    }
}
