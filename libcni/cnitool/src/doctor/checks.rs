//! What can be seen without a pod. What is broken here would make a pod fail, or a pod would do harm: then none is made.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hostnet::link;
use hostnet::route::{self, Filter, Route};
use hostnet::{Netlink, addr, sysctl};
use libcni::runtime::{ConfList, Runtime};
use libcni::types::Cidr;
use libcni::types::json::Object;
use libcni::{Code, Error, Version};
use serde_json::Value;

use super::cause;
use super::node::{Before, Way, words};
use super::report::{Cause, Report};
use super::subject::{Facts, Subject, Subnet};
use crate::validate;
use crate::validate::findings::Level;

/// What `cnitool validate` says about the network's file, its drop-ins, and what else is in its directory.
pub fn configuration(
    subject: &Subject,
    dir: &Path,
    plugins: (&[PathBuf], bool),
    report: &mut Report,
) -> Result<(), Error> {
    let (dirs, chosen) = plugins;
    let (findings, _) = validate::examine(&[dir.to_owned()], dirs, chosen)?;
    let drop_ins = subject.file.with_file_name(&subject.name);
    let named = format!("network {:?}", subject.name);
    let ours = findings.0.iter().filter(|finding| {
        let is_ours = finding.file() == subject.file || finding.file().starts_with(&drop_ins);
        is_ours || finding.message().contains(&named) || finding.file() == dir && finding.level() != Level::Note
    });
    let mut said = false;
    for finding in ours {
        let remedy =
            cause::remedy(finding.message()).unwrap_or("correct the configuration; cnitool validate checks it");
        let cause = Cause::new(finding.to_string(), remedy);
        match finding.level() {
            Level::Error => report.broken("configuration", cause),
            Level::Warning => report.warn("configuration", cause),
            Level::Note => continue,
        }
        said = true;
    }
    match &subject.list {
        Err(error) if !said => report.broken("configuration", cause::of_error(error)),
        Ok(list) if !said => {
            let types: Vec<&str> = list.plugins().iter().map(libcni::runtime::PluginConf::plugin_type).collect();
            report.ok("configuration", format!("{}, cniVersion {}", types.join(" "), list.version_text()));
        }
        _ => {}
    }
    Ok(())
}

/// STATUS. It came with 1.1.0; where every plugin speaks that, it is asked whatever the configuration's version.
pub fn status(runtime: &Runtime, list: &ConfList, report: &mut Report) {
    let speaks = |kind: &str| {
        runtime.versions(kind).is_ok_and(|versions| versions.iter().any(|one| one == Version::V1_1_0.as_str()))
    };
    if !list.plugins().iter().all(|plugin| speaks(plugin.plugin_type())) {
        return report.skipped("status", "not all plugins speak 1.1.0, which has STATUS");
    }
    match as_1_1_0(list).and_then(|list| runtime.status(&list)) {
        Ok(()) => report.ok("status", "the plugins say that the next pod can be added"),
        Err(error) if error.code() == Code::INCOMPATIBLE_VERSION => {
            report.skipped("status", format!("it cannot be asked: {error}"));
        }
        Err(error) => report.broken("status", cause::of_error(&error)),
    }
}

fn as_1_1_0(list: &ConfList) -> Result<ConfList, Error> {
    let plugins = list.plugins().iter().map(|plugin| Value::Object(plugin.object().clone()));
    let object = Object::from_iter([
        ("cniVersion".to_owned(), Version::V1_1_0.as_str().into()),
        ("name".to_owned(), list.name().to_string().into()),
        ("plugins".to_owned(), Value::Array(plugins.collect())),
    ]);
    ConfList::from_bytes(Value::Object(object).to_string().as_bytes())
}

/// Whether the node has room for what the configuration asks for.
pub fn network(host: &mut Netlink, facts: &Facts, before: &Before, report: &mut Report) -> Result<(), Error> {
    let is_in_use = bridge(host, facts, report)?;
    // Where the node is not the gateway, pods may well be in its own network: a bridge with its link as a port, macvlan.
    if facts.is_gateway {
        overlap(host, facts, is_in_use, report)?;
    }
    ipv6(host, facts, before, report)
}

