//! Every base chain there is, whoever made it: where packets may end before, or after, our own rules see them.

use super::message::{HEADER_LEN, Message, NEWCHAIN};
use super::{Nft, Rule};
use crate::error::Error;
use crate::netlink::raw::find;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
/// `NF_DROP` of linux/netfilter.h.
const NF_DROP: u32 = 0;
/// `NFPROTO_INET`, `NFPROTO_IPV4` and `NFPROTO_IPV6` of linux/netfilter.h.
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;

/// A chain that the kernel calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Its table, without the family.
    pub table: String,
    /// Its name within the table.
    pub name: String,
    /// What becomes of packets that no rule decides: they are dropped, or go on.
    pub drops: bool,
    family: u8,
    hook: u32,
}

impl BaseChain {
    /// Whether packets that the node forwards come here, of IPv4 or of IPv6.
    pub fn sees_forwarded(&self, ipv4: bool) -> bool {
        let own = if ipv4 { IPV4 } else { IPV6 };
        self.hook == FORWARD && (self.family == INET || self.family == own)
    }
}

impl std::fmt::Display for BaseChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = match self.family {
            INET => "inet",
            IPV4 => "ip",
            IPV6 => "ip6",
            _ => "another family's",
        };
        write!(f, "{family} {} {}", self.table, self.name)
    }
}

impl Nft {
    /// The base chains of all tables.
    ///
    /// # Errors
    /// The kernel's refusal: also that it has no nf_tables.
    pub fn base_chains(&mut self) -> Result<Vec<BaseChain>, Error> {
        let answers = self.socket().and_then(|socket| socket.dump(Message::get_all_chains()));
        let answers = answers.map_err(|failure| failure.doing("list the chains of all tables"))?;
        Ok(answers.iter().filter_map(read).collect())
    }

    /// The rules of all chains of all tables.
    ///
    /// # Errors
    /// As [`base_chains`](Self::base_chains).
    pub fn all_rules(&mut self) -> Result<Vec<Rule>, Error> {
        let answers = self.socket().and_then(|socket| socket.dump(Message::get_all_rules()));
        let answers = answers.map_err(|failure| failure.doing("list the rules of all tables"))?;
        Ok(answers.into_iter().filter_map(Message::into_rule).collect())
    }
}

fn read(answer: &Message) -> Option<BaseChain> {
    let Message::Answer { kind: NEWCHAIN, payload } = answer else { return None };
    let attributes = payload.get(HEADER_LEN..)?;
    let text = |kind| Some(String::from_utf8_lossy(find(attributes, kind)?.strip_suffix(&[0])?).into_owned());
    let number = |bytes: &[u8]| bytes.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    Some(BaseChain {
        table: text(NFTA_CHAIN_TABLE)?,
        name: text(NFTA_CHAIN_NAME)?,
        drops: find(attributes, NFTA_CHAIN_POLICY).and_then(number) == Some(NF_DROP),
        family: *payload.first()?,
        hook: number(find(find(attributes, NFTA_CHAIN_HOOK)?, NFTA_HOOK_HOOKNUM)?)?,
    })
}
