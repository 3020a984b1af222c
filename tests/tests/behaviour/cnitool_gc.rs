//! `cnitool gc` of what is certainly gone, and `--dry-run`: what it names is what goes, to the rule and the file. What goes
//! is seen by nft, iptables-save, ip and the directories, before and after.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::Cnitool;
use tests::{Host, Pod};

use crate::bridge_conf::{links, with};
use crate::gc::WAYS;
use crate::portmap_conf::legacy;

/// Every plugin that owns state, in one chain. The addresses are no other test's: a tool that looks at all namespaces of
/// the machine sees theirs.
pub fn chain(version: &str, name: &str, number: usize, backend: &str) -> Value {
    let ranges = json!([[{"subnet": format!("10.77.{number}.0/24")}], [{"subnet": format!("fd00:77:{number}::/64")}]]);
    json!({"cniVersion": version, "name": name, "plugins": [
        {"type": "bridge", "bridge": format!("br{number}"), "isGateway": true, "ipMasq": true, "ipMasqBackend": backend,
            "macspoofchk": true, "ipam": {"type": "host-local", "ranges": ranges}},
        {"type": "portmap", "backend": backend, "capabilities": {"portMappings": true}},
        {"type": "firewall", "backend": backend},
        {"type": "tuning", "mtu": 1400},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    ]})
}

/// The same with ptp in the place of bridge.
fn routed(list: &Value, backend: &str) -> Value {
    let mut list = list.clone();
    let ipam = list["plugins"][0]["ipam"].take();
    list["plugins"][0] = json!({"type": "ptp", "ipMasq": true, "ipMasqBackend": backend, "ipam": ipam});
    list
}

/// A directory with these configurations.
pub fn directory(lists: &[&Value]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for list in lists {
        let file = directory.path().join(format!("{}.conflist", list["name"].as_str().unwrap()));
        fs::write(file, list.to_string()).unwrap();
    }
    directory
}

/// A mapped port and a limit, of a pod of its own number.
fn capable<'a>(cnitool: &Cnitool<'a>, number: u16) -> Cnitool<'a> {
    let mapping = json!({"hostPort": 8000 + number, "containerPort": 80, "protocol": "tcp"});
    let limits =
        json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000});
    cnitool.clone().env("CAP_ARGS", json!({"portMappings": [mapping], "bandwidth": limits}))
}

/// A pod that is gone, with its end of the pair: the kernel takes its time.
pub fn kill(host: &Host, pod: &mut Pod) {
    let before = links(host, "veth").len();
    pod.destroy();
    let end = Instant::now() + Duration::from_secs(20);
    while links(host, "veth").len() == before && before > 0 {
        assert!(Instant::now() < end, "the pod's link stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What can be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Things {
    /// `HANDLE of FAMILY TABLE CHAIN`.
    rules: BTreeSet<String>,
    /// `FAMILY TABLE CHAIN`.
    chains: BTreeSet<String>,
    links: BTreeSet<String>,
    files: BTreeSet<String>,
    /// `PROGRAM -t TABLE -A ...` of the legacy flavour.
    legacy: BTreeSet<String>,
    /// The same of the other, whose rules have numbers as well.
    words: BTreeSet<String>,
}

/// Rules and our chains, as commands that make them.
fn saved(host: &Host, ending: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for program in ["iptables", "ip6tables"] {
        let mut table = String::new();
        for line in host.run(&format!("{program}{ending}")).lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
            } else if line.starts_with("-A") {
                found.insert(format!("{program} -t {table} {line}"));
            } else if let Some(chain) = line.strip_prefix(":CNI-") {
                let name = chain.split(' ').next().unwrap();
                found.insert(format!("{program} -t {table} -N CNI-{name}"));
            }
        }
    }
    found
}

