//! What is sent to nf_tables and what comes back.
//!
//! Requests are the crate's typed messages. Answers are kept as bytes and read attribute by
//! attribute: of a thousand rules in a chain DEL wants the comment alone, and a rule that somebody
//! else wrote, with an expression nobody here knows, must not make a list unreadable.

use std::convert::Infallible;
use std::net::IpAddr;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, GenMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetElementList,
    SetElementMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::{Chain, Element, Expression, Table, userdata};
use crate::netlink::raw::{self, attributes, find};

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
/// Of a match; a target's are the same.
const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_INFO: u16 = 3;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN`: the message a chain is listed in.
pub(super) const NEWCHAIN: u16 = 0x0a03;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE`: the message a rule is listed in.
const NEWRULE: u16 = 0x0a06;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM`: the message elements of a set are listed in.
const NEWSETELEM: u16 = 0x0a0c;

/// `struct nfgenmsg`, before the attributes.
pub(super) const HEADER_LEN: usize = 4;

/// A netlink payload: typed on the way out, bytes on the way in.
pub(super) enum Message {
    Request(NetfilterMessage),
    Answer { kind: u16, payload: Vec<u8> },
}

impl Message {
    pub(super) fn new(family: impl Into<NetfilterProtoFamily>, message: NfTablesMessage) -> Self {
        // Version 0 (NFNETLINK_V0) and no resource: what every nf_tables message has.
        Self::Request(NetfilterMessage::new(NetfilterHeader::new(family.into(), 0, 0), message))
    }

    /// Asks for the number of the ruleset's generation: the cheapest question there is.
    pub(super) fn get_generation() -> Self {
        Self::new(NetfilterProtoFamily::Unspec, NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() }))
    }

    pub(super) fn get_chain(chain: Chain<'_>) -> Self {
        let attributes =
            vec![ChainAttribute::Table(chain.table.name.to_owned()), ChainAttribute::Name(chain.name.to_owned())];
        Self::new(chain.table.family, NfTablesMessage::GetChain(ChainMessage { attributes }))
    }

    pub(super) fn get_chains(table: Table) -> Self {
        let attributes = vec![ChainAttribute::Table(table.name.to_owned())];
        Self::new(table.family, NfTablesMessage::GetChain(ChainMessage { attributes }))
    }

    pub(super) fn get_all_chains() -> Self {
        Self::new(NetfilterProtoFamily::Unspec, NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() }))
    }

    pub(super) fn get_all_rules() -> Self {
        Self::new(NetfilterProtoFamily::Unspec, NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() }))
    }

    pub(super) fn get_rules(chain: Chain<'_>) -> Self {
        let attributes =
            vec![RuleAttribute::Table(chain.table.name.to_owned()), RuleAttribute::Chain(chain.name.to_owned())];
        Self::new(chain.table.family, NfTablesMessage::GetRule(RuleMessage { attributes }))
    }

    pub(super) fn get_elements(table: Table, set: &str) -> Self {
        let attributes = vec![SetElementList::Table(table.name.to_owned()), SetElementList::Set(set.to_owned())];
        Self::new(table.family, NfTablesMessage::GetSetElement(SetElementMessage { attributes }))
    }

    /// As one message of a batch. `flags` are the header's: `NLM_F_CREATE`...
    pub(super) fn with_flags(self, flags: u16) -> NetlinkMessage<Self> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        NetlinkMessage::new(header, NetlinkPayload::InnerMessage(self))
    }

    /// The name of the chain that is listed, if it is in this table.
    pub(super) fn chain_of(&self, table: Table) -> Option<String> {
        let Self::Answer { kind: NEWCHAIN, payload } = self else { return None };
        let text = |kind| find(payload.get(HEADER_LEN..)?, kind)?.strip_suffix(&[0]);
        let name = text(NFTA_CHAIN_NAME)?;
        (text(NFTA_CHAIN_TABLE)? == table.name.as_bytes()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    pub(super) fn into_rule(self) -> Option<Rule> {
        match self {
            Self::Answer { kind: NEWRULE, payload } => Some(Rule { payload }),
            _ => None,
        }
    }

    pub(super) fn into_elements(self) -> impl Iterator<Item = Element> {
        // Not by the typed crate, which panics where a nest is shorter than it should be.
        let payload = match self {
            Self::Answer { kind: NEWSETELEM, payload } => payload,
            _ => Vec::new(),
        };
        let list = payload.get(HEADER_LEN..).and_then(|message| find(message, NFTA_SET_ELEM_LIST_ELEMENTS));
        let read = |(_, element)| {
            let flags = find(element, NFTA_SET_ELEM_FLAGS).and_then(|flags| flags.try_into().ok());
            let flags = flags.map_or(0, u32::from_be_bytes);
            let key = find(find(element, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)?;
            Some(Element { key: key.to_vec(), end: flags & NFT_SET_ELEM_INTERVAL_END != 0 })
        };
        attributes(list.unwrap_or_default()).filter_map(read).collect::<Vec<_>>().into_iter()
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(message) => message.message_type(),
            Self::Answer { kind, .. } => *kind,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(message) => NetlinkSerializable::buffer_len(message),
            Self::Answer { payload, .. } => payload.len(),
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Request(message) => message.serialize(buffer),
            Self::Answer { payload, .. } => buffer.copy_from_slice(payload),
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self::Answer { kind: header.message_type, payload: payload.to_vec() })
    }
}

/// A rule as the kernel lists it.
#[derive(Clone, PartialEq, Eq)]
pub struct Rule {
    payload: Vec<u8>,
}

impl Rule {
    /// Its number within the table; 0, which no rule has, where the kernel sent none.
    pub fn handle(&self) -> u64 {
        let bytes = self.attribute(NFTA_RULE_HANDLE).and_then(|value| value.try_into().ok());
        bytes.map_or(0, u64::from_be_bytes)
    }

    /// Its comment, without the NUL.
    pub fn comment(&self) -> Option<&[u8]> {
        userdata::comment(self.attribute(NFTA_RULE_USERDATA)?)
    }

    /// Whose it is, where we wrote that beside the comment.
    pub fn tag(&self) -> Option<&[u8]> {
        userdata::tag(self.attribute(NFTA_RULE_USERDATA)?)
    }

    /// What the rule says of itself, for people: whose it is, or its comment, also iptables' own.
    pub fn words(&self) -> Option<String> {
        let text = self.tag().or_else(|| self.comment()).or_else(|| self.extension("comment"))?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty())
    }

    /// Whether these bytes stand anywhere in the rule.
    pub fn contains(&self, wanted: &[u8]) -> bool {
        let Some(first) = wanted.first() else { return true };
        // The first byte alone, as long as it differs: a thousand pods have a megabyte of rules.
        self.payload.windows(wanted.len()).any(|bytes| bytes.first() == Some(first) && bytes == wanted)
    }

    /// The values of this length, such as ports and addresses, that its expressions compare with or load: all of them, and
    /// perhaps what only looks like one. Quicker than to ask for the expressions.
    pub fn values<const LENGTH: usize>(&self) -> impl Iterator<Item = [u8; LENGTH]> {
        // As it stands in a message, where attributes begin at multiples of 4.
        let header = raw::header(NFTA_DATA_VALUE, LENGTH);
        let places = (0..self.payload.len()).step_by(4);
        places.filter_map(move |place| self.payload.get(place..)?.strip_prefix(&header)?.first_chunk().copied())
    }

    /// The addresses among its values.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.values::<4>().map(IpAddr::from).chain(self.values::<16>().map(IpAddr::from))
    }

    /// The bytes of an extension of iptables (`multiport`, `comment`...) among its expressions: its own structure, as the
    /// headers linux/netfilter/xt_*.h have it. Nothing is copied: of a thousand rules most are asked in vain.
    pub fn extension(&self, name: &str) -> Option<&[u8]> {
        let expressions = self.attribute(NFTA_RULE_EXPRESSIONS)?;
        attributes(expressions).find_map(|(_, expression)| {
            let data = find(expression, NFTA_EXPR_DATA)?;
            let found = find(data, NFTA_MATCH_NAME)?.strip_suffix(&[0])?;
            if found == name.as_bytes() { find(data, NFTA_MATCH_INFO) } else { None }
        })
    }

    /// Whether this text stands anywhere in the rule: quicker than to ask for its expressions.
    pub fn mentions(&self, text: &str) -> bool {
        self.contains(text.as_bytes())
    }

    /// The rule as the kernel sent it, for whoever looks for something that no expression here has.
    pub fn bytes(&self) -> &[u8] {
        &self.payload
    }

    /// What it consists of.
    pub fn expressions(&self) -> Vec<Expression> {
        let list = self.attribute(NFTA_RULE_EXPRESSIONS).unwrap_or_default();
        let read = |element| {
            let name =
                find(element, NFTA_EXPR_NAME).and_then(|name| std::str::from_utf8(name.strip_suffix(&[0])?).ok());
            Expression::read(name.unwrap_or_default(), find(element, NFTA_EXPR_DATA))
        };
        attributes(list).map(|(_, element)| read(element)).collect()
    }

    pub(super) fn is_in(&self, chain: Chain<'_>) -> bool {
        let names = |kind, name: &str| {
            self.attribute(kind)
                .and_then(|value| value.strip_suffix(&[0]))
                .is_some_and(|value| value == name.as_bytes())
        };
        names(NFTA_RULE_TABLE, chain.table.name) && names(NFTA_RULE_CHAIN, chain.name)
    }

    fn attribute(&self, kind: u16) -> Option<&[u8]> {
        find(self.payload.get(HEADER_LEN..)?, kind)
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let comment = self.comment().map(String::from_utf8_lossy);
        f.debug_struct("Rule")
            .field("handle", &self.handle())
            .field("comment", &comment)
            .field("expressions", &self.expressions())
            .finish()
    }
}
