//! Table `filter` of one IP version: read without a process where iptables keeps it in nf_tables, else by one listing;
//! added to by one `iptables-restore`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use hostnet::Error;
use hostnet::iptables::{Iptables, Version};
use hostnet::nft::{self, Batch, Nft, Table};

use super::rule::{Place, Rule};

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
    pub addresses: HashSet<IpAddr>,
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

    /// What the legacy flavour has. `None` where it has no such table, or no programs.
    ///
    /// # Errors
    /// It cannot be seen whether there is one, or the table cannot be listed.
    pub fn in_legacy(version: Version) -> Result<Option<Self>, Error> {
        let Some(program) = Iptables::get_legacy(version, FILTER)?.filter(|program| !program.is_nft()) else {
            return Ok(None);
        };
        let source = Source::Lines(program.list_table(FILTER)?);
        Ok(Some(Self { version, program: Some(program), source }))
    }

    /// What the flavour of iptables has that is not in use, if anything.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn unused(&self) -> Result<Option<Self>, Error> {
        match self.source {
            Source::Nft(_) => Self::in_legacy(self.version),
            Source::Lines(_) => Ok(Some(Self::in_nft(self.version))),
        }
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
                let wanted = listed.iter().filter(|rule| wanted.is_in(rule));
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
            Source::Nft(nft) => remove_by_handle(nft, table, &change.remove),
            Source::Lines(_) => Ok(()),
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

/// By their numbers. If one is gone meanwhile, because a second DEL was faster, it is looked which there are.
fn remove_by_handle(nft: &mut Nft, table: Table, rules: &[(&'static str, Rule)]) -> Result<(), Error> {
    let mut again = false;
    nft.settle_in_parts(|nft| {
        let mut batch = Batch::default();
        let mut present: HashMap<&str, HashSet<u64>> = HashMap::new();
        for (name, rule) in rules {
            let chain = table.chain(name);
            let Place::Handle(handle) = rule.place else { continue };
            if again && !present.contains_key(name) {
                present.insert(name, nft.rules(chain)?.iter().map(nft::Rule::handle).collect());
            }
            if !again || present.get(name).is_some_and(|present| present.contains(&handle)) {
                batch.remove_rule(chain, handle);
            }
        }
        again = true;
        Ok(batch)
    })
}

/// The addresses that stand in a line, each with the length of its network behind it.
fn hosts(line: &str) -> impl Iterator<Item = IpAddr> {
    line.split(' ').filter_map(|word| word.split_once('/')?.0.parse().ok())
}

impl Wanted {
    /// Every rule of the chain.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    fn is_in(&self, rule: &nft::Rule) -> bool {
        self.all
            || self.words.iter().any(|word| rule.mentions(word))
            || rule.addresses().any(|address| self.addresses.contains(&address))
    }

    fn is_in_line(&self, line: &str) -> bool {
        self.all
            || self.words.iter().any(|word| line.contains(word.as_str()))
            || hosts(line).any(|address| self.addresses.contains(&address))
    }
}
