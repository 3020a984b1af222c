//! The temporary pods of one run, and how they go: DEL, what the first pod of a node makes, and whether anything of them
//! is left.

use std::path::Path;

use hostnet::iptables::{Iptables, Version};
use hostnet::nft::Nft;
use hostnet::{Netlink, forwarding};
use libcni::Error;
use libcni::runtime::{Attachment, ConfList, Runtime};

use super::cause;
use super::node::{self, Before, SetBack, Switched, Sysctls};
use super::pod::{HostPort, IFNAME, PREFIX, Pod};
use super::record::{Made, Record, Records};
use super::report::{Cause, Report};
use super::subject::Facts;

/// One run.
pub struct Trial<'a> {
    /// The node's side.
    pub host: Netlink,
    pub runtime: &'a Runtime,
    pub list: &'a ConfList,
    pub facts: &'a Facts,
    pub before: &'a Before,
    pub records: &'a Records,
    /// Those that are there.
    pub pods: Vec<Pod>,
    /// The container ids of all that were tried.
    pub ids: Vec<String>,
    /// What the ADDs up to the first pod have switched on the node.
    pub switched: Vec<Switched>,
    /// The bridge that the first ADD has made.
    pub made: Option<Made>,
}

impl Trial<'_> {
    /// Adds a pod; `role` ends its container id.
    pub fn add(&mut self, role: &str, port: Option<HostPort>) -> Result<(), Error> {
        let container = format!("{PREFIX}{}{role}", std::process::id());
        let new = |name: &Option<String>| name.clone().filter(|name| !self.before.has(name));
        let mut record = Record {
            container: container.clone(),
            network: self.list.name().to_string(),
            bridge: new(&self.facts.bridge),
            gateway_link: new(&self.facts.gateway_link),
            made: self.made.clone(),
            forwarding: self.before.forwarding,
            config: String::from_utf8_lossy(self.list.bytes()).into_owned(),
        };
        // Somebody may have made it since.
        if self.made.is_none()
            && let Some(bridge) = &record.bridge
            && hostnet::link::get(&mut self.host, bridge)?.is_some()
        {
            (record.bridge, record.gateway_link) = (None, None);
        }
        self.records.add(&record)?;
        if !self.ids.contains(&container) {
            self.ids.push(container.clone());
        }
        let before = if self.pods.is_empty() { Some(Sysctls::look(&mut self.host)?) } else { None };
        let added = Pod::add(self.runtime, self.list, &container, port);
        // To know what it has switched is less than to know the pod: without, nothing is set back.
        let switched = before.and_then(|before| Switched::since(before, &self.host).ok());
        self.switched.extend(switched);
        if self.made.is_none()
            && let Some(bridge) = &record.bridge
        {
            self.made = node::made(&mut self.host, bridge, record.gateway_link.as_deref()).ok().flatten();
            record.made.clone_from(&self.made);
            // Without, the next doctor leaves the bridge where it is.
            let _ = self.records.add(&record);
        }
        match added {
            Ok(pod) => self.pods.push(pod),
            Err(error) => {
                // The runtime has called DEL; if that failed, the note stays for the next doctor.
                let attachment = Attachment::new(container.parse()?, None, IFNAME.parse()?);
                if self.runtime.del(self.list, &attachment).is_ok() {
                    self.records.remove(&container);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes the pods, takes back what was made for the first of them, and says what is left.
    pub fn end(&mut self, report: &mut Report) {
        let ids = std::mem::take(&mut self.ids);
        if ids.is_empty() {
            return;
        }
        let had_pods = !self.pods.is_empty();
        let of_result = self.pods.iter().flat_map(Pod::host_links).filter(|name| !self.before.has(name));
        let links: Vec<String> = of_result.map(str::to_owned).collect();
        let errors = self.delete();
        match errors.as_slice() {
            [] if !had_pods => {}
            [] => report.ok("del", "the pods are deleted"),
            [first, ..] => report.broken("del", cause::of_error(first)),
        }
        let restored = self.restore().map(|set_back| say(&set_back, report));
        match restored.and_then(|()| self.left(&ids, &links)) {
            Ok(left) if left.is_empty() => report.ok("left-behind", "no link, lease or rule"),
            Ok(left) => {
                let remedy =
                    format!("cnitool gc {} NETNS detaches what is remembered of this network", self.list.name());
                report.broken("left-behind", Cause::new(left.join("; "), remedy));
            }
            Err(error) => report.skipped("left-behind", format!("could not be asked: {error}")),
        }
    }

    /// DEL of every pod, the last first.
    fn delete(&mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        while let Some(pod) = self.pods.pop() {
            match self.runtime.del(self.list, &pod.attachment) {
                Ok(()) => self.records.remove(pod.id()),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    fn restore(&mut self) -> Result<SetBack, Error> {
        let mut all = SetBack::default();
        if let Some(bridge) = self.facts.bridge.as_deref().filter(|bridge| !self.before.has(bridge)) {
            all.left.extend(node::remove_unused_bridge(&mut self.host, bridge, self.made.as_ref())?);
        }
        for switched in self.switched.drain(..).rev() {
            let one = switched.set_back(&mut self.host, self.before)?;
            all.done.extend(one.done);
            all.left.extend(one.left);
        }
        Ok(all)
    }

    /// What names our pods, or was made with them.
    fn left(&mut self, ids: &[String], links: &[String]) -> Result<Vec<String>, Error> {
        let mut left = Vec::new();
        let now = hostnet::link::list(&mut self.host)?;
        for link in now.iter().filter(|link| links.contains(&link.name)) {
            // A bridge that others use meanwhile is theirs; that it stays has been said.
            let is_bridge = [&self.facts.bridge, &self.facts.gateway_link].contains(&&Some(link.name.clone()));
            if !is_bridge {
                left.push(format!("link {}", link.name));
            }
        }
        let leases = std::fs::read_dir(&self.facts.leases).into_iter().flatten().flatten();
        let ours = leases.filter(|entry| {
            let is_lease = entry.file_name().to_string_lossy().parse::<std::net::IpAddr>().is_ok();
            is_lease && std::fs::read_to_string(entry.path()).is_ok_and(|text| mentions(&text, ids))
        });
        left.extend(ours.map(|entry| format!("lease {}", entry.path().display())));
        left.extend(rules(ids).into_iter().map(|rule| format!("rule {rule}")));
        Ok(left)
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        for error in self.delete() {
            eprintln!("cnitool: {error}");
        }
    }
}

/// What was set back of the node, and what was not.
fn say(set_back: &SetBack, report: &mut Report) {
    if !set_back.done.is_empty() {
        report.ok("set-back", format!("what the first pod had switched: {}", set_back.done.join(", ")));
    }
    if !set_back.left.is_empty() {
        let why = format!("of what the first pod had made or switched on, this stays: {}", set_back.left.join("; "));
        report.warn("set-back", Cause::new(why, "nothing, if somebody needs it by now"));
    }
}

fn mentions(text: &str, ids: &[String]) -> bool {
    ids.iter().any(|id| text.contains(id.as_str()))
}

/// The rules of every table that name the pods.
fn rules(ids: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    // A kernel without nf_tables has no rules in it.
    for rule in Nft::default().all_rules().unwrap_or_default() {
        if ids.iter().any(|id| rule.mentions(id)) {
            found.push(String::from_utf8_lossy(rule.comment().unwrap_or_default()).into_owned());
        }
    }
    for (version, table) in Version::ALL.into_iter().flat_map(|version| [(version, "nat"), (version, "filter")]) {
        let Ok(Some(legacy)) = Iptables::get_legacy(version, table) else { continue };
        found.extend(legacy.list_table(table).unwrap_or_default().into_iter().filter(|line| mentions(line, ids)));
    }
    found
}

/// Removes what a doctor left that was killed: by its notes, and by what the runtime remembers.
pub fn remove_leftovers(
    host: &mut Netlink,
    runtime: &Runtime,
    records: &Records,
    conf_dir: &Path,
    report: &mut Report,
) -> Result<(), Error> {
    let left = records.list()?;
    let mut errors = Vec::new();
    for record in &left {
        let digits = record.container.strip_prefix(PREFIX).unwrap_or_default();
        let process = digits.split('-').next().and_then(|digits| digits.parse().ok());
        if let Some(process) = process {
            runtime.remove_unfinished(process);
        }
        let attachment = Attachment::new(record.container.parse()?, None, IFNAME.parse()?);
        let deleted = configuration(conf_dir, &record.network, record.config.as_bytes())
            .and_then(|list| runtime.del(&list, &attachment));
        match deleted {
            Ok(()) => records.remove(&record.container),
            Err(error) => errors.push(error),
        }
    }
    for cached in runtime.attachments(None)? {
        if cached.attachment.container_id.as_str().starts_with(PREFIX) {
            let list = configuration(conf_dir, cached.network.as_str(), &cached.config);
            errors.extend(list.and_then(|list| runtime.del(&list, &cached.attachment)).err());
        }
    }
    // A second pod's note may be without what the first one's has.
    let mut bridges: Vec<(&str, Option<&Made>)> = Vec::new();
    for record in &left {
        let Some(name) = record.bridge.as_deref() else { continue };
        match bridges.iter_mut().find(|(known, _)| *known == name) {
            Some((_, made)) => *made = made.or(record.made.as_ref()),
            None => bridges.push((name, record.made.as_ref())),
        }
    }
    for (name, made) in bridges {
        if let Some(why) = node::remove_unused_bridge(host, name, made)? {
            let why = format!("an earlier doctor was killed, and the bridge stays that may be its: {why}");
            report.warn("leftovers", Cause::new(why, format!("if nobody needs it: ip link del {name}")));
        }
    }
    if let Some(error) = errors.first() {
        report.warn("leftovers", cause::of_error(error));
    } else if let Some(record) = left.first() {
        note(host, record, left.len(), report)?;
    }
    Ok(())
}

/// What was removed; and what was switched on, which is not ours to switch off so much later.
fn note(host: &mut Netlink, record: &Record, count: usize, report: &mut Report) -> Result<(), Error> {
    let what = format!("what an earlier doctor left of {count} pods is removed");
    for (ipv4, key) in [(true, "net.ipv4.ip_forward"), (false, "net.ipv6.conf.all.forwarding")] {
        let [v4, v6] = record.forwarding;
        if !(if ipv4 { v4 } else { v6 }) && forwarding::get(host, ipv4)? {
            let why = format!("{what}; before it, {key} was 0, and it may have been the one who switched it on");
            report.warn("leftovers", Cause::new(why, format!("if nobody needs it: sysctl -w {key}=0")));
            return Ok(());
        }
    }
    report.ok("leftovers", what);
    Ok(())
}

/// The network's configuration as it is now, else as it was.
fn configuration(conf_dir: &Path, network: &str, remembered: &[u8]) -> Result<ConfList, Error> {
    ConfList::from_dir(conf_dir, network)
        .or_else(|_| ConfList::from_bytes(remembered))
        .or_else(|_| ConfList::from_single(remembered))
}
