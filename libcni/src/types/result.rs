//! The result of an ADD, in every version, through one shape.
//!
//! A result of any version is read into [`Success`], which has the fields of 1.1.0, and written in any
//! version from it; the conversion between two versions is one reading and one writing. Fields this crate
//! does not know are kept where they stood and written again, at every level.
//!
//! Source: specification, "ADD Success", and the older texts for the shapes before 1.0.0.

use std::fmt;
use std::net::IpAddr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::cidr::Cidr;
use super::error::{Code, Error};
use super::json::{self, Object};
use super::version::Version;

/// What an ADD made. Indices of [`IpConfig::interface`] point into `interfaces`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Success {
    /// Every interface made or adopted, host side and pod side mixed.
    pub interfaces: Vec<Interface>,
    /// Addresses, in the order of allocation.
    pub ips: Vec<IpConfig>,
    /// Routes in the pod.
    pub routes: Vec<Route>,
    /// Name servers for the pod.
    pub dns: Dns,
    /// Fields we do not know.
    pub extra: Object,
}

/// A network interface of the result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    /// Its name in its namespace.
    pub name: String,
    /// Hardware address, as text: it need not be Ethernet's. Empty if unknown.
    pub mac: String,
    /// Bytes; 1.1.0.
    pub mtu: Option<u32>,
    /// Path of the namespace it is in; empty on the host.
    pub sandbox: String,
    /// Path of a vhost-user socket; 1.1.0.
    pub socket_path: String,
    /// PCI address of the device; 1.1.0.
    pub pci_id: String,
    /// Fields we do not know.
    pub extra: Object,
}

/// An address of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct IpConfig {
    /// Index into [`Success::interfaces`]; IPAM plugins leave it out.
    pub interface: Option<i64>,
    /// The address with its prefix length.
    pub address: Cidr,
    /// The gateway of its subnet.
    pub gateway: Option<IpAddr>,
    /// Fields we do not know.
    pub extra: Object,
}

/// A route of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Destination.
    pub dst: Cidr,
    /// Next hop; without it the gateway of the address of the same family is meant.
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// Advertised TCP segment size in bytes.
    pub advmss: Option<u32>,
    /// Metric; lower wins.
    pub priority: Option<u32>,
    /// Routing table; absent is the main one.
    pub table: Option<u32>,
    /// Scope as in `rtnetlink(7)`: 0 universe, 200 site, 253 link, 254 host.
    pub scope: Option<u8>,
    /// Fields we do not know.
    pub extra: Object,
}

/// Name resolution in the pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dns {
    /// Addresses of name servers, by priority.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: String,
    /// Search domains, by priority.
    pub search: Vec<String>,
    /// Options for the resolver.
    pub options: Vec<String>,
    /// Fields we do not know.
    pub extra: Object,
}

impl Dns {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl IpConfig {
    /// An address that no interface has yet.
    pub fn new(address: Cidr, gateway: Option<IpAddr>) -> Self {
        Self { interface: None, address, gateway, extra: Object::new() }
    }
}

impl Route {
    /// A route with nothing but a destination and perhaps a next hop.
    pub fn new(dst: Cidr, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None, extra: Object::new() }
    }
}

/// The three shapes a result has had.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// 0.1.0 and 0.2.0: `ip4` and `ip6`.
    PerFamily,
    /// 0.3.0 to 0.4.0: `ips[].version`.
    WithFamily,
    /// 1.0.0 and later.
    Current,
}

impl Shape {
    fn of(version: Version) -> Self {
        match version {
            Version::V0_1_0 | Version::V0_2_0 => Self::PerFamily,
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => Self::WithFamily,
            Version::V1_0_0 | Version::V1_1_0 => Self::Current,
        }
    }
}

/// What went wrong while reading a result; the caller knows whose result it was.
fn undecodable(error: json::Error) -> Error {
    Error::new(Code::DECODING_FAILURE, error.to_string())
}

impl Success {
    /// Reads a result. Where it names no version, `assumed` is meant; `null` is an empty result.
    ///
    /// # Errors
    /// Code 6 if the text is no result, code 1 if its version is none we know.
    pub fn from_json(text: &[u8], assumed: Version) -> Result<(Version, Self), Error> {
        Self::from_value(json::parse(text).map_err(undecodable)?, assumed)
    }

    /// Reads a result that is parsed already; see [`Success::from_json`].
    ///
    /// # Errors
    /// As there.
    pub fn from_value(value: Value, assumed: Version) -> Result<(Version, Self), Error> {
        let mut object = match value {
            Value::Object(object) => object,
            Value::Null => return Ok((assumed, Self::default())),
            _ => return Err(Error::new(Code::DECODING_FAILURE, "a result is a JSON object")),
        };
        let version = match json::take(&mut object, "cniVersion") {
            Some(Value::String(text)) if !text.is_empty() => text.parse::<Version>().map_err(|_| {
                Error::new(Code::INCOMPATIBLE_VERSION, format!("unsupported CNI result version {text:?}"))
            })?,
            _ => assumed,
        };
        let success = match Shape::of(version) {
            Shape::PerFamily => Self::from_families(object),
            Shape::WithFamily | Shape::Current => Self::from_lists(object),
        };
        Ok((version, success.map_err(undecodable)?))
    }