impl Things {
    fn of(host: &Host) -> Self {
        let mut things = Self::default();
        let nft: Value = serde_json::from_str(&host.run("nft -j -a list ruleset")).unwrap();
        for one in nft["nftables"].as_array().unwrap() {
            let of = |object: &Value, chain: &str| {
                let word = |key: &str| object[key].as_str().unwrap().to_owned();
                format!("{} {} {}", word("family"), word("table"), word(chain))
            };
            if let Some(rule) = one.get("rule") {
                things.rules.insert(format!("{} of {}", rule["handle"], of(rule, "chain")));
            } else if let Some(chain) = one.get("chain") {
                things.chains.insert(of(chain, "name"));
            }
        }
        for link in host.ip("link show").as_array().unwrap() {
            things.links.insert(link["ifname"].as_str().unwrap().to_owned());
        }
        things.legacy = saved(host, "-legacy-save");
        things.words = saved(host, "-save");
        host.enter(|| {
            for root in ["/var/lib/cni", "/run/cni"] {
                files(Path::new(root), &mut things.files);
            }
        });
        things
    }

    fn without(&self, other: &Self) -> Self {
        let minus = |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect();
        Self {
            rules: minus(&self.rules, &other.rules),
            chains: minus(&self.chains, &other.chains),
            links: minus(&self.links, &other.links),
            files: minus(&self.files, &other.files),
            legacy: minus(&self.legacy, &other.legacy),
            words: minus(&self.words, &other.words),
        }
    }

    /// What a dry run names.
    fn named(report: &Value) -> Self {
        let mut things = Self::default();
        for line in report["remove"].as_array().unwrap() {
            let line = line.as_str().unwrap();
            let bare = line.split(" (").next().unwrap();
            if let Some(rule) = bare.strip_prefix("remove rule ") {
                things.rules.insert(rule.to_owned());
            } else if let Some(chain) = bare.strip_prefix("remove chain ") {
                things.chains.insert(chain.to_owned());
            } else if let Some(link) = bare.strip_prefix("remove link ") {
                things.links.insert(link.split(' ').next().unwrap().to_owned());
            } else if let Some(lease) = bare.strip_prefix("remove the lease ") {
                things.files.insert(lease.split(" of ").next().unwrap().to_owned());
            } else if let Some(file) = bare.strip_prefix("remove the cache entry ").or(bare.strip_prefix("remove /")) {
                things.files.insert(format!("/{}", file.trim_start_matches('/')));
            } else if ["remove the redirection ", "remove the root qdisc ", "set "]
                .iter()
                .any(|begin| bare.starts_with(begin))
            {
                // They go with their links.
            } else if bare.contains("tables") && bare.contains(" -t ") {
                // The chain that is emptied goes, and its rules with it.
                let line = line.replacen("-legacy", "", 1);
                things.legacy.insert(line.replacen(" -D ", " -A ", 1).replacen(" -X ", " -N ", 1));
            } else {
                panic!("what is {line:?}?");
            }
        }
        things.legacy.retain(|line| !line.contains(" -F "));
        things
    }

    /// The same without the rules of chains that go as a whole.
    fn without_content(mut self) -> Self {
        self.rules.retain(|rule| !self.chains.iter().any(|chain| rule.split(" of ").nth(1) == Some(chain)));
        let chains: Vec<String> =
            self.legacy.iter().filter_map(|line| Some(line.split_once(" -N ")?.1.to_owned())).collect();
        self.legacy.retain(|line| !chains.iter().any(|chain| line.contains(&format!(" -A {chain} "))));
        self
    }
}

/// Files but those that say where to go on, and locks.
fn files(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else if !name.ends_with("lock") && !name.starts_with("last_reserved_ip") && !name.starts_with('.') {
            found.insert(entry.path().display().to_string());
        }
    }
}

