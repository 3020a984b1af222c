//! iptables, through its own programs: their rules are made of binary extensions whose form only they know.
//! One `iptables-restore` per IP version and operation carries all the changes, as one transaction.
//!
//! There are two iptables: one keeps its rules in nf_tables, the legacy one in tables of its own.
//! Whichever is called `iptables` on this node is the one that is used, as everybody else here uses it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use libcni::plugin::dry_run;
use libcni::types::Cidr;

use crate::error::Error;
use crate::nft;
use crate::process::{self, Output};

/// Not `-w 5`: iptables-restore would read a file name there. Without a number it waits for ever.
const WAIT: &str = "--wait=5";

/// The IP version of a set of tables. iptables is one program for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `iptables`
    V4,
    /// `ip6tables`
    V6,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The version that `cidr` is of.
    pub fn of(cidr: &Cidr) -> Self {
        if cidr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Where the nf_tables flavour keeps its table `nat`.
    pub fn nft_nat(self) -> nft::Table {
        self.nft_table("nat")
    }

    /// Where it keeps a table.
    pub fn nft_table(self, name: &'static str) -> nft::Table {
        let family = if self == Self::V4 { nft::Family::Ip } else { nft::Family::Ip6 };
        nft::Table { family, name }
    }

    fn has_legacy(self, table: &str) -> Result<bool, Error> {
        let file = match self {
            Self::V4 => "/proc/thread-self/net/ip_tables_names",
            Self::V6 => "/proc/thread-self/net/ip6_tables_names",
        };
        match std::fs::read_to_string(file) {
            Ok(names) => Ok(names.lines().any(|name| name == table)),
            Err(error) if is_none(&error) => Ok(false),
            Err(error) => Err(Error::io(format!("read {file}"), &error)),
        }
    }

    fn program(self) -> &'static str {
        if self == Self::V4 { "iptables" } else { "ip6tables" }
    }
}

/// Whether a list of tables that cannot be opened stands for no tables: the kernel has no legacy flavour, or this is a user
/// namespace that was made together with its network, as rootless runtimes make theirs, and does not own the file. There, a
/// DEL that asks for it would never succeed.
fn is_none(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EACCES))
}

/// The programs of one IP version.
#[derive(Clone, Debug)]
pub struct Iptables {
    iptables: PathBuf,
    restore: PathBuf,
}

impl Iptables {
    /// Looks for the programs in `PATH` and the system's directories.
    pub fn find(version: Version) -> Result<Self, Error> {
        Self::find_named(version.program())
    }

    /// The programs for a table that the legacy flavour has in the current network namespace: those with its name, else as
    /// [`Self::find`]. `None` where it has no such table; to ask `iptables` itself would make it. `None`, too, where there
    /// are no programs: then a container with its own, kube-proxy's for one, made the table, and nothing in it is ours.
    ///
    /// # Errors
    /// It cannot be seen which tables there are.
    pub fn get_legacy(version: Version, table: &str) -> Result<Option<Self>, Error> {
        if !version.has_legacy(table)? {
            return Ok(None);
        }
        Ok(Self::find_named(&format!("{}-legacy", version.program())).or_else(|_| Self::find(version)).ok())
    }

    fn find_named(name: &str) -> Result<Self, Error> {
        let find = |name: &str| process::find(name).ok_or_else(|| Error::other(format!("find {name}"), "not in PATH"));
        Ok(Self { iptables: find(name)?, restore: find(&format!("{name}-restore"))? })
    }

    /// Whether the program can read rules here, in the reference's sense: exit status 0, or 1 for "no such chain".
    pub fn is_usable(&self) -> bool {
        let listed = process::run(&self.iptables, &["-t", "filter", "-S", "INPUT", "1", WAIT], b"");
        listed.is_ok_and(|output| matches!(output.code, Some(0 | 1)))
    }

