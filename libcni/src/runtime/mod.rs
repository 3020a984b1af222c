//! To drive plugins: load a network's configuration, attach containers to it, and detach them.
//!
//! [`Runtime`] is what container runtimes and `cnitool` need: it derives each plugin's request, starts the plugins
//! one after the other, passes results on, remembers them, and takes back what it began if one of them fails.
//!
//! ```no_run
//! use libcni::runtime::{Attachment, ConfList, Runtime};
//!
//! let list = ConfList::from_dir("/etc/cni/net.d".as_ref(), "mynet")?;
//! let runtime = Runtime::new(vec!["/opt/cni/bin".into()]);
//! let pod = Attachment::new("pod-1".parse()?, Some("/run/netns/pod-1".into()), "eth0".parse()?);
//!
//! let (_version, result) = runtime.add(&list, &pod)?;
//! for ip in &result.ips {
//!     println!("{}", ip.address);
//! }
//! runtime.check(&list, &pod)?;
//! runtime.del(&list, &pod)?;
//! # Ok::<(), libcni::Error>(())
//! ```
//!
//! A program whose parent may ignore SIGCHLD calls [`exec::ensure_waitable`](crate::exec::ensure_waitable) first.
//!
//! It does not lock: the specification asks a runtime to call no two verbs for one container at a time, and nothing
//! beside GC. Who calls GC and is not the one who calls ADD takes [`lock::GC`](crate::lock::GC). There is no single-plugin
//! variant of the verbs; [`ConfList::from_single`] makes a list of one.

mod attachment;
mod base64;
mod cache;
mod conflist;
mod directory;
mod dry_run;
mod network;
mod remembered;
mod request;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

pub use attachment::Attachment;
pub use cache::{Cached, Remembered};
pub use conflist::{ConfList, PluginConf};
pub use directory::files;
pub use remembered::{NetnsId, Unreadable};

use crate::exec::{Invocation, also_says, decode_result, find};
use crate::plugin::Command;
use crate::types::{Code, ContainerId, Error, Success, Version};
use cache::Cache;

/// Where results are kept unless [`Runtime::with_cache_dir`] says otherwise.
pub const CACHE_DIR: &str = "/var/lib/cni";
/// How long one plugin may take: a little more than a plugin gives its delegate, so that the plugin can say which
/// of them it was.
const DEADLINE: Duration = Duration::from_secs(240);

/// Starts the plugins of networks.
#[derive(Clone, Debug)]
pub struct Runtime {
    path: Vec<PathBuf>,
    cache: Cache,
    deadline: Duration,
    netns_override: bool,
}

impl Runtime {
    /// A runtime that looks for plugins in these directories (`CNI_PATH`), in order.
    pub fn new(path: Vec<PathBuf>) -> Self {
        Self { path, cache: Cache::new(CACHE_DIR.into()), deadline: DEADLINE, netns_override: false }
    }

    /// Keeps results in `DIR/results`, not in `/var/lib/cni/results`.
    #[must_use]
    pub fn with_cache_dir(mut self, dir: PathBuf) -> Self {
        self.cache = Cache::new(dir);
        self
    }

    /// Kills a plugin that takes longer than this; the default is 240 s for each call of each plugin.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Lets a `CNI_NETNS_OVERRIDE` of the own environment through to the plugins.
    #[must_use]
    pub fn with_netns_override(mut self) -> Self {
        self.netns_override = true;
        self
    }

    /// ADD: attaches a container, and returns the last plugin's result in the version it was written in.
    ///
    /// If a plugin fails, or the result cannot be kept, DEL is called for every plugin of the list, in reverse,
    /// before the error is returned. Not so if an earlier ADD of the same attachment is remembered: then what
    /// is there may be its work, and the caller decides.
    ///
    /// # Errors
    /// `plugin type="T" failed (add): ...` with the plugin's code; before anything is done: code 1 for a version that
    /// we do not speak, and a plugin of the list that is not there.
    pub fn add(&self, list: &ConfList, attachment: &Attachment) -> Result<(Version, Success), Error> {
        let version = list.version()?;
        if list.plugins().is_empty() {
            return Err(Error::new(Code::INVALID_CONFIG, format!("network {} has no plugins", list.name())));
        }
        for plugin in list.plugins() {
            find(plugin.plugin_type(), &self.path).map_err(|error| wrapped(plugin, "add", error))?;
        }
        let known = self.cache.contains(list.name(), attachment);
        let mut last = None;
        let added = self.add_plugins(list, attachment, version, &mut last);
        added.map_err(|error| {
            let also = if known {
                "not undone: an earlier ADD of this container and interface is remembered; DEL removes both".to_owned()
            } else {
                match self.del_plugins(list, attachment, last.as_ref(), true) {
                    Ok(()) => return error,
                    Err(del) if del.to_string().replace("failed (delete)", "failed (add)") == error.to_string() => {
                        "DEL after the failed ADD failed with the same error".to_owned()
                    }
                    Err(del) => format!("DEL after the failed ADD failed too: {del}"),
                }
            };
            also_says(error, &also)
        })
    }

