//! An attachment as the runtime knows it: a container, its namespace, and the interface it is to get.

use std::path::PathBuf;

use crate::types::json::Object;
use crate::types::{ContainerId, IfName};

/// What ADD, CHECK and DEL are about. `container_id` and `ifname` identify it within a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// `CNI_NETNS`: path of the network namespace. `None` for a DEL when it is gone.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`.
    pub ifname: IfName,
    /// `CNI_ARGS`, in this order.
    pub args: Vec<(String, String)>,
    /// Values for capabilities; a plugin gets those it declares as `runtimeConfig`.
    pub capability_args: Object,
}

impl Attachment {
    /// An attachment without arguments.
    pub fn new(container_id: ContainerId, netns: Option<PathBuf>, ifname: IfName) -> Self {
        Self { container_id, netns, ifname, args: Vec::new(), capability_args: Object::new() }
    }

    /// `CNI_ARGS` as it is sent: there is no escaping.
    pub(super) fn cni_args(&self) -> String {
        let pairs: Vec<String> = self.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(";")
    }
}
