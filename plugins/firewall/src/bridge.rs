//! The bridge that a pod hangs on: its name is in the rules of a policy, and the pod's port on it can be isolated.

use hostnet::bridge::{self, Port};
use hostnet::link::{self, Link};
use hostnet::{Netlink, Undo};
use libcni::{Error, Success};

use crate::conf::refuse;
use crate::policy::Policy;

/// A bridge, with the pod's port.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its name: letters, digits and `_ . - @`.
    pub name: String,
    port: Option<Link>,
}

impl Bridge {
    /// The bridge among the host's interfaces of a result; the reference takes whatever stands first for it. Without
    /// one there is nothing that a policy could be of, and `open` wants none.
    ///
    /// # Errors
    /// There is none, or one whose name is not for rules, and the policy needs one.
    pub fn get(result: &Success, policy: Policy) -> Result<Option<Self>, Error> {
        let mut host = Netlink::open()?;
        let (mut bridge, mut others) = (None, Vec::new());
        for interface in result.interfaces.iter().filter(|interface| interface.sandbox.is_empty()) {
            match link::get(&mut host, &interface.name)? {
                Some(link) if bridge.is_none() && link.is_kind("bridge") => bridge = Some(link),
                Some(link) => others.push(link),
                None => {}
            }
        }
        let Some(bridge) = bridge else { return without(result, policy) };
        if !is_plain(&bridge.name) {
            let why = "rules cannot name it: letters, digits and _ . - @ are what they can";
            return if policy == Policy::Open {
                Ok(None)
            } else {
                Err(refuse("prevResult.interfaces", &bridge.name, why))
            };
        }
        let port = others.into_iter().find(|link| link.master == Some(bridge.index));
        Ok(Some(Self { name: bridge.name, port }))
    }

    /// Keeps the pod's frames from other isolated ports. What passes from port to port is seen by rules only where
    /// br_netfilter has the bridge call them, which is not everywhere; the bridge itself always looks.
    ///
    /// # Errors
    /// The result names no port of the bridge; the kernel's refusal.
    pub fn isolate(&self, undo: &mut Undo<'_>) -> Result<(), hostnet::Error> {
        let _step = libcni::log::step("isolation");
        let (index, settings) = self.port()?;
        if settings.isolated {
            return Ok(());
        }
        bridge::set_port(&mut Netlink::open()?, index, &Port { isolated: true, ..settings })?;
        undo.push("open the bridge port", move || bridge::set_port(&mut Netlink::open()?, index, &settings));
        Ok(())
    }

    /// Whether the pod's frames are kept from other isolated ports.
    ///
    /// # Errors
    /// As for [`isolate`](Self::isolate).
    pub fn is_isolated(&self) -> Result<bool, hostnet::Error> {
        Ok(self.port()?.1.isolated)
    }

    fn port(&self) -> Result<(u32, Port), hostnet::Error> {
        let port = self.port.as_ref().and_then(|link| Some((link.index, link.port?)));
        port.ok_or_else(|| {
            let doing = format!("isolate the pod's port of bridge {}", self.name);
            hostnet::Error::other(doing, "none of the interfaces in prevResult is a port of it")
        })
    }
}

fn without(result: &Success, policy: Policy) -> Result<Option<Bridge>, Error> {
    if policy == Policy::Open {
        return Ok(None);
    }
    let names: Vec<&str> = result.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let error = Error::new(
        libcni::Code::INVALID_CONFIG,
        format!(
            "interface needs to be set for ingress policy \"{policy}\", make sure to chain \"firewall\" plugin with \
             \"bridge\""
        ),
    );
    Err(error.with_details(format!("none of prevResult's interfaces is a bridge of the node: {names:?}")))
}

/// In rules a name that ends with `+` is many names, and others would have to be quoted.
fn is_plain(name: &str) -> bool {
    !name.starts_with('-') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-@".contains(&byte))
}
