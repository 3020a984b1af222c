//! Everything that is known of the attachments of this node, and whether each lives.
//!
//! That one lives is shown by a link or an address that it has; that one is gone only by its namespace, which its runtime
//! named and which is certainly not there, or by a boot since. What shows neither is unknown, and is kept: an address
//! that is taken from a living pod breaks two, one that is held for a dead one costs an address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hostnet::Owner;
use libcni::runtime::{Attachment, Cached, Remembered, Runtime};
use libcni::{Code, Error, plugin};

use super::entry::addresses;
use super::leases::{self, Holder, Lease};
use super::networks::Networks;
use super::node::{Id, Node, Space, id_of};
use super::rules::{self, Mention, Whose};

/// A lease that is younger may be of an ADD that is still at work: longer than a runtime of ours waits for a plugin.
const YOUNG: Duration = Duration::from_secs(300);

/// An attachment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub network: String,
    pub container: String,
    /// Empty where a lease of before 2018 does not say.
    pub ifname: String,
}

impl Key {
    pub fn of(entry: &Cached) -> Self {
        Self {
            network: entry.network.to_string(),
            container: entry.attachment.container_id.to_string(),
            ifname: entry.attachment.ifname.to_string(),
        }
    }

    fn owner(&self) -> Option<Owner> {
        let (network, container) = (self.network.parse().ok()?, self.container.parse().ok()?);
        Some(Owner { network, container, ifname: self.ifname.parse().ok()? })
    }
}

/// In the order in which one outweighs the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Stale,
    Unknown,
    Alive,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Unknown => "unknown",
            Self::Alive => "alive",
        }
    }
}

/// A state, and what shows it.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub state: State,
    pub why: String,
    /// An ADD may still be at work: nothing is wrong yet.
    pub may_pass: bool,
}

fn verdict(state: State, why: impl Into<String>) -> Verdict {
    Verdict { state, why: why.into(), may_pass: false }
}

/// What is known.
pub struct Known {
    pub networks: Networks,
    pub leases: Vec<Lease>,
    pub remembered: Remembered,
    pub node: Node,
    /// What could not be looked at of leases and of the node: it might show that an attachment lives.
    unseen: Vec<String>,
    /// Who says, in the cache, that an address in a namespace is its own.
    claims: HashMap<(Id, IpAddr), Vec<Key>>,
    /// Rules about addresses that neither the cache nor a link says that are somebody's.
    mentions: Vec<Mention>,
}

impl Known {
    /// Looks at configurations, leases, the cache and the node; changes nothing.
    ///
    /// # Errors
    /// The configurations, or the cache, cannot be read at all.
    pub fn read(conf_dir: &Path, runtime: &Runtime) -> Result<Self, Error> {
        let remembered = runtime.remembered()?;
        let networks = Networks::read(conf_dir, &remembered.entries)?;
        let (leases, mut unseen) = leases::read(&networks.roots());
        let paths = remembered.entries.iter().filter_map(|entry| entry.attachment.netns.clone());
        let (node, failed) = Node::read(paths);
        unseen.extend(failed);
        let mut claims: HashMap<_, Vec<Key>> = HashMap::new();
        for entry in &remembered.entries {
            let Some(id) =
                entry.attachment.netns.as_deref().filter(|_| entry.netns_is_gone().is_none()).and_then(id_of)
            else {
                continue;
            };
            for address in addresses(entry) {
                claims.entry((id, address)).or_default().push(Key::of(entry));
            }
        }
        let mut known = Self { networks, leases, remembered, node, unseen, claims, mentions: Vec::new() };
        let (mentions, failed) = rules::read(&known.unclaimed());
        known.mentions = mentions;
        known.unseen.extend(failed);
        Ok(known)
    }

    /// The addresses in namespaces that nobody has, as far as the cache and links say.
    fn unclaimed(&self) -> BTreeSet<IpAddr> {
        let of = |(id, space): (&Id, &Space)| {
            let free =
                space.addresses.iter().filter(|(address, ifname)| self.is_unclaimed(*id, space, *address, ifname));
            free.map(|(address, _)| *address).collect::<Vec<_>>()
        };
        self.node.spaces.iter().flat_map(of).collect()
    }

