//! Short texts: `CNI_ARGS`, the strict types, lines that iptables prints, comments and aliases that say whose a thing is.

use std::net::IpAddr;

use hostnet::Owner;
use hostnet::iptables::{Rule, quote, words as split};
use ipnetwork::IpNetwork;
use libcni::types::{Cidr, CniArgs, ContainerId, IfName, Mac, NetworkName, Version};

pub fn args(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(args) = CniArgs::parse(text) else { return };
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let (key, _) = pair.split_once('=').expect("a pair has a sign");
        assert!(key == "IgnoreUnknown" || args.get(key).is_some(), "{key}");
    }
    drop(args.only(&["IP", "GATEWAY", "MAC"]));
}

pub fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    cidr(text);
    if let Ok(mac) = text.parse::<Mac>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
    if let Ok(version) = text.parse::<Version>() {
        assert_eq!(version.as_str(), text);
    }
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if text.parse::<ContainerId>().is_ok() || text.parse::<NetworkName>().is_ok() {
        assert!(is_plain(text) && text.as_bytes()[0].is_ascii_alphanumeric() && text.len() <= 1024);
    }
    if text.parse::<IfName>().is_ok() {
        assert!((1..=15).contains(&text.len()) && !text.contains(['/', ':', '\0', '\n', ' ']) && text != "..");
    }
}

/// What the strict reader takes, the standard library and `ipnetwork` read alike, mapped IPv4 aside; and what both of
/// them take in the plain form, it takes.
fn cidr(text: &str) {
    let strict = text.parse::<Cidr>();
    let plain =
        text.split_once('/').and_then(|(addr, len)| Some((addr.parse::<IpAddr>().ok()?, len.parse::<u8>().ok()?)));
    let Ok(cidr) = strict else {
        if let Some((addr, len)) = plain.filter(|(addr, len)| text == format!("{addr}/{len}")) {
            let mapped = matches!(addr, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            assert!(mapped || IpNetwork::new(addr, len).is_err(), "{text} is refused");
        }
        return;
    };
    assert_eq!(cidr.to_string().parse(), Ok(cidr));
    let (addr, len) = plain.expect("the standard library reads both parts");
    assert_eq!(cidr.addr(), addr.to_canonical(), "{text}");
    if addr == addr.to_canonical() {
        let theirs: IpNetwork = text.parse().expect("ipnetwork reads it too");
        assert_eq!((theirs.ip(), theirs.prefix()), (cidr.addr(), cidr.prefix_len()));
        assert_eq!((theirs.network(), theirs.broadcast()), (cidr.network().addr(), cidr.last()));
    } else {
        assert_eq!(cidr.prefix_len() + 96, len);
    }
    assert!(cidr.contains(cidr.addr()) && cidr.contains(cidr.last()) && cidr.overlaps(&cidr.network()));
}

/// Quoted words are read back as they were; a line that is read is removed by the same words.
pub fn iptables(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().take(8) {
        if let Some(rule) = Rule::read(line) {
            assert!(rule.removal().starts_with("-D "), "{}", rule.removal());
        }
        let Some(found) = split(line) else { continue };
        // What the program itself would refuse is not asked of it.
        if found.iter().all(|word| !word.contains(['\n', '\0'])) {
            let quoted: Vec<String> = found.iter().map(|word| quote(word)).collect();
            assert_eq!(split(&quoted.join(" ")), Some(found), "{line:?}");
        }
    }
}

/// A comment or an alias that an owner is read from is the one that this owner writes.
pub fn owner(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(owner) = Owner::from_alias(text) {
        assert_eq!(owner.alias(), text);
    }
    let network: NetworkName = "brnet".parse().expect("a name");
    if let Some(container) = Owner::container_in_iptables_comment(&network, text) {
        let owner = Owner { network, container, ifname: "eth0".parse().expect("a name") };
        assert_eq!(owner.iptables_comment(), text);
    }
    // The text as names: what is written for them is read back.
    let mut names = text.split('\n');
    let mut name = || names.next().unwrap_or_default();
    if let (Ok(network), Ok(container), Ok(ifname)) = (name().parse(), name().parse(), name().parse()) {
        let owner = Owner { network, container, ifname };
        let comment = owner.iptables_comment();
        assert_eq!(Owner::container_in_iptables_comment(&owner.network, &comment), Some(owner.container.clone()));
        let alias = owner.alias();
        assert!(alias.len() <= 254);
        assert!(Owner::from_alias(&alias).is_none_or(|read| read == owner));
        assert!(owner.nft_comment().len() <= 128 && owner.iptables_chain().len() == 28);
        assert!(owner.nft_comment().starts_with(owner.nft_comment_prefix().as_bytes()));
    }
}