/// Three pods of one network, of which one died, and one of another; each backend, each version that has or has no GC.
#[test]
fn a_dry_run_names_what_goes() {
    let ways = WAYS.into_iter().zip(["1.1.0", "1.0.0", "1.1.0"]);
    for (((backend, is_legacy), version), is_routed) in ways.flat_map(|way| [(way, false), (way, true)]) {
        let host = Host::new();
        let (net, other) = (chain(version, "a", 1, backend), chain(version, "ab", 2, backend));
        let net = if is_routed { routed(&net, backend) } else { net };
        let directory = directory(&[&net, &other]);
        let programs = is_legacy.then(legacy);
        let mut cnitool = host.cnitool(directory.path());
        if let Some(programs) = &programs {
            cnitool = cnitool.env("PATH", format!("{}:{}", programs.path().display(), tests::namespace::PATH));
        }
        let mut pods = [host.pod(), host.pod(), host.pod()];
        for (number, (pod, name)) in (1..).zip(pods.iter().zip(["a", "a", "ab"])) {
            capable(&cnitool, number).call("add", name, pod).success();
        }
        let nothing = cnitool.run(&["gc", "--dry-run", "--json"]).success();
        for network in nothing["networks"].as_array().unwrap() {
            assert_eq!((&network["remove"], &network["detach"]), (&json!([]), &json!([])), "{backend}");
        }
        kill(&host, &mut pods[1]);
        let (before, state) = (Things::of(&host), host.state());
        let report = cnitool.run(&["gc", "a", "--dry-run", "--json"]).success();
        host.state().assert_same(&state);
        assert_eq!(Things::of(&host), before, "{backend}: a dry run changes nothing");
        let report = &report["networks"][0];
        assert_eq!((&report["errors"], &report["notKnown"]), (&json!([]), &json!([])), "{report}");
        assert_eq!(report["detach"][0]["interface"], "eth0");

        let done = cnitool.run(&["gc", "a", "--json"]).success();
        let mut gone = before.without(&Things::of(&host)).without_content();
        let mut named = Things::named(report).without_content();
        // Who did it says the same as who was asked before.
        assert_eq!(done["networks"][0]["detach"], report["detach"], "{backend}");
        let said = Things::named(&done["networks"][0]).without_content();
        let lists = [&said.rules, &said.chains, &said.links, &said.files];
        assert_eq!(lists, [&named.rules, &named.chains, &named.links, &named.files], "{backend}: said, and named");
        assert!(!is_legacy || said.legacy == named.legacy, "{backend}: {:?} and {:?}", said.legacy, named.legacy);
        // portmap's GC names what it removes as commands for iptables, whichever its flavour; DEL has named it by number.
        let words = std::mem::take(&mut gone.words);
        if !is_legacy {
            let named = std::mem::take(&mut named.legacy);
            assert!(named.is_subset(&words), "{backend}: {named:?} and gone {words:?}");
        }
        assert_eq!(named, gone, "{backend}: named, and gone");
        let all = [&gone.files, &gone.links, if is_legacy { &gone.legacy } else { &gone.rules }];
        assert!(all.iter().all(|things| !things.is_empty()), "{backend}: {gone:?}");
        // Two leases, the cache's entry, tuning's backup under both its names.
        assert_eq!(gone.files.len(), 5, "{gone:?}");

        capable(&cnitool, 1).call("check", "a", &pods[0]).success();
        capable(&cnitool, 3).call("check", "ab", &pods[2]).success();
        let again = cnitool.run(&["gc", "--dry-run", "--json"]).success();
        assert_eq!(again["networks"][0]["remove"], json!([]), "{again}");
    }
}

