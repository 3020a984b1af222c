//! `cargo xtask demo`: the main job on real input. Two pods on a node of our own making get their network from a file of
//! `conf-examples/`, prove it with packets, and give it back.

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;
use tests::bins;
use tests::plugin::Cnitool;
use tests::{Echo, Host, Internet, Pod, State, namespace};

use crate::superuser::{self, Rights};
use crate::toolchain;

/// True when every proof held.
pub fn run() -> Result<bool, String> {
    if namespace::find("ip").is_none() {
        return Err("the demo needs the program `ip` (Debian: apt-get install iproute2)".to_owned());
    }
    let conf_dir = bins::root().join("conf-examples");
    let plugins = match env::var_os(bins::OURS) {
        Some(named) => named.into(),
        None => build()?,
    };
    let rights = superuser::obtain()?;
    println!("plugins   {}", plugins.display());
    if rights == Rights::UserNamespace {
        println!("rights    not root: in a user namespace of its own");
    }

    // What fails in the lab panics there; a person wants the sentence, not the place in the source.
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let owned = payload.downcast_ref::<String>().map(String::as_str);
        let text = owned.or(payload.downcast_ref::<&str>().copied()).unwrap_or("something went wrong");
        println!("  \u{2717} {}", text.replace('\n', "\n    "));
    }));
    let start = Instant::now();
    let good = panic::catch_unwind(AssertUnwindSafe(|| {
        let host = Host::new();
        let (network, backend) = choose();
        let cnitool = host.cnitool(&conf_dir);
        Demo { host: &host, cnitool, network, backend, good: true }.play()
    }));
    let good = good.unwrap_or(false);
    println!("\n{} ({:.1} s)", if good { "all held" } else { "NOT all held" }, start.elapsed().as_secs_f32());
    Ok(good)
}

fn build() -> Result<PathBuf, String> {
    println!("building the release binaries ...");
    bins::build("release", toolchain::musl()?.as_deref())
}

/// The example, and how it masquerades: iptables where it works, nftables where it does not.
fn choose() -> (&'static str, &'static str) {
    let probe = Host::new();
    let works = |program: &str| {
        let rule = format!("{program} -t nat -A POSTROUTING -m comment --comment probe -j MASQUERADE");
        namespace::find(program).is_some() && probe.try_run(&rule).status.success()
    };
    if works("iptables") && works("ip6tables") {
        ("podwire-dual-stack", "iptables")
    } else {
        println!("iptables  does not work here: the example with nftables, which needs no program");
        ("podwire-nftables", "nftables")
    }
}

struct Demo<'a> {
    host: &'a Host,
    cnitool: Cnitool<'a>,
    network: &'static str,
    backend: &'static str,
    good: bool,
}

/// A pod, its place in the story, and the addresses that ADD reported.
struct Guest {
    name: &'static str,
    pod: Pod,
    result: Value,
    v4: String,
    v6: String,
}

