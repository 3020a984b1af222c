//! How a pod's packets leave the node: with the node's address, if `ipMasq` says so. The same step, and the same keys,
//! in every plugin that routes a pod; what the rules are is [`masquerade`]'s.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use libcni::plugin::Request;
use libcni::types::{Cidr, Code, IfName, IpConfig, json};
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::Result;
use crate::masquerade::{self, Backend, Policy};
use crate::netlink::Netlink;
use crate::nft::Nft;
use crate::owner::Owner;
use crate::undo::Undo;
use crate::{addr, link};

/// A scope of `rtnetlink(7)`.
const UNIVERSE: u8 = 0;

/// The keys as they are written. The reference has the first two.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Keys {
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    ip_masq4: Option<bool>,
    ip_masq6: Option<bool>,
    #[serde(rename = "nonMasqueradeCIDRs")]
    non_masquerade_cidrs: Vec<String>,
    masq_random_fully: bool,
    masq_source_address: Texts,
}

/// A plugin's own keys, and beside them, in the same object, these: read one after the other, because
/// [`json`] knows no `#[serde(flatten)]`.
#[derive(Debug, Default)]
pub struct Beside<T> {
    /// The plugin's own.
    pub own: T,
    /// How the pod's packets leave the node.
    pub egress: Keys,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Beside<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let own = json::from_value(&value).map_err(D::Error::custom)?;
        Ok(Self { own, egress: json::from_value(&value).map_err(D::Error::custom)? })
    }
}

/// A string or a list of strings.
#[derive(Debug, Default)]
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Texts, E> {
        Ok(Texts(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = items.next_element()? {
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}

/// What the keys mean.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// Which IP versions are masqueraded.
    v4: bool,
    v6: bool,
    backend: Option<Backend>,
    policy: Policy,
}

fn refuse(msg: String) -> libcni::Error {
    libcni::Error::new(Code::INVALID_CONFIG, msg)
}

impl Egress {
    /// From the keys as they are written.
    ///
    /// A key that says how to masquerade while nothing is masqueraded is refused: what is forgotten, or misspelt, is
    /// then `ipMasq`, and without a word the pods would have no way out.
    ///
    /// # Errors
    /// Code 7: a key is not valid, or does not go with another.
    pub fn new(keys: &Keys) -> std::result::Result<Self, libcni::Error> {
        let backend = keys.ip_masq_backend.as_deref().map(str::parse).transpose();
        let backend = backend.map_err(|error| refuse(format!("ipMasqBackend: {error}")))?;
        let (v4, v6) = (keys.ip_masq4.unwrap_or(keys.ip_masq), keys.ip_masq6.unwrap_or(keys.ip_masq));
        let policy = Policy {
            exempt: exempt(&keys.non_masquerade_cidrs)?,
            sources: sources(&keys.masq_source_address.0)?,
            random_fully: keys.masq_random_fully,
        };
        let said = [
            (!policy.exempt.is_empty(), "nonMasqueradeCIDRs"),
            (!policy.sources.is_empty(), "masqSourceAddress"),
            (policy.random_fully, "masqRandomFully"),
        ];
        if let Some((_, key)) = said.iter().find(|(is_said, _)| *is_said && !v4 && !v6) {
            return Err(refuse(format!("{key} is set, but nothing is masqueraded: set ipMasq, ipMasq4 or ipMasq6")));
        }
        if let Some(source) = policy.sources.iter().find(|source| !(if source.is_ipv4() { v4 } else { v6 })) {
            let (version, key) = if source.is_ipv4() { ("IPv4", "ipMasq4") } else { ("IPv6", "ipMasq6") };
            return Err(refuse(format!("masqSourceAddress: {source}: {version} is not masqueraded ({key} is false)")));
        }
        Ok(Self { v4, v6, backend, policy })
    }

    /// Masquerades the pod's addresses.
    ///
    /// # Errors
    /// The rules could not be made; some may be there until `undo` has run.
    pub fn ensure<'a, C>(
        &self,
        req: &'a Request<C>,
        owner: &'a Owner,
        ips: &[IpConfig],
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        let _step = libcni::log::step("masquerade");
        let addresses = self.masqueraded(ips);
        if addresses.is_empty() {
            return Ok(());
        }
        undo.push("remove the masquerade rules", || {
            let mut pod = Netlink::open_if_any(req.netns_if_any())?;
            masquerade::remove(owner, &Addresses::of(pod.as_mut(), req.ifname())?.others)
        });
        masquerade::add(owner, self.backend, &self.policy, &addresses)
    }

    /// Removes the rules of either backend, whatever the configuration says by now: that is only where they are
    /// looked for first. `pod` is `None` where it is gone.
    ///
    /// # Errors
    /// Rules are left behind.
    pub fn remove(&self, nft: &mut Nft, pod: Option<&mut Netlink>, owner: &Owner) -> Result<()> {
        let _step = libcni::log::step("masquerade");
        let Addresses { own, others } = Addresses::of(pod, &owner.ifname)?;
        let by_iptables = self.backend != Some(Backend::Nftables);
        let likely = self.those_of(own.into_iter().filter(|_| by_iptables));
        masquerade::remove_over(nft, owner, &others, &likely)
    }

    /// Compares the rules with what [`ensure`](Self::ensure) makes.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self, owner: &Owner, ips: &[IpConfig]) -> Result<()> {
        let _step = libcni::log::step("masquerade");
        let addresses = self.masqueraded(ips);
        if addresses.is_empty() {
            return Ok(());
        }
        masquerade::check(owner, self.backend, &self.policy, &addresses)
    }

    /// Makes the rules once, for addresses like those that pods get: in a [`trial`](crate::trial), for STATUS.
    ///
    /// # Errors
    /// Why they could not be made.
    pub fn try_out(&self, owner: &Owner, addresses: &[Cidr]) -> Result<()> {
        let addresses = self.those_of(addresses.iter().copied());
        if addresses.is_empty() {
            return Ok(());
        }
        masquerade::add(owner, self.backend, &self.policy, &addresses)
    }

    fn masqueraded(&self, ips: &[IpConfig]) -> Vec<Cidr> {
        self.those_of(ips.iter().map(|ip| ip.address))
    }

    fn those_of(&self, addresses: impl Iterator<Item = Cidr>) -> Vec<Cidr> {
        addresses.filter(|address| if address.is_ipv4() { self.v4 } else { self.v6 }).collect()
    }
}

