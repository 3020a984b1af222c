//! `macspoofchk`: frames that come from the pod with another source address than its own are dropped,
//! where they enter the bridge.
//!
//! ```text
//! table bridge nat {
//!     chain PREROUTING { type filter hook prerouting priority dstnat; policy accept;
//!         iifname "HOST VETH" jump cni-br-iface-ID-IFNAME }
//!     chain cni-br-iface-ID-IFNAME { jump cni-br-iface-ID-IFNAME-mac }
//!     chain cni-br-iface-ID-IFNAME-mac { ether saddr MAC return; drop }
//! }
//! ```
//!
//! Every rule has the comment `macspoofchk-ID-IFNAME`, by which it is found again: the link may be gone
//! when DEL runs. Table and PREROUTING are shared with other pods and with ebtables, and stay.
//!
//! None of it names a network. So that GC knows whose it is, our jump to the private chain has a tag that says so, which
//! `nft` does not show.

use std::collections::BTreeMap;

use libcni::types::Mac;

use crate::error::Error;
use crate::link::{self, Link};
use crate::netlink::Netlink;
use crate::nft::{
    Batch, Chain, Expression, Family, Hook, InetHookNumber, Nft, Rule, Table, Verdict, ether_source, iifname,
};
use crate::owner::Owner;
use crate::valid::Valid;

const TABLE: Table = Table { family: Family::Bridge, name: "nat" };
const PREROUTING: Chain<'static> = TABLE.chain("PREROUTING");

/// Priority `dstnat` of the bridge (`NF_BR_PRI_NAT_DST_BRIDGED`).
const HOOK: Hook = Hook { kind: "filter", at: InetHookNumber::PreRouting, priority: -300 };

/// What every comment begins with.
const COMMENT: &str = "macspoofchk-";

/// The names of one owner's objects.
struct Names {
    iface: String,
    mac: String,
    comment: String,
}

impl Names {
    fn of(owner: &Owner) -> Self {
        Self::of_id(&owner.spoof_check_id())
    }

    fn of_id(id: &str) -> Self {
        Self {
            iface: format!("cni-br-iface-{id}"),
            mac: format!("cni-br-iface-{id}-mac"),
            comment: format!("{COMMENT}{id}"),
        }
    }

    fn iface(&self) -> Chain<'_> {
        TABLE.chain(&self.iface)
    }

    fn mac(&self) -> Chain<'_> {
        TABLE.chain(&self.mac)
    }

    /// The rules by which frames from `host_veth` come to the private chain.
    fn owns(&self, rule: &Rule) -> bool {
        rule.comment() == Some(self.comment.as_bytes())
    }

    /// Every rule, in order, with the chain it is in.
    fn rules(&self, host_veth: &str, mac: Mac) -> [(Chain<'_>, Vec<Expression>); 4] {
        let jump = |chain: &str| Expression::Verdict(Verdict::Jump(chain.to_owned()));
        let [load_name, is_veth] = iifname(host_veth);
        let [load_source, is_own] = ether_source(mac);
        [
            (PREROUTING, vec![load_name, is_veth, jump(&self.iface)]),
            (self.iface(), vec![jump(&self.mac)]),
            (self.mac(), vec![load_source, is_own, Expression::Verdict(Verdict::Return)]),
            (self.mac(), vec![Expression::Verdict(Verdict::Drop)]),
        ]
    }
}

/// Lets only frames with the source address `mac` in through `host_veth`, the host's end of the pod's
/// link. What an earlier ADD of the same owner left is replaced.
pub fn add(owner: &Owner, host_veth: &str, mac: Mac) -> Result<(), Error> {
    let _step = libcni::log::step("spoof check");
    let names = Names::of(owner);
    Nft::default().settle(|nft| {
        let mut batch = Batch::default();
        batch.ensure_table(TABLE, None);
        if !nft.has_chain(PREROUTING)? {
            batch.create_chain(PREROUTING, Some(HOOK), None);
        }
        if nft.has_chain(names.iface())? {
            remove_jumps(nft, &names, &mut batch)?;
        }
        for chain in [names.iface(), names.mac()] {
            if nft.has_chain(chain)? {
                batch.flush_chain(chain);
            } else {
                batch.create_chain(chain, None, None);
            }
        }
        let comment = names.comment.as_bytes();
        for (chain, expressions) in names.rules(host_veth, mac) {
            if chain == PREROUTING {
                batch.append_tagged_rule(chain, expressions, comment, &owner.nft_comment());
            } else {
                batch.append_rule(chain, expressions, Some(comment));
            }
        }
        Ok(batch)
    })
}

