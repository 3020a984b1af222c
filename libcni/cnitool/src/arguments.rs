//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value, ValueExt};
use libcni::{Code, Error};

use crate::nearest::hint;
use crate::{gc, help, ipam};

/// What is asked of us.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Explain ourselves, or one command.
    Help(Option<String>),
    /// Our version.
    Version,
    /// A verb for a network.
    Network(Call),
    /// Check configurations.
    Validate(Vec<PathBuf>),
    /// Say what is installed.
    Plugins,
    /// Say who has which address.
    Ipam(ipam::Call),
    /// Remove what is left over.
    Gc(gc::Call),
}

/// The verbs of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verb {
    Add,
    Check,
    Del,
    Gc,
    Status,
}

/// `VERB NET NETNS` with its options.
#[derive(Debug, PartialEq)]
pub struct Call {
    pub verb: Verb,
    /// The network's name.
    pub net: String,
    /// Path of the namespace as it was written.
    pub netns: PathBuf,
    /// `--ifname`.
    pub ifname: Option<String>,
    /// `--cache-dir`.
    pub cache_dir: Option<PathBuf>,
}

fn refuse(why: impl std::fmt::Display) -> Error {
    Error::new(Code::INVALID_ENVIRONMENT, why.to_string())
}

/// Reads the arguments, which come without the program's name.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Action, Error> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut words: Vec<OsString> = Vec::new();
    let (mut ifname, mut cache_dir, mut wants_help) = (None, None, false);
    let (mut json, mut dry_run) = (false, false);
    while let Some(arg) = parser.next().map_err(refuse)? {
        match arg {
            Short('h') | Long("help") => wants_help = true,
            Short('V') | Long("version") => return Ok(Action::Version),
            Short('i') | Long("ifname") => ifname = Some(parser.value().and_then(ValueExt::string).map_err(refuse)?),
            Long("cache-dir") => cache_dir = Some(parser.value().map_err(refuse)?.into()),
            Long("json") => json = true,
            Long("dry-run") => dry_run = true,
            Value(word) => words.push(word),
            other => return Err(refuse(format!("{}; see cnitool --help", other.unexpected()))),
        }
    }
    let mut words = words.into_iter();
    let Some(command) = words.next() else { return Ok(Action::Help(None)) };
    let command = command.to_string_lossy().into_owned();
    if wants_help {
        return Ok(Action::Help(Some(command)));
    }
    if command == "ipam" {
        return ipam_call(words, json, cache_dir);
    }
    if dry_run && command != "gc" {
        return Err(refuse(format!("{command} has no --dry-run; gc has")));
    }
    if command == "gc" && (dry_run || words.len() < 2) {
        let mut networks = texts(words)?;
        let all = networks.len() > 1;
        networks.truncate(1);
        return Ok(Action::Gc(gc::Call { networks, all, dry_run, json, cache_dir }));
    }
    let verb = match command.as_str() {
        "add" => Verb::Add,
        "check" => Verb::Check,
        "del" => Verb::Del,
        "gc" => Verb::Gc,
        "status" => Verb::Status,
        "validate" => return Ok(Action::Validate(words.map(PathBuf::from).collect())),
        "plugins" => return Ok(Action::Plugins),
        "version" => return Ok(Action::Version),
        "help" => return Ok(Action::Help(words.next().map(|topic| topic.to_string_lossy().into_owned()))),
        unknown => {
            let known = help::COMMANDS.iter().map(|command| command.name);
            let hint = Some(hint(unknown, known)).filter(|hint| !hint.is_empty());
            let hint = hint.unwrap_or_else(|| "; see cnitool --help".to_owned());
            return Err(refuse(format!("unknown command {unknown:?}{hint}")));
        }
    };
    // More words are ignored, as the reference does.
    match (words.next(), words.next()) {
        (Some(net), Some(netns)) => {
            let net = net.into_string().map_err(|net| refuse(format!("NET is not UTF-8: {net:?}")))?;
            Ok(Action::Network(Call { verb, net, netns: netns.into(), ifname, cache_dir }))
        }
        (Some(_), None) => Err(refuse(format!("NETNS is missing: cnitool {command} NET NETNS"))),
        _ => Err(refuse(format!("NET and NETNS are missing: cnitool {command} NET NETNS"))),
    }
}

