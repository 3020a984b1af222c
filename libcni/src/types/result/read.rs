//! Reading a result: whatever its version, into the shape of the newest.

use std::fmt;
use std::net::IpAddr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Dns, Interface, IpConfig, Route, Shape, Success};
use crate::types::error::{Code, Error};
use crate::types::json::{self, Object};
use crate::types::version::Version;

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