    fn from_lists(mut object: Object) -> Result<Self, json::Error> {
        Ok(Self {
            interfaces: read_list(&mut object, "interfaces", Interface::read)?,
            ips: read_list(&mut object, "ips", IpConfig::read)?,
            routes: read_list(&mut object, "routes", Route::read)?,
            dns: read_object(&mut object, "dns", Dns::read)?.unwrap_or_default(),
            extra: object,
        })
    }

    /// `ip4` and `ip6` become `ips`, with all their routes after one another.
    fn from_families(mut object: Object) -> Result<Self, json::Error> {
        let mut success = Self::default();
        for family in ["ip4", "ip6"] {
            let read = read_object(&mut object, family, |ip| {
                let address = required(ip, "ip")?;
                let gateway = take_ip(ip, "gateway")?;
                let routes = read_list(ip, "routes", Route::read)?;
                Ok((IpConfig { interface: None, address, gateway, extra: std::mem::take(ip) }, routes))
            })?;
            if let Some((ip, routes)) = read {
                success.ips.push(ip);
                success.routes.extend(routes);
            }
        }
        success.dns = read_object(&mut object, "dns", Dns::read)?.unwrap_or_default();
        success.extra = object;
        Ok(success)
    }

    /// The result as an object of that version.
    ///
    /// # Errors
    /// Code 1 where the version has no way to say it: 0.1.0 and 0.2.0 need an address.
    pub fn to_value(&self, version: Version) -> Result<Value, Error> {
        let shape = Shape::of(version);
        let mut object = Object::new();
        object.insert("cniVersion".into(), version.as_str().into());
        if shape == Shape::PerFamily {
            self.write_families(&mut object)?;
        } else {
            write_list(&mut object, "interfaces", self.interfaces.iter().map(|interface| interface.write(shape)));
            write_list(&mut object, "ips", self.ips.iter().map(|ip| ip.write(shape)));
            write_list(&mut object, "routes", self.routes.iter().map(Route::write));
        }
        // Before 1.0.0 `dns` is there even if it is empty.
        if shape != Shape::Current || !self.dns.is_empty() {
            object.insert("dns".into(), self.dns.write());
        }
        write_extra(&mut object, &self.extra);
        let mut value = Value::Object(object);
        if shape == Shape::Current {
            value.sort_all_objects();
        }
        Ok(value)
    }

    /// [`Success::to_value`] of a result that was read in this version: one of 0.1.0 or 0.2.0 may lack an address, because
    /// whoever passes it on need not know better than the plugin that made it.
    pub fn to_value_as_read(&self, version: Version) -> Value {
        self.to_value(version).unwrap_or_else(|_| {
            let mut object = Object::new();
            object.insert("cniVersion".into(), version.as_str().into());
            object.insert("dns".into(), self.dns.write());
            write_extra(&mut object, &self.extra);
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
    fn write_families(&self, object: &mut Object) -> Result<(), Error> {
        let mut found = false;
        for (key, ipv4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.is_ipv4() == ipv4) else { continue };
            found = true;
            let mut written = Object::new();
            written.insert("ip".into(), ip.address.to_string().into());
            write_option(&mut written, "gateway", ip.gateway.map(|gateway| gateway.to_string()));
            let routes = self.routes.iter().filter(|route| route.dst.is_ipv4() == ipv4);
            write_list(&mut written, "routes", routes.map(Route::write_old));
            write_extra(&mut written, &ip.extra);
            object.insert(key.into(), Value::Object(written));
        }
        if found {
            return Ok(());
        }
        Err(Error::new(Code::INCOMPATIBLE_VERSION, "cannot convert: no valid IP addresses")
            .with_details("a result of version 0.1.0 or 0.2.0 must have an address; use cniVersion 0.3.1 or later"))
    }
}

impl Interface {
    fn read(object: &mut Object) -> Result<Self, json::Error> {
        Ok(Self {
            name: json::take_as(object, "name")?.unwrap_or_default(),
            mac: json::take_as(object, "mac")?.unwrap_or_default(),
            mtu: json::take_as(object, "mtu")?,
            sandbox: json::take_as(object, "sandbox")?.unwrap_or_default(),
            socket_path: json::take_as(object, "socketPath")?.unwrap_or_default(),
            pci_id: json::take_as(object, "pciID")?.unwrap_or_default(),
            extra: std::mem::take(object),
        })
    }

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
        write_extra(&mut object, &self.extra);
        Value::Object(object)
    }
}

impl IpConfig {
    fn read(object: &mut Object) -> Result<Self, json::Error> {
        let address = required(object, "address")?;
        // Before 1.0.0 each address says its family, which the address itself says better.
        json::take(object, "version");
        Ok(Self {
            interface: json::take_as(object, "interface")?,
            address,
            gateway: take_ip(object, "gateway")?,
            extra: std::mem::take(object),
        })
    }