impl Demo<'_> {
    fn play(mut self) -> bool {
        let internet = self.host.internet();
        println!("\nA node, and behind it an internet that knows the node's addresses and no pod's");
        println!("  node      {:<16} {}", Internet::HOST_V4, Internet::HOST_V6);
        println!("  internet  {:<16} {}", Internet::V4, Internet::V6);

        let before = self.host.state();
        println!("\nADD: cnitool add {} NETNS", self.network);
        let one = self.add("pod 1");
        let two = self.add("pod 2");
        self.show(&one, &before);
        self.prove(&one, &two, &internet);

        println!("\nCHECK: the kernel still has what ADD reported");
        for guest in [&one, &two] {
            self.call("check", guest);
        }
        println!("\nDEL");
        for guest in [&one, &two] {
            self.call("del", guest);
        }
        self.nothing_left(&one, &before);
        self.good
    }

    fn add(&mut self, name: &'static str) -> Guest {
        let pod = self.host.pod();
        let start = Instant::now();
        let result = self.cnitool.call("add", self.network, &pod).success();
        let spent = start.elapsed();
        let address = |v6| of_family(&result, "address", v6).split('/').next().unwrap_or_default().to_owned();
        let (v4, v6) = (address(false), address(true));
        println!("  {name:<9} {v4:<16} {v6:<24} {:.1} ms", spent.as_secs_f64() * 1e3);
        Guest { name, pod, v4, v6, result }
    }

    /// What was made, in words: the bridge and the rules.
    fn show(&self, guest: &Guest, before: &State) {
        let bridge = bridge(guest);
        let gateways = self.host.addresses(&bridge).join(", ");
        println!("  {:<9} {bridge}: {gateways}", "bridge");
        let now = self.host.state();
        let (section, needle) = match self.backend {
            "iptables" => ("iptables-save", format!("-s {}/32", guest.v4)),
            _ => ("nft", format!("\"{}\"", guest.v4)),
        };
        let known = before.section(section);
        let rules = now.section(section);
        println!(
            "  masquerade what {} sends to the outside leaves with the node's address ({})",
            guest.v4, self.backend
        );
        match rules.iter().find(|rule| rule.contains(&needle) && !known.contains(*rule)) {
            Some(rule) => println!("    {rule}"),
            None => println!("    (no program here that could show the rule)"),
        }
    }

    fn prove(&mut self, one: &Guest, two: &Guest, internet: &Internet) {
        println!("\nPackets of UDP and TCP, and the address that their receiver saw");
        let node_sees = self.host.listen();
        let pod_sees = two.pod.listen();
        let internet_sees = internet.listen();
        let (node_v4, node_v6) = (Internet::HOST_V4.to_string(), Internet::HOST_V6.to_string());
        for (own, gateway, neighbour, far, node) in [
            (&one.v4, of_family(&one.result, "gateway", false), &two.v4, Internet::V4, node_v4),
            (&one.v6, of_family(&one.result, "gateway", true), &two.v6, Internet::V6, node_v6),
        ] {
            self.packet(one, "gateway", &gateway, &node_sees, own);
            self.packet(one, "pod 2", neighbour, &pod_sees, own);
            self.packet(one, "internet", far, &internet_sees, &node);
        }
    }

    /// One proof: `guest` talks to `address`, where it must be seen as `expected`.
    fn packet(&mut self, guest: &Guest, whom: &str, address: &str, echo: &Echo, expected: &str) {
        let what = format!("{} -> {whom:<9} {address:<24}", guest.name);
        match guest.pod.asks(address, echo) {
            Ok(seen) if seen.to_string() == expected => {
                let meaning = if *whom == *"internet" { "the node" } else { guest.name };
                self.tick(true, &format!("{what} sees {meaning}, {seen}"));
            }
            Ok(seen) => self.tick(false, &format!("{what} sees {seen}, not {expected}")),
            Err(error) => self.tick(false, &format!("{what} {error}")),
        }
    }

    fn call(&mut self, verb: &str, guest: &Guest) {
        let outcome = self.cnitool.call(verb, self.network, &guest.pod);
        let held = outcome.status == Some(0);
        self.tick(held, &format!("{} {}", guest.name, if held { String::new() } else { outcome.to_string() }));
    }

    fn nothing_left(&mut self, guest: &Guest, before: &State) {
        println!("\nNothing left: the node as it was before the first ADD");
        let bridge = bridge(guest);
        let after = self.host.state().without_link(&bridge);
        for (what, sections) in [
            ("links, addresses, routes", &["links", "addresses", "routes", "policy", "vlans"][..]),
            ("rules of the firewall", &["nft", "iptables-save", "ip6tables-save"]),
            ("sysctls", &["sysctls"]),
            ("leases and cached results", &["files"]),
        ] {
            if sections.contains(&"nft") && !(namespace::find("nft").is_some() || namespace::find("iptables").is_some())
            {
                println!("  ? {what}: neither nft nor iptables is here to show them");
                continue;
            }
            let of = |state: &State| -> Vec<String> {
                let lines = sections.iter().flat_map(|section| state.section(section));
                lines.map(str::to_owned).collect()
            };
            let (old, new) = (of(before), of(&after));
            let changed: Vec<&String> =
                old.iter().chain(&new).filter(|l| !(old.contains(l) && new.contains(l))).collect();
            self.tick(changed.is_empty(), what);
            changed.iter().for_each(|line| println!("    {line}"));
        }
        let gone = guest.pod.link("eth0").is_none();
        self.tick(gone, "eth0 in the pod");
        println!("  the bridge {bridge} stays, by contract: the next pod will use it");
    }

    fn tick(&mut self, held: bool, text: &str) {
        self.good &= held;
        println!("  {} {}", if held { '\u{2713}' } else { '\u{2717}' }, text.trim_end().replace('\n', "\n    "));
    }
}

/// The bridge is the first interface of the result.
fn bridge(guest: &Guest) -> String {
    let name = guest.result.pointer("/interfaces/0/name").and_then(Value::as_str);
    name.unwrap_or_default().to_owned()
}

/// A field (`address`, `gateway`) of the first IPv4 or IPv6 address of a result.
fn of_family(result: &Value, field: &str, v6: bool) -> String {
    let all = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    let mut texts = all.filter_map(|ip| ip.get(field)?.as_str()).filter(|text| text.contains(':') == v6);
    texts.next().unwrap_or("none").to_owned()
}
