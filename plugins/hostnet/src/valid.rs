//! The attachments that GC keeps: those the runtime named. What is of the same network and of none of them is stale.
//!
//! Networks are told by their whole name or its hash, never by how a name begins: GC of `a` leaves `ab` alone.

use std::collections::HashSet;

use libcni::plugin::{Attachment, Network};
use libcni::types::{ContainerId, NetworkName};

use crate::owner::Owner;

/// The valid attachments of one network.
#[derive(Clone, Debug)]
pub struct Valid {
    network: NetworkName,
    owners: HashSet<Owner>,
    containers: HashSet<ContainerId>,
    prefixes: HashSet<String>,
    spoof_check_ids: HashSet<String>,
}

impl Valid {
    /// What the runtime said on GC; `None` where it said nothing, and nothing may be removed.
    pub fn of<C>(network: &Network<C>) -> Option<Self> {
        Some(Self::new(network.name(), network.valid_attachments()?))
    }

    fn new(network: &NetworkName, attachments: &[Attachment]) -> Self {
        // What has no valid name was never added.
        let owner = |attachment: &Attachment| {
            let (container, ifname) = (attachment.container_id.parse().ok()?, attachment.ifname.parse().ok()?);
            Some(Owner { network: network.clone(), container, ifname })
        };
        let owners: HashSet<Owner> = attachments.iter().filter_map(owner).collect();
        Self {
            network: network.clone(),
            containers: owners.iter().map(|owner| owner.container.clone()).collect(),
            prefixes: owners.iter().map(Owner::nft_comment_prefix).collect(),
            spoof_check_ids: owners.iter().map(Owner::spoof_check_id).collect(),
            owners,
        }
    }

    /// The network that is cleaned up.
    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// The attachments that stay.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.iter()
    }

    /// Whether an attachment is of this network, and not valid.
    pub fn is_stale(&self, owner: &Owner) -> bool {
        owner.network == self.network && !self.owners.contains(owner)
    }

    /// The same of the owner that a comment or tag in nf_tables names ([`Owner::nft_comment`]): its beginning is enough.
    pub fn is_stale_comment(&self, comment: &[u8]) -> bool {
        let begin = Owner::nft_network_prefix(&self.network);
        // Of one length, whatever is hashed: 16 digits for the network, `-`, 16 for the attachment.
        let prefix = comment.get(..begin.len() + 16).and_then(|prefix| std::str::from_utf8(prefix).ok());
        prefix.is_some_and(|prefix| prefix.starts_with(&begin) && !self.prefixes.contains(prefix))
    }

    /// The same of a comment in iptables ([`Owner::iptables_comment`]). It does not say which interface it is about, so
    /// nothing of a container is stale while one of its interfaces is valid.
    pub fn is_stale_container(&self, comment: &str) -> bool {
        let container = Owner::container_in_iptables_comment(&self.network, comment);
        container.is_some_and(|container| !self.containers.contains(&container))
    }

    /// Whether a spoof check ([`Owner::spoof_check_id`], which names no network) is that of a valid attachment.
    pub fn has_spoof_check(&self, id: &str) -> bool {
        self.spoof_check_ids.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(network: &str, container: &str, ifname: &str) -> Owner {
        Owner {
            network: network.parse().unwrap(),
            container: container.parse().unwrap(),
            ifname: ifname.parse().unwrap(),
        }
    }

    fn valid(network: &str, attachments: &[(&str, &str)]) -> Valid {
        let attachment = |(container, ifname): &(&str, &str)| Attachment {
            container_id: (*container).to_owned(),
            ifname: (*ifname).to_owned(),
        };
        Valid::new(&network.parse().unwrap(), &attachments.iter().map(attachment).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_stale() {
        let valid = valid("a", &[("c", "eth0"), ("../x", "eth0")]);
        for (owner, interface, container) in [
            (owner("a", "c", "eth0"), false, false),
            (owner("a", "c", "eth1"), true, false),
            (owner("a", "cc", "eth0"), true, true),
            (owner("ab", "c", "eth0"), false, false),
            (owner("ab", "x", "eth0"), false, false),
        ] {
            assert_eq!(valid.is_stale(&owner), interface, "{owner:?}");
            assert_eq!(valid.is_stale_comment(&owner.nft_comment()), interface, "{owner:?}");
            assert_eq!(valid.is_stale_container(&owner.iptables_comment()), container, "{owner:?}");
        }
        assert!(valid.has_spoof_check("c-eth0") && !valid.has_spoof_check("c-eth1"));
    }

    #[test]
    fn what_is_nobodys_is_not_stale() {
        let valid = valid("a", &[]);
        let hash = Owner::nft_network_prefix(&"a".parse().unwrap());
        for comment in ["", "a", hash.as_str(), "1f40fc92da241694-", "name: \"a\" id: \"c"] {
            assert!(!valid.is_stale_comment(comment.as_bytes()) && !valid.is_stale_container(comment), "{comment}");
        }
        assert!(!valid.is_stale_comment(&[0xff; 40]));
    }
}
