//! Somebody who has a port that another one takes. The scheduler does not give a port out twice, so it is a pod that is
//! gone and not deleted yet: the newest ADD wins, and says from whom.

use std::fmt;

use hostnet::Owner;
use hostnet::ports::Mapping;

/// Who has a port, as far as its rules say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its network.
    pub network: Option<String>,
    /// Its container.
    pub container: Option<String>,
    /// Its interface.
    pub ifname: Option<String>,
}

impl Holder {
    /// From an owner's tag (`HASH-HASH, net: NET, if: IFNAME, id: ID`), whatever of it is there.
    pub fn of_tag(tag: &str) -> Self {
        let field = |name: &str| {
            let (_, rest) = tag.split_once(name)?;
            Some(rest.split(", ").next().unwrap_or(rest).to_owned())
        };
        Self { network: field(", net: "), container: field(", id: "), ifname: field(", if: ") }
    }

    /// Says on stderr, where the runtime's log has it, who loses a port to whom.
    pub fn report(&self, mapping: &Mapping, winner: &Owner) {
        let Mapping { protocol, host_port, host_ip, .. } = mapping;
        let on = host_ip.map(|ip| format!(" of {ip}")).unwrap_or_default();
        let Owner { network, container, ifname } = winner;
        libcni::log::warn(format_args!(
            "portmap: {protocol} port {host_port}{on} was held by {self}, and goes to network {network:?}, container \
             {container:?}, interface {ifname:?} now",
            network = network.as_str(),
            container = container.as_str(),
            ifname = ifname.as_str()
        ));
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = |value: &Option<String>| value.as_ref().map_or("?".to_owned(), |value| format!("{value:?}"));
        let Self { network, container, ifname } = self;
        write!(f, "network {}, container {}, interface {}", unknown(network), unknown(container), unknown(ifname))
    }
}
