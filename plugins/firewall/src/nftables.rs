//! The nftables backend: a table of our own, over netlink.
//!
//! ```text
//! table inet cni_firewall {
//!     chain admin { }                                                     the administrator's own rules
//!     chain pods {                                                        for each address of a pod
//!         ip saddr 10.1.0.2 accept comment "HASH-HASH, net: ..., if: ..., id: ..."
//!         ip daddr 10.1.0.2 ct status dnat accept comment "HASH-HASH, ..."
//!     }
//!     chain bridges {                                                     for each bridge with a policy
//!         iifname "cni0" oifname != "cni0" jump closed
//!         iifname "cni0" oifname "cni0" drop                              isolated
//!         iifname != "cni0" oifname "cni0" ct state != established,related ct status != dnat drop    isolated
//!     }
//!     chain closed { oifname "cni0" drop }
//!     chain forward {
//!         type filter hook forward priority filter; policy accept;
//!         jump bridges
//!         jump admin
//!         ct state established,related accept
//!         jump pods
//!     }
//! }
//! ```
//!
//! A packet that one base chain accepts still has to pass the others': these rules cannot open what another table drops.
//! What they drop is dropped. Only the first packet of a connection meets the pods' rules.

use std::collections::HashMap;
use std::net::IpAddr;

use hostnet::Error;
use hostnet::nft::{
    Batch, Chain, CtKey, Direction, Expression, Family, Hook, InetHookNumber, MetaKey, Nft, Operator, Rule, Table,
    Verdict, address, ct_state, ct_status, interface, ip_version,
};
use libcni::types::Cidr;

use crate::pod::Pod;
use crate::policy::Policy;
use crate::rules::Rules;

const TABLE: Table = Table { family: Family::Inet, name: "cni_firewall" };
const FORWARD: Chain<'static> = TABLE.chain("forward");
const ADMIN: Chain<'static> = TABLE.chain("admin");
const PODS: Chain<'static> = TABLE.chain("pods");
const BRIDGES: Chain<'static> = TABLE.chain("bridges");
const CLOSED: Chain<'static> = TABLE.chain("closed");

/// Priority `filter` (`NF_IP_PRI_FILTER`).
const HOOK: Hook = Hook { kind: "filter", at: InetHookNumber::Forward, priority: 0 };

const TABLE_COMMENT: &str = "CNI firewall plugin";
const ADMIN_COMMENT: &str = "the administrator's own rules; the plugin never changes this chain";

/// Makes the pod's rules, and those of its bridge.
pub fn add(rules: Rules<'_>) -> Result<(), Error> {
    Nft::default().settle(|nft| {
        let mut batch = Batch::default();
        prepare(nft, &mut batch)?;
        if !rules.policy_only {
            add_pod(nft, &mut batch, rules.pod)?;
        }
        if let Some(bridge) = rules.bridge {
            set_policy(nft, &mut batch, &bridge.name, rules.conf.policy)?;
        }
        Ok(batch)
    })
}

/// Removes the rules of a bridge's policy: another backend has them now.
pub fn forget_policy(bridge: &str) -> Result<(), Error> {
    Nft::default().settle(|nft| {
        let mut batch = Batch::default();
        set_policy(nft, &mut batch, bridge, Policy::Open)?;
        Ok(batch)
    })
}

/// The table and what leads to the rules: all that the first pod needs, and the next after somebody flushed it.
fn prepare(nft: &mut Nft, batch: &mut Batch) -> Result<(), Error> {
    let present = expressions(nft.rules(FORWARD)?);
    if present == frame() {
        return Ok(());
    }
    batch.ensure_table(TABLE, Some(TABLE_COMMENT));
    for (chain, hook, comment) in [
        (BRIDGES, None, None),
        (CLOSED, None, None),
        (ADMIN, None, Some(ADMIN_COMMENT)),
        (PODS, None, None),
        (FORWARD, Some(HOOK), None),
    ] {
        if !nft.has_chain(chain)? {
            batch.create_chain(chain, hook, comment);
        }
    }
    if !present.is_empty() {
        batch.flush_chain(FORWARD);
    }
    for rule in frame() {
        batch.append_rule(FORWARD, rule, None);
    }
    Ok(())
}

