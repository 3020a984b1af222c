//! Rules that say whose they are, and are about an address that lives. Of a pod whose runtime's cache is lost, or elsewhere,
//! and whose IPAM keeps no leases, they may be all that is known: the reference's links do not say whose they are.
//!
//! Only what GC of our plugins would remove is read, in every backend of ours and of the reference.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hostnet::iptables::{Iptables, Version, words};
use hostnet::nft::{Expression, Family, Nft, Rule, Table, Verdict};
use hostnet::{Error, Owner};
use libcni::types::NetworkName;

/// Chains with rules of attachments: masquerading, the pods' accepts, ports.
const CHAINS: [(Family, &str, &str); 8] = [
    (Family::Inet, "cni_plugins_masquerade", "masq_checks"),
    (Family::Inet, "cni_firewall", "pods"),
    (Family::Ip, "cni_hostport", "hostports"),
    (Family::Ip6, "cni_hostport", "hostports"),
    (Family::Ip, "cni_hostport", "hostip_hostports"),
    (Family::Ip6, "cni_hostport", "hostip_hostports"),
    (Family::Ip, "cni_hostport", "masquerading"),
    (Family::Ip6, "cni_hostport", "masquerading"),
];
/// The same of iptables, in tables of both IP versions.
const OF_IPTABLES: [(&str, &str); 3] =
    [("nat", "POSTROUTING"), ("nat", "CNI-HOSTPORT-DNAT"), ("filter", "CNI-FORWARD")];
/// What the chains of iptables begin with that have a pod's ports. What leads there has the owner, and they the address.
const PORTS: &str = "CNI-DN-";

/// A rule, or several, of one owner.
pub struct Mention {
    /// What the rule says of itself.
    comment: String,
    /// Which of the addresses that were asked for are in there.
    pub addresses: Vec<IpAddr>,
}

/// Whose rules are.
pub enum Whose {
    Attachment(Owner),
    /// iptables' comments name no interface.
    Container(String),
    /// Of the network, and the rest was cut off.
    Cut,
}

impl Mention {
    /// Whose the rules are, if somebody's of this network.
    pub fn whose(&self, network: &NetworkName) -> Option<Whose> {
        let comment = self.comment.strip_prefix("dnat ").unwrap_or(&self.comment);
        if let Some(container) = Owner::container_in_iptables_comment(network, comment) {
            return Some(Whose::Container(container.to_string()));
        }
        let rest = comment.starts_with(&Owner::nft_network_prefix(network)).then_some(comment)?;
        Some(owner(rest, network).map_or(Whose::Cut, Whose::Attachment))
    }

    pub fn comment(&self) -> &str {
        &self.comment
    }
}

/// From `HASH-HASH, net: NETWORK, if: IFNAME, id: CONTAINER`, if the hashes say that it is whole.
fn owner(comment: &str, network: &NetworkName) -> Option<Owner> {
    let (_, names) = comment.split_once(&format!(", net: {network}, if: "))?;
    let (ifname, container) = names.split_once(", id: ")?;
    let owner = Owner { network: network.clone(), container: container.parse().ok()?, ifname: ifname.parse().ok()? };
    comment.starts_with(&owner.nft_comment_prefix()).then_some(owner)
}

/// The rules about any of these addresses, and what could not be read.
pub fn read(addresses: &BTreeSet<IpAddr>) -> (Vec<Mention>, Vec<String>) {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    if addresses.is_empty() {
        return (found, failed);
    }
    if let Err(error) = read_nft(addresses, &mut found)
        && Nft::is_usable()
    {
        failed.push(error.to_string());
    }
    for table in ["nat", "filter"] {
        for version in Version::ALL {
            let legacy = Iptables::get_legacy(version, table);
            match legacy.and_then(|found| found.map(|iptables| iptables.list_table(table)).transpose()) {
                Ok(lines) => found.extend(of_lines(&lines.unwrap_or_default(), addresses)),
                Err(error) => failed.push(error.to_string()),
            }
        }
    }
    (found, failed)
}

fn read_nft(addresses: &BTreeSet<IpAddr>, found: &mut Vec<Mention>) -> Result<(), Error> {
    let mut nft = Nft::default();
    for (family, name, chain) in CHAINS {
        for rule in nft.rules(Table { family, name }.chain(chain))? {
            found.extend(mention(&rule, addresses));
        }
    }
    for version in Version::ALL {
        for (name, chain) in OF_IPTABLES {
            let table = version.nft_table(name);
            for rule in nft.rules(table.chain(chain))? {
                found.extend(mention(&rule, addresses));
                // To take apart every rule that others have there would take long.
                let parts = if rule.mentions(PORTS) { rule.expressions() } else { Vec::new() };
                for part in parts {
                    let Expression::Verdict(Verdict::Jump(to)) = part else { continue };
                    let rules = nft.rules(table.chain(&to))?;
                    let comment = rule.words();
                    let addresses: Vec<IpAddr> = rules.iter().flat_map(|rule| contained(rule, addresses)).collect();
                    found.extend(
                        comment.filter(|_| !addresses.is_empty()).map(|comment| Mention { comment, addresses }),
                    );
                }
            }
        }
    }
    Ok(())
}