    /// The forward half of ADD. `last` is the newest result, in the configuration's version.
    fn add_plugins(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        version: Version,
        last: &mut Option<Value>,
    ) -> Result<(Version, Success), Error> {
        let mut result = (version, Success::default());
        for plugin in list.plugins() {
            let stdin = request::of_attachment(list, plugin, last.clone(), &attachment.capability_args);
            let added = self.call(plugin, Command::Add, Some(attachment), &stdin);
            result = added
                .and_then(|stdout| decode_result(&stdout, version))
                .map_err(|error| wrapped(plugin, "add", error))?;
            // Another version than the configuration's may be answered, but a plugin need not understand it. Where the
            // configuration's cannot say it, it stays as it is, as in the reference.
            *last = Some(result.1.to_value(version).unwrap_or_else(|_| result.1.to_value_as_read(result.0)));
        }
        self.cache.put(list, attachment, result.1.to_value_as_read(result.0))?;
        Ok(result)
    }

    /// CHECK: whether everything is as ADD left it.
    ///
    /// # Errors
    /// A version before 0.4.0; a remembered result that cannot be read; the first plugin's error with its code and
    /// message as they are, and the plugin's type in the details.
    pub fn check(&self, list: &ConfList, attachment: &Attachment) -> Result<(), Error> {
        if !list.is_since(Version::V0_4_0) {
            let version = list.version_text();
            let msg = format!("configuration version {version:?} does not support the CHECK command");
            return Err(Error::new(Code::INCOMPATIBLE_VERSION, msg));
        }
        if list.disable_check() {
            return Ok(());
        }
        let result = self.prev_result(list, attachment)?;
        for plugin in list.plugins() {
            let stdin = request::of_attachment(list, plugin, result.clone(), &attachment.capability_args);
            self.call(plugin, Command::Check, Some(attachment), &stdin).map_err(|error| by(plugin, error))?;
        }
        Ok(())
    }

    /// DEL: detaches a container, whatever is left of it. A remembered result that cannot be read does not prevent
    /// it. The first failure ends it, because a DEL that is out of order may take what is another's by now; what is
    /// remembered is kept then, for the next try.
    ///
    /// # Errors
    /// `plugin type="T" failed (delete): ...` with the plugin's code.
    pub fn del(&self, list: &ConfList, attachment: &Attachment) -> Result<(), Error> {
        let result = if list.is_since(Version::V0_4_0) {
            self.prev_result(list, attachment).unwrap_or_else(|_| {
                self.cache.remove(list.name(), attachment);
                None
            })
        } else {
            None
        };
        self.del_plugins(list, attachment, result.as_ref(), false)?;
        self.cache.remove(list.name(), attachment);
        Ok(())
    }

    /// DEL of every plugin in reverse order; to the end if `all`, else to the first failure.
    fn del_plugins(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        result: Option<&Value>,
        all: bool,
    ) -> Result<(), Error> {
        let result = result.filter(|_| list.is_since(Version::V0_4_0));
        let mut errors = Vec::new();
        for plugin in list.plugins().iter().rev() {
            let stdin = request::of_attachment(list, plugin, result.cloned(), &attachment.capability_args);
            if let Err(error) = self.call(plugin, Command::Del, Some(attachment), &stdin) {
                errors.push(wrapped(plugin, "delete", error));
                if !all {
                    break;
                }
            }
        }
        Error::join(errors)
    }

    /// The remembered result in the configuration's version, as prevResult of CHECK and DEL.
    fn prev_result(&self, list: &ConfList, attachment: &Attachment) -> Result<Option<Value>, Error> {
        let cached = self.cached_result(list, attachment)?;
        let Some((_, success)) = cached else { return Ok(None) };
        success.to_value(list.version()?).map(Some)
    }

