//! Of which network a link of the host is, from its first moment.
//!
//! A link that belongs to an attachment has an alias that says so, but the kernel takes an alias only for a link that
//! exists. An ADD that is killed between the two leaves a link that nobody can tell from a stranger's, and that
//! GC would have to leave for ever. An address, though, a link is given as it is made. To the host's end of a pod's link nobody
//! talks, so that address may as well be a mark: a hash of the network and of the link's own name. It counts only while there is
//! no alias.
//!
//! It is higher than any that a maker of hardware or the kernel gives but by chance: a bridge that nobody gave an address has the
//! lowest of its ports', so that one with a network card keeps the card's whatever pods come and go.

use libcni::types::{Mac, NetworkName};
use sha2::{Digest, Sha512};

use crate::link::Link;

/// Locally administered, of one interface, and none is higher.
const FIRST_BYTE: u8 = 0xfe;

/// The address for a new link of this network.
pub fn address(network: &NetworkName, name: &str) -> Mac {
    let parts = [network.as_str(), name];
    let hash = parts.iter().fold(Sha512::new(), |hash, part| hash.chain_update(part).chain_update([0])).finalize();
    let mut bytes = [0; 6];
    bytes.iter_mut().zip(hash).for_each(|(byte, value)| *byte = value);
    bytes[0] = FIRST_BYTE;
    Mac::new(bytes)
}

/// Whether an ADD of this network made the link and has not given it an alias.
pub fn is_unfinished(link: &Link, network: &NetworkName) -> bool {
    link.alias.is_none() && link.mac == Some(address(network, &link.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::raw::Raw;

    #[test]
    fn an_alias_or_another_name_or_network_is_no_mark() {
        let [a, b] = ["a", "b"].map(|name| name.parse::<NetworkName>().unwrap());
        let mark = address(&a, "veth1");
        assert!(!mark.is_multicast() && mark.bytes()[0] & 2 == 2);
        // A struct ifinfomsg, without attributes.
        let nameless = Link::read(&Raw { kind: libc::RTM_NEWLINK, payload: vec![0; 16] }).unwrap();
        let link = Link { name: "veth1".to_owned(), mac: Some(mark), ..nameless };
        assert!(is_unfinished(&link, &a) && !is_unfinished(&link, &b));
        assert!(!is_unfinished(&Link { name: "veth2".to_owned(), ..link.clone() }, &a));
        assert!(!is_unfinished(&Link { alias: Some(String::new()), ..link }, &a));
    }
}