/// As the reference's command, of all that is remembered, dead and alive. One pod's entry does not say which namespace it had,
/// as the reference's do not.
#[test]
fn a_dry_run_of_everything_names_what_goes() {
    for (backend, is_legacy) in WAYS {
        let host = Host::new();
        let (net, other) = (chain("1.1.0", "a", 7, backend), chain("1.1.0", "ab", 8, backend));
        let directory = directory(&[&net, &other]);
        let programs = is_legacy.then(legacy);
        let mut cnitool = host.cnitool(directory.path());
        if let Some(programs) = &programs {
            cnitool = cnitool.env("PATH", format!("{}:{}", programs.path().display(), tests::namespace::PATH));
        }
        let mut pods = [host.pod(), host.pod(), host.pod()];
        capable(&cnitool, 3).call("add", "ab", &pods[2]).success();
        // The first pod leaves what all share.
        capable(&cnitool, 1).call("add", "a", &pods[0]).success();
        capable(&cnitool, 1).call("del", "a", &pods[0]).success();
        let none = Things::of(&host);
        capable(&cnitool, 1).call("add", "a", &pods[0]).success();
        capable(&cnitool, 2).call("add", "a", &pods[1]).success();
        kill(&host, &mut pods[1]);
        forget_namespaces(&host);
        let before = Things::of(&host);
        let report = cnitool.run(&["gc", "a", "/run/netns/x", "--dry-run", "--json"]).success();
        assert_eq!(Things::of(&host), before, "{backend}: a dry run changes nothing");
        let report = &report["networks"][0];
        assert_eq!((&report["errors"], &report["notKnown"]), (&json!([]), &json!([])), "{report}");
        assert_eq!(report["detach"].as_array().unwrap().len(), 2, "{report}");

        cnitool.run(&["gc", "a", "/run/netns/x"]).success_text();
        assert_eq!(pods[0].addresses("eth0"), [""; 0]);
        let mut gone = before.without(&Things::of(&host)).without_content();
        let mut named = Things::named(report).without_content();
        if !is_legacy {
            let words = std::mem::take(&mut gone.words);
            assert!(std::mem::take(&mut named.legacy).is_subset(&words), "{backend}: {report}");
        }
        gone.words.clear();
        // Deletion of the pod's end names that, in the pod.
        assert!(named.links.remove("eth0") || gone.links.is_subset(&named.links), "{backend}: {report}");
        let left = Things::of(&host);
        assert_eq!(left.without(&none), Things::default(), "{backend}");
        assert_eq!(
            (named.rules, named.chains, named.files, named.legacy),
            (gone.rules, gone.chains, gone.files, gone.legacy),
            "{backend}: named, and gone"
        );
        capable(&cnitool, 3).call("check", "ab", &pods[2]).success();
    }
}

/// The entries are as those of the reference.
pub fn forget_namespaces(host: &Host) {
    for file in fs::read_dir(host.store().join("results")).unwrap().flatten() {
        let mut entry: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        assert!(entry.as_object_mut().unwrap().remove("netnsId").is_some(), "{entry}");
        fs::write(file.path(), entry.to_string()).unwrap();
    }
}

