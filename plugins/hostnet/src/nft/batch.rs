//! A transaction in the making: the messages, and for each what it is for, so that a refusal names its object.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NetlinkMessage};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, SetAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute, TableMessage,
};

use super::intervals::{Element, Intervals};
use super::message::Message;
use super::{Chain, Expression, REMOVE, Table, rule_name, userdata};

/// `NF_ACCEPT` of linux/netfilter.h, as a chain's policy.
const ACCEPT: u32 = 1;

/// Elements of a set in one message: the length of their list is 16 bits, and one has 36 bytes.
const ELEMENTS_MAX: usize = 1000;

/// What the kernel makes a name of for a set without one.
const ANONYMOUS: &str = "__set%d";

/// What `nft` calls the types of the keys: the kernel does not look at them.
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_IPV6_ADDR: u32 = 8;

/// Where packets come into a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What the chain may do: `filter`, `nat` or `route`.
    pub kind: &'static str,
    /// The place in a packet's way. Bridge tables number the places as the others do.
    pub at: InetHookNumber,
    /// Order among the chains at that place, lowest first.
    pub priority: i32,
}

/// Changes that hold as a whole or not at all. Made with [`Batch::default`], committed by [`super::Nft::commit`].
#[derive(Default)]
pub struct Batch {
    messages: Vec<NetlinkMessage<Message>>,
    doing: Vec<String>,
}

impl Batch {
    /// As transactions of at most so many changes, in order.
    pub(super) fn parts(self, size: usize) -> impl Iterator<Item = Self> {
        let mut changes = self.messages.into_iter().zip(self.doing).peekable();
        std::iter::from_fn(move || {
            changes.peek()?;
            let (messages, doing) = changes.by_ref().take(size).unzip();
            Some(Self { messages, doing })
        })
    }

    /// A table that must be there afterwards; the comment is set only when it is made.
    pub fn ensure_table(&mut self, table: Table, comment: Option<&str>) {
        let mut attributes = vec![TableAttribute::Name(table.name.to_owned())];
        attributes.extend(comment.map(|text| TableAttribute::UserData(userdata::from_comment(text.as_bytes()))));
        let message = NfTablesMessage::NewTable(TableMessage { attributes });
        self.push(Message::new(table.family, message), NLM_F_CREATE, || format!("create table {table}"));
    }

    /// A chain that must not be there yet: EEXIST otherwise. With a hook, a base chain of policy accept.
    pub fn create_chain(&mut self, chain: Chain<'_>, hook: Option<Hook>, comment: Option<&str>) {
        let mut attributes = chain_name(chain);
        if let Some(Hook { kind, at, priority }) = hook {
            attributes.push(ChainAttribute::Hook(vec![
                HookAttribute::Number(HookNumber::Inet(at)),
                HookAttribute::Priority(priority.cast_unsigned()),
            ]));
            attributes.push(ChainAttribute::Policy(ACCEPT));
            attributes.push(ChainAttribute::Type(kind.to_owned()));
        }
        attributes.extend(comment.map(|text| ChainAttribute::UserData(userdata::from_comment(text.as_bytes()))));
        let message = NfTablesMessage::NewChain(ChainMessage { attributes });
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.push(Message::new(chain.table.family, message), flags, || format!("create chain {chain}"));
    }

    /// A set without a name, for one rule of this batch, with which it goes. Gives the expression that ends the rule
    /// for an address in it.
    pub fn create_anonymous_set(&mut self, table: Table, intervals: &Intervals) -> Expression {
        // Any number, as long as no two sets of a batch have the same.
        let id = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        let (key_type, key_len) = if intervals.is_ipv4() { (TYPE_IPV4_ADDR, 4) } else { (TYPE_IPV6_ADDR, 16) };
        let attributes = vec![
            SetAttribute::Table(table.name.to_owned()),
            SetAttribute::Name(ANONYMOUS.to_owned()),
            SetAttribute::Flags(SetFlags::Anonymous | SetFlags::Constant | SetFlags::Interval),
            SetAttribute::KeyType(key_type),
            SetAttribute::KeyLen(key_len),
            SetAttribute::Id(id),
        ];
        let message = NfTablesMessage::NewSet(SetMessage { attributes });
        self.push(Message::new(table.family, message), NLM_F_CREATE, || format!("create a set in {table}"));
        for elements in intervals.elements().chunks(ELEMENTS_MAX) {
            let attributes = vec![
                SetElementList::Table(table.name.to_owned()),
                SetElementList::Set(ANONYMOUS.to_owned()),
                SetElementList::SetId(id),
                SetElementList::Elements(elements.iter().map(Element::write).collect()),
            ];
            let message = NfTablesMessage::NewSetElement(SetElementMessage { attributes });
            self.push(Message::new(table.family, message), NLM_F_CREATE, || format!("fill a set of {table}"));
        }
        Expression::Lookup { set: ANONYMOUS.to_owned(), id: Some(id), inverted: true }
    }

