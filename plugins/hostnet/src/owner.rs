//! Who an object in the kernel belongs to: one interface of one container on one network.
//!
//! Rules outlive the interface they were made for (the pod's namespace may be gone before DEL runs),
//! so each carries its owner in a chain name or a comment, and DEL finds it by that alone. The
//! spellings are those of the reference: what one suite makes, the other finds.

use std::fmt::Write as _;

use libcni::plugin::Request;
use libcni::types::{ContainerId, IfName, NetworkName};
use sha2::{Digest, Sha512};

/// Longest comment the `nft` program accepts, in bytes; what exceeds it is cut off.
const NFT_COMMENT_MAX: usize = 128;

/// Longest alias of a link in bytes ([`crate::link::set_alias`]).
const ALIAS_MAX: usize = 254;

/// The attachment that a rule, a chain or an interface was made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// `name` of the network configuration.
    pub network: NetworkName,
    /// `CNI_CONTAINERID`.
    pub container: ContainerId,
    /// `CNI_IFNAME`.
    pub ifname: IfName,
}

impl Owner {
    /// The attachment of a request.
    pub fn of<C>(req: &Request<C>) -> Self {
        let (network, container, ifname) = (req.name().clone(), req.container_id().clone(), req.ifname().clone());
        Self { network, container, ifname }
    }

    /// Chain in table `nat` of iptables: `CNI-` and 24 hex digits.
    ///
    /// The interface is not part of it (so two interfaces of a container on one network share the
    /// chain), and network and container are joined without a separator: both are the reference's.
    pub fn iptables_chain(&self) -> String {
        format!("CNI-{}", hash(&[self.network.as_str(), self.container.as_str()], 24))
    }

    /// Comment of every iptables rule: `name: "NETWORK" id: "CONTAINER"`.
    pub fn iptables_comment(&self) -> String {
        format!("name: \"{}\" id: \"{}\"", self.network, self.container)
    }

    /// The container that a comment of this form names, if it names this network.
    pub fn container_in_iptables_comment(network: &NetworkName, comment: &str) -> Option<ContainerId> {
        let rest = comment.strip_prefix("name: \"")?.strip_prefix(network.as_str())?.strip_prefix("\" id: \"")?;
        rest.strip_suffix('"')?.parse().ok()
    }

    /// Chain in table `nat` of iptables with an attachment's port mappings: `CNI-DN-` and 21 hex digits, of the same
    /// parts as [`iptables_chain`](Self::iptables_chain).
    pub fn hostport_chain(&self) -> String {
        format!("CNI-DN-{}", hash(&[self.network.as_str(), self.container.as_str()], 21))
    }

    /// The same of an attachment whose chain is another's already: of a second interface of a container on one network.
    pub fn own_hostport_chain(&self) -> String {
        format!("CNI-DN-{}", hash(&[&self.nft_comment_prefix()], 21))
    }

    /// Chain in which the reference kept source translations before its version 0.7.
    pub fn old_hostport_chain(&self) -> String {
        format!("CNI-SN-{}", hash(&[self.network.as_str(), self.container.as_str()], 21))
    }

    /// What the comment of every nftables masquerade rule of this owner begins with:
    /// 16 hex digits for the network, `-`, 16 for interface and container.
    pub fn nft_comment_prefix(&self) -> String {
        let network = Self::nft_network_prefix(&self.network);
        format!("{network}{}", hash(&[self.ifname.as_str(), ":", self.container.as_str()], 16))
    }

    /// What [`nft_comment_prefix`](Self::nft_comment_prefix) begins with for every owner on a network: 16 hex digits
    /// and `-`.
    pub fn nft_network_prefix(network: &NetworkName) -> String {
        format!("{}-", hash(&[network.as_str()], 16))
    }

    /// Comment of every nftables masquerade rule. Bytes, because the cut at 128 may split a character.
    pub fn nft_comment(&self) -> Vec<u8> {
        let Self { network, container, ifname } = self;
        let prefix = self.nft_comment_prefix();
        let mut comment =
            format!("{prefix}, net: {network}, if: {ifname}, id: {container}").replace('"', "").into_bytes();
        comment.truncate(NFT_COMMENT_MAX);
        comment
    }

    /// Alias of the host's end of the pod's link, for people and for DEL: `NETWORK CONTAINER IFNAME`. The
    /// reference sets none, and does not look at it. One that is too long ends with 16 hex digits instead.
    pub fn alias(&self) -> String {
        let Self { network, container, ifname } = self;
        let mut alias = format!("{network} {container} {ifname}");
        if alias.len() > ALIAS_MAX {
            // What is cut off may be all that tells two owners apart.
            let hash = hash(&[&alias], 16);
            while alias.len() + hash.len() > ALIAS_MAX {
                alias.pop();
            }
            alias.push_str(&hash);
        }
        alias
    }

    /// Whose an alias says a link is. `None` for somebody else's, and for one that was cut.
    pub fn from_alias(alias: &str) -> Option<Self> {
        let mut words = alias.split(' ');
        let (network, container, ifname) = (words.next()?, words.next()?, words.next()?);
        let owner =
            Self { network: network.parse().ok()?, container: container.parse().ok()?, ifname: ifname.parse().ok()? };
        (owner.alias() == alias && alias.len() < ALIAS_MAX).then_some(owner)
    }