/// The cache may be a link, to a larger disk; an entry that is one is not followed, and what it may be of is kept.
#[test]
fn links_in_the_cache() {
    let host = Host::new();
    let directory = directory(&[&chain("1.1.0", "a", 9, "nftables")]);
    let mut pods = [host.pod(), host.pod()];
    let (larger, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let cache = elsewhere.path().join("cache");
    symlink(larger.path(), &cache).unwrap();
    let cnitool = host.cnitool(directory.path());
    let run = |number: u16, arguments: &[&str]| {
        capable(&cnitool, number).run(&[arguments, &["--cache-dir", cache.to_str().unwrap()]].concat())
    };
    let path = |pod: &Pod| pod.path().display().to_string();
    for (number, pod) in (1..).zip(&pods) {
        run(number, &["add", "a", &path(pod)]).success();
    }
    let results = larger.path().join("results");
    let entries = || fs::read_dir(&results).unwrap().flatten().map(|file| file.path()).collect::<Vec<_>>();
    assert_eq!(entries().len(), 2);
    kill(&host, &mut pods[1]);
    let dead = path(&pods[1]);
    let entry = entries().into_iter().find(|file| fs::read_to_string(file).unwrap().contains(&dead)).unwrap();
    let (moved, state) = (elsewhere.path().join("entry"), host.state());
    fs::copy(&entry, &moved).unwrap();
    fs::remove_file(&entry).unwrap();
    symlink(&moved, &entry).unwrap();
    let refused = run(1, &["gc", "a"]);
    assert!(refused.status == Some(1) && refused.stdout.contains("symbolic link"), "{refused}");
    assert!(moved.exists() && entry.is_symlink());
    host.state().assert_same(&state);

    fs::remove_file(&entry).unwrap();
    fs::copy(&moved, &entry).unwrap();
    let done = run(1, &["gc", "a"]);
    let removed = format!("a: removed the cache entry {}/results/a-", cache.display());
    assert!(done.success_text().contains(&removed), "{done}");
    assert_eq!((entries().len(), cache.is_symlink()), (1, true));
    run(1, &["check", "a", &path(&pods[0])]).success();
}

/// What nobody remembers, and nothing leads to: an ADD whose runtime died with its pod and its lease.
#[test]
fn rules_that_are_nobodys() {
    for (backend, is_legacy) in &WAYS[..2] {
        assert!(!is_legacy);
        let host = Host::new();
        let net = chain("1.1.0", "a", 3, backend);
        let directory = directory(&[&net]);
        let cnitool = host.cnitool(directory.path());
        let mut pods = [host.pod(), host.pod()];
        capable(&cnitool, 1).call("add", "a", &pods[0]).success();
        capable(&cnitool, 2).call("add", "a", &pods[1]).success();
        let check = cnitool.run(&["ipam", "check", "a", "--json"]).success();
        assert_eq!(check["findings"], json!([]));
        kill(&host, &mut pods[1]);
        for directory in ["results", "networks/a"] {
            let newest = fs::read_dir(host.store().join(directory)).unwrap().flatten().filter(|file| {
                let name = file.file_name().into_string().unwrap();
                name.ends_with(".3")
                    || name.ends_with("::3")
                    || file.path().metadata().unwrap().is_file() && directory == "results"
            });
            let mut newest: Vec<_> =
                newest.map(|file| (file.metadata().unwrap().modified().unwrap(), file.path())).collect();
            newest.sort();
            let count = if directory == "results" { 1 } else { 2 };
            for (_, file) in newest.into_iter().rev().take(count) {
                fs::remove_file(file).unwrap();
            }
        }
        let found = cnitool.run(&["ipam", "check", "a", "--json"]);
        assert_eq!(found.status, Some(1), "{found}");
        let found: Value = serde_json::from_str(&found.stdout).unwrap();
        let findings = found["findings"].as_array().unwrap();
        assert!(findings.iter().all(|one| one["kind"] == "unowned" && one["advice"] == "cnitool gc a"), "{found}");
        assert!(findings.len() >= 6, "{found}");
        let report = cnitool.run(&["gc", "a", "--dry-run", "--json"]).success();
        let before = Things::of(&host);
        cnitool.run(&["gc", "a"]).success_text();
        let mut gone = before.without(&Things::of(&host)).without_content();
        let words = std::mem::take(&mut gone.words);
        assert!(!gone.rules.is_empty() && !gone.links.is_empty() && !gone.files.is_empty(), "{gone:?}");
        let mut named = Things::named(&report["networks"][0]).without_content();
        if *backend == "nftables" {
            assert_eq!(named, gone);
        } else {
            // Of portmap's there is no DEL, so they are named by their words alone.
            let commands = std::mem::take(&mut named.legacy);
            assert!(named.rules.is_subset(&gone.rules), "{named:?} {gone:?}");
            assert!(!commands.is_empty() && commands.is_subset(&words), "{commands:?} {words:?}");
            assert_eq!((named.links, named.files), (gone.links, gone.files));
        }
        cnitool.run(&["ipam", "check", "a"]).success_text();
        capable(&cnitool, 1).call("check", "a", &pods[0]).success();
    }
}

/// The reference's plugins refuse a command that they do not know, and do nothing.
#[test]
fn plugins_without_a_dry_run_are_named() {
    for reference in tests::bins::reference_directories() {
        let host = Host::new();
        let net = json!({"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "bridge", "bridge": "br4", "isGateway": true,
            "ipam": {"type": "host-local", "subnet": "10.77.4.0/24"}}, {"type": "tuning"}]});
        let directory = directory(&[&net]);
        let cnitool = host.cnitool(directory.path()).env("CNI_PATH", reference.display());
        let mut pods = [host.pod(), host.pod()];
        for pod in &pods {
            cnitool.call("add", "a", pod).success();
        }
        kill(&host, &mut pods[1]);
        let state = host.state();
        let report = cnitool.run(&["gc", "a", "--dry-run", "--json"]).success();
        host.state().assert_same(&state);
        let silent: Vec<&str> =
            report["networks"][0]["notKnown"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(
            silent.iter().any(|why| why.starts_with("bridge: "))
                && silent.iter().any(|why| why.starts_with("tuning: ")),
            "{report}"
        );
        assert_eq!(report["networks"][0]["detach"].as_array().unwrap().len(), 1, "{report}");
        // DEL of the reference's own plugins does it.
        cnitool.run(&["gc", "a"]).success_text();
        let leases = fs::read_dir(host.store().join("networks/a")).unwrap().flatten();
        let leases: Vec<String> =
            leases.map(|file| file.file_name().into_string().unwrap()).filter(|name| name.starts_with("10.")).collect();
        assert_eq!(leases, ["10.77.4.2"]);
        cnitool.call("del", "a", &pods[0]).success();
    }
}