    /// A rule at the end of a chain.
    pub fn append_rule(&mut self, chain: Chain<'_>, expressions: Vec<Expression>, comment: Option<&[u8]>) {
        let mut attributes = rule_place(chain);
        attributes
            .push(RuleAttribute::Expressions(expressions.into_iter().map(|expression| expression.write()).collect()));
        attributes.extend(comment.map(|text| RuleAttribute::UserData(userdata::from_comment(text))));
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.push(Message::new(chain.table.family, message), flags, || format!("add rule to {chain}"));
    }

    /// A rule at the end of a chain, with a whole comment and as much of a tag as there is room for beside it.
    pub fn append_tagged_rule(&mut self, chain: Chain<'_>, expressions: Vec<Expression>, comment: &[u8], tag: &[u8]) {
        let mut attributes = rule_place(chain);
        attributes
            .push(RuleAttribute::Expressions(expressions.into_iter().map(|expression| expression.write()).collect()));
        attributes.push(RuleAttribute::UserData(userdata::with_tag(userdata::from_comment(comment), tag)));
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.push(Message::new(chain.table.family, message), flags, || format!("add rule to {chain}"));
    }

    /// A rule at the beginning of a chain, with a comment, and a tag that says whose it is: `nft` shows the one and passes
    /// over the other. What does not fit of the tag is cut off.
    pub fn insert_rule(&mut self, chain: Chain<'_>, expressions: Vec<Expression>, comment: &[u8], tag: &[u8]) {
        let mut attributes = rule_place(chain);
        attributes
            .push(RuleAttribute::Expressions(expressions.into_iter().map(|expression| expression.write()).collect()));
        attributes.push(RuleAttribute::UserData(userdata::from_comment_and_tag(comment, tag)));
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        self.push(Message::new(chain.table.family, message), NLM_F_CREATE, || format!("insert rule into {chain}"));
    }

    /// The rule of this handle goes: ENOENT when it is gone already.
    pub fn remove_rule(&mut self, chain: Chain<'_>, handle: u64) {
        let mut attributes = rule_place(chain);
        attributes.push(RuleAttribute::Handle(handle));
        let message = NfTablesMessage::DeleteRule(RuleMessage { attributes });
        self.push(Message::new(chain.table.family, message), 0, || format!("{REMOVE}{}", rule_name(chain, handle)));
    }

    /// All rules of a chain go: ENOENT when there is no such chain.
    pub fn flush_chain(&mut self, chain: Chain<'_>) {
        let message = NfTablesMessage::DeleteRule(RuleMessage { attributes: rule_place(chain) });
        self.push(Message::new(chain.table.family, message), 0, || format!("flush chain {chain}"));
    }

    /// A chain goes with its rules: EBUSY while a rule jumps to it, ENOENT when it is gone already.
    pub fn remove_chain(&mut self, chain: Chain<'_>) {
        let message = NfTablesMessage::DeleteChain(ChainMessage { attributes: chain_name(chain) });
        self.push(Message::new(chain.table.family, message), 0, || format!("remove chain {chain}"));
    }

    fn push(&mut self, message: Message, flags: u16, doing: impl FnOnce() -> String) {
        self.messages.push(message.with_flags(flags));
        self.doing.push(doing());
    }

    pub(super) fn into_parts(self) -> (Vec<NetlinkMessage<Message>>, Vec<String>) {
        (self.messages, self.doing)
    }
}

fn chain_name(chain: Chain<'_>) -> Vec<ChainAttribute> {
    vec![ChainAttribute::Table(chain.table.name.to_owned()), ChainAttribute::Name(chain.name.to_owned())]
}

fn rule_place(chain: Chain<'_>) -> Vec<RuleAttribute> {
    vec![RuleAttribute::Table(chain.table.name.to_owned()), RuleAttribute::Chain(chain.name.to_owned())]
}
