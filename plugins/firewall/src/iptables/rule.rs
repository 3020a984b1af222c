//! A rule of table `filter` as it stands there, read as far as this plugin writes rules: from a line that iptables
//! prints, or from nf_tables, where iptables keeps its rules without a process in between.

use std::net::IpAddr;

use hostnet::iptables::{Version, words};
use hostnet::nft::{self, Direction, Expression, MetaKey, Operator, Verdict};
use libcni::types::Cidr;

/// Separates the hashes of a comment that names an owner from the words ([`hostnet::Owner::nft_comment`]).
const AFTER_TAG: &str = ", net: ";
/// Length of those hashes: 16 digits, `-`, 16 digits.
const TAG_LEN: usize = 33;

/// How a rule can be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By its number in nf_tables.
    Handle(u64),
    /// By its words.
    Line(String),
}

/// A match of an interface's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Matches all but this name.
    pub not: bool,
    /// The name.
    pub name: String,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How it can be removed.
    pub place: Place,
    /// `-s`
    pub source: Option<Cidr>,
    /// `-d`
    pub destination: Option<Cidr>,
    /// `-i`
    pub input: Option<Interface>,
    /// `-o`
    pub output: Option<Interface>,
    /// `-m conntrack`, whatever it asks for.
    pub conntrack: bool,
    /// It has a comment.
    pub commented: bool,
    /// Whose it is: the hashes that its comment begins with.
    pub tag: Option<String>,
    /// `-j`: a chain or a verdict.
    pub target: String,
    /// It has matches that are none of these, so it is none of ours.
    pub other: bool,
}

impl Rule {
    fn at(place: Place) -> Self {
        Self {
            place,
            source: None,
            destination: None,
            input: None,
            output: None,
            conntrack: false,
            commented: false,
            tag: None,
            target: String::new(),
            other: false,
        }
    }

    /// The command that removes it, where its words are known.
    pub fn removal(&self) -> Option<String> {
        match &self.place {
            Place::Line(line) => Some(format!("-D{}", line.strip_prefix("-A")?)),
            Place::Handle(_) => None,
        }
    }

    /// Whether every packet meets the target.
    pub fn is_unconditional(&self) -> bool {
        !self.other
            && !self.conntrack
            && self.source.is_none()
            && self.destination.is_none()
            && self.input.is_none()
            && self.output.is_none()
    }

    /// From a line of `iptables -S` that begins with `-A`.
    pub fn from_line(line: &str) -> Self {
        let mut rule = Self::at(Place::Line(line.to_owned()));
        let words = words(line).unwrap_or_default();
        let mut words = words.iter().map(String::as_str);
        let mut not = false;
        while let Some(option) = words.next() {
            if option == "!" {
                not = true;
                continue;
            }
            let value = words.next().unwrap_or_default();
            let interface = || Some(Interface { not, name: value.to_owned() });
            match option {
                "-A" => {}
                "-s" if !not => rule.source = value.parse().ok(),
                "-d" if !not => rule.destination = value.parse().ok(),
                "-i" => rule.input = interface(),
                "-o" => rule.output = interface(),
                "-m" if value == "conntrack" => rule.conntrack = true,
                "-m" if value == "comment" => {}
                "--ctstate" => {}
                "--comment" => (rule.commented, rule.tag) = (true, tag(value.as_bytes())),
                "-j" => value.clone_into(&mut rule.target),
                _ => rule.other = true,
            }
            not = false;
        }
        rule
    }

