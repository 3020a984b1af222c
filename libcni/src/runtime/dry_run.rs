//! What DEL and GC would remove ([`crate::plugin::dry_run`]), asked of the plugins of a network.

use super::conflist::ConfList;
use super::{Attachment, Runtime, by, request};
use crate::exec::{dry_run_of, find, has_dry_run};
use crate::plugin::{self, Command, dry_run::Plan};
use crate::types::{Error, Version};

impl Runtime {
    /// What the plugins would remove if they were told that these attachments are all that is valid, and what they
    /// could not tell. Nothing is changed.
    ///
    /// The version of the network may be one without GC: the question is not in the specification anyhow.
    pub fn gc_dry_run(&self, list: &ConfList, valid: &[plugin::Attachment]) -> (Plan, Vec<Error>) {
        let list = list.since(Version::V1_1_0);
        self.ask(&list, Command::Gc, None, |plugin| request::of_network(&list, plugin, Some(valid)))
    }

    /// The same of the DEL of an attachment.
    pub fn del_dry_run(&self, list: &ConfList, attachment: &Attachment) -> (Plan, Vec<Error>) {
        let result = self.prev_result(list, attachment).ok().flatten().filter(|_| list.is_since(Version::V0_4_0));
        self.ask(list, Command::Del, Some(attachment), |plugin| {
            request::of_attachment(list, plugin, result.clone(), &attachment.capability_args)
        })
    }

    fn ask(
        &self,
        list: &ConfList,
        verb: Command,
        attachment: Option<&Attachment>,
        stdin: impl Fn(&super::PluginConf) -> Vec<u8>,
    ) -> (Plan, Vec<Error>) {
        let (mut plan, mut errors) = (Plan::default(), Vec::new());
        for plugin in list.plugins() {
            match find(plugin.plugin_type(), &self.path) {
                Ok(program) if has_dry_run(&program, self.deadline) => {}
                Ok(_) => {
                    plan.add_unasked(plugin.plugin_type());
                    continue;
                }
                Err(error) => {
                    errors.push(by(plugin, error));
                    continue;
                }
            }
            let mut more = vec![dry_run_of(verb)];
            if attachment.is_none() {
                // Some look for these before they look at the verb; who knows it does not.
                more.extend(["CNI_CONTAINERID", "CNI_IFNAME"].map(|name| (name, "dry-run".into())));
            }
            let answer = self.call_with(plugin, verb, attachment, &stdin(plugin), more);
            let merged = plan.merge_answer(plugin.plugin_type(), answer);
            errors.extend(merged.err().map(|error| by(plugin, error)));
        }
        (plan, errors)
    }
}
