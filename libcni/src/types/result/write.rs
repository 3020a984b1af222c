//! Writing a result in any version, with the keys in the reference's order.

use serde_json::Value;

use super::{Dns, Interface, IpConfig, Route, Shape, Success};
use crate::types::error::{Code, Error};
use crate::types::json::{self, Object};
use crate::types::version::Version;

impl Success {
    /// Whether that version can say the result.
    ///
    /// # Errors
    /// Code 1 where it has no way to: 0.1.0 and 0.2.0 need an address.
    pub fn check_version(&self, version: Version) -> Result<(), Error> {
        if Shape::of(version) != Shape::PerFamily || !self.ips.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::INCOMPATIBLE_VERSION, "cannot convert: no valid IP addresses")
            .with_details("a result of version 0.1.0 or 0.2.0 must have an address; use cniVersion 0.3.1 or later"))
    }

    /// The result as an object of that version.
    ///
    /// # Errors
    /// As [`Success::check_version`].
    pub fn to_value(&self, version: Version) -> Result<Value, Error> {
        self.check_version(version)?;
        let shape = Shape::of(version);
        let mut object = Object::new();
        object.insert("cniVersion".into(), version.as_str().into());
        if shape == Shape::PerFamily {
            self.write_families(&mut object);
        } else {
            write_list(&mut object, "interfaces", self.interfaces.iter().map(|interface| interface.write(shape)));
            write_list(&mut object, "ips", self.ips.iter().map(|ip| ip.write(shape)));
            write_list(&mut object, "routes", self.routes.iter().map(Route::write));
        }
        // Before 1.0.0 `dns` is there even if it is empty.
        if shape != Shape::Current || !self.dns.is_empty() {
            object.insert("dns".into(), self.dns.write());
        }
        write_extra(&mut object, &self.extra, &OF_RESULTS);
        let mut value = Value::Object(object);
        if shape == Shape::Current {
            value.sort_all_objects();
        }
        Ok(value)
    }

    /// [`Success::to_value`] of a result that was read in this version: one of 0.1.0 or 0.2.0 may lack an address,
    /// because whoever passes it on need not know better than the plugin that made it.
    pub fn to_value_as_read(&self, version: Version) -> Value {
        self.to_value(version).unwrap_or_else(|_| {
            let mut object = Object::new();
            object.insert("cniVersion".into(), version.as_str().into());
            object.insert("dns".into(), self.dns.write());
            write_extra(&mut object, &self.extra, &OF_RESULTS);
            Value::Object(object)
        })
    }

    /// The JSON a plugin prints: indented by four spaces, keys in the reference's order, no newline at the end.
    ///
    /// # Errors
    /// As [`Success::to_value`].
    pub fn to_json(&self, version: Version) -> Result<Vec<u8>, Error> {
        Ok(json::pretty(&self.to_value(version)?))
    }

    /// The first address of each family, with the routes of that family.
    fn write_families(&self, object: &mut Object) {
        for (key, ipv4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.is_ipv4() == ipv4) else { continue };
            let mut written = Object::new();
            written.insert("ip".into(), ip.address.to_string().into());
            write_option(&mut written, "gateway", ip.gateway.map(|gateway| gateway.to_string()));
            let routes = self.routes.iter().filter(|route| route.dst.is_ipv4() == ipv4);
            write_list(&mut written, "routes", routes.map(Route::write_old));
            write_extra(&mut written, &ip.extra, &OF_ADDRESSES);
            object.insert(key.into(), Value::Object(written));
        }
    }
}

impl Interface {
    fn write(&self, shape: Shape) -> Value {
        let mut object = Object::new();
        object.insert("name".into(), self.name.clone().into());
        write_text(&mut object, "mac", &self.mac);
        if shape == Shape::Current {
            write_option(&mut object, "mtu", self.mtu.filter(|mtu| *mtu != 0));
        }
        write_text(&mut object, "sandbox", &self.sandbox);
        if shape == Shape::Current {
            write_text(&mut object, "socketPath", &self.socket_path);
            write_text(&mut object, "pciID", &self.pci_id);
        }
        write_extra(&mut object, &self.extra, &[]);
        Value::Object(object)
    }
}

impl IpConfig {
    fn write(&self, shape: Shape) -> Value {
        let mut object = Object::new();
        if shape == Shape::WithFamily {
            object.insert("version".into(), if self.address.is_ipv4() { "4" } else { "6" }.into());
        }
        write_option(&mut object, "interface", self.interface);
        object.insert("address".into(), self.address.to_string().into());
        write_option(&mut object, "gateway", self.gateway.map(|gateway| gateway.to_string()));
        write_extra(&mut object, &self.extra, &OF_ADDRESSES);
        Value::Object(object)
    }
}

impl Route {
    /// As 0.1.0 and 0.2.0 have it: nothing but `dst` and `gw`.
    fn write_old(&self) -> Value {
        let mut object = Object::new();
        object.insert("dst".into(), self.dst.to_string().into());
        write_option(&mut object, "gw", self.gw.map(|gw| gw.to_string()));
        Value::Object(object)
    }

    fn write(&self) -> Value {
        let mut object = Object::new();
        object.insert("dst".into(), self.dst.to_string().into());
        write_option(&mut object, "gw", self.gw.map(|gw| gw.to_string()));
        for (key, value) in [("mtu", self.mtu), ("advmss", self.advmss), ("priority", self.priority)] {
            write_option(&mut object, key, value.filter(|value| *value != 0));
        }
        write_option(&mut object, "table", self.table);
        write_option(&mut object, "scope", self.scope);
        write_extra(&mut object, &self.extra, &[]);
        Value::Object(object)
    }
}

impl Dns {
    fn write(&self) -> Value {
        let mut object = Object::new();
        let texts = |list: &[String]| list.iter().cloned().map(Value::String).collect::<Vec<_>>();
        write_list(&mut object, "nameservers", texts(&self.nameservers).into_iter());
        write_text(&mut object, "domain", &self.domain);
        write_list(&mut object, "search", texts(&self.search).into_iter());
        write_list(&mut object, "options", texts(&self.options).into_iter());
        write_extra(&mut object, &self.extra, &[]);
        Value::Object(object)
    }
}

fn write_list(object: &mut Object, key: &str, items: impl Iterator<Item = Value>) {
    let items: Vec<Value> = items.collect();
    if !items.is_empty() {
        object.insert(key.to_owned(), Value::Array(items));
    }
}

fn write_text(object: &mut Object, key: &str, text: &str) {
    write_option(object, key, (!text.is_empty()).then(|| text.to_owned()));
}

fn write_option(object: &mut Object, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}

/// Keys that mean something in one shape of a result or another. What is unknown under such a name, because it was read in
/// the shape that does not have it, must not get a meaning on the way.
const OF_RESULTS: [&str; 7] = ["cniVersion", "interfaces", "ips", "routes", "dns", "ip4", "ip6"];
/// The same of an address.
const OF_ADDRESSES: [&str; 6] = ["version", "interface", "address", "gateway", "ip", "routes"];

fn write_extra(object: &mut Object, extra: &Object, known: &[&str]) {
    let is_known = |key: &str| known.iter().any(|known| known.eq_ignore_ascii_case(key));
    for (key, value) in extra.iter().filter(|(key, _)| !is_known(key)) {
        object.entry(key.clone()).or_insert_with(|| value.clone());
    }
}
