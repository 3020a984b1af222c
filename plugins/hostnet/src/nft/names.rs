//! Where things are: a table is named by its family and name, a chain by its table and name.

use std::fmt;

use netlink_packet_netfilter::NetfilterProtoFamily;

/// Which packets a table sees (`NFPROTO_*` of linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Frames that cross a bridge.
    Bridge,
}

/// A table. Names are known when the program is written: plugins do not make tables per pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which packets its chains see.
    pub family: Family,
    /// Its name within the family.
    pub name: &'static str,
}

/// A chain in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// The table it is in.
    pub table: Table,
    /// Its name within the table: at most 255 bytes.
    pub name: &'a str,
}

impl Table {
    /// The chain of that name in this table.
    pub const fn chain(self, name: &str) -> Chain<'_> {
        Chain { table: self, name }
    }
}

impl From<Family> for NetfilterProtoFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::Inet => Self::Inet,
            Family::Ip => Self::IPv4,
            Family::Ip6 => Self::IPv6,
            Family::Bridge => Self::Bridge,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Bridge => "bridge",
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.name)
    }
}
