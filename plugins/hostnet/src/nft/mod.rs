//! nf_tables over netlink, without the `nft` program: a transaction costs tens of microseconds where
//! a process costs two milliseconds.
//!
//! Two things of the kernel shape this module. Everything is changed in a [`Batch`], which holds as a
//! whole or not at all. And a batch that deletes anything, or sends a chain that exists already,
//! makes the close of the socket wait for a grace period of 5 to 20 ms; so callers look first (a
//! get costs microseconds), then send only what is missing, and chains are always sent as *new*:
//! when somebody else was faster the batch fails with EEXIST and [`Nft::settle`] has the caller look again.
//!
//! Bytes and numbers: `include/uapi/linux/netfilter/nf_tables.h`, and what `nft --debug=netlink` prints.

mod base;
mod batch;
mod ct;
mod expression;
mod intervals;
mod matches;
mod message;
mod names;
mod nat;
mod program;
mod source_nat;
mod userdata;

pub use base::BaseChain;
pub use batch::{Batch, Hook};
pub use ct::{CtKey, ct_state, ct_status};
pub use expression::{Expression, MetaKey, Operator, Verdict};
pub use intervals::{Element, Intervals};
pub use matches::{
    Direction, address, ether_source, iifname, interface, ip_version, load_address, masked_address, octets,
    read_address,
};
pub use message::Rule;
pub use names::{Chain, Family, Table};
pub use nat::{Nat, destination_is_local, dnat, has_mark, port, read_dnat, read_port, set_mark};
pub use netlink_packet_netfilter::nftables::InetHookNumber;
pub use program::{is_installed, run};

use std::collections::BTreeMap;

use libcni::plugin::dry_run;
use message::Message;
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::error::Error;
use crate::netlink::{Failure, Socket};

/// How often a change is tried again when somebody else changed the same objects in between.
const ATTEMPTS: usize = 5;

/// Changes in one transaction where it need not be one. Each also costs a look at all rules of the chains that it is about.
const PART: usize = 2000;

/// A connection to nf_tables, opened at its first use and in the network namespace of that moment.
///
/// To drop one that has deleted something waits until the kernel has destroyed it, 5 to 20 ms. That goes on
/// by itself meanwhile: keep the connection while links are removed, which takes as long, and the wait is gone.
#[derive(Default)]
pub struct Nft {
    socket: Option<Socket>,
    /// In a dry run, what the rules that were listed say of themselves, for people.
    seen: BTreeMap<String, String>,
}

/// What is being done, where a rule goes.
const REMOVE: &str = "remove ";

/// A rule for messages: `rule 7 of ip nat POSTROUTING`.
fn rule_name(chain: Chain<'_>, handle: u64) -> String {
    format!("rule {handle} of {chain}")
}

impl Nft {
    /// Over a socket that replays what nf_tables once said.
    #[cfg(feature = "replay")]
    pub fn over(socket: Socket) -> Self {
        Self { socket: Some(socket), ..Self::default() }
    }

    /// Whether this kernel has nf_tables (and lets us use it).
    pub fn is_usable() -> bool {
        Self::default().socket().is_ok_and(|socket| socket.get::<_, Message>(Message::get_generation()).is_ok())
    }

    /// Closes the connection. To drop it does the same; here the wait is a step of the call's log.
    pub fn close(self) {
        let _step = libcni::log::step("nftables");
        drop(self);
    }

    fn socket(&mut self) -> Result<&mut Socket, Failure> {
        match &mut self.socket {
            Some(socket) => Ok(socket),
            closed => Ok(closed.insert(Socket::open(NETLINK_NETFILTER)?)),
        }
    }

    /// Whether the chain exists.
    pub fn has_chain(&mut self, chain: Chain<'_>) -> Result<bool, Error> {
        match self.socket().and_then(|socket| socket.get::<_, Message>(Message::get_chain(chain))) {
            Ok(_) => Ok(true),
            Err(failure) if failure.errno() == Some(libc::ENOENT) => Ok(false),
            Err(failure) => Err(failure.doing(format!("look for chain {chain}"))),
        }
    }