    /// Whether the program keeps its rules in nf_tables, where they can be read without it. Its name says so, behind all
    /// links: `xtables-nft-multi`, `xtables-legacy-multi`. The scripts in its place that some nodes have, and that choose
    /// one of the two, are run to find out.
    pub fn is_nft(&self) -> bool {
        let target = self.restore.canonicalize().unwrap_or_default();
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        match (name.contains("nft"), name.contains("legacy")) {
            (true, _) => true,
            (false, true) => false,
            // "iptables v1.8.9 (nf_tables)"; before 1.8 there was nothing in brackets.
            (false, false) => process::run(&self.iptables, &["--version"], b"")
                .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("(nf_tables)")),
        }
    }

    /// Applies commands (`-N CHAIN`, `-A CHAIN ...`), all or none, to one table.
    ///
    /// A chain is made by `-N`, not by the `:CHAIN` of saved rules, which would flush one that exists.
    pub fn restore(&self, table: &str, commands: &[String]) -> Result<(), Error> {
        if dry_run::is_on() {
            let program = self.iptables.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for command in commands {
                dry_run::notes(|| format!("{program} -t {table} {command}"));
            }
            return Ok(());
        }
        let mut input = format!("*{table}\n");
        for command in commands {
            input.push_str(command);
            input.push('\n');
        }
        input.push_str("COMMIT\n");
        let output = process::run(&self.restore, &["--noflush", WAIT], input.as_bytes())?;
        if output.code == Some(0) {
            return Ok(());
        }
        Err(refusal(&self.restore, &format!("change table {table}"), &output))
    }

    /// The rules of a chain, without those that have parts no [`Rule`] has. `None` as for [`Self::list`].
    pub fn rules(&self, table: &str, chain: &str) -> Result<Option<Vec<Rule>>, Error> {
        let listed = self.list(table, chain)?;
        Ok(listed.map(|lines| lines.iter().filter_map(|line| Rule::read(line)).collect()))
    }

    /// A whole table as `-S` prints it: chains as `-N CHAIN`, then rules as `-A CHAIN ...`.
    pub fn list_table(&self, table: &str) -> Result<Vec<String>, Error> {
        let output = process::run(&self.iptables, &["-t", table, "-S", WAIT], b"")?;
        match output.code {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()),
            _ => Err(refusal(&self.iptables, &format!("list table {table}"), &output)),
        }
    }

    /// A chain's lines as `-S` prints them. `None` where there is no such chain; iptables has the same exit status
    /// for a table it cannot read.
    pub fn list(&self, table: &str, chain: &str) -> Result<Option<Vec<String>>, Error> {
        let output = process::run(&self.iptables, &["-t", table, "-S", chain, WAIT], b"")?;
        match output.code {
            Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())),
            Some(1) => Ok(None),
            _ => Err(refusal(&self.iptables, &format!("list {chain} of table {table}"), &output)),
        }
    }
}

fn refusal(program: &Path, doing: &str, output: &Output) -> Error {
    let doing = format!("{doing} with {}", program.display());
    let status = output.code.map_or("killed by a signal".to_owned(), |code| format!("exit status {code}"));
    match output.stderr.as_str() {
        "" => Error::other(doing, status),
        stderr => Error::other(doing, format!("{stderr} ({status})")),
    }
}

/// A rule of the kind podwire writes: a match of addresses, a comment, a target.
/// Printed and read in the form of `iptables -S`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The chain it is in.
    pub chain: String,
    /// `-s`: from addresses in this network.
    pub source: Option<Cidr>,
    /// `-d`: to addresses in this network.
    pub destination: Option<Cidr>,
    /// `! -d`: to addresses outside this network.
    pub not_destination: Option<Cidr>,
    /// `--comment`
    pub comment: String,
    /// `-j`: the chain or the extension that takes over, and the extension's options.
    pub target: String,
}

impl Rule {
    /// The command that removes the rule.
    pub fn removal(&self) -> String {
        let added = self.to_string();
        added.strip_prefix("-A").map_or(String::new(), |rest| format!("-D{rest}"))
    }

