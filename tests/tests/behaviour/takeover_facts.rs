//! Everything of a node that a plugin may have made, to compare one moment with another.

use std::collections::BTreeSet;

use tests::Host;

use crate::bandwidth_conf::traffic_control;
use crate::tuning_conf;

const BACKUPS: &str = "/run/cni/tuning";

/// Everything that a plugin may have made, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts(BTreeSet<String>);

impl Facts {
    /// What there is, without these bridges, which stay.
    pub fn of(host: &Host, bridges: &[&str]) -> Self {
        let state = bridges.iter().fold(host.state(), |state, bridge| state.without_link(bridge)).to_string();
        let mut lines: BTreeSet<String> =
            state.lines().filter(|line| !is_of_iptables(line)).map(str::to_owned).collect();
        for saved in ["iptables-legacy-save", "ip6tables-legacy-save"] {
            let text = host.run(saved);
            let is_fact = |line: &&str| line.starts_with("-A") || line.starts_with(":CNI-");
            let rules = text.lines().filter(is_fact).map(|line| line.split(" [").next().unwrap_or_default());
            lines.extend(rules.map(|rule| format!("{saved}: {rule}")));
        }
        lines.extend(traffic_control(host).lines().map(|line| format!("tc: {line}")));
        host.run(&format!("mkdir -p {BACKUPS}"));
        lines.extend(tuning_conf::files(host, BACKUPS).into_iter().map(|file| format!("tuning: {file}")));
        Self(lines)
    }

    /// What came (`+`) and what went (`-`) since.
    pub fn since(&self, before: &Self) -> Vec<String> {
        let came = self.0.difference(&before.0).map(|line| format!("+ {line}"));
        let went = before.0.difference(&self.0).map(|line| format!("- {line}"));
        came.chain(went).collect()
    }

    /// The lines that have this word.
    pub fn lines_with(&self, word: &str) -> Vec<String> {
        self.0.iter().filter(|line| line.contains(word)).cloned().collect()
    }

    #[track_caller]
    pub fn assert_same(&self, before: &Self, what: &str) {
        let difference = self.since(before);
        assert!(difference.is_empty(), "{what}:\n{}", difference.join("\n"));
    }

    /// Of what came, each line has one of these words, and each word is in a line; nothing went.
    #[track_caller]
    pub fn assert_only(&self, before: &Self, words: &[String], what: &str) {
        let difference = self.since(before);
        let is_known = |line: &&String| line.starts_with('+') && words.iter().any(|word| line.contains(word));
        let others: Vec<&String> = difference.iter().filter(|line| !is_known(line)).collect();
        assert!(others.is_empty(), "{what}: more than {words:?}:\n{others:#?}");
        let missing: Vec<&String> =
            words.iter().filter(|word| !difference.iter().any(|line| line.contains(*word))).collect();
        assert!(missing.is_empty(), "{what}: not there (any more?): {missing:?}\n{difference:#?}");
    }
}

/// What iptables has in nf_tables is seen by its own program as well.
fn is_of_iptables(line: &str) -> bool {
    let tables = [r#""table":"filter""#, r#""table":"nat""#, r#""table":"mangle""#];
    line.starts_with("nft:") && line.contains(r#""family":"ip"#) && tables.iter().any(|table| line.contains(table))
}