    fn is_unclaimed(&self, id: Id, space: &Space, address: IpAddr, ifname: &str) -> bool {
        !self.claims.contains_key(&(id, address)) && self.node.owner_of(space, ifname).is_none()
    }

    /// Those of whom rules speak and nothing else, if their address lives; each with what shows that. Also rules whose address
    /// lives, and that do not say whose they are: nobody who is told what is valid can keep those.
    fn mentioned(&self, network: &str) -> (Vec<(Key, String)>, Vec<String>) {
        let (mut keys, mut cut) = (Vec::new(), Vec::new());
        let Ok(name) = network.parse() else { return (keys, cut) };
        let is_leased = |address: IpAddr| {
            let is_it = |lease: &Lease| lease.address == address && matches!(lease.holder, Holder::Attachment { .. });
            self.leases.iter().any(|lease| lease.network == network && is_it(lease))
        };
        for mention in &self.mentions {
            let Some(whose) = mention.whose(&name) else { continue };
            for address in mention.addresses.iter().filter(|address| !is_leased(**address)) {
                let mut places = self.node.with(*address).filter(|(id, space, ifname)| {
                    let named = match &whose {
                        Whose::Attachment(owner) => owner.ifname.as_str() == *ifname,
                        Whose::Container(_) | Whose::Cut => true,
                    };
                    named && self.is_unclaimed(*id, space, *address, ifname)
                });
                let Some((_, space, ifname)) = places.next() else { continue };
                let place = format!("{address} is on {ifname} in {}", space.path.display());
                let container = match &whose {
                    Whose::Attachment(owner) => owner.container.to_string(),
                    Whose::Container(container) => container.clone(),
                    Whose::Cut => {
                        cut.push(format!("{place}, and the rule {:?} is about it", mention.comment()));
                        continue;
                    }
                };
                let key = Key { network: network.to_owned(), container, ifname: ifname.to_owned() };
                keys.push((key, format!("{place}, and rules about it are of this container")));
            }
        }
        (keys, cut)
    }

    /// Whether the plugins of a network may be told what is valid.
    ///
    /// # Errors
    /// There are rules that they would remove, of an attachment that lives and cannot be named.
    pub fn check_named(&self, network: &str) -> Result<(), Error> {
        let (_, cut) = self.mentioned(network);
        if cut.is_empty() {
            return Ok(());
        }
        let msg = format!("the plugins are not told what to keep, as not all of it can be named: {}", cut.join("; "));
        Err(Error::new(Code::INTERNAL, msg))
    }

    /// What could not be looked at, configurations too.
    pub fn failed(&self) -> Vec<String> {
        self.unseen.iter().chain(&self.networks.broken).cloned().collect()
    }

    /// Whether all was looked at that may show that an attachment lives. A configuration that cannot be read shows none.
    ///
    /// # Errors
    /// It was not: who is gone is not known.
    pub fn check_seen(&self) -> Result<(), Error> {
        super::unseen(&self.unseen).map_err(|error| error.context("it is not known who is gone"))
    }

    /// Addresses that several attachments have, each in a namespace of its own.
    pub fn twice(&self) -> BTreeMap<IpAddr, Vec<&Key>> {
        let mut all: BTreeMap<IpAddr, Vec<(Id, &Key)>> = BTreeMap::new();
        for ((id, address), keys) in &self.claims {
            if self.node.with(*address).any(|(there, _, _)| there == *id) {
                all.entry(*address).or_default().extend(keys.iter().map(|key| (*id, key)));
            }
        }
        all.retain(|_, holders| holders.iter().any(|(id, _)| holders.first().is_some_and(|(first, _)| first != id)));
        let keys = |holders: Vec<(Id, _)>| {
            let mut keys: Vec<&Key> = holders.into_iter().map(|(_, key)| key).collect();
            keys.sort();
            keys
        };
        all.into_iter().map(|(address, holders)| (address, keys(holders))).collect()
    }