    /// What is remembered of an attachment's ADD: its result, in the version it was written in.
    ///
    /// # Errors
    /// There is a file, but it is none of ours.
    pub fn cached_result(&self, list: &ConfList, attachment: &Attachment) -> Result<Option<(Version, Success)>, Error> {
        let Some(value) = self.cache.result(list.name(), attachment)? else { return Ok(None) };
        let assumed = list.version().unwrap_or(Version::V0_1_0);
        Success::from_value(value, assumed).map(Some).map_err(|error| error.context("invalid cached result"))
    }

    /// What is remembered of an attachment's ADD: the configuration, and the attachment with its arguments. With it
    /// a container can be detached from a network whose configuration is gone.
    ///
    /// # Errors
    /// There is a file, but it is none of ours.
    pub fn cached(&self, list: &ConfList, attachment: &Attachment) -> Result<Option<Cached>, Error> {
        self.cache.get(list.name(), attachment)
    }

    /// Everything that is remembered, and the files of which it is not known what they remember.
    ///
    /// # Errors
    /// The directory is there and cannot be read.
    pub fn remembered(&self) -> Result<Remembered, Error> {
        self.cache.list()
    }

    /// The file in which an attachment is or would be remembered.
    pub fn cache_file(&self, list: &ConfList, attachment: &Attachment) -> PathBuf {
        self.cache.path(list.name(), attachment)
    }

    /// Every attachment that is remembered, or those of one container. Files that cannot be read are passed over.
    ///
    /// # Errors
    /// The directory is there and cannot be read.
    pub fn attachments(&self, container_id: Option<&ContainerId>) -> Result<Vec<Cached>, Error> {
        let mut cached = self.cache.list()?.entries;
        cached.retain(|entry| container_id.is_none_or(|id| entry.attachment.container_id == *id));
        Ok(cached)
    }

    /// Removes what a process left that was killed while it wrote a result. Whoever asks knows that it was this process,
    /// by its id, and that it is no more: ids repeat.
    pub fn remove_unfinished(&self, process: u32) {
        self.cache.remove_unfinished(process);
    }

    /// Runs one plugin. Without an attachment its variables are there and empty.
    fn call(
        &self,
        plugin: &PluginConf,
        verb: Command,
        attachment: Option<&Attachment>,
        stdin: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.call_with(plugin, verb, attachment, stdin, Vec::new())
    }

    /// The same with more variables, which replace others.
    fn call_with(
        &self,
        plugin: &PluginConf,
        verb: Command,
        attachment: Option<&Attachment>,
        stdin: &[u8],
        more: Vec<(&'static str, OsString)>,
    ) -> Result<Vec<u8>, Error> {
        let program = find(plugin.plugin_type(), &self.path)?;
        let path: Vec<&std::ffi::OsStr> =
            self.path.iter().map(|dir| dir.as_os_str()).filter(|dir| !dir.is_empty()).collect();
        let of = |value: &dyn Fn(&Attachment) -> OsString| attachment.map(value).unwrap_or_default();
        let mut vars = vec![
            ("CNI_CONTAINERID", of(&|attachment| attachment.container_id.as_str().into())),
            ("CNI_NETNS", of(&|attachment| attachment.netns.clone().unwrap_or_default().into_os_string())),
            ("CNI_IFNAME", of(&|attachment| attachment.ifname.as_str().into())),
            ("CNI_ARGS", of(&|attachment| attachment.cni_args().into())),
            ("CNI_PATH", path.join(":".as_ref())),
        ];
        vars.extend(more);
        let (deadline, netns_override) = (self.deadline, self.netns_override);
        Ok(Invocation { program, verb, vars, netns_override, stdin, deadline }.run()?)
    }
}

/// The reference's words, which logs are searched for.
fn wrapped(plugin: &PluginConf, verb: &str, error: Error) -> Error {
    let name = plugin.name().map(|name| format!(" name={name:?}")).unwrap_or_default();
    error.context(format!("plugin type={:?}{name} failed ({verb})", plugin.plugin_type()))
}

/// Where the reference returns a plugin's error as it is, the message stays; who it was stands in the details.
fn by(plugin: &PluginConf, error: Error) -> Error {
    also_says(error, &format!("plugin type={:?}", plugin.plugin_type()))
}
