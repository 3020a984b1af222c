//! Table `nat` as `iptables -S` prints it: whose chains are there, and who has which port.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU16;

use hostnet::iptables::{Iptables, words};
use hostnet::ports::{Mapping, Ports, Protocol};
use hostnet::{Error, Owner};

use super::rules::{self, ENTRIES};
use crate::holder::Holder;

/// The table.
#[derive(Default)]
pub struct Listing {
    /// Those that are not built in, in order.
    chains: Vec<String>,
    /// By chain, in order: a port is a rule or four, so there may be many.
    rules: HashMap<String, Vec<String>>,
}

impl Listing {
    /// Asks the program.
    ///
    /// # Errors
    /// It does not run.
    pub fn read(iptables: &Iptables) -> Result<Self, Error> {
        let mut listing = Self::default();
        for line in iptables.list_table("nat")? {
            if let Some(chain) = line.strip_prefix("-N ") {
                listing.chains.push(chain.to_owned());
            } else if let Some((chain, _)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) {
                match listing.rules.get_mut(chain) {
                    Some(rules) => rules.push(line),
                    None => drop(listing.rules.insert(chain.to_owned(), vec![line])),
                }
            }
        }
        Ok(listing)
    }

    /// Whether there is such a chain.
    pub fn has_chain(&self, chain: &str) -> bool {
        self.chains.iter().any(|made| made == chain)
    }

    /// The rules of a chain, in order.
    pub fn rules(&self, chain: &str) -> Vec<&str> {
        self.rules.get(chain).into_iter().flatten().map(String::as_str).collect()
    }

    /// The rules of a chain that end in a jump to another.
    pub fn jumps(&self, from: &str, to: &str) -> Vec<&str> {
        let end = format!(" -j {to}");
        let mut rules = self.rules(from);
        rules.retain(|rule| rule.ends_with(&end));
        rules
    }

    /// The chains of attachments.
    pub fn chains(&self) -> impl Iterator<Item = &str> {
        self.chains.iter().map(String::as_str).filter(|chain| chain.starts_with("CNI-DN-"))
    }

    /// The tag in a chain: none in one that the reference made.
    pub fn tag(&self, chain: &str) -> Option<String> {
        self.rules(chain).into_iter().rev().find(|rule| is_tag(rule)).and_then(|rule| words(rule)?.pop())
    }

    /// Whether the chain is this owner's, as far as is known: one without a tag is of its container and network.
    pub fn is_of(&self, chain: &str, owner: &Owner) -> bool {
        self.tag(chain).is_none_or(|tag| tag.starts_with(&owner.nft_comment_prefix()))
    }

    /// The chain with an owner's rules, where it has any.
    pub fn chain_of(&self, owner: &Owner) -> String {
        let own = owner.own_hostport_chain();
        if self.has_chain(&own) { own } else { owner.hostport_chain() }
    }

    /// The chain for an owner's rules: the reference's, unless that one is another interface's.
    pub fn chain_for(&self, owner: &Owner) -> String {
        let base = owner.hostport_chain();
        if self.has_chain(&base) && !self.is_of(&base, owner) { owner.own_hostport_chain() } else { base }
    }

    /// Who else has ports that these mappings take, and for which mappings.
    pub fn holders<'a>(&self, mappings: &Ports<'a>, own: &[String]) -> Vec<(Holder, Vec<&'a Mapping>)> {
        let mut holders = Vec::new();
        let mut seen: HashSet<String> = own.iter().cloned().collect();
        for entry in self.rules(ENTRIES) {
            let Some(words) = words(entry) else { continue };
            let Some(chain) = words.last().filter(|chain| seen.insert((*chain).clone())) else { continue };
            let theirs = self.rules(chain).into_iter().filter_map(read_mapping);
            let mut lost = HashSet::new();
            let taken = theirs.flat_map(|theirs| mappings.overlapping(theirs)).filter(|ours| lost.insert(*ours));
            let taken: Vec<_> = taken.collect();
            if !taken.is_empty() {
                holders.push((self.holder(chain, &words), taken));
            }
        }
        holders
    }

    fn holder(&self, chain: &str, entry: &[String]) -> Holder {
        let of_tag = self.tag(chain).map(|tag| Holder::of_tag(&tag)).unwrap_or_default();
        let comment = entry.iter().skip_while(|word| *word != "--comment").nth(1);
        let quoted: Vec<&str> = comment.map(|comment| comment.split('"').collect()).unwrap_or_default();
        let of_comment = |place: usize| quoted.get(place).map(|text| (*text).to_owned());
        Holder {
            network: of_tag.network.or_else(|| of_comment(1)),
            container: of_comment(3).or(of_tag.container),
            ifname: of_tag.ifname,
        }
    }

    /// The commands that remove a chain and what leads to it.
    pub fn removal(&self, from: &str, chain: &str) -> Vec<String> {
        let mut commands: Vec<String> = self.jumps(from, chain).into_iter().map(removal).collect();
        if self.has_chain(chain) {
            commands.extend([format!("-F {chain}"), format!("-X {chain}")]);
        }
        commands
    }
}

/// The command that removes a rule.
pub fn removal(rule: &str) -> String {
    rule.replacen("-A ", "-D ", 1)
}

/// Whether a rule does nothing but say something.
pub fn is_tag(rule: &str) -> bool {
    rule.contains(" --comment ") && !rule.contains(" -j ")
}

/// The mapping that a rule of an attachment's chain stands for.
fn read_mapping(rule: &str) -> Option<Mapping> {
    let words = words(rule)?;
    let after = |option: &str| words.iter().skip_while(|word| *word != option).nth(1);
    let to = after("--to-destination")?;
    let (_, container_port) = to.rsplit_once(':')?;
    let host_ip = after("-d").and_then(|network| network.split('/').next()?.parse().ok());
    Some(Mapping {
        protocol: after("-p")?.parse::<Protocol>().ok()?,
        host_port: after("--dport")?.parse::<NonZeroU16>().ok()?,
        container_port: container_port.parse().ok()?,
        host_ip,
    })
}

/// The names that [`Listing::holders`] passes over: the attachment's own chains.
pub fn own_chains(owner: &Owner) -> [String; 2] {
    [owner.hostport_chain(), owner.own_hostport_chain()]
}

/// Whether an entry's comment is of this network.
pub fn is_of_network(entry: &str, network: &str) -> bool {
    words(entry).is_some_and(|words| words.iter().any(|word| word.starts_with(&rules::comment_of_network(network))))
}