    /// Whose a lease is. One that names no interface is of any that its container has, if that has one.
    pub fn key(&self, lease: &Lease) -> Option<Key> {
        let Holder::Attachment { container, ifname } = &lease.holder else { return None };
        let ifname = ifname.clone().or_else(|| {
            let entries = self.remembered.entries.iter().map(Key::of);
            let mut entries = entries.filter(|key| key.network == lease.network && key.container == *container);
            entries.next().map(|key| key.ifname)
        });
        let (network, container) = (lease.network.clone(), container.clone());
        Some(Key { network, container, ifname: ifname.unwrap_or_default() })
    }

    pub fn entry(&self, key: &Key) -> Option<&Cached> {
        self.remembered.entries.iter().find(|entry| Key::of(entry) == *key)
    }

    /// Whether who has a lease lives, and has the address.
    pub fn judge_lease(&self, lease: &Lease) -> Verdict {
        match (&lease.holder, self.key(lease)) {
            (Holder::Empty, _) => verdict(State::Stale, "the file is empty: who made it was killed"),
            (Holder::Unreadable(why), _) => verdict(State::Unknown, format!("the file cannot be read: {why}")),
            (_, None) => verdict(State::Unknown, "the file does not say whose it is"),
            (_, Some(key)) => self.judge(&key, &[lease.address], lease.written, lease.before_boot),
        }
    }

    /// Whether the container of an entry of the cache lives.
    pub fn judge_entry(&self, entry: &Cached) -> Verdict {
        self.judge(&Key::of(entry), &addresses(entry), None, false)
    }

    fn judge(&self, key: &Key, addresses: &[IpAddr], written: Option<SystemTime>, before_boot: bool) -> Verdict {
        if let Some(link) = key.owner().and_then(|owner| self.node.owners.get(&owner)) {
            return verdict(State::Alive, format!("{link} on the node is its link"));
        }
        let seen = self.seen(key, addresses);
        if let Some(entry) = self.entry(key) {
            return self.judge_remembered(entry, addresses, seen, before_boot);
        }
        if let Some(seen) = seen {
            return verdict(State::Alive, seen);
        }
        if let Some(file) = self.unreadable(key) {
            return verdict(State::Unknown, format!("{} may be of it, and cannot be read", file.display()));
        }
        if before_boot {
            return verdict(State::Stale, "written before the last boot, and nothing has it now");
        }
        let age = written.and_then(|written| SystemTime::now().duration_since(written).ok());
        match age.filter(|age| *age < YOUNG) {
            Some(age) => {
                let why = format!("written {} s ago: its ADD may still be at work", age.as_secs());
                Verdict { may_pass: true, ..verdict(State::Unknown, why) }
            }
            None => verdict(State::Unknown, "no cache entry of any runtime, no link, and no namespace has it"),
        }
    }

    fn judge_remembered(
        &self,
        entry: &Cached,
        addresses: &[IpAddr],
        seen: Option<String>,
        before_boot: bool,
    ) -> Verdict {
        if let Some(why) = entry.netns_is_gone() {
            if let Some(seen) = seen {
                return verdict(State::Alive, seen);
            }
            if let Some(there) = self.elsewhere(entry) {
                return self.judge_remembered(&there, addresses, None, before_boot);
            }
            return verdict(State::Stale, format!("a runtime remembers it, and {why}"));
        }
        let path = entry.attachment.netns.as_deref();
        let id = path.and_then(id_of);
        let shown = path.unwrap_or(Path::new("")).display();
        let space = id.and_then(|id| self.node.spaces.get(&id));
        let has =
            |address: &IpAddr| space.is_some_and(|space| space.addresses.iter().any(|(there, _)| there == address));
        if addresses.iter().any(has) || (space.is_some() && addresses.is_empty()) {
            return verdict(State::Alive, format!("{} in {shown}", entry.attachment.ifname));
        }
        match (seen, id) {
            (Some(seen), _) => verdict(State::Alive, seen),
            // Plugins refuse the node's own namespace, so it was another when the container was attached.
            (None, Some(id)) if Some(id) == self.node.own => {
                verdict(State::Stale, format!("a runtime remembers it, and {shown} is the node's own namespace now"))
            }
            (None, _) if before_boot => verdict(State::Stale, "written before the last boot, and nothing has it now"),
            (None, Some(_)) => verdict(State::Unknown, format!("its namespace {shown} is there, and does not have it")),
            (None, None) => verdict(State::Unknown, "a runtime remembers it, and not its namespace"),
        }
    }