fn exempt(texts: &[String]) -> std::result::Result<BTreeSet<Cidr>, libcni::Error> {
    let mut exempt = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let refuse = |why: &str| refuse(format!("nonMasqueradeCIDRs[{index}]: {why}"));
        let network: Cidr = text.parse().map_err(|error| refuse(&format!("{error}")))?;
        if network.is_default() {
            let key = if network.is_ipv4() { "ipMasq4" } else { "ipMasq6" };
            return Err(refuse(&format!("{network} leaves nothing to masquerade: set {key} to false instead")));
        }
        exempt.insert(network.network());
    }
    Ok(exempt)
}

fn sources(texts: &[String]) -> std::result::Result<Vec<IpAddr>, libcni::Error> {
    let mut sources: Vec<IpAddr> = Vec::new();
    for text in texts {
        let refuse = |why: &str| refuse(format!("masqSourceAddress: {text:?} {why}"));
        let address: IpAddr = text.parse().map_err(|_| refuse("is not an IP address"))?;
        let address = address.to_canonical();
        if address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address == IpAddr::V4(Ipv4Addr::BROADCAST)
            // `::192.0.2.1` (RFC 4291, 2.5.5.1: deprecated).
            || matches!(address, IpAddr::V6(v6) if v6.to_ipv4().is_some())
        {
            return Err(refuse("is not the address of a machine in the network"));
        }
        if let Some(other) = sources.iter().find(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(refuse(&format!("is the second of its IP version, after {other}")));
        }
        sources.push(address);
    }
    Ok(sources)
}

/// The addresses of the pod's interface, and those of its other interfaces: with iptables, the masquerade rules of a
/// container's interfaces on one network share a chain.
#[derive(Default)]
struct Addresses {
    /// Without those that a link gives itself.
    own: Vec<Cidr>,
    others: Vec<IpAddr>,
}

impl Addresses {
    /// None where the pod is gone.
    fn of(pod: Option<&mut Netlink>, ifname: &IfName) -> Result<Self> {
        let mut addresses = Self::default();
        let Some(pod) = pod else { return Ok(addresses) };
        let own = link::get(pod, ifname.as_str())?.map_or(0, |link| link.index);
        for (index, address) in addr::list_all(pod)? {
            if index != own {
                addresses.others.push(address.cidr.addr());
            } else if address.scope == UNIVERSE {
                addresses.own.push(address.cidr);
            }
        }
        Ok(addresses)
    }
}