/// The rules of `forward`.
fn frame() -> [Vec<Expression>; 4] {
    let mut replies = CtKey::State.any_of(ct_state::ESTABLISHED_OR_RELATED, Operator::NotEqual).to_vec();
    replies.push(Expression::Verdict(Verdict::Accept));
    [vec![jump(BRIDGES)], vec![jump(ADMIN)], replies, vec![jump(PODS)]]
}

fn jump(chain: Chain<'_>) -> Expression {
    Expression::Verdict(Verdict::Jump(chain.name.to_owned()))
}

fn expressions(rules: Vec<Rule>) -> Vec<Vec<Expression>> {
    rules.iter().map(Rule::expressions).collect()
}

/// Adds the rules of each address, in place of those of a pod that had it before.
fn add_pod(nft: &mut Nft, batch: &mut Batch, pod: &Pod) -> Result<(), Error> {
    let present = nft.rules(PODS)?;
    let (by_address, tag) = (by_address(&present, pod), pod.tag());
    for address in &pod.addresses {
        let wanted = of_address(*address);
        let (mine, others): (Vec<&Rule>, Vec<&Rule>) = by_address
            .get(address)
            .into_iter()
            .flatten()
            .filter(|rule| wanted.contains(&rule.expressions()))
            .partition(|rule| is_of(rule, &tag));
        for rule in others {
            batch.remove_rule(PODS, rule.handle());
        }
        let mine: Vec<_> = mine.into_iter().map(Rule::expressions).collect();
        for rule in wanted.into_iter().filter(|rule| !mine.contains(rule)) {
            batch.append_rule(PODS, rule, Some(pod.comment().as_bytes()));
        }
    }
    Ok(())
}

fn is_of(rule: &Rule, tag: &str) -> bool {
    rule.comment().is_some_and(|comment| comment.starts_with(tag.as_bytes()))
}

/// Those that may be about the pod's addresses: to take every pod's rules apart takes long on a node with many.
fn by_address<'a>(rules: &'a [Rule], pod: &Pod) -> HashMap<IpAddr, Vec<&'a Rule>> {
    let mut found: HashMap<_, Vec<&Rule>> = pod.addresses.iter().map(|address| (*address, Vec::new())).collect();
    for rule in rules {
        for address in rule.addresses() {
            if let Some(found) = found.get_mut(&address)
                // It may have the same bytes twice: those of a state, too.
                && !found.last().is_some_and(|last| std::ptr::eq(*last, rule))
            {
                found.push(rule);
            }
        }
    }
    found
}

fn of_address(addr: IpAddr) -> [Vec<Expression>; 2] {
    let cidr = Cidr::host(addr);
    let rule = |direction, state: &[Expression]| {
        let mut rule = ip_version(cidr.is_ipv4()).to_vec();
        rule.extend(address(direction, Operator::Equal, &cidr));
        rule.extend_from_slice(state);
        rule.push(Expression::Verdict(Verdict::Accept));
        rule
    };
    let rewritten = CtKey::Status.any_of(ct_status::DNAT, Operator::NotEqual);
    [rule(Direction::Source, &[]), rule(Direction::Destination, &rewritten)]
}

/// Replaces the rules of a bridge where they are not those of its policy.
fn set_policy(nft: &mut Nft, batch: &mut Batch, bridge: &str, policy: Policy) -> Result<(), Error> {
    for (chain, wanted) in of_bridge(bridge, policy) {
        let present = rules_of_bridge(nft, chain, bridge)?;
        if expressions(present.clone()) == wanted {
            continue;
        }
        for rule in present {
            batch.remove_rule(chain, rule.handle());
        }
        for rule in wanted {
            batch.append_rule(chain, rule, Some(format!("{}{policy}", bridge_comment(bridge)).as_bytes()));
        }
    }
    Ok(())
}

fn bridge_comment(bridge: &str) -> String {
    format!("bridge: {bridge}, ingressPolicy: ")
}