/// A cache entry that cannot be read: its container may live. GC passed over it in silence, and its address was free.
#[test]
fn an_entry_that_cannot_be_read_is_told_and_kept() {
    let host = Host::new();
    let net = chain("1.1.0", "a", 5, "nftables");
    let directory = directory(&[&net]);
    let cnitool = host.cnitool(directory.path());
    let pod = host.pod();
    capable(&cnitool, 1).call("add", "a", &pod).success();
    let entry = fs::read_dir(host.store().join("results")).unwrap().flatten().next().unwrap().path();
    let text = fs::read(&entry).unwrap();
    fs::write(&entry, &text[..text.len() / 2]).unwrap();
    let state = host.state();
    // As the reference's, of all that is remembered; and of what is gone.
    for arguments in [vec!["gc", "a", "/run/netns/x"], vec!["gc", "a"], vec!["gc", "a", "--dry-run"]] {
        let outcome = cnitool.run(&arguments);
        assert_eq!(outcome.status, Some(1), "{arguments:?} {outcome}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains(entry.file_name().unwrap().to_str().unwrap()) && said.contains("kept"), "{said}");
        host.state().assert_same(&state);
    }
    let found = cnitool.run(&["ipam", "check", "a", "--json"]);
    assert_eq!(found.status, Some(1));
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(found["findings"][0]["kind"], "cache-unreadable", "{found}");
    fs::write(&entry, text).unwrap();
    cnitool.run(&["ipam", "check", "a"]).success_text();
    cnitool.call("del", "a", &pod).success();
}

#[test]
fn a_network_can_forbid_it() {
    let host = Host::new();
    let net = with(&chain("1.1.0", "a", 6, "nftables"), json!({"disableGC": true}));
    let directory = directory(&[&net]);
    let cnitool = host.cnitool(directory.path());
    let mut pod = host.pod();
    capable(&cnitool, 1).call("add", "a", &pod).success();
    kill(&host, &mut pod);
    let state = host.state();
    let report = cnitool.run(&["gc", "--json"]).success();
    assert_eq!((&report["networks"][0]["disabled"], &report["networks"][0]["detach"]), (&json!(true), &json!([])));
    host.state().assert_same(&state);
    let unknown = cnitool.run(&["gc", "b"]);
    assert!(unknown.status == Some(1) && unknown.stderr.contains("no network \"b\""), "{unknown}");
}