    fn write(&self, shape: Shape) -> Value {
        let mut object = Object::new();
        if shape == Shape::WithFamily {
            object.insert("version".into(), if self.address.is_ipv4() { "4" } else { "6" }.into());
        }
        write_option(&mut object, "interface", self.interface);
        object.insert("address".into(), self.address.to_string().into());
        write_option(&mut object, "gateway", self.gateway.map(|gateway| gateway.to_string()));
        write_extra(&mut object, &self.extra);
        Value::Object(object)
    }
}

impl Route {
    /// Reads a route and leaves the object empty.
    fn read(object: &mut Object) -> Result<Self, json::Error> {
        Ok(Self {
            dst: required(object, "dst")?,
            gw: take_ip(object, "gw")?,
            mtu: json::take_as(object, "mtu")?,
            advmss: json::take_as(object, "advmss")?,
            priority: json::take_as(object, "priority")?,
            table: json::take_as(object, "table")?,
            scope: json::take_as(object, "scope")?,
            extra: std::mem::take(object),
        })
    }

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
        write_extra(&mut object, &self.extra);
        Value::Object(object)
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(Self::read))
    }
}

impl<'de> Deserialize<'de> for Dns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(Self::read))
    }
}

/// Reads an object while the deserializer still knows where it is, so that an error names the place.
struct ObjectVisitor<T>(fn(&mut Object) -> Result<T, json::Error>);

impl<'de, T> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let mut object = Object::deserialize(MapAccessDeserializer::new(map))?;
        (self.0)(&mut object).map_err(serde::de::Error::custom)
    }
}

impl Dns {
    fn read(object: &mut Object) -> Result<Self, json::Error> {
        Ok(Self {
            nameservers: json::take_as(object, "nameservers")?.unwrap_or_default(),
            domain: json::take_as(object, "domain")?.unwrap_or_default(),
            search: json::take_as(object, "search")?.unwrap_or_default(),
            options: json::take_as(object, "options")?.unwrap_or_default(),
            extra: std::mem::take(object),
        })
    }

    fn write(&self) -> Value {
        let mut object = Object::new();
        let texts = |list: &[String]| list.iter().cloned().map(Value::String).collect::<Vec<_>>();
        write_list(&mut object, "nameservers", texts(&self.nameservers).into_iter());
        write_text(&mut object, "domain", &self.domain);
        write_list(&mut object, "search", texts(&self.search).into_iter());
        write_list(&mut object, "options", texts(&self.options).into_iter());
        write_extra(&mut object, &self.extra);
        Value::Object(object)
    }
}

/// The objects of a list, each read by `read`.
fn read_list<T>(
    object: &mut Object,
    key: &str,
    read: impl Fn(&mut Object) -> Result<T, json::Error>,
) -> Result<Vec<T>, json::Error> {
    let items: Vec<Object> = json::take_as(object, key)?.unwrap_or_default();
    let read_item = |(index, mut item): (usize, Object)| {
        read(&mut item).map_err(|error| error.at(format!("[{index}]")).at(key.into()))
    };
    items.into_iter().enumerate().map(read_item).collect()
}

/// The object under a key, read by `read`.
fn read_object<T>(
    object: &mut Object,
    key: &str,
    read: impl Fn(&mut Object) -> Result<T, json::Error>,
) -> Result<Option<T>, json::Error> {
    let inner: Option<Object> = json::take_as(object, key)?;
    inner.map(|mut inner| read(&mut inner).map_err(|error| error.at(key.into()))).transpose()
}

fn required<T: serde::de::DeserializeOwned>(object: &mut Object, key: &str) -> Result<T, json::Error> {
    json::take_as(object, key)?.ok_or_else(|| serde::de::Error::custom(format!("missing field `{key}`")))
}

/// An address; the empty text is none (go-cni sends it).
fn take_ip(object: &mut Object, key: &str) -> Result<Option<IpAddr>, json::Error> {
    if json::get(object, key) == Some(&Value::String(String::new())) {
        json::take(object, key);
    }
    Ok(json::take_as::<IpAddr>(object, key)?.map(|addr| addr.to_canonical()))
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

fn write_extra(object: &mut Object, extra: &Object) {
    for (key, value) in extra {
        object.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

#[cfg(test)]
mod tests;
