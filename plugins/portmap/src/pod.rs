//! Where mapped ports lead: the pod's addresses, as the plugins before in the chain say.

use hostnet::Owner;
use hostnet::iptables::Version;
use hostnet::ports::Mapping;
use libcni::plugin::Request;
use libcni::types::{Cidr, Interface, Success};

use crate::conditions::Conditions;
use crate::conf::{Conf, Masquerade};

/// What is to be done for one attachment in one IP version.
#[derive(Clone, Debug)]
pub struct Forward<'a> {
    /// The IP version.
    pub version: Version,
    /// Whose it is.
    pub owner: &'a Owner,
    /// The pod's address, in its network.
    pub pod: Cidr,
    /// All mappings, those of the other IP version, too.
    pub mappings: &'a [Mapping],
    /// Whose packets are masqueraded.
    pub masquerade: &'a Masquerade,
    /// What else must be true of a packet.
    pub conditions: &'a Conditions,
}

impl Forward<'_> {
    /// The mappings that say something about packets of this version.
    pub fn mappings(&self) -> impl DoubleEndedIterator<Item = &Mapping> {
        self.mappings.iter().filter(|mapping| mapping.is_of(self.version))
    }

    /// The words of the conditions of this version.
    pub fn condition_words(&self) -> &[String] {
        self.conditions.of(self.version)
    }
}

/// The first address of each IP version that is the attachment's own.
pub fn forwards<'a>(req: &'a Request<Conf>, owner: &'a Owner, result: &Success) -> Vec<Forward<'a>> {
    let conf = req.conf();
    let addresses = addresses(req, result);
    let of = |version| addresses.iter().find(|addr| Version::of(addr) == version).copied();
    let pods = Version::ALL.into_iter().filter_map(|version| Some((version, of(version)?)));
    let (mappings, masquerade, conditions) = (&conf.mappings, &conf.masquerade, &conf.conditions);
    pods.map(|(version, pod)| Forward { version, owner, pod, mappings, masquerade, conditions }).collect()
}

/// The attachment's own addresses: those of its interface, and those of which nobody says whose they are. Results before
/// 0.3.0 say it of none.
pub fn addresses(req: &Request<Conf>, result: &Success) -> Vec<Cidr> {
    let is_own = |listed: &Interface| listed.name == req.ifname().as_str() && !listed.sandbox.is_empty();
    let listed = |index: i64| usize::try_from(index).ok().and_then(|index| result.interfaces.get(index));
    let own = result.ips.iter().filter(|ip| ip.interface.and_then(listed).is_none_or(is_own));
    own.map(|ip| ip.address).collect()
}
