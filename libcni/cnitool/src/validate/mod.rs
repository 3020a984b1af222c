//! `cnitool validate`: what is wrong with configurations, before a runtime loads them.
//!
//! What will fail is an error; what is probably not meant is a warning. Whether a file can be loaded at all is decided
//! by the code that loads it for the verbs, so the two cannot disagree.

mod binaries;
mod document;
pub mod findings;
mod keys;
mod ranges;
mod spoof_check;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use libcni::runtime::{ConfList, PluginConf, files};
use libcni::types::json::{self, Object};
use libcni::{Code, Error, Version};
use serde_json::Value;

use binaries::Binaries;
use document::{Document, Position};
use findings::{Findings, Level};
use ranges::Range;

/// Extensions that runtimes look at.
pub const EXTENSIONS: &[&str] = &["conf", "conflist", "json"];

/// What has been read of all files, for comparison.
#[derive(Default)]
struct Seen {
    networks: BTreeMap<String, (PathBuf, Position)>,
    ranges: Vec<Range>,
    bridges: Vec<Bridge>,
}

/// A bridge that is a gateway, with the subnets behind it.
struct Bridge {
    name: String,
    network: String,
    file: PathBuf,
    at: Position,
    subnets: Vec<String>,
}

/// Checks files, and the files of directories. Plugins are looked for in `dirs`, which somebody has `chosen` or
/// which are the default. `false` if there is an error.
pub fn run(targets: &[PathBuf], dirs: &[PathBuf], chosen: bool, out: &mut impl Write) -> Result<bool, Error> {
    let (findings, checked) = examine(targets, dirs, chosen)?;
    let (errors, warnings) = (findings.count(Level::Error), findings.count(Level::Warning));
    let mut print = || -> io::Result<()> {
        for finding in &findings.0 {
            writeln!(out, "{finding}")?;
        }
        writeln!(out, "files checked: {checked}, errors: {errors}, warnings: {warnings}")?;
        out.flush()
    };
    print().map_err(|error| Error::new(Code::IO_FAILURE, format!("failed to write to stdout: {error}")))?;
    Ok(errors == 0)
}

/// What [`run`] prints: the findings in order, and how many files were checked.
pub fn examine(targets: &[PathBuf], dirs: &[PathBuf], chosen: bool) -> Result<(Findings, usize), Error> {
    let mut findings = Findings::default();
    let mut seen = Seen::default();
    let mut binaries = Binaries::new(dirs, chosen);
    let mut checked = 0;
    for target in targets {
        let files = if target.is_dir() { files(target, EXTENSIONS)? } else { vec![target.clone()] };
        if files.is_empty() {
            findings.add(target, None, Level::Error, "there are no configurations (*.conflist, *.conf, *.json)".into());
        }
        if let (Some(first), true) = (files.first(), files.len() > 1) {
            let name = first.file_name().unwrap_or_default().to_string_lossy();
            let message = format!(
                "of {} files containerd, and CRI-O unless it is told a name, take the first: {name}",
                files.len()
            );
            findings.add(target, None, Level::Note, message);
        }
        for file in files {
            check_file(&file, &mut binaries, &mut seen, &mut findings);
            checked += 1;
        }
    }
    ranges::compare(&seen.ranges, &mut findings);
    compare_bridges(&seen.bridges, &mut findings);
    binaries.note(targets, &mut findings);
    findings.0.sort();
    Ok((findings, checked))
}

fn check_file(file: &Path, binaries: &mut Binaries, seen: &mut Seen, findings: &mut Findings) {
    let Some(document) = read(file, findings) else { return };
    let Value::Object(object) = &document.value else {
        return findings.error(&document, "", "expected a JSON object");
    };
    let is_list = match file.extension().and_then(|extension| extension.to_str()) {
        Some("conflist") => true,
        Some("conf" | "json") => false,
        _ => json::get(object, "plugins").is_some(),
    };
    if is_list {
        keys::judge_list(&document, object, findings);
    }
    let loaded = match is_list {
        true => ConfList::from_bytes(&document.bytes),
        false => ConfList::from_single(&document.bytes),
    };
    let list = match loaded {
        Ok(list) => list,
        Err(error) => return findings.error(&document, &path_in(error.msg()), error.to_string()),
    };
    let name = list.name().to_string();
    let at = document.position("name");
    if let Some((other, (line, column))) = seen.networks.get(&name) {
        let other = other.display();
        let message = format!(
            "another network has the name {name:?}: {other}:{line}:{column}; tools that look for a name take one of them"
        );
        findings.warning(&document, "name", message);
    } else {
        seen.networks.insert(name, (file.to_owned(), at));
    }
    if list.version_text().is_empty() {
        findings.warning(&document, "", "no \"cniVersion\", which means 0.1.0: no CHECK, and one address per family");
    }
    if list.version().is_err() {
        let known: Vec<&str> = Version::ALL.iter().map(|version| version.as_str()).collect();
        let message = format!("unknown version {:?}; known are {}", list.version_text(), known.join(", "));
        findings.error(&document, "cniVersion", message);
    }
    let mut check = Check { list: &list, spoof_check: None, binaries, seen, findings };
    if is_list {
        let plugins = json::get(object, "plugins").and_then(Value::as_array);
        for (index, plugin) in plugins.into_iter().flatten().enumerate() {
            if let Value::Object(plugin) = plugin {
                check.plugin(&document, &format!("plugins[{index}]"), plugin);
            }
        }
        let mut count = list.plugins().len();
        if !list.load_only_inlined() {
            count += check.drop_ins(&file.with_file_name(list.name().as_str()));
        }
        if count == 0 {
            let folder = file.with_file_name(list.name().as_str());
            let message =
                format!("no plugin configs found: there is no \"plugins\", and no *.conf in {}", folder.display());
            check.findings.error(&document, "", message);
        }
    } else {
        check.plugin(&document, "", object);
    }
}