fn mention(rule: &Rule, addresses: &BTreeSet<IpAddr>) -> Option<Mention> {
    let addresses = contained(rule, addresses);
    if addresses.is_empty() { None } else { Some(Mention { comment: rule.words()?, addresses }) }
}

/// By their bytes: what compares with an address, and what sends to it, has many forms.
fn contained(rule: &Rule, addresses: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let is_in = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => rule.contains(&v4.octets()),
        IpAddr::V6(v6) => rule.contains(&v6.octets()),
    };
    addresses.iter().filter(is_in).copied().collect()
}

/// The same of a table as `iptables -S` prints it.
fn of_lines(lines: &[String], addresses: &BTreeSet<IpAddr>) -> Vec<Mention> {
    let in_line = |words: &[String]| -> Vec<IpAddr> {
        let of_word = |word: &String| {
            let word = word.strip_suffix("/32").or(word.strip_suffix("/128")).unwrap_or(word);
            let destination = || word.parse().ok().map(|to: std::net::SocketAddr| to.ip());
            word.parse().ok().or_else(destination).filter(|address| addresses.contains(address))
        };
        words.iter().filter_map(of_word).collect()
    };
    let rules: Vec<Vec<String>> = lines.iter().filter_map(|line| words(line)).collect();
    let mention = |rule: &Vec<String>| {
        let comment = rule.iter().skip_while(|word| *word != "--comment").nth(1)?.clone();
        let mut addresses = in_line(rule);
        let to = rule.last().filter(|to| to.starts_with(PORTS));
        let behind = rules.iter().filter(|rule| to.is_some() && rule.get(1) == to);
        addresses.extend(behind.flat_map(|rule| in_line(rule)));
        if addresses.is_empty() { None } else { Some(Mention { comment, addresses }) }
    };
    rules.iter().filter_map(mention).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(comment: &str, network: &str) -> String {
        let mention = Mention { comment: comment.to_owned(), addresses: Vec::new() };
        match mention.whose(&network.parse().unwrap()) {
            None => "nobody".to_owned(),
            Some(Whose::Attachment(owner)) => format!("{} {}", owner.container, owner.ifname),
            Some(Whose::Container(container)) => container,
            Some(Whose::Cut) => "cut".to_owned(),
        }
    }

    #[test]
    fn comments() {
        assert_eq!(whose("name: \"brnet\" id: \"ctr1\"", "brnet"), "ctr1");
        assert_eq!(whose("dnat name: \"brnet\" id: \"ctr1\"", "brnet"), "ctr1");
        assert_eq!(whose("name: \"brnet\" id: \"ctr1\"", "br"), "nobody");
        let whole = "bb82bb83e4c2720d-7883a6f9ce71eedb, net: brnet, if: eth0, id: ctr1";
        assert_eq!(whose(whole, "brnet"), "ctr1 eth0");
        assert_eq!(whose(whole, "br"), "nobody");
        for cut in [&whole[..whole.len() - 1], &whole[..40], &whole[..33]] {
            assert_eq!(whose(cut, "brnet"), "cut", "{cut}");
        }
        assert_eq!(whose("anything", "brnet"), "nobody");
    }

    /// As iptables-legacy 1.8.9 lists what the reference made.
    #[test]
    fn lines_of_legacy_tables() {
        let lines = [
            r#"-N CNI-DN-4a087b41196ab77113b3f"#,
            r#"-A POSTROUTING -s 10.1.0.2/32 -m comment --comment "name: \"net\" id: \"one\"" -j CNI-2fbf118d4cafd020f013271b"#,
            r#"-A POSTROUTING -s fd00::3/128 -m comment --comment "name: \"net\" id: \"two\"" -j CNI-2fbf118d4cafd020f013271c"#,
            r#"-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net\" id: \"three\"" -m multiport --dports 80 -j CNI-DN-4a087b41196ab77113b3f"#,
            r#"-A CNI-DN-4a087b41196ab77113b3f -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.0.4:80"#,
            r#"-A POSTROUTING -s 10.1.0.0/24 -m comment --comment "name: \"net\" id: \"old\"" -j CNI-2fbf118d4cafd020f013271d"#,
        ];
        let lines: Vec<String> = lines.map(str::to_owned).to_vec();
        let addresses = ["10.1.0.2", "fd00::3", "10.1.0.4", "10.1.0.5"].map(|text| text.parse().unwrap());
        let found = of_lines(&lines, &addresses.into_iter().collect());
        let found: Vec<String> =
            found.iter().map(|one| format!("{} {:?}", whose(&one.comment, "net"), one.addresses)).collect();
        assert_eq!(found, ["one [10.1.0.2]", "two [fd00::3]", "three [10.1.0.4]"]);
    }
}
