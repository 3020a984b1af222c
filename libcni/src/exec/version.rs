//! VERSION: which versions of the specification a plugin speaks. It needs no network, no privilege and no
//! configuration, so it may be asked at any time.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{Failure, Invocation};
use crate::plugin::{Command, dry_run};
use crate::types::{Code, Error, Version, json};

/// How long a plugin may think about it, at most.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "cniVersion")]
    cni_version: Option<String>,
    #[serde(rename = "supportedVersions")]
    supported_versions: Option<Vec<String>>,
}

/// Asks a plugin's program. The texts are returned as they are, also if they are no versions we know.
///
/// # Errors
/// The plugin fails or gives no such answer. One of the time before VERSION, which says that it does not know the
/// verb, speaks 0.1.0.
pub fn versions(program: &Path) -> Result<Vec<String>, Error> {
    versions_within(program, DEADLINE)
}

/// [`versions`] of a plugin that may take no longer than this, nor than others may.
pub(crate) fn versions_within(program: &Path, deadline: Duration) -> Result<Vec<String>, Error> {
    match ask(program, deadline) {
        Ok(stdout) => decode(&stdout),
        Err(failure) if failure.error().msg() == "unknown CNI_COMMAND: VERSION" => {
            Ok(vec![Version::V0_1_0.to_string()])
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Whether a plugin announces that it has dry runs ([`dry_run`]); one that does not answer does not.
pub(crate) fn has_dry_run(program: &Path, deadline: Duration) -> bool {
    let answer = ask(program, deadline).ok().and_then(|stdout| json::parse(&stdout).ok());
    answer.is_some_and(|answer| answer.get(dry_run::ANNOUNCEMENT).is_some_and(|value| *value == true))
}

fn ask(program: &Path, deadline: Duration) -> Result<Vec<u8>, Box<Failure>> {
    // Plugins of the first days check all of these before they look at the verb.
    let vars = [("CNI_NETNS", "dummy"), ("CNI_IFNAME", "dummy"), ("CNI_PATH", "dummy"), ("CNI_CONTAINERID", "")];
    let mut vars: Vec<_> = vars.into_iter().map(|(name, value)| (name, value.into())).collect();
    vars.push(("CNI_ARGS", "".into()));
    let stdin = format!("{{\"cniVersion\":\"{}\"}}", Version::CURRENT);
    let invocation = Invocation {
        program: program.to_owned(),
        verb: Command::Version,
        vars,
        netns_override: false,
        stdin: stdin.as_bytes(),
        deadline: deadline.min(DEADLINE),
    };
    invocation.run()
}

fn decode(stdout: &[u8]) -> Result<Vec<String>, Error> {
    let undecodable = |why: String| Error::new(Code::DECODING_FAILURE, format!("decoding version info: {why}"));
    let answer: Answer = json::from_slice(stdout).map_err(|error| undecodable(error.to_string()))?;
    let version = answer.cni_version.filter(|version| !version.is_empty());
    let version = version.ok_or_else(|| undecodable("missing field cniVersion".into()))?;
    match answer.supported_versions.unwrap_or_default() {
        none if none.is_empty() && version == "0.2.0" => Ok(vec!["0.1.0".into(), "0.2.0".into()]),
        none if none.is_empty() => Err(undecodable("missing field supportedVersions".into())),
        some => Ok(some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::fake::Plugins;

    /// The checklist's "VERSION" and "get version against historical plugin builds": what those print, from scripts.
    #[test]
    fn answers_of_all_ages() {
        let plugins = Plugins::new();
        for (script, expected) in [
            (r#"echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","odd"]}'"#, "0.4.0 1.0.0 odd"),
            (r#"echo '{"cniVersion":"0.2.0"}'"#, "0.1.0 0.2.0"),
            (r#"echo '{"cniVersion":"0.2.0","supportedVersions":[]}'"#, "0.1.0 0.2.0"),
            (r#"echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1"#, "0.1.0"),
        ] {
            assert_eq!(versions(&plugins.create("fake", script)).unwrap().join(" "), expected);
        }
        assert_eq!(plugins.stdin("fake", "VERSION"), r#"{"cniVersion":"1.1.0"}"#);
        for (name, value) in [
            ("CNI_NETNS", "dummy"),
            ("CNI_IFNAME", "dummy"),
            ("CNI_PATH", "dummy"),
            ("CNI_CONTAINERID", ""),
            ("CNI_ARGS", ""),
        ] {
            assert_eq!(plugins.var("fake", "VERSION", name).as_deref(), Some(value));
        }
        for (script, error) in [
            ("echo nonsense", "decoding version info"),
            (r#"echo '{"supportedVersions":["1.0.0"]}'"#, "missing field cniVersion"),
            (r#"echo '{"cniVersion":"1.0.0"}'"#, "missing field supportedVersions"),
            (r#"echo '{"code":7,"msg":"no"}'; exit 1"#, "no"),
        ] {
            let found = versions(&plugins.create("fake", script)).unwrap_err();
            assert!(found.to_string().contains(error), "{found}");
        }
    }
}
