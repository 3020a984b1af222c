//! `conditionsV4` and `conditionsV6`: what else must be true of a packet, in the words of the backend: arguments of iptables,
//! or a match of nft's language. Nobody here understands them, so they are looked at only for what no condition has and
//! what could say more than a condition: the end of a line, another command, a verdict.

use hostnet::iptables::Version;
use libcni::types::{Code, Error};

/// Options of iptables that are no conditions: they decide, or name another place.
const ACTIONS: [&str; 20] = [
    "--append",
    "--check",
    "--delete",
    "--insert",
    "--replace",
    "--list",
    "--list-rules",
    "--flush",
    "--zero",
    "--new-chain",
    "--delete-chain",
    "--policy",
    "--rename-chain",
    "--jump",
    "--goto",
    "--table",
    "--modprobe",
    "--wait",
    "--set-counters",
    "--help",
];

/// Statements of nft that are no conditions: they decide, change the packet, or go elsewhere.
const STATEMENTS: [&str; 18] = [
    "accept",
    "drop",
    "reject",
    "return",
    "continue",
    "queue",
    "jump",
    "goto",
    "dnat",
    "snat",
    "masquerade",
    "redirect",
    "tproxy",
    "dup",
    "fwd",
    "notrack",
    "include",
    "comment",
];

/// Whose words they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Arguments of iptables.
    Iptables,
    /// nft's.
    Nftables,
}

/// The words for both IP versions. Empty ones are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    v4: Vec<String>,
    v6: Vec<String>,
}

impl Conditions {
    /// From what is written.
    ///
    /// # Errors
    /// Code 7: a word that no condition has.
    pub fn new(v4: Vec<String>, v6: Vec<String>) -> Result<Self, Error> {
        for (key, words) in [("conditionsV4", &v4), ("conditionsV6", &v6)] {
            let is_bad: fn(&str) -> bool = match language(words) {
                Some(Language::Iptables) => is_action,
                _ => is_statement,
            };
            let refuse = |what: String| Err(Error::new(Code::INVALID_CONFIG, what));
            if let Some(index) = words.iter().position(|word| is_bad(word)) {
                return refuse(format!(
                    "{key}[{index}]: {:?} is not a condition",
                    words.get(index).map_or("", String::as_str)
                ));
            }
            if language(words) == Some(Language::Nftables) && !is_balanced(words) {
                return refuse(format!("{key}: the braces of {words:?} are not in pairs"));
            }
        }
        let some = |words: Vec<String>| words.into_iter().filter(|word| !word.trim().is_empty()).collect();
        Ok(Self { v4: some(v4), v6: some(v6) })
    }

    /// Those for an IP version.
    pub fn of(&self, version: Version) -> &[String] {
        if version == Version::V4 { &self.v4 } else { &self.v6 }
    }

    /// Whether there are any in either version.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The keys under which something of that language stands.
    pub fn keys_of(&self, wanted: Language) -> Vec<&'static str> {
        let lists = [("conditionsV4", &self.v4), ("conditionsV6", &self.v6)];
        lists.into_iter().filter(|(_, words)| language(words) == Some(wanted)).map(|(key, _)| key).collect()
    }
}

/// As the reference tells them apart: arguments of iptables begin with an option, or with its negation.
fn language(words: &[String]) -> Option<Language> {
    match words.first()?.chars().next()? {
        '-' | '!' => Some(Language::Iptables),
        _ => Some(Language::Nftables),
    }
}

fn is_action(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or(word);
    // getopt takes a long option that is cut short.
    let long = name.len() > 3 && name.starts_with("--") && ACTIONS.iter().any(|action| action.starts_with(name));
    let mut chars = word.chars();
    let short = chars.next() == Some('-') && chars.next().is_some_and(|letter| !"sdiomf-".contains(letter));
    long || short || word == "--" || word.chars().any(char::is_control)
}

fn is_statement(word: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " _.:/!=<>,-@&|^{}+%".contains(c);
    let statement = word
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|part| STATEMENTS.iter().any(|statement| statement.eq_ignore_ascii_case(part)));
    !word.chars().all(allowed) || statement
}

/// Whether every brace that is closed was opened before, and every one that is opened is closed.
fn is_balanced(words: &[String]) -> bool {
    let mut open: usize = 0;
    for brace in words.iter().flat_map(|word| word.chars()).filter(|c| "{}".contains(*c)) {
        open = match (brace, open.checked_sub(1)) {
            ('{', _) => open + 1,
            (_, Some(left)) => left,
            (_, None) => return false,
        };
    }
    open == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(words: &[&str]) -> Result<Conditions, Error> {
        Conditions::new(words.iter().map(|word| (*word).to_owned()).collect(), Vec::new())
    }

    #[test]
    fn what_people_write() {
        for words in [
            &["!", "-s", "10.1.0.0/16"][..],
            &["-d", "192.0.2.3"],
            &["-m", "addrtype", "--src-type", "UNICAST"],
            &["!", "--in-interface", "eth0"],
            &["-m", "set", "--match-set", "blocked", "src"],
        ] {
            assert_eq!(conditions(words).unwrap().keys_of(Language::Iptables), ["conditionsV4"], "{words:?}");
        }
        for words in [
            &["ip", "saddr", "!=", "10.0.0.0/8"][..],
            &["ip saddr { 10.0.0.0/8, 192.0.2.1 }"],
            &["ip saddr {", "10.0.0.1", "}"],
            &["iifname eth0"],
        ] {
            assert_eq!(conditions(words).unwrap().keys_of(Language::Nftables), ["conditionsV4"], "{words:?}");
        }
        assert!(conditions(&[]).unwrap().is_empty() && conditions(&[""]).unwrap().is_empty());
    }

    #[test]
    fn what_is_more_than_a_condition() {
        for words in [
            &["-j", "ACCEPT"][..],
            &["-jACCEPT"],
            &["!", "--jump", "ACCEPT"],
            &["-s", "10.0.0.1\n-A INPUT -j DROP"],
            &["--tab", "filter"],
            &["-t", "filter"],
            &["-F"],
            &["--", "x"],
        ] {
            assert!(conditions(words).is_err(), "{words:?}");
        }
        for words in [
            &["ip saddr 10.0.0.1; flush ruleset"][..],
            &["ip saddr 10.0.0.1\nflush ruleset"],
            &["ip saddr 10.0.0.1 } flush ruleset {", "x"],
            &["ip saddr 10.0.0.1 accept"],
            &["ip saddr 10.0.0.1 # all"],
            &["iifname \"eth0\""],
            &["ip saddr $x"],
            &["ip", "saddr", "10.0.0.1", "drop"],
            &["ip saddr { 10.0.0.1"],
            &["} ip saddr 10.0.0.1 {"],
        ] {
            assert!(conditions(words).is_err(), "{words:?}");
        }
    }
}