    /// From one line of `iptables -S`.
    pub fn read(line: &str) -> Option<Self> {
        let words = words(line)?;
        let mut words = words.iter().map(String::as_str);
        let mut rule = Self {
            chain: String::new(),
            source: None,
            destination: None,
            not_destination: None,
            comment: String::new(),
            target: String::new(),
        };
        while let Some(option) = words.next() {
            let value = words.next()?;
            match option {
                "-A" => rule.chain = value.to_owned(),
                "-s" => rule.source = Some(value.parse().ok()?),
                "-d" => rule.destination = Some(value.parse().ok()?),
                "!" if value == "-d" => rule.not_destination = Some(words.next()?.parse().ok()?),
                "-m" if value == "comment" => {}
                "--comment" => rule.comment = value.to_owned(),
                "-j" => {
                    rule.target = value.to_owned();
                    words.by_ref().for_each(|option| rule.target.extend([" ", option]));
                }
                _ => return None,
            }
        }
        (!rule.chain.is_empty() && !rule.target.is_empty()).then_some(rule)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-A {}", self.chain)?;
        for (option, network) in [(" -s", self.source), (" -d", self.destination), (" ! -d", self.not_destination)] {
            if let Some(network) = network {
                write!(f, "{option} {network}")?;
            }
        }
        if !self.comment.is_empty() {
            write!(f, " -m comment --comment {}", quote(&self.comment))?;
        }
        write!(f, " -j {}", self.target)
    }
}

/// A word of a command to [`Iptables::restore`] that may hold spaces and quotes. What it cannot hold is the end of a
/// line: values from outside are checked before they come here.
pub fn quote(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The words of a saved rule: separated by spaces, quoted with `"`, any character escaped with `\` inside quotes.
pub fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(first) = chars.next() {
        let mut word = String::new();
        match first {
            ' ' => continue,
            '"' => loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => word.push(chars.next()?),
                    plain => word.push(plain),
                }
            },
            plain => {
                word.push(plain);
                while let Some(next) = chars.next_if(|&next| next != ' ') {
                    word.push(next);
                }
            }
        }
        words.push(word);
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the reference's rules are listed by iptables-save 1.8.9.
    const SAVED: [&str; 4] = [
        r#"-A POSTROUTING -s 10.1.2.2/32 -m comment --comment "name: \"brnet\" id: \"ctr1\"" -j CNI-2fbf118d4cafd020f013271b"#,
        r#"-A CNI-2fbf118d4cafd020f013271b -d 10.1.2.0/24 -m comment --comment "name: \"brnet\" id: \"ctr1\"" -j ACCEPT"#,
        r#"-A CNI-2fbf118d4cafd020f013271b ! -d 224.0.0.0/4 -m comment --comment "name: \"brnet\" id: \"ctr1\"" -j MASQUERADE"#,
        r#"-A POSTROUTING -s 2001:db8:1::2/128 -m comment --comment "name: \"brnet\" id: \"ctr1\"" -j CNI-2fbf118d4cafd020f013271b"#,
    ];

    #[test]
    fn tables_that_cannot_be_seen_are_not_taken_for_none() {
        let is_none = |errno| is_none(&io::Error::from_raw_os_error(errno));
        assert!(is_none(libc::ENOENT) && is_none(libc::EACCES));
        assert!([libc::EPERM, libc::EMFILE, libc::ENOMEM, libc::EIO].into_iter().all(|errno| !is_none(errno)));
    }

    #[test]
    fn saved_rules_are_read_and_written() {
        for line in SAVED {
            let rule = Rule::read(line).unwrap();
            assert_eq!(rule.to_string(), line);
            assert_eq!(rule.comment, r#"name: "brnet" id: "ctr1""#);
            assert_eq!(rule.removal(), line.replacen("-A", "-D", 1));
        }
        let snat = "-A X ! -d ff00::/8 -m comment --comment \"a b\" -j SNAT --to-source 2001:db8::1 --random-fully";
        let rule = Rule::read(snat).unwrap();
        assert_eq!((rule.to_string().as_str(), &rule.target[..6]), (snat, "SNAT -"));
        let plain = Rule::read("-A X -m comment --comment word -j ACCEPT").unwrap();
        assert_eq!((plain.comment.as_str(), plain.source), ("word", None));
    }

    #[test]
    fn other_rules_are_not_ours() {
        for line in [
            "",
            "-P POSTROUTING ACCEPT",
            "-N CNI-2fbf118d4cafd020f013271b",
            "-A POSTROUTING ! -s 10.0.0.0/8 -j MASQUERADE",
            "-A POSTROUTING -o eth0 -j MASQUERADE",
            "-A POSTROUTING -s 10.1.2.2/32",
            "-A POSTROUTING -s nonsense -j ACCEPT",
            "-A POSTROUTING -m comment --comment \"open -j ACCEPT",
        ] {
            assert_eq!(Rule::read(line), None, "{line}");
        }
    }
}