/// `ipam list` and `ipam check`, of the networks that follow.
fn ipam_call(
    mut words: impl Iterator<Item = OsString>,
    json: bool,
    cache_dir: Option<PathBuf>,
) -> Result<Action, Error> {
    let what = match words.next().map(|what| what.to_string_lossy().into_owned()).as_deref() {
        Some("list") => ipam::What::List,
        Some("check") => ipam::What::Check,
        Some(unknown) => return Err(refuse(format!("unknown command ipam {unknown:?}; there are list and check"))),
        None => return Err(refuse("say what: cnitool ipam list|check [NET]...")),
    };
    Ok(Action::Ipam(ipam::Call { what, networks: texts(words)?, json, cache_dir }))
}

fn texts(words: impl Iterator<Item = OsString>) -> Result<Vec<String>, Error> {
    words.map(|net| net.into_string().map_err(|net| refuse(format!("NET is not UTF-8: {net:?}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Action, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn verbs_take_a_network_and_a_namespace() {
        let call = |ifname: Option<&str>| Call {
            verb: Verb::Add,
            net: "net".into(),
            netns: "/run/netns/x".into(),
            ifname: ifname.map(str::to_owned),
            cache_dir: None,
        };
        assert_eq!(parsed("add net /run/netns/x").unwrap(), Action::Network(call(None)));
        assert_eq!(parsed("add net /run/netns/x more words").unwrap(), Action::Network(call(None)));
        for line in
            ["-i eth1 add net /run/netns/x", "add net --ifname=eth1 /run/netns/x", "add net /run/netns/x -ieth1"]
        {
            assert_eq!(parsed(line).unwrap(), Action::Network(call(Some("eth1"))), "{line}");
        }
    }

    #[test]
    fn refusals_say_what_is_missing() {
        for (line, error) in [
            ("add", "NET and NETNS are missing: cnitool add NET NETNS"),
            ("del net", "NETNS is missing: cnitool del NET NETNS"),
            ("ad net ns", "unknown command \"ad\"; did you mean \"add\"?"),
            ("ADD net ns", "unknown command \"ADD\"; did you mean \"add\"?"),
            ("remove net ns", "unknown command \"remove\"; see cnitool --help"),
            ("add net ns --nope", "invalid option '--nope'; see cnitool --help"),
            ("add net ns -i", "missing argument for option '-i'"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), error);
        }
    }

    #[test]
    fn addresses_and_what_is_left_over() {
        let ipam = |what, networks: &[&str], json| {
            let networks = networks.iter().map(|name| (*name).to_owned()).collect();
            Action::Ipam(ipam::Call { what, networks, json, cache_dir: None })
        };
        assert_eq!(parsed("ipam list").unwrap(), ipam(ipam::What::List, &[], false));
        assert_eq!(parsed("ipam check a b --json").unwrap(), ipam(ipam::What::Check, &["a", "b"], true));
        let gc = |networks: &[&str], all, dry_run| {
            let networks = networks.iter().map(|name| (*name).to_owned()).collect();
            Action::Gc(gc::Call { networks, all, dry_run, json: false, cache_dir: None })
        };
        assert_eq!(parsed("gc").unwrap(), gc(&[], false, false));
        assert_eq!(parsed("gc net").unwrap(), gc(&["net"], false, false));
        assert_eq!(parsed("gc --dry-run").unwrap(), gc(&[], false, true));
        assert_eq!(parsed("gc net ns --dry-run").unwrap(), gc(&["net"], true, true));
        // As the reference has it.
        assert!(matches!(parsed("gc net ns").unwrap(), Action::Network(Call { verb: Verb::Gc, .. })));
        for (line, error) in [
            ("ipam", "say what: cnitool ipam list|check [NET]..."),
            ("ipam free", "unknown command ipam \"free\"; there are list and check"),
            ("del net ns --dry-run", "del has no --dry-run; gc has"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), error);
        }
    }

    #[test]
    fn help_and_version() {
        assert_eq!(parsed("").unwrap(), Action::Help(None));
        assert_eq!(parsed("--help").unwrap(), Action::Help(None));
        assert_eq!(parsed("help add").unwrap(), Action::Help(Some("add".into())));
        assert_eq!(parsed("add --help").unwrap(), Action::Help(Some("add".into())));
        assert_eq!(parsed("--version").unwrap(), Action::Version);
        assert_eq!(parsed("validate a b").unwrap(), Action::Validate(vec!["a".into(), "b".into()]));
        assert_eq!(parsed("plugins").unwrap(), Action::Plugins);
    }
}