/// Reads a file, and reports what is wrong with it as text.
fn read(file: &Path, findings: &mut Findings) -> Option<Document> {
    match Document::read(file) {
        Ok(document) => {
            for (path, at) in document.repeated() {
                let message = format!("the key {path:?} is there twice; the last one wins");
                findings.add(file, Some(at), Level::Warning, message);
            }
            Some(document)
        }
        Err((at, message)) => {
            findings.add(file, at, Level::Error, message);
            None
        }
    }
}

/// A network whose plugins are checked.
struct Check<'a> {
    list: &'a ConfList,
    /// The bridge so far that drops what does not come from the MAC it has given.
    spoof_check: Option<Object>,
    binaries: &'a mut Binaries,
    seen: &'a mut Seen,
    findings: &'a mut Findings,
}

impl Check<'_> {
    /// Checks the drop-ins of a list, and returns how many there are.
    fn drop_ins(&mut self, folder: &Path) -> usize {
        let files = match files(folder, &["conf"]) {
            Ok(files) => files,
            Err(error) => {
                self.findings.add(folder, None, Level::Error, error.to_string());
                return 0;
            }
        };
        for file in &files {
            let Some(document) = read(file, self.findings) else { continue };
            match PluginConf::from_bytes(&document.bytes) {
                Ok(plugin) => self.plugin(&document, "", plugin.object()),
                Err(error) => self.findings.error(&document, &path_in(error.msg()), error.to_string()),
            }
        }
        files.len()
    }

    fn plugin(&mut self, document: &Document, path: &str, plugin: &Object) {
        keys::judge_plugin(document, path, plugin, self.findings);
        if spoof_check::is_made_by(plugin) {
            self.spoof_check = Some(plugin.clone());
        } else if let Some(bridge) = &self.spoof_check {
            spoof_check::judge(document, path, plugin, bridge, self.findings);
        }
        let place = keys::under(path, "type");
        self.binaries.check(document, &place, keys::kind(plugin), self.list.version_text(), self.findings);
        let mut subnets = self.ipam(document, &keys::under(path, "ipam"), json::get(plugin, "ipam"));
        let flag = |key: &str| json::get(plugin, key) == Some(&Value::Bool(true));
        if keys::kind(plugin) == "bridge" && (flag("isGateway") || flag("isDefaultGateway")) && !subnets.is_empty() {
            subnets.sort();
            let name = json::get(plugin, "bridge").and_then(Value::as_str).unwrap_or("cni0");
            let vlan = json::get(plugin, "vlan").map(Value::to_string).filter(|vlan| vlan != "0");
            self.seen.bridges.push(Bridge {
                name: vlan.map_or_else(|| name.to_owned(), |vlan| format!("{name}.{vlan}")),
                network: self.list.name().to_string(),
                file: document.file.clone(),
                at: document.position(&keys::under(path, "bridge")),
                subnets,
            });
        }
    }

    /// Checks what stands under `ipam`, and returns the subnets of host-local.
    fn ipam(&mut self, document: &Document, path: &str, ipam: Option<&Value>) -> Vec<String> {
        let ipam = match ipam {
            None => return Vec::new(),
            Some(Value::Object(ipam)) => ipam,
            Some(_) => {
                self.findings.error(
                    document,
                    path,
                    format!("{path:?} must be an object, like {{\"type\": \"host-local\"}}"),
                );
                return Vec::new();
            }
        };
        let kind = keys::kind(ipam);
        if !kind.is_empty() {
            self.binaries.check(document, &keys::under(path, "type"), kind, self.list.version_text(), self.findings);
        } else if !ipam.is_empty() {
            let message = format!("{path:?} has no \"type\": no address is allocated, and its other keys mean nothing");
            self.findings.warning(document, path, message);
        }
        if kind != "host-local" {
            return Vec::new();
        }
        let ranges = ranges::read(document, path, ipam, self.list.name().as_str(), self.findings);
        let subnets = ranges.iter().map(|range| range.subnet.to_string()).collect();
        self.seen.ranges.extend(ranges);
        subnets
    }
}

/// Two products that both use cni0 with their own subnet: the second pod fails.
fn compare_bridges(bridges: &[Bridge], findings: &mut Findings) {
    for (index, later) in bridges.iter().enumerate() {
        let same = bridges.iter().take(index).filter(|earlier| earlier.name == later.name);
        for earlier in same.filter(|earlier| earlier.subnets != later.subnets && earlier.network != later.network) {
            let message = format!(
                "bridge {:?} is also the gateway of network {:?}, with other subnets ({}): {}; they will fight over its address",
                later.name,
                earlier.network,
                earlier.file.display(),
                earlier.subnets.join(", ")
            );
            findings.add(&later.file, Some(later.at), Level::Warning, message);
        }
    }
}

/// The path a message of the loader is about: `plugins[1]`, or the first key in quotes.
fn path_in(message: &str) -> String {
    let plugin = message.find("plugins[").and_then(|start| {
        let rest = message.get(start..)?;
        rest.get(..=rest.find(']')?)
    });
    if let Some(plugin) = plugin {
        return plugin.to_owned();
    }
    let key = message.split('"').nth(1).filter(|_| message.contains("invalid"));
    key.unwrap_or(if message.contains("network name") { "name" } else { "" }).to_owned()
}
