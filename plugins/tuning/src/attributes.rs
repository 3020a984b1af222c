//! The attributes of an interface that tuning changes: as they shall be, and, in a backup, as they were.

use hostnet::Netlink;
use hostnet::link::{self, Link};
use libcni::types::{IfName, Interface, Mac, Version};
use libcni::{Error, Success};
use serde::{Deserialize, Serialize};

/// Attributes of an interface; `None` is none of our business. The JSON is the reference's backup, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Attributes {
    /// Its hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Whether it receives frames that are for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promisc: Option<bool>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether it receives all multicast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allmulti: Option<bool>,
    /// Length of its transmit queue, in packets; 0 is a length.
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    pub txqlen: Option<u32>,
}

impl Attributes {
    /// Whether there is nothing to tune.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a link has now, of the attributes that are here.
    pub fn present(&self, link: &Link) -> Self {
        Self {
            mac: self.mac.and(link.mac),
            promisc: self.promisc.map(|_| link.promisc),
            mtu: self.mtu.map(|_| link.mtu),
            allmulti: self.allmulti.map(|_| link.allmulti),
            txqlen: self.txqlen.map(|_| link.txqlen),
        }
    }

    /// These, and of `others` those that are not here.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        Self {
            mac: self.mac.or(others.mac),
            promisc: self.promisc.or(others.promisc),
            mtu: self.mtu.or(others.mtu),
            allmulti: self.allmulti.or(others.allmulti),
            txqlen: self.txqlen.or(others.txqlen),
        }
    }

    /// Makes the link's attributes these. One that is so already is not set: there are drivers that refuse it on a link
    /// that is up. Goes on after a refusal.
    ///
    /// # Errors
    /// What the kernel refused, all of it.
    pub fn set(&self, pod: &mut Netlink, link: &Link) -> Result<(), Error> {
        let _step = libcni::log::step("attributes");
        let mut refused = Vec::new();
        let mut note = |outcome: hostnet::Result<()>| refused.extend(outcome.err().map(Error::from));
        if let Some(mac) = self.mac.filter(|mac| link.mac != Some(*mac)) {
            note(link::set_mac(pod, link.index, mac));
        }
        if let Some(on) = self.promisc.filter(|on| link.promisc != *on) {
            note(link::set_promisc(pod, link.index, on));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| link.mtu != *mtu) {
            note(link::set_mtu(pod, link.index, mtu));
        }
        if let Some(on) = self.allmulti.filter(|on| link.allmulti != *on) {
            note(link::set_allmulti(pod, link.index, on));
        }
        if let Some(length) = self.txqlen.filter(|length| link.txqlen != *length) {
            note(link::set_txqlen(pod, link.index, length));
        }
        Error::join(refused)
    }

    /// Says in the result what the pod's interface, and not a host's end of the same name, is now. The MTU is a field
    /// of 1.1.0; before, it is only corrected where it is.
    pub fn report(&self, ifname: &IfName, version: Version, result: &mut Success) {
        let of_pod = |interface: &&mut Interface| interface.name == ifname.as_str() && !interface.sandbox.is_empty();
        for interface in result.interfaces.iter_mut().filter(of_pod) {
            if let Some(mac) = self.mac {
                interface.mac = mac.to_string();
            }
            if self.mtu.is_some() && (interface.mtu.is_some() || version == Version::V1_1_0) {
                interface.mtu = self.mtu;
            }
        }
    }

    /// What of a link differs. Promiscuity that was not asked for is somebody else's, who looks at packets.
    pub fn check(&self, link: &Link) -> Vec<Error> {
        let present = self.present(link);
        let mut wrong = Vec::new();
        let mut compare = |what: &str, wanted: Option<String>, is: Option<String>| {
            if let Some(wanted) = wanted.filter(|wanted| is.as_ref() != Some(wanted)) {
                let (name, is) = (&link.name, is.as_deref().unwrap_or("none"));
                let msg = format!("Tuning configured {what} of {name} is {wanted}, current value is {is}");
                wrong.push(Error::internal(msg));
            }
        };
        compare("Ethernet", text(self.mac), text(present.mac));
        compare("promisc", text(self.promisc), text(present.promisc));
        compare("MTU", text(self.mtu), text(present.mtu));
        compare("allmulti", text(self.allmulti), text(present.allmulti));
        compare("txQLen", text(self.txqlen), text(present.txqlen));
        wrong
    }
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}
