//! A transaction in the making: the messages, and for each what it is for, so that a refusal names its object.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NetlinkMessage};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, TableAttribute, TableMessage,
};

use super::message::Message;
use super::{Chain, Expression, Table, userdata};

/// `NF_ACCEPT` of linux/netfilter.h, as a chain's policy.
const ACCEPT: u32 = 1;

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
        self.push(Message::new(chain.table.family, message), 0, || format!("remove rule {handle} of {chain}"));
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
