//! What is asked of a network as a whole: GC, STATUS, and whether its plugins are there and speak its version.

use std::collections::BTreeSet;

use super::cache::Cached;
use super::conflist::ConfList;
use super::{Runtime, by, request};
use crate::exec;
use crate::plugin::{self, Command};
use crate::types::{Code, Error, Version};

impl Runtime {
    /// GC: detaches every remembered attachment of the network that is not in `valid` (`None`: no attachment is
    /// valid), then tells the plugins which are, from 1.1.0 on. Not if it is disabled in the configuration.
    ///
    /// A path that leads to another namespace by now is not handed to DEL, which would take that one's links.
    ///
    /// Nothing is freed when the cache cannot be read: not to know an attachment is not to know that it is gone. So it is
    /// with a file that is no entry: what it may be about is kept, and it is an error, for somebody to look at it.
    ///
    /// # Errors
    /// The cache cannot be read; else every failure, joined: the others are still done.
    pub fn gc(&self, list: &ConfList, valid: Option<&[plugin::Attachment]>) -> Result<(), Error> {
        self.gc_where(list, valid, &|entry| !entry.leads_elsewhere())
    }

    /// [`Self::gc`] of a runtime that can look into namespaces: `leads_home` says whether the path that is remembered leads
    /// to the namespace that was attached. An entry of the reference does not say which one that was, so that a path which
    /// was given again can only be told by what is in there.
    ///
    /// # Errors
    /// As there.
    pub fn gc_where(
        &self,
        list: &ConfList,
        valid: Option<&[plugin::Attachment]>,
        leads_home: &dyn Fn(&Cached) -> bool,
    ) -> Result<(), Error> {
        if list.disable_gc() {
            return Ok(());
        }
        let remembered = self.remembered()?;
        let mut errors = Vec::new();
        for entry in remembered.entries.iter().filter(|entry| entry.network == *list.name()) {
            let mut attachment = entry.attachment.clone();
            let (id, ifname) = (&attachment.container_id, &attachment.ifname);
            let is_it = |one: &plugin::Attachment| one.container_id == id.as_str() && one.ifname == ifname.as_str();
            if valid.is_some_and(|valid| valid.iter().any(is_it)) {
                continue;
            }
            let stale = format!("{id} {ifname}");
            if !leads_home(entry) {
                attachment.netns = None;
            }
            if let Err(error) = self.del(list, &attachment) {
                errors.push(error.context(format!("failed to delete stale attachment {stale}")));
            }
        }
        let mut kept = valid.map(<[_]>::to_vec);
        for file in &remembered.unreadable {
            let candidates = file.candidates(list.name());
            let is_known = valid.is_some_and(|valid| candidates.iter().any(|one| valid.contains(one)));
            if is_known || candidates.is_empty() {
                continue;
            }
            errors.push(file.error());
            if let Some(kept) = &mut kept {
                kept.extend(candidates);
            }
        }
        if list.is_since(Version::V1_1_0) {
            errors.extend(self.gc_plugins(list, kept.as_deref()));
        }
        Error::join(errors)
    }

    /// The second half of GC alone: tells the plugins which attachments are valid (`None`: nothing is said, and nothing
    /// freed). In a list of an earlier version than 1.1.0 the plugins that speak 1.1.0 are told in that; others do not
    /// know the verb. Returns every failure.
    pub fn gc_plugins(&self, list: &ConfList, valid: Option<&[plugin::Attachment]>) -> Vec<Error> {
        let told = list.since(Version::V1_1_0);
        let mut errors = Vec::new();
        for plugin in told.plugins() {
            let speaks = |versions: Vec<String>| versions.iter().any(|version| version == Version::V1_1_0.as_str());
            if !list.is_since(Version::V1_1_0) && !self.versions(plugin.plugin_type()).is_ok_and(speaks) {
                continue;
            }
            let stdin = request::of_network(&told, plugin, valid);
            if let Err(error) = self.call(plugin, Command::Gc, None, &stdin) {
                errors.push(error.context(format!("failed to GC plugin {}", plugin.plugin_type())));
            }
        }
        errors
    }

    /// STATUS: whether the network can take containers. Before 1.1.0 there is no way to ask, and the answer is yes.
    ///
    /// # Errors
    /// The first plugin's error with its code (50, 51) and message as they are, and its type in the details.
    pub fn status(&self, list: &ConfList) -> Result<(), Error> {
        if !list.is_since(Version::V1_1_0) {
            return Ok(());
        }
        for plugin in list.plugins() {
            let stdin = request::of_network(list, plugin, None);
            self.call(plugin, Command::Status, None, &stdin).map_err(|error| by(plugin, error))?;
        }
        Ok(())
    }

    /// The versions a plugin speaks, as it prints them. It has 10 s, or the deadline if that is less.
    ///
    /// # Errors
    /// It is not there, or does not answer.
    pub fn versions(&self, plugin_type: &str) -> Result<Vec<String>, Error> {
        exec::versions_within(&exec::find(plugin_type, &self.path)?, self.deadline)
    }

    /// Whether every plugin of the list is there and speaks its version. Returns the capabilities they declare.
    ///
    /// # Errors
    /// Every plugin's failure, joined.
    pub fn validate(&self, list: &ConfList) -> Result<BTreeSet<String>, Error> {
        let mut capabilities = BTreeSet::new();
        let mut errors = Vec::new();
        let wanted = match list.version_text() {
            "" => Version::V0_1_0.as_str(),
            text => text,
        };
        for plugin in list.plugins() {
            capabilities.extend(plugin.capabilities().iter().cloned());
            match self.versions(plugin.plugin_type()) {
                Ok(versions) if versions.iter().any(|version| version == wanted) => {}
                Ok(versions) => errors.push(
                    Error::new(
                        Code::INCOMPATIBLE_VERSION,
                        format!("plugin {} does not support config version {wanted:?}", plugin.plugin_type()),
                    )
                    .with_details(format!("it supports {}", versions.join(", "))),
                ),
                Err(error) => errors.push(error),
            }
        }
        Error::join(errors)?;
        Ok(capabilities)
    }
}