    /// The names of a table's chains; none when the table is absent.
    pub fn chains(&mut self, table: Table) -> Result<Vec<String>, Error> {
        let answers = match self.socket().and_then(|socket| socket.dump::<_, Message>(Message::get_chains(table))) {
            Ok(answers) => answers,
            Err(failure) if failure.errno() == Some(libc::ENOENT) => return Ok(Vec::new()),
            Err(failure) => return Err(failure.doing(format!("list the chains of {table}"))),
        };
        // The kernel lists those of every table of the family.
        Ok(answers.iter().filter_map(|answer| answer.chain_of(table)).collect())
    }

    /// The rules of one chain in their order; none when the chain, or its table, is absent.
    pub fn rules(&mut self, chain: Chain<'_>) -> Result<Vec<Rule>, Error> {
        let answers = match self.socket().and_then(|socket| socket.dump::<_, Message>(Message::get_rules(chain))) {
            Ok(answers) => answers,
            Err(failure) if failure.errno() == Some(libc::ENOENT) => return Ok(Vec::new()),
            Err(failure) => return Err(failure.doing(format!("list the rules of {chain}"))),
        };
        // Kernels before 4.10 do not look at the chain named in the request and list every rule.
        let rules: Vec<Rule> =
            answers.into_iter().filter_map(Message::into_rule).filter(|rule| rule.is_in(chain)).collect();
        if dry_run::is_on() {
            self.seen.extend(rules.iter().filter_map(|rule| Some((rule_name(chain, rule.handle()), rule.words()?))));
        }
        Ok(rules)
    }

    /// The elements of a set of intervals, in order; none when the set, or its table, is absent.
    pub fn elements(&mut self, table: Table, set: &str) -> Result<Vec<Element>, Error> {
        let answers =
            match self.socket().and_then(|socket| socket.dump::<_, Message>(Message::get_elements(table, set))) {
                Ok(answers) => answers,
                Err(failure) if failure.errno() == Some(libc::ENOENT) => return Ok(Vec::new()),
                Err(failure) => return Err(failure.doing(format!("list the set {set} of {table}"))),
            };
        let mut elements: Vec<_> = answers.into_iter().flat_map(Message::into_elements).collect();
        elements.sort();
        Ok(elements)
    }

    /// Makes the changes, all or none. An empty batch asks nothing of the kernel.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        let (messages, doing) = batch.into_parts();
        if dry_run::is_on() {
            for one in doing {
                dry_run::notes(|| match one.strip_prefix(REMOVE).and_then(|name| self.seen.get(name)) {
                    Some(words) => format!("{one} ({words})"),
                    None => one,
                });
            }
            return Ok(());
        }
        let socket = self.socket().map_err(|failure| failure.doing("open a netfilter socket"))?;
        socket.batch(messages).map_err(|failed| {
            let doing = failed.index.and_then(|index| doing.into_iter().nth(index));
            failed.error.doing(doing.unwrap_or_else(|| "change the nf_tables ruleset".to_owned()))
        })
    }

    /// Commits what `plan` asks for after looking at the kernel's state, and plans again when the
    /// state turns out to have changed in between: an object there that was not, or the reverse.
    pub fn settle(&mut self, plan: impl FnMut(&mut Self) -> Result<Batch, Error>) -> Result<(), Error> {
        self.settle_by(plan, Self::commit)
    }

    /// The same where it does not matter that all holds as a whole: for removals, of which there may be thousands. The
    /// kernel looks for each rule from the beginning of its chain, also through those that the transaction has removed
    /// so far: in one, the time grows with the square.
    pub fn settle_in_parts(&mut self, plan: impl FnMut(&mut Self) -> Result<Batch, Error>) -> Result<(), Error> {
        self.settle_by(plan, |nft, batch| batch.parts(PART).try_for_each(|part| nft.commit(part)))
    }

    fn settle_by(
        &mut self,
        mut plan: impl FnMut(&mut Self) -> Result<Batch, Error>,
        commit: impl Fn(&mut Self, Batch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let batch = plan(self)?;
            match commit(self, batch) {
                Err(error) if attempt < ATTEMPTS && changed_meanwhile(&error) => attempt += 1,
                outcome => return outcome,
            }
        }
    }
}

/// EEXIST and ENOENT: created or removed by somebody else. EBUSY: a chain that was to be removed is
/// jumped to by now.
fn changed_meanwhile(error: &Error) -> bool {
    error.is_exists() || error.is_not_found() || error.errno() == Some(libc::EBUSY)
}
