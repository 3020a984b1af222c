//! The reference's checklist for the runtime side, with scripts for plugins.
//!
//! Where its items are: "conf loading", "cniVersions", "upconvert" in `conf`; "capabilities", "inject" in `requests`;
//! list ADD, CHECK, DEL, validate, GC, STATUS, timeouts in `verbs`; "cache" in `cached`. "libcni api — single ADD, CHECK, DEL,
//! validate" is not repeated: there is no single-plugin variant, `ConfList::from_single` makes a list. "0.1.0-era plugin
//! binary" and "0.1.0-era runtime" are scripts that print what those printed, in `verbs` and in `exec::version`. "sorted-key
//! bytes" is not kept: keys stay in their order. "inject: bad JSON, empty key, nil value" cannot be written here: requests
//! are made from parsed objects. "exec: default executor", "decode called": there is no exchangeable executor. "list ADD: bad
//! container id, bad net name, bad ifname" and "cache: missing name, id, ifname" cannot be written either: `ContainerId`,
//! `NetworkName` and `IfName` are checked when they are made, long before an ADD (tests in `types::names`). "typed errors"
//! of "conf loading" (nothing found, no such directory) are told apart by their text alone: no caller does differently.

mod cached;
mod conf;
mod requests;
mod verbs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::exec::fake::Plugins;
use crate::types::Code;

const RESULT: &str = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}],"dns":{"nameservers":["1.2.3.4"]}}"#;

/// A directory of fake plugins, and a runtime with its cache beside them.
struct Node {
    plugins: Plugins,
    runtime: Runtime,
}

impl Node {
    /// `first` prints a result with an address, `second` one with another address.
    fn new() -> Self {
        let plugins = Plugins::new();
        plugins.create("first", &format!("[ $CNI_COMMAND != ADD ] || echo '{RESULT}'"));
        plugins
            .create("second", &format!("[ $CNI_COMMAND != ADD ] || echo '{}'", RESULT.replace("10.1.2.3", "10.1.2.4")));
        let runtime = Runtime::new(plugins.path())
            .with_cache_dir(plugins.dir().join("cache"))
            .with_deadline(Duration::from_secs(20));
        Self { plugins, runtime }
    }

    fn cache_file(&self) -> PathBuf {
        self.plugins.dir().join("cache/results/net-ctr-eth0")
    }

    fn request(&self, plugin: &str, verb: &str) -> Value {
        serde_json::from_str(&self.plugins.stdin(plugin, verb)).unwrap()
    }
}

/// A list of `first` and `second`, with more keys.
fn list(version: &str, more: &str) -> ConfList {
    let text = format!(
        r#"{{"cniVersion":"{version}","name":"net"{more},"plugins":[{{"type":"first","a":1}},{{"type":"second","name":"two"}}]}}"#
    );
    ConfList::from_bytes(text.as_bytes()).unwrap()
}

fn attachment() -> Attachment {
    let mut attachment = Attachment::new("ctr".parse().unwrap(), Some("/run/netns/x".into()), "eth0".parse().unwrap());
    attachment.args = vec![("A".into(), "1".into()), ("B".into(), "2".into())];
    attachment
}

fn write(file: &Path, text: &str) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}