    /// The attachment's place in the file of their locks.
    pub fn place(&self) -> u64 {
        u64::from_str_radix(&hash(&[&self.alias()], 16), 16).unwrap_or_default()
    }

    /// The part of the spoof check's names that tells owners apart: `CONTAINER-IFNAME`.
    /// The network is not part of it: an interface name is unique in a container.
    pub fn spoof_check_id(&self) -> String {
        format!("{}-{}", self.container, self.ifname)
    }
}

/// The first `digits` hex digits of the SHA-512 of the joined parts.
fn hash(parts: &[&str], digits: usize) -> String {
    let mut sha = Sha512::new();
    for part in parts {
        sha.update(part.as_bytes());
    }
    let mut hex = String::with_capacity(digits + 1);
    for byte in sha.finalize().iter().take(digits.div_ceil(2)) {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.truncate(digits);
    hex
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn owner(network: &str, container: &str, ifname: &str) -> Owner {
        Owner {
            network: network.parse().unwrap(),
            container: container.parse().unwrap(),
            ifname: ifname.parse().unwrap(),
        }
    }

    #[test]
    fn aliases_fit() {
        let mut owner = owner("brnet", "ctr1", "eth0");
        assert_eq!(owner.alias(), "brnet ctr1 eth0");
        assert_eq!(Owner::from_alias(&owner.alias()), Some(owner.clone()));
        for others in ["", "brnet", "brnet ctr1", "brnet ctr1 eth0 ", "brnet ctr1 eth0 x", "brnet  ctr1 eth0", "-a b c"]
        {
            assert_eq!(Owner::from_alias(others), None, "{others}");
        }
        owner.container = "x".repeat(300).parse().unwrap();
        let long = owner.alias();
        owner.ifname = "eth1".parse().unwrap();
        assert_eq!((long.len(), owner.alias().len(), owner.alias() == long), (ALIAS_MAX, ALIAS_MAX, false));
        assert_eq!(Owner::from_alias(&long), None);
    }

    #[test]
    fn iptables_chains_are_the_references() {
        for (network, container, chain) in [
            ("test", "1234", "CNI-2bbe0c48b91a7d1b8a6753a8"),
            ("brnet", "ctr1", "CNI-2fbf118d4cafd020f013271b"),
            (
                "rkt.kubernetes.io",
                "328287949eb4d4483a3a8035d65cc326417ae7384270844e59c2f4e963d87e18",
                "CNI-25df152800e33f7b16fc085a",
            ),
        ] {
            assert_eq!(owner(network, container, "eth0").iptables_chain(), chain);
        }
    }

    #[test]
    fn hostport_chains_are_the_references() {
        let container = "icee6giejonei6sohng6ahngee7laquohquee9shiGo7fohferakah3Feiyoolu2pei7ciPhoh7shaoX6vai3vuf0ahfaeng8yohb9c\
            eu0daez5hashee8ooYai5wa3y";
        for (network, container, chain) in [
            ("spec2net", "ctr1", "CNI-DN-4a087b41196ab77113b3f"),
            ("testNetName", container, "CNI-DN-bfd599665540dd91d5d28"),
            ("test", container, "CNI-DN-67e92b96e692a494b6b85"),
        ] {
            assert_eq!(owner(network, container, "eth0").hostport_chain(), chain);
        }
        let (one, two) = (owner("net", "ctr", "eth0"), owner("net", "ctr", "eth1"));
        assert_eq!(one.hostport_chain(), two.hostport_chain());
        assert_ne!(one.own_hostport_chain(), two.own_hostport_chain());
        assert_eq!(one.own_hostport_chain().len(), 28);
    }

    #[test]
    fn a_thousand_owners_have_a_thousand_chains() {
        let owners = (0..1000).map(|n| owner("net", &format!("ctr{n}"), "eth0"));
        let names: Vec<_> = owners.map(|owner| (owner.iptables_chain(), owner.nft_comment_prefix())).collect();
        let chains: HashSet<_> = names.iter().map(|(chain, _)| chain).collect();
        let prefixes: HashSet<_> = names.iter().map(|(_, prefix)| prefix).collect();
        assert_eq!((chains.len(), prefixes.len()), (1000, 1000));
    }

    #[test]
    fn nft_comments_are_the_references() {
        let one = owner("brnet", "ctr1", "eth0");
        assert_eq!(one.nft_comment_prefix(), "bb82bb83e4c2720d-7883a6f9ce71eedb");
        assert_eq!(one.nft_comment(), b"bb82bb83e4c2720d-7883a6f9ce71eedb, net: brnet, if: eth0, id: ctr1");
        assert_eq!(owner("unit-test", "one", "eth0").nft_comment_prefix(), "6fd94d501e58f0aa-287fc69eff0574a2");
    }

    #[test]
    fn a_long_nft_comment_is_cut_at_128_bytes() {
        let long = owner("n", &"c".repeat(200), "e\"0");
        let comment = String::from_utf8(long.nft_comment()).unwrap();
        assert_eq!(comment.len(), 128);
        assert!(comment.ends_with("ccc") && comment.contains(", net: n, if: e0, id: ccc"), "{comment}");
    }

    #[test]
    fn spoof_check_ids() {
        assert_eq!(owner("brnet", "ctr1", "eth0").spoof_check_id(), "ctr1-eth0");
    }
}