    /// The entry with another way to its namespace, if one is mounted at its path where others see it, and may be its own.
    fn elsewhere(&self, entry: &Cached) -> Option<Cached> {
        let with = |way: &Path| {
            let attachment = Attachment { netns: Some(way.to_owned()), ..entry.attachment.clone() };
            Cached { attachment, ..entry.clone() }
        };
        let ways = self.node.ways_to(entry.attachment.netns.as_deref()?);
        ways.map(with).find(|there| there.netns_is_gone().is_none())
    }

    /// Where one of the addresses is seen on an interface of that name, unless it is somebody else's there.
    fn seen(&self, key: &Key, addresses: &[IpAddr]) -> Option<String> {
        addresses.iter().find_map(|address| {
            let free = |id: Id| {
                let claims = self.claims.get(&(id, *address));
                claims.is_none_or(|claims| claims.is_empty() || claims.contains(key))
            };
            let named = |ifname: &str| key.ifname.is_empty() || ifname == key.ifname;
            let (_, space, ifname) = self.node.with(*address).find(|(id, _, ifname)| named(ifname) && free(*id))?;
            Some(format!("{ifname} in {}", space.path.display()))
        })
    }

    /// A file of the cache that may be about an attachment, and says nothing.
    fn unreadable(&self, key: &Key) -> Option<&PathBuf> {
        let network = key.network.parse().ok()?;
        let is_it = |one: &plugin::Attachment| {
            one.container_id == key.container && (one.ifname == key.ifname || key.ifname.is_empty())
        };
        let mut files = self.remembered.unreadable.iter();
        files.find(|file| file.candidates(&network).iter().any(is_it)).map(|file| &file.file)
    }

    /// Every attachment to a network that anything speaks of. One lives if any of what speaks of it does.
    pub fn attachments(&self, network: &str) -> BTreeMap<Key, Verdict> {
        let mut all: BTreeMap<Key, Verdict> = BTreeMap::new();
        let mut add = |key: Key, verdict: Verdict| {
            let known = all.entry(key).or_insert_with(|| verdict.clone());
            if known.state < verdict.state {
                *known = verdict;
            }
        };
        for lease in self.leases.iter().filter(|lease| lease.network == network) {
            if let Some(key) = self.key(lease) {
                add(key, self.judge_lease(lease));
            }
        }
        for entry in self.remembered.entries.iter().filter(|entry| entry.network.as_str() == network) {
            add(Key::of(entry), self.judge_entry(entry));
        }
        for (owner, link) in self.node.owners.iter().filter(|(owner, _)| owner.network.as_str() == network) {
            let (container, ifname) = (owner.container.to_string(), owner.ifname.to_string());
            let key = Key { network: network.to_owned(), container, ifname };
            add(key, verdict(State::Alive, format!("{link} on the node is its link")));
        }
        for (key, why) in self.mentioned(network).0 {
            add(key, verdict(State::Alive, why));
        }
        all
    }

    /// What GC is to keep of a network: whatever is not certainly gone, and what an entry that cannot be read may be of.
    pub fn valid<'a>(&self, network: &str, keys: impl Iterator<Item = &'a Key>) -> Vec<plugin::Attachment> {
        let pair = |key: &Key| plugin::Attachment { container_id: key.container.clone(), ifname: key.ifname.clone() };
        let mut valid: Vec<plugin::Attachment> = keys.map(pair).collect();
        if let Ok(name) = network.parse() {
            valid.extend(self.remembered.unreadable.iter().flat_map(|file| file.candidates(&name)));
        }
        valid
    }
}