fn rules_of_bridge(nft: &mut Nft, chain: Chain<'_>, bridge: &str) -> Result<Vec<Rule>, Error> {
    let mut rules = nft.rules(chain)?;
    rules.retain(|rule| is_of(rule, &bridge_comment(bridge)));
    Ok(rules)
}

/// The rules of a bridge by chain.
fn of_bridge(bridge: &str, policy: Policy) -> [(Chain<'static>, Vec<Vec<Expression>>); 2] {
    use Operator::{Equal, NotEqual};
    let drop = || vec![Expression::Verdict(Verdict::Drop)];
    let way = |input: Operator, output: Operator, then: Vec<Expression>| {
        let mut rule = interface(MetaKey::Iifname, input, bridge).to_vec();
        rule.extend(interface(MetaKey::Oifname, output, bridge));
        rule.extend(then);
        rule
    };
    let leaving = way(Equal, NotEqual, vec![jump(CLOSED)]);
    let within = way(Equal, Equal, drop());
    let mut unasked = CtKey::State.any_of(ct_state::ESTABLISHED_OR_RELATED, Equal).to_vec();
    unasked.extend(CtKey::Status.any_of(ct_status::DNAT, Equal));
    unasked.extend(drop());
    let from_outside = way(NotEqual, Equal, unasked);
    let mut entering = interface(MetaKey::Oifname, Equal, bridge).to_vec();
    entering.extend(drop());
    match policy {
        Policy::Open => [(BRIDGES, vec![]), (CLOSED, vec![])],
        Policy::SameBridge => [(BRIDGES, vec![leaving]), (CLOSED, vec![entering])],
        Policy::Isolated => [(BRIDGES, vec![leaving, within, from_outside]), (CLOSED, vec![entering])],
    }
}

/// Removes the pods' rules whose tag `is_gone` says so of, and says whether there were any. Table and chains stay.
pub fn remove(is_gone: &dyn Fn(&str) -> bool) -> Result<bool, Error> {
    let mut found = false;
    Nft::default().settle_in_parts(|nft| {
        let mut batch = Batch::default();
        for rule in nft.rules(PODS)? {
            let comment = rule.comment().map(String::from_utf8_lossy).unwrap_or_default();
            if comment.split_once(',').is_some_and(|(tag, _)| is_gone(tag)) {
                batch.remove_rule(PODS, rule.handle());
                found = true;
            }
        }
        Ok(batch)
    })?;
    Ok(found)
}

/// Compares; changes nothing.
pub fn check(rules: Rules<'_>) -> Result<(), Error> {
    let pod = rules.pod;
    let missing = |what: String| {
        Err(Error::other(format!("check the firewall rules of container {}", pod.owner.container), what))
    };
    let mut nft = Nft::default();
    if expressions(nft.rules(FORWARD)?) != frame() {
        return missing(format!("the rules of {FORWARD} are not those that lead to the pods'"));
    }
    if !rules.policy_only {
        let present = nft.rules(PODS)?;
        let (by_address, tag) = (by_address(&present, pod), pod.tag());
        for address in &pod.addresses {
            let present = by_address.get(address).into_iter().flatten();
            let mine = |wanted: &Vec<Expression>| {
                present.clone().any(|rule| is_of(rule, &tag) && rule.expressions() == *wanted)
            };
            if !of_address(*address).iter().all(mine) {
                return missing(format!("{PODS} has not the rules of {address}"));
            }
        }
    }
    let Some(bridge) = rules.bridge else { return Ok(()) };
    if rules.conf.policy == Policy::Isolated && !bridge.is_isolated()? {
        return missing(format!("the pod's port of bridge {} is not isolated", bridge.name));
    }
    for (chain, wanted) in of_bridge(&bridge.name, rules.conf.policy) {
        if expressions(rules_of_bridge(&mut nft, chain, &bridge.name)?) != wanted {
            let policy = rules.conf.policy;
            return missing(format!(
                "the rules of {chain} for bridge {} are not those of ingressPolicy {policy}",
                bridge.name
            ));
        }
    }
    Ok(())
}
