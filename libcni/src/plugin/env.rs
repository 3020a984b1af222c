//! The environment of a plugin, read once and checked before anything else.

use std::ffi::OsString;
use std::path::PathBuf;

use super::dry_run;
use crate::types::{CniArgs, Code, ContainerId, Error, IfName};

/// `CNI_COMMAND`: the verbs of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Connect a container.
    Add,
    /// Disconnect it.
    Del,
    /// Compare with what ADD made.
    Check,
    /// Remove what belongs to nobody.
    Gc,
    /// Say whether ADD could succeed.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Command {
    /// The verb as it stands in the variable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    fn names_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

/// The `CNI_*` variables. Those that a verb needs are there and valid; the others may hold anything.
#[derive(Clone, Debug)]
pub struct Environment {
    pub(super) command: Result<Command, String>,
    /// The verb only says what it would do ([`dry_run`]).
    pub(super) dry_run: bool,
    pub(super) container_id: Option<ContainerId>,
    pub(super) netns: Option<PathBuf>,
    pub(super) ifname: Option<IfName>,
    pub(super) args: String,
    pub(super) path: Vec<PathBuf>,
    pub(super) netns_override: bool,
}

impl Environment {
    /// Reads the variables through `var`. `None`: there is no `CNI_COMMAND`, a person started the plugin. Without
    /// `has_dry_run` the command of a dry run is one that nobody knows.
    ///
    /// # Errors
    /// Code 4: the first invalid variable, else every missing one, in the reference's order and words.
    pub(super) fn read(var: &dyn Fn(&str) -> Option<OsString>, has_dry_run: bool) -> Result<Option<Self>, Error> {
        let text = |name: &str| var(name).unwrap_or_default();
        let command = text("CNI_COMMAND").to_string_lossy().into_owned();
        if command.is_empty() {
            return Ok(None);
        }
        let (verb, dry_run) = match command.strip_prefix(dry_run::PREFIX).filter(|_| has_dry_run) {
            Some(verb) => (verb, true),
            None => (command.as_str(), false),
        };
        let known = Command::ALL.into_iter().find(|known| known.as_str() == verb);
        let known = known.filter(|known| !dry_run || matches!(known, Command::Del | Command::Gc));
        let command = known.ok_or(command);
        let attachment = command.as_ref().is_ok_and(|command| command.names_attachment());
        let mut missing = Missing::default();

        let container_id = missing.unless(attachment, "CNI_CONTAINERID", text("CNI_CONTAINERID"));
        let container_id = container_id.map(|id| utf8("CNI_CONTAINERID", id)?.parse()).transpose()?;
        let netns = text("CNI_NETNS");
        if netns.is_empty() && matches!(command, Ok(Command::Add | Command::Check)) {
            missing.0.push("CNI_NETNS");
        }
        let ifname = missing.unless(attachment, "CNI_IFNAME", text("CNI_IFNAME"));
        let ifname = ifname.map(|name| utf8("CNI_IFNAME", name)?.parse()).transpose()?;
        let path = text("CNI_PATH");
        if path.is_empty() && command.as_ref().is_ok_and(|command| *command != Command::Version) {
            missing.0.push("CNI_PATH");
        }
        missing.refuse()?;
        Ok(Some(Self {
            command,
            dry_run,
            container_id,
            netns: Some(PathBuf::from(netns)).filter(|netns| !netns.as_os_str().is_empty()),
            ifname,
            args: text("CNI_ARGS").to_string_lossy().into_owned(),
            // An empty element would mean the working directory, which nobody means.
            path: std::env::split_paths(&path).filter(|dir| !dir.as_os_str().is_empty()).collect(),
            netns_override: matches!(text("CNI_NETNS_OVERRIDE").to_ascii_lowercase().to_str(), Some("1" | "true")),
        }))
    }

    /// Whether the verb is this one.
    pub fn is(&self, command: Command) -> bool {
        self.command == Ok(command)
    }

    /// `CNI_ARGS`.
    ///
    /// # Errors
    /// Code 4 if it is malformed.
    pub fn args(&self) -> Result<CniArgs, Error> {
        CniArgs::parse(&self.args)
    }
}

/// Names of variables that a verb needs and that are missing or empty.
#[derive(Default)]
struct Missing(Vec<&'static str>);

impl Missing {
    /// The value if it is needed and there; noted as missing if it is needed and empty.
    fn unless(&mut self, needed: bool, name: &'static str, value: OsString) -> Option<OsString> {
        if needed && value.is_empty() {
            self.0.push(name);
        }
        Some(value).filter(|value| needed && !value.is_empty())
    }

    fn refuse(self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let msg = format!("required env variables [{}] missing", self.0.join(","));
        Err(Error::new(Code::INVALID_ENVIRONMENT, msg))
    }
}

fn utf8(name: &str, value: OsString) -> Result<String, Error> {
    value
        .into_string()
        .map_err(|value| Error::new(Code::INVALID_ENVIRONMENT, format!("{name} is not UTF-8: {value:?}")))
}