/// Whether the bridge can be the network's. `true`: it is already.
fn bridge(host: &mut Netlink, facts: &Facts, report: &mut Report) -> Result<bool, Error> {
    let (Some(name), Some(gateway)) = (&facts.bridge, &facts.gateway_link) else { return Ok(false) };
    let Some(found) = link::get(host, name)? else {
        report.ok("bridge", format!("there is no {name}; the first pod makes it"));
        return Ok(false);
    };
    if !found.is_kind("bridge") {
        let remedy = "name another link in \"bridge\", or remove this one";
        report.broken("bridge", Cause::new(format!("{name} is there, but is not a bridge"), remedy));
        return Ok(false);
    }
    let Some(gateway) = link::get(host, gateway)?.filter(|_| facts.is_gateway) else {
        report.ok("bridge", format!("{name} is there"));
        return Ok(false);
    };
    let present: Vec<Cidr> = addr::list(host, gateway.index)?.iter().map(|address| address.cidr).collect();
    let wanted: Vec<Cidr> = facts.subnets.iter().filter_map(gateway_address).collect();
    // An IPv4 address leaves no room for another.
    let other = present.iter().find(|address| address.is_ipv4() && facts.has(true) && !wanted.contains(address));
    if let Some(other) = other {
        let wanted: Vec<String> = wanted.iter().filter(|cidr| cidr.is_ipv4()).map(Cidr::to_string).collect();
        let what = match facts.force_address {
            true => "forceAddress would take it away from whoever has it now",
            false => "ADD fails",
        };
        let why = format!("{} has the address {other}, and the gateway is {}: {what}", gateway.name, wanted.join(", "));
        let remedy =
            format!("ip address del {other} dev {}, if nobody needs it; else name another \"bridge\"", gateway.name);
        report.broken("bridge", Cause::new(why, remedy));
        return Ok(false);
    }
    report.ok("bridge", format!("{} is there", gateway.name));
    Ok(wanted.iter().any(|address| present.contains(address)))
}

/// The gateway's address as it is on the bridge.
fn gateway_address(subnet: &Subnet) -> Option<Cidr> {
    Cidr::new(subnet.gateway, subnet.cidr.prefix_len())
}

/// Whether the pods' addresses are somebody else's. Where the network is in use already, pods change nothing about it.
fn overlap(host: &mut Netlink, facts: &Facts, is_in_use: bool, report: &mut Report) -> Result<(), Error> {
    let filter = Filter { table: Some(route::TABLE_MAIN), ..Filter::default() };
    let routes = route::list(host, &filter)?;
    let links = link::list(host)?;
    let mut clear = true;
    for subnet in &facts.subnets {
        for route in &routes {
            let Some(oif) = route.oif.and_then(|index| links.iter().find(|link| link.index == index)) else { continue };
            if is_own(route, oif, facts) || route.dst.is_default() || !route.dst.overlaps(&subnet.cidr) {
                continue;
            }
            clear = false;
            let remedy = "choose a range that is nobody's: ip route shows whose is what";
            let why = format!("the pods' subnet {} overlaps with {}", subnet.cidr, words(route, &oif.name));
            if is_in_use || (route.gw.is_some() && route.dst.prefix_len() < subnet.cidr.prefix_len()) {
                let why = format!("{why}: whoever has such an address there cannot be reached from this node");
                report.warn("overlap", Cause::new(why, remedy));
            } else {
                report.broken(
                    "overlap",
                    Cause::new(format!("{why}: a pod would take the node's own network away"), remedy),
                );
            }
        }
    }
    if clear && !facts.subnets.is_empty() {
        report.ok("overlap", "no route of the node leads to the pods' addresses elsewhere");
    }
    Ok(())
}

/// The network's own: the bridge's, and those to single pods.
fn is_own(route: &Route, oif: &link::Link, facts: &Facts) -> bool {
    let is_bridge = [&facts.bridge, &facts.gateway_link].into_iter().flatten().any(|name| *name == oif.name);
    is_bridge || (oif.is_kind("veth") && route.dst.is_host())
}

