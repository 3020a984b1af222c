//! Table `filter` of one IP version: read without a process where iptables keeps it in nf_tables, else by one listing;
//! added to by one `iptables-restore`.

use std::net::IpAddr;

use hostnet::Error;
use hostnet::iptables::{Iptables, Version};
use hostnet::nft::{Batch, Nft, Table};

use super::rule::{self, Place, Rule};

const FILTER: &str = "filter";

/// The table, from where it is read.
pub struct Filter {
    version: Version,
    /// Absent where rules are only removed, over netlink.
    program: Option<Iptables>,
    source: Source,
}

enum Source {
    Nft(Nft),
    /// As `-S` prints them.
    Lines(Vec<String>),
}

/// Which of a chain's rules to look at: on a node with a thousand pods most are not of interest, and to take a rule
/// apart takes longer than to see that a word is not in it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those with one of these words.
    pub words: Vec<String>,
    /// Those with one of these addresses.
    pub addresses: Vec<IpAddr>,
    /// All of them.
    pub all: bool,
}

impl Filter {
    /// Where the node's `iptables` keeps its rules.
    ///
    /// # Errors
    /// There is no such program, or it cannot list the table.
    pub fn open(version: Version) -> Result<Self, Error> {
        let program = Iptables::find(version)?;
        let source =
            if program.is_nft() { Source::Nft(Nft::default()) } else { Source::Lines(program.list_table(FILTER)?) };
        Ok(Self { version, program: Some(program), source })
    }

    /// What is in nf_tables, whichever `iptables` this node has now.
    pub fn in_nft(version: Version) -> Self {
        Self { version, program: None, source: Source::Nft(Nft::default()) }
    }

    /// What the legacy flavour has. `None` where it has no such table: to ask it would make the table.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_legacy(version: Version) -> Result<Option<Self>, Error> {
        if !version.has_legacy(FILTER) {
            return Ok(None);
        }
        let program = Iptables::find_legacy(version)?;
        if program.is_nft() {
            return Ok(None);
        }
        let source = Source::Lines(program.list_table(FILTER)?);
        Ok(Some(Self { version, program: Some(program), source }))
    }

    /// Whether a chain is there.
    pub fn has_chain(&mut self, chain: &str) -> Result<bool, Error> {
        let table = self.table();
        match &mut self.source {
            Source::Nft(nft) => nft.has_chain(table.chain(chain)),
            Source::Lines(lines) => {
                let (made, built_in) = (format!("-N {chain}"), format!("-P {chain} "));
                Ok(lines.iter().any(|line| *line == made || line.starts_with(&built_in)))
            }
        }
    }

    /// The rules of a chain in their order, of those that are wanted; none where there is no such chain.
    pub fn rules(&mut self, chain: &str, wanted: &Wanted) -> Result<Vec<Rule>, Error> {
        let (table, version) = (self.table(), self.version);
        match &mut self.source {
            Source::Nft(nft) => {
                let listed = nft.rules(table.chain(chain))?;
                let wanted = listed.iter().filter(|rule| wanted.is_in_bytes(rule.bytes()));
                Ok(wanted.map(|rule| Rule::from_nft(rule, version)).collect())
            }
            Source::Lines(lines) => {
                let begin = format!("-A {chain} ");
                let wanted = lines.iter().filter(|line| line.starts_with(&begin) && wanted.is_in_line(line));
                Ok(wanted.map(|line| Rule::from_line(line)).collect())
            }
        }
    }

    /// Changes the table. Commands for iptables-restore, in one transaction: without any no process is started. Rules that
    /// go are removed by handle when the others are there; where there are no handles, in the same transaction.
    pub fn change(&mut self, change: &Change) -> Result<(), Error> {
        let removed_by_words = match &self.source {
            Source::Nft(_) => Vec::new(),
            Source::Lines(_) => change.remove.iter().filter_map(|(_, rule)| rule.removal()).collect(),
        };
        let commands = [change.add.as_slice(), &removed_by_words, &change.front].concat();
        match &self.program {
            Some(program) if !commands.is_empty() => program.restore(FILTER, &commands)?,
            _ => {}
        }
        let table = self.table();
        match &mut self.source {
            Source::Nft(nft) if !change.remove.is_empty() => {
                nft.settle(|nft| remove_by_handle(nft, table, &change.remove))
            }
            _ => Ok(()),
        }
    }

    fn table(&self) -> Table {
        self.version.nft_table(FILTER)
    }
}

/// What becomes of the table.
#[derive(Debug, Default)]
pub struct Change {
    /// Commands that make chains and add rules.
    pub add: Vec<String>,
    /// Rules that go, each with its chain.
    pub remove: Vec<(&'static str, Rule)>,
    /// Commands for after that: a rule that is like one that goes.
    pub front: Vec<String>,
}

/// Looked for once more: a second DEL may have been faster.
fn remove_by_handle(nft: &mut Nft, table: Table, rules: &[(&'static str, Rule)]) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    let mut chains: Vec<&str> = rules.iter().map(|(chain, _)| *chain).collect();
    chains.dedup();
    for chain in chains {
        let present: Vec<u64> = nft.rules(table.chain(chain))?.iter().map(|rule| rule.handle()).collect();
        for (_, rule) in rules.iter().filter(|(of, _)| *of == chain) {
            if let Place::Handle(handle) = rule.place
                && present.contains(&handle)
            {
                batch.remove_rule(table.chain(chain), handle);
            }
        }
    }
    Ok(batch)
}

impl Wanted {
    /// Every rule of the chain.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    fn is_in_bytes(&self, bytes: &[u8]) -> bool {
        let has = |wanted: &[u8]| rule::contains(bytes, wanted);
        self.all
            || self.words.iter().any(|word| has(word.as_bytes()))
            || self.addresses.iter().any(|address| match address {
                IpAddr::V4(v4) => has(&v4.octets()),
                IpAddr::V6(v6) => has(&v6.octets()),
            })
    }

    fn is_in_line(&self, line: &str) -> bool {
        self.all
            || self.words.iter().any(|word| line.contains(word.as_str()))
            || self.addresses.iter().any(|address| line.contains(&format!(" {address}/")))
    }
}
