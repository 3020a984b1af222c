//! Why: what on this node keeps packets from passing, and what an error of a plugin asks for.

use hostnet::iptables::{Iptables, Version};
use hostnet::nft::{BaseChain, Nft};
use hostnet::{Netlink, sysctl};
use libcni::Error;

use super::report::Cause;
use super::subject::Facts;

/// A number below `/proc/sys`.
pub fn number(nl: &Netlink, key: &str) -> Option<u64> {
    sysctl::get(nl, key).ok().flatten()?.parse().ok()
}

/// Why the node does not pass on what came in by `link`: what is known, else where to look.
pub fn of_drop(host: &Netlink, facts: &Facts, link: &str, ipv4: bool) -> Cause {
    forwarding(host, link, ipv4)
        .or_else(|| forward_policy(facts, ipv4))
        .or_else(|| conntrack(host).filter(|_| is_conntrack_full(host)))
        .unwrap_or_else(|| suspects(ipv4))
}

/// Forwarding is off.
pub fn forwarding(host: &Netlink, link: &str, ipv4: bool) -> Option<Cause> {
    let ip = if ipv4 { "ipv4" } else { "ipv6" };
    let all = if ipv4 { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" };
    // Of IPv6 that of all links decides.
    let own = format!("net/ipv4/conf/{link}/forwarding");
    let keys = [Some(all.to_owned()), ipv4.then_some(own)];
    let off = keys.into_iter().flatten().find(|key| number(host, key) == Some(0))?;
    let key = if link.contains('.') { off.clone() } else { off.replace('/', ".") };
    let version = if ip == "ipv4" { "IPv4" } else { "IPv6" };
    Some(Cause::new(
        format!("forwarding of {version} is off ({off} is 0)"),
        format!("sysctl -w {key}=1, and find out who switches it off (/etc/sysctl.d, a network manager)"),
    ))
}

/// What is not accepted in FORWARD is dropped.
fn forward_policy(facts: &Facts, ipv4: bool) -> Option<Cause> {
    let names = dropping(ipv4);
    if names.is_empty() {
        return None;
    }
    let remedy = match facts.has_firewall {
        true => "the firewall plugin is in the chain: see what of its rules is missing or overruled there".to_owned(),
        false => {
            "add { \"type\": \"firewall\" } to the end of \"plugins\"; or accept the pods' subnets there".to_owned()
        }
    };
    Some(Cause::new(
        format!("forwarded packets are dropped by policy, and nothing accepts the pods': {}", names.join(", ")),
        remedy,
    ))
}

/// The chains that drop forwarded packets by policy.
pub fn dropping(ipv4: bool) -> Vec<String> {
    let mut names: Vec<String> =
        forward_chains(ipv4).iter().filter(|chain| chain.drops).map(BaseChain::to_string).collect();
    let version = if ipv4 { Version::V4 } else { Version::V6 };
    if let Ok(Some(legacy)) = Iptables::get_legacy(version, "filter") {
        let lines = legacy.list("filter", "FORWARD").ok().flatten().unwrap_or_default();
        if lines.iter().any(|line| line == "-P FORWARD DROP") {
            names.push("legacy iptables filter FORWARD".to_owned());
        }
    }
    names
}

fn forward_chains(ipv4: bool) -> Vec<BaseChain> {
    let mut chains = Nft::default().base_chains().unwrap_or_default();
    chains.retain(|chain| chain.sees_forwarded(ipv4));
    chains
}

fn suspects(ipv4: bool) -> Cause {
    let chains: Vec<String> = forward_chains(ipv4).iter().map(BaseChain::to_string).collect();
    let remedy = match chains.as_slice() {
        [] => "look for the packet with tcpdump on the pod's link and on the node's".to_owned(),
        chains => format!("look at the rules of {}: nft list ruleset, iptables-save", chains.join(", ")),
    };
    Cause::new("forwarding is on, and no policy drops it: a rule does", remedy)
}

/// Of strict reverse path filtering, by which a node drops what it would answer by another link.
pub fn reverse_path(host: &Netlink, link: &str) -> Option<Cause> {
    let value = |name: &str| number(host, &format!("net/ipv4/conf/{name}/rp_filter")).unwrap_or_default();
    (value("all").max(value(link)) == 1).then(|| {
        let key = format!("net/ipv4/conf/{link}/rp_filter");
        Cause::new(
            format!("strict reverse path filtering on {link} (rp_filter is 1) drops what the node would answer by another link"),
            format!("sysctl -w {key}=2 (loose); net/ipv4/conf/all/rp_filter must not be 1 either; or mend the routes"),
        )
    })
}

/// How full connection tracking is, if that is worth a word.
pub fn conntrack(host: &Netlink) -> Option<Cause> {
    let (count, max) = conntrack_use(host)?;
    worth_a_word(count, max).then(|| {
        Cause::new(
            format!("connection tracking is nearly full: {count} of {max} flows; when it is full new ones are dropped"),
            "raise net.netfilter.nf_conntrack_max, or find out who opens them: conntrack -L",
        )
    })
}

/// More than nine tenths.
fn worth_a_word(count: u64, max: u64) -> bool {
    max > 0 && count.saturating_mul(10) > max.saturating_mul(9)
}

/// Flows, and how many there may be; `None` where nothing is tracked.
pub fn conntrack_use(host: &Netlink) -> Option<(u64, u64)> {
    let read = |name| number(host, &format!("net/netfilter/nf_conntrack_{name}"));
    Some((read("count")?, read("max")?))
}

pub fn is_conntrack_full(host: &Netlink) -> bool {
    conntrack_use(host).is_some_and(|(count, max)| max > 0 && count >= max)
}

/// What a plugin's error asks for.
pub fn of_error(error: &Error) -> Cause {
    let text = error.to_string();
    let remedy = remedy(&text).unwrap_or("the error says what failed; the plugin's README explains its keys");
    Cause::new(text, remedy)
}

/// What is to be done about an error. The words are those of the reference's errors as well as ours.
pub fn remedy(error: &str) -> Option<&'static str> {
    const REMEDIES: [(&[&str], &str); 10] = [
        (&[EXHAUSTED], "release what no pod has (cnitool gc), or give the network a larger range"),
        (
            &["already has an IP address different"],
            "remove that address from the bridge, or name another bridge, or set \"forceAddress\": true",
        ),
        (
            &["failed to find plugin"],
            "install the plugin, or make it executable, or correct its \"type\"; cnitool plugins lists what is there",
        ),
        (&["does not speak version"], "install a newer version of the plugin, or lower \"cniVersion\""),
        (
            &["iptables", "nf_tables", "nftables", "netfilter"],
            "install iptables, or choose nftables (ipMasqBackend of bridge and ptp, backend of portmap and firewall); \
             the kernel needs nf_tables",
        ),
        (&["VLAN filtering"], "boot a kernel that has it, or leave \"vlan\" and \"vlanTrunk\" out"),
        (&["overlaps with"], "give each network addresses that are nobody else's"),
        (&["DADFAILED"], "another node has the address: give the nodes ranges that do not overlap"),
        (
            &["disable_ipv6", "IPv6"],
            "let the node have IPv6 (sysctl net.ipv6.conf.*.disable_ipv6=0), or take it out of the ranges",
        ),
        (
            &["Read-only file system", "No space left", "Permission denied"],
            "make the directory writable, or free some space",
        ),
    ];
    REMEDIES.iter().find(|(words, _)| words.iter().any(|word| error.contains(word))).map(|known| known.1)
}

/// In the reference's words, which host-local has as well.
pub const EXHAUSTED: &str = "no IP addresses available";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_connection_tracking_is_worth_a_word() {
        assert!(worth_a_word(100, 100) && worth_a_word(91, 100));
        assert!(!worth_a_word(90, 100) && !worth_a_word(0, 0) && !worth_a_word(5, 262_144));
    }

    #[test]
    fn errors_that_are_known() {
        for (msg, word) in [
            ("no IP addresses available in range set: 10.1.0.1-10.1.0.2", "larger range"),
            ("failed to find plugin \"bridge\" in path [/opt/cni/bin]", "install the plugin"),
            ("\"cni0\" already has an IP address different from 10.1.0.1/24: 10.9.0.1/24", "forceAddress"),
            ("something else", "the error says"),
        ] {
            assert!(of_error(&Error::internal(msg)).remedy.contains(word), "{msg}");
        }
    }
}