    /// From a rule that iptables keeps in nf_tables.
    pub fn from_nft(listed: &nft::Rule, version: Version) -> Self {
        let mut rule = Self::at(Place::Handle(listed.handle()));
        let expressions = listed.expressions();
        let ipv4 = version == Version::V4;
        rule.source = nft::read_address(&expressions, Direction::Source, ipv4);
        rule.destination = nft::read_address(&expressions, Direction::Destination, ipv4);
        rule.tag = tag(listed.bytes());
        let (mut addresses, mut matches) = (0, 0);
        let mut loaded = None;
        for expression in &expressions {
            match expression {
                Expression::Payload { .. } => addresses += 1,
                Expression::Compare(operator, value) => match loaded {
                    // Without its NUL it is the beginning of names: `br+`.
                    Some(MetaKey::Iifname) if value.contains(&0) => rule.input = interface(*operator, value),
                    Some(MetaKey::Oifname) if value.contains(&0) => rule.output = interface(*operator, value),
                    Some(_) => rule.other = true,
                    None => {}
                },
                Expression::Ct(_) => rule.conntrack = true,
                Expression::Verdict(verdict) => rule.target = target(verdict),
                Expression::Other(name) if name == "match" => matches += 1,
                Expression::Mask(_) => continue,
                Expression::Other(name) if name == "counter" => {}
                Expression::Meta(_) => {}
                // Whatever else it does, it is none of ours.
                _ => rule.other = true,
            }
            loaded = if let Expression::Meta(key) = expression { Some(*key) } else { None };
        }
        // The extensions of iptables are in there as iptables knows them: by their names.
        let (conntrack, comment) = (listed.contains(b"conntrack\0"), listed.contains(b"comment\0"));
        rule.conntrack |= conntrack;
        rule.commented = comment || listed.comment().is_some();
        rule.other |= matches > usize::from(conntrack) + usize::from(comment);
        rule.other |= addresses > usize::from(rule.source.is_some()) + usize::from(rule.destination.is_some());
        rule
    }

    /// The one address that the rule is about.
    pub fn address(&self) -> Option<IpAddr> {
        match (self.source, self.destination) {
            (Some(cidr), None) | (None, Some(cidr)) if cidr.is_host() => Some(cidr.addr()),
            _ => None,
        }
    }
}

fn interface(operator: Operator, value: &[u8]) -> Option<Interface> {
    let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Interface { not: operator == Operator::NotEqual, name: String::from_utf8_lossy(name).into_owned() })
}

fn target(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "ACCEPT".to_owned(),
        Verdict::Drop => "DROP".to_owned(),
        Verdict::Return => "RETURN".to_owned(),
        Verdict::Jump(chain) | Verdict::Goto(chain) => chain.clone(),
    }
}

/// The hashes in front of the words of an owner's comment.
fn tag(bytes: &[u8]) -> Option<String> {
    let end = bytes.windows(AFTER_TAG.len()).position(|window| window == AFTER_TAG.as_bytes())?;
    let hashes = bytes.get(end.checked_sub(TAG_LEN)?..end)?;
    let is_tag = hashes.iter().enumerate().all(|(index, byte)| match index {
        16 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    is_tag.then(|| String::from_utf8_lossy(hashes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "bb82bb83e4c2720d-7883a6f9ce71eedb";

    #[test]
    fn lines_are_read() {
        let rule =
            Rule::from_line("-A CNI-FORWARD -d 10.1.2.3/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        assert_eq!((rule.address(), rule.conntrack, rule.other), (Some("10.1.2.3".parse().unwrap()), true, false));
        assert_eq!((rule.target.as_str(), rule.tag), ("ACCEPT", None));
        let line = format!(
            "-A CNI-FORWARD -d fd00::3/128 -m conntrack --ctstate DNAT -m comment --comment \"{TAG}, net: n, if: e, id: c\" -j ACCEPT"
        );
        let rule = Rule::from_line(&line);
        assert_eq!((rule.tag.as_deref(), rule.place), (Some(TAG), Place::Line(line)));
        let rule = Rule::from_line("-A X ! -i br0 -o br0 -m comment --comment \"a b\" -j DROP");
        let interface = |not| Some(Interface { not, name: "br0".to_owned() });
        assert_eq!((rule.input, rule.output, rule.target.as_str()), (interface(true), interface(false), "DROP"));
    }

    #[test]
    fn other_rules_are_other() {
        for line in [
            "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT",
            "-A FORWARD ! -s 10.0.0.0/8 -j ACCEPT",
            "-A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
        ] {
            assert!(Rule::from_line(line).other, "{line}");
        }
        assert!(Rule::from_line("-A FORWARD -m comment --comment \"x y\" -j CNI-FORWARD").is_unconditional());
        assert!(!Rule::from_line("-A FORWARD -i br0 -j CNI-FORWARD").is_unconditional());
    }

    #[test]
    fn what_is_no_tag() {
        for text in [
            "",
            "net: n",
            ", net: n",
            "bb82bb83e4c2720d_7883a6f9ce71eedb, net: n",
            "zz82bb83e4c2720d-7883a6f9ce71eedb, net: ",
        ] {
            assert_eq!(tag(text.as_bytes()), None, "{text}");
        }
    }
}