/// Whether pods can have IPv6, and the node keeps its own.
fn ipv6(host: &mut Netlink, facts: &Facts, before: &Before, report: &mut Report) -> Result<(), Error> {
    if !facts.has(false) {
        return Ok(());
    }
    if sysctl::get(host, "net/ipv6/conf/all/disable_ipv6")?.is_none() {
        let remedy = "boot without ipv6.disable=1, or take IPv6 out of the ranges";
        report.broken("ipv6", Cause::new("the kernel has no IPv6, and the network has a range of it", remedy));
        return Ok(());
    }
    let off = |key: &str| cause::number(host, key) == Some(1);
    // What is made from now on is as "default" says; a bridge that is there may differ.
    let mut keys = vec!["net/ipv6/conf/default/disable_ipv6".to_owned()];
    if let Some(gateway) = facts.gateway_link.as_ref().filter(|name| before.has(name)) {
        keys = vec![format!("net/ipv6/conf/{gateway}/disable_ipv6")];
    }
    if let Some(key) = keys.iter().find(|key| facts.is_gateway && off(key)) {
        let why = format!("IPv6 is switched off on the node ({key} is 1), and the network has a range of it");
        let remedy = "set it to 0 (/etc/sysctl.d), or take IPv6 out of the ranges";
        report.broken("ipv6", Cause::new(why, remedy));
        return Ok(());
    }
    let way = Way::get(host, false)?;
    let [_, forwards] = before.forwarding;
    if let Some(way) = way.filter(|way| way.is_advertised && !forwards && facts.is_gateway) {
        let key = format!("net/ipv6/conf/{}/accept_ra", way.link.name);
        if cause::number(host, &key) != Some(2) {
            let why = format!(
                "the node's IPv6 default route by {} is a router advertisement's; when the first pod switches forwarding on \
                 the node loses it ({key} is not 2)",
                way.link.name
            );
            report.broken("ipv6", Cause::new(why, format!("set {key} to 2 (/etc/sysctl.d) before pods start")));
            return Ok(());
        }
    }
    report.ok("ipv6", "the node has it");
    Ok(())
}

/// What else of the node pods depend on.
pub fn node(host: &mut Netlink, facts: &Facts, before: &Before, report: &mut Report) -> Result<(), Error> {
    match (cause::conntrack_use(host), cause::conntrack(host)) {
        (None, _) => report.skipped("conntrack", "this kernel tracks no connections yet"),
        (Some(_), Some(cause)) if cause::is_conntrack_full(host) => report.broken("conntrack", cause),
        (Some(_), Some(cause)) => report.warn("conntrack", cause),
        (Some((count, max)), None) => report.ok("conntrack", format!("{count} of {max} flows")),
    }
    forwarding(host, facts, before, report)
}

/// Forwarding that is off is switched on by the first pod; if there are pods already, somebody switched it off.
fn forwarding(host: &mut Netlink, facts: &Facts, before: &Before, report: &mut Report) -> Result<(), Error> {
    if !facts.is_gateway {
        return Ok(());
    }
    let bridge = facts.bridge.as_ref().and_then(|name| before.links.iter().find(|link| link.name == *name));
    let pods = bridge.map_or(0, |bridge| before.links.iter().filter(|link| link.master == Some(bridge.index)).count());
    for (ipv4, forwards) in [true, false].into_iter().zip(before.forwarding) {
        if !facts.has(ipv4) {
            continue;
        }
        let name = if ipv4 { "forwarding-ipv4" } else { "forwarding-ipv6" };
        let entrance = facts.gateway_link.as_ref().filter(|link| before.has(link));
        let exit = Way::get(host, ipv4)?.map(|way| way.link.name);
        let links = entrance.into_iter().chain(exit.as_ref());
        let off = links.filter_map(|link| cause::forwarding(host, link, ipv4)).next();
        match (forwards, off) {
            (false, Some(off)) if pods > 0 => {
                report
                    .broken(name, Cause::new(format!("{}, while {pods} pods are on the bridge", off.why), off.remedy));
            }
            (false, _) => report.ok(name, "was off; the first pod switches it on"),
            (true, Some(off)) => report.broken(name, off),
            (true, None) => report.ok(name, "on"),
        }
    }
    Ok(())
}

/// An address of the node that a pod may ask for a host port: that on its way out, else the gateway's.
pub fn node_address(way: Option<&Way>, gateway: Option<IpAddr>) -> Option<IpAddr> {
    way.and_then(|way| way.address).or(gateway)
}