/// Removes the owner's rules and chains. What is gone already is fine, and so is a kernel without nf_tables.
pub fn remove(owner: &Owner) -> Result<(), Error> {
    remove_over(&mut Nft::default(), owner)
}

/// [`remove`] over a connection of the caller's: one that also removes links does so before it drops the connection.
pub fn remove_over(nft: &mut Nft, owner: &Owner) -> Result<(), Error> {
    let _step = libcni::log::step("spoof check");
    let names = Names::of(owner);
    let removed = nft.settle(|nft| {
        let mut batch = Batch::default();
        // Without the chain there is no jump to it, and other pods' rules need not be read.
        if nft.has_chain(names.iface())? {
            remove_jumps(nft, &names, &mut batch)?;
        }
        remove_chains(nft, &names, &mut batch)?;
        Ok(batch)
    });
    removed.or_else(|error| if Nft::is_usable() { Err(error) } else { Ok(()) })
}

fn remove_chains(nft: &mut Nft, names: &Names, batch: &mut Batch) -> Result<(), Error> {
    // In this order: a chain can go when nothing jumps to it any more.
    for chain in [names.iface(), names.mac()] {
        if nft.has_chain(chain)? {
            batch.remove_chain(chain);
        }
    }
    Ok(())
}

/// Removes the spoof checks of this network's attachments that are not valid.
///
/// The reference's do not say of which network they are. One goes if the host's end that it is for is gone, as then it
/// checks nothing, for no network; and if it is not that of a valid attachment.
pub fn remove_all_but(nft: &mut Nft, valid: &Valid) -> Result<(), Error> {
    let _step = libcni::log::step("spoof check");
    let removed = nft.settle(|nft| {
        let mut batch = Batch::default();
        let mut is_used: BTreeMap<String, bool> = BTreeMap::new();
        let rules = nft.rules(PREROUTING)?;
        // Asked after the rules: a link is there before its rule, so one that is not there now is gone.
        let mut links = None;
        for rule in rules {
            let Some(id) = id_of(&rule) else { continue };
            let is_stale = match rule.tag() {
                Some(tag) => valid.is_stale_comment(tag),
                None => !valid.has_spoof_check(id) && !is_of_any(&rule, known(&mut links)?),
            };
            if is_stale {
                batch.remove_rule(PREROUTING, rule.handle());
            }
            *is_used.entry(id.to_owned()).or_default() |= !is_stale;
        }
        for (id, _) in is_used.iter().filter(|(_, is_used)| !**is_used) {
            remove_chains(nft, &Names::of_id(id), &mut batch)?;
        }
        Ok(batch)
    });
    removed.or_else(|error| if Nft::is_usable() { Err(error) } else { Ok(()) })
}

fn id_of(rule: &Rule) -> Option<&str> {
    std::str::from_utf8(rule.comment()?).ok()?.strip_prefix(COMMENT)
}

/// The host's links, listed the first time they are asked for.
fn known(links: &mut Option<Vec<Link>>) -> Result<&[Link], Error> {
    if links.is_none() {
        *links = Some(link::list(&mut Netlink::open()?)?);
    }
    Ok(links.as_deref().unwrap_or_default())
}

fn is_of_any(rule: &Rule, links: &[Link]) -> bool {
    let expressions = rule.expressions();
    links.iter().any(|link| expressions.starts_with(&iifname(&link.name)))
}

fn remove_jumps(nft: &mut Nft, names: &Names, batch: &mut Batch) -> Result<(), Error> {
    for rule in nft.rules(PREROUTING)? {
        if names.owns(&rule) {
            batch.remove_rule(PREROUTING, rule.handle());
        }
    }
    Ok(())
}

/// Compares the rules with what [`add`] makes.
pub fn check(owner: &Owner, host_veth: &str, mac: Mac) -> Result<(), Error> {
    let names = Names::of(owner);
    let wanted = names.rules(host_veth, mac);
    let mut nft = Nft::default();
    for chain in [PREROUTING, names.iface(), names.mac()] {
        let present: Vec<_> = nft.rules(chain)?.iter().filter(|rule| names.owns(rule)).map(Rule::expressions).collect();
        let mut expected = wanted.iter().filter(|(of, _)| *of == chain).map(|(_, expressions)| expressions);
        // Not equality: the reference leaves a second jump where ADD was repeated.
        if !expected.all(|rule| present.contains(rule)) {
            let doing = format!("check the spoof check of container {}", owner.container);
            return Err(Error::other(doing, format!("the rules of {chain} are not those for {host_veth} and {mac}")));
        }
    }
    Ok(())
}
