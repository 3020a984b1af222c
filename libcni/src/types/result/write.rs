//! Writing a result in any version, with the keys in the reference's order.

use serde_json::Value;

use super::fields::Fields;
use super::{Dns, Interface, IpConfig, Route, Shape, Success};
use crate::types::error::{Code, Error};
use crate::types::json;
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
        Ok(self.write(version)?.to_value())
    }

    /// [`Success::to_value`] of a result that was read in this version: one of 0.1.0 or 0.2.0 may lack an address,
    /// because whoever passes it on need not know better than the plugin that made it.
    pub fn to_value_as_read(&self, version: Version) -> Value {
        self.to_value(version).unwrap_or_else(|_| {
            let mut fields = Fields::default();
            fields.push("cniVersion", version.as_str());
            fields.push("dns", self.dns.write(Shape::PerFamily));
            fields.finish(&self.extra, &OF_RESULTS, Shape::PerFamily).to_value()
        })
    }

    /// The JSON a plugin prints: indented by four spaces, keys in the reference's order, no newline at the end.
    ///
    /// # Errors
    /// As [`Success::to_value`].
    pub fn to_json(&self, version: Version) -> Result<Vec<u8>, Error> {
        Ok(json::pretty(&self.write(version)?))
    }

    fn write(&self, version: Version) -> Result<Fields<'_>, Error> {
        self.check_version(version)?;
        let shape = Shape::of(version);
        let mut fields = Fields::default();
        fields.push("cniVersion", version.as_str());
        if shape == Shape::PerFamily {
            self.write_families(&mut fields);
        } else {
            fields.push_objects("interfaces", self.interfaces.iter().map(|interface| interface.write(shape)));
            fields.push_objects("ips", self.ips.iter().map(|ip| ip.write(shape)));
            fields.push_objects("routes", self.routes.iter().map(|route| route.write(shape)));
        }
        // Before 1.0.0 `dns` is there even if it is empty.
        if shape != Shape::Current || !self.dns.is_empty() {
            fields.push("dns", self.dns.write(shape));
        }
        Ok(fields.finish(&self.extra, &OF_RESULTS, shape))
    }

    /// The first address of each family, with the routes of that family.
    fn write_families<'a>(&'a self, fields: &mut Fields<'a>) {
        for (key, ipv4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.is_ipv4() == ipv4) else { continue };
            let mut written = Fields::default();
            written.push("ip", ip.address.to_string());
            written.push_option("gateway", ip.gateway.map(|gateway| gateway.to_string()));
            let routes = self.routes.iter().filter(|route| route.dst.is_ipv4() == ipv4);
            written.push_objects("routes", routes.map(Route::write_old));
            fields.push(key, written.finish(&ip.extra, &OF_ADDRESSES, Shape::PerFamily));
        }
    }
}

impl Interface {
    fn write(&self, shape: Shape) -> Fields<'_> {
        let mut fields = Fields::default();
        fields.push("name", self.name.as_str());
        fields.push_text("mac", &self.mac);
        if shape == Shape::Current {
            fields.push_option("mtu", self.mtu.filter(|mtu| *mtu != 0));
        }
        fields.push_text("sandbox", &self.sandbox);
        if shape == Shape::Current {
            fields.push_text("socketPath", &self.socket_path);
            fields.push_text("pciID", &self.pci_id);
        }
        fields.finish(&self.extra, &[], shape)
    }
}

impl IpConfig {
    fn write(&self, shape: Shape) -> Fields<'_> {
        let mut fields = Fields::default();
        if shape == Shape::WithFamily {
            fields.push("version", if self.address.is_ipv4() { "4" } else { "6" });
        }
        fields.push_option("interface", self.interface);
        fields.push("address", self.address.to_string());
        fields.push_option("gateway", self.gateway.map(|gateway| gateway.to_string()));
        fields.finish(&self.extra, &OF_ADDRESSES, shape)
    }
}

impl Route {
    /// As 0.1.0 and 0.2.0 have it: nothing but `dst` and `gw`.
    fn write_old(&self) -> Fields<'_> {
        let mut fields = Fields::default();
        fields.push("dst", self.dst.to_string());
        fields.push_option("gw", self.gw.map(|gw| gw.to_string()));
        fields
    }

    fn write(&self, shape: Shape) -> Fields<'_> {
        let mut fields = self.write_old();
        for (key, value) in [("mtu", self.mtu), ("advmss", self.advmss), ("priority", self.priority)] {
            fields.push_option(key, value.filter(|value| *value != 0));
        }
        fields.push_option("table", self.table);
        fields.push_option("scope", self.scope);
        fields.finish(&self.extra, &[], shape)
    }
}

impl Dns {
    fn write(&self, shape: Shape) -> Fields<'_> {
        let mut fields = Fields::default();
        fields.push_texts("nameservers", &self.nameservers);
        fields.push_text("domain", &self.domain);
        fields.push_texts("search", &self.search);
        fields.push_texts("options", &self.options);
        fields.finish(&self.extra, &[], shape)
    }
}

/// Keys that mean something in one shape of a result or another. What is unknown under such a name, because it was read in
/// the shape that does not have it, must not get a meaning on the way.
const OF_RESULTS: [&str; 7] = ["cniVersion", "interfaces", "ips", "routes", "dns", "ip4", "ip6"];
/// The same of an address.
const OF_ADDRESSES: [&str; 6] = ["version", "interface", "address", "gateway", "ip", "routes"];
