//! A fake plugin for tests: a shell script in a temporary directory that notes every call.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory of fake plugins, with `CNI_PATH` and a log.
pub(crate) struct Plugins {
    dir: TempDir,
}

impl Plugins {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self) -> Vec<PathBuf> {
        vec![self.dir.path().to_owned()]
    }

    /// A plugin that runs `script`. Before that it has read stdin into `$stdin`, and has written a line
    /// `NAME VERB` to the log and stdin and its environment to `NAME.VERB.stdin` and `NAME.VERB.env`.
    pub(crate) fn create(&self, name: &str, script: &str) -> PathBuf {
        let dir = self.dir.path().display();
        self.create_bare(
            name,
            &format!(
                "log={dir}\nself={name}\nstdin=$(cat)\necho \"$self $CNI_COMMAND\" >>$log/calls\n\
                 printf %s \"$stdin\" >$log/$self.$CNI_COMMAND.stdin\nenv >$log/$self.$CNI_COMMAND.env\n{script}"
            ),
        )
    }

    /// A plugin that runs `script` and nothing else.
    pub(crate) fn create_bare(&self, name: &str, script: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        // Written by another process: a descriptor of ours could be inherited, for the time between fork and exec, by a
        // plugin that another test starts, and the program would be busy.
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", "printf '%s\\n' '#!/bin/sh' \"$1\" >\"$2\"", "sh", script])
            .arg(&file)
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        file
    }

    /// The calls so far, each `NAME VERB`; forgotten then.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.dir.path().join("calls"));
        calls.lines().map(str::to_owned).collect()
    }

    /// What the plugin read at its last call with this verb.
    pub(crate) fn stdin(&self, name: &str, verb: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.{verb}.stdin"))).unwrap()
    }

    /// A variable of the plugin's environment at its last call with this verb.
    pub(crate) fn var(&self, name: &str, verb: &str, var: &str) -> Option<String> {
        let env = std::fs::read_to_string(self.dir.path().join(format!("{name}.{verb}.env"))).unwrap();
        let found: Vec<&str> = env.lines().filter_map(|line| line.strip_prefix(&format!("{var}="))).collect();
        assert!(found.len() <= 1, "{var} twice");
        found.first().map(|value| (*value).to_owned())
    }
}
