//! A directory that stands for a node: configurations, plugins, a cache.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Of a plugin that may be asked what it would do.
const ANSWER: &str =
    r#"{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"],"podwireDryRun":true}"#;
pub const RESULT: &str = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}]}"#;

/// A directory with configurations, plugins, a cache, and the log of the plugins' calls.
pub struct Node(pub TempDir);

impl Node {
    pub fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for dir in ["conf", "bin", "cache"] {
            std::fs::create_dir(node.path(dir)).unwrap();
        }
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn conf(&self, name: &str, text: &str) -> &Self {
        std::fs::write(self.path("conf").join(name), text).unwrap();
        self
    }

    /// A plugin that logs its call and runs `script`; `$stdin` is what it read.
    pub fn plugin(&self, name: &str, script: &str) -> &Self {
        let text = format!(
            "if [ \"$CNI_COMMAND\" = VERSION ]; then echo '{ANSWER}'; exit; fi\nstdin=$(cat)\n\
             echo \"{name} $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS\" >>{}\n\
             printf %s \"$stdin\" >{}\n{script}",
            self.path("calls").display(),
            self.path("stdin").display()
        );
        self.program(name, &text)
    }

    /// A program, written by another process: a descriptor of ours could be inherited by a child of another test,
    /// and the program would be busy.
    pub fn program(&self, name: &str, script: &str) -> &Self {
        let file = self.path("bin").join(name);
        let write = "printf '%s\\n' '#!/bin/sh' \"$1\" >\"$2\"; chmod 755 \"$2\"";
        let status = Command::new("/bin/sh").args(["-c", write, "sh", script]).arg(&file).status().unwrap();
        assert!(status.success());
        self
    }

    pub fn run_with(&self, vars: &[(&str, &str)], args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cnitool"));
        for name in ["CNI_ARGS", "CAP_ARGS", "CNI_IFNAME", "CNI_NETNS_OVERRIDE"] {
            command.env_remove(name);
        }
        command.env("NETCONFPATH", self.path("conf")).env("CNI_PATH", self.path("bin"));
        for (name, value) in vars {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        command.current_dir(self.0.path()).args(args).arg("--cache-dir").arg(self.path("cache")).output().unwrap()
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with(&[], args)
    }

    /// The line on stderr of a call that fails; nothing is on stdout.
    pub fn refused(&self, vars: &[(&str, &str)], args: &[&str]) -> String {
        let output = self.run_with(vars, args);
        let line = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        line.trim_end().to_owned()
    }

    pub fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("calls"));
        calls.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Runs `validate`; its exit status and lines, without the directory's name.
    pub fn validate(&self, vars: &[(&str, &str)], args: &[&str]) -> (i32, Vec<String>) {
        let args: Vec<&str> = ["validate"].into_iter().chain(args.iter().copied()).collect();
        let output = self.run_with(vars, &args);
        assert_eq!(text(&output.stderr), "");
        let conf = format!("{}/", self.path("conf").display());
        let lines = text(&output.stdout).lines().map(|line| line.replace(&conf, "")).collect();
        (output.status.code().unwrap(), lines)
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_owned()).unwrap()
}
