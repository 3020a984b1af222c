//! The configuration of a network: a list of plugins and what holds for all of them.
//!
//! Keys match in any case, and what we do not know stays as it is: a plugin gets its keys in their order and its
//! numbers with all their digits. The network's name is checked here, before anything makes a path of it.

use serde_json::Value;

use crate::types::json::{self, Object};
use crate::types::{Code, Error, NetworkName, Version, version};

/// A network configuration (specification, "Section 1").
#[derive(Clone, Debug)]
pub struct ConfList {
    name: NetworkName,
    version: String,
    disable_check: bool,
    disable_gc: bool,
    load_only_inlined: bool,
    pub(super) plugins: Vec<PluginConf>,
    bytes: Vec<u8>,
}

/// One plugin of a network.
#[derive(Clone, Debug)]
pub struct PluginConf {
    plugin_type: String,
    name: Option<String>,
    capabilities: Vec<String>,
    object: Object,
}

fn invalid(msg: impl Into<String>) -> Error {
    Error::new(Code::INVALID_CONFIG, msg)
}

/// JSON that must be an object.
pub(super) fn read_object(bytes: &[u8]) -> Result<Object, Error> {
    match json::parse(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::new(Code::DECODING_FAILURE, "expected a JSON object")),
        Err(error) => Err(Error::new(Code::DECODING_FAILURE, error.to_string())),
    }
}

/// The text under a key; `null` is absent.
pub(super) fn text<'a>(object: &'a Object, key: &str) -> Result<Option<&'a str>, Error> {
    match json::get(object, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid(format!("invalid {key:?}: expected a string, found {other}"))),
    }
}

/// A boolean, or its name as text in any case, as people write it in templates.
fn flag(object: &Object, key: &str) -> Result<bool, Error> {
    match json::get(object, key) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(invalid(format!("invalid {key:?}: expected true or false, found {other}"))),
    }
}

/// The version a list is in: the newest of `cniVersion` and `cniVersions` that we speak. If there is none,
/// `cniVersion` as it stands; DEL is still possible then.
fn choose_version(object: &Object) -> Result<String, Error> {
    let single = text(object, "cniVersion")?.unwrap_or_default();
    let Some(list) = json::get(object, "cniVersions") else { return Ok(single.to_owned()) };
    let texts: Vec<String> =
        json::from_value(list).map_err(|error| invalid(format!("invalid \"cniVersions\": {error}")))?;
    let mut spoken = Vec::new();
    for text in texts.iter().map(String::as_str).chain(Some(single).filter(|text| !text.is_empty())) {
        if text.is_empty() || version::number(text).is_none() {
            return Err(invalid(format!("invalid version in \"cniVersions\": {text:?}")));
        }
        // Later versions are for runtimes that know them.
        spoken.extend(text.parse::<Version>().ok());
    }
    Ok(spoken.into_iter().max().map_or_else(|| single.to_owned(), |newest| newest.to_string()))
}

impl ConfList {
    /// Reads a list. Plugins of the drop-in folder are added by [`ConfList::from_file`] only.
    ///
    /// # Errors
    /// Code 6 if it is no JSON object, code 7 naming the key that is missing or wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::read(bytes).map_err(|error| error.context("error parsing configuration list"))
    }

    fn read(bytes: &[u8]) -> Result<Self, Error> {
        let object = read_object(bytes)?;
        let name = text(&object, "name")?.ok_or_else(|| invalid("missing \"name\""))?.parse()?;
        let load_only_inlined = flag(&object, "loadOnlyInlinedPlugins")?;
        let plugins = match json::get(&object, "plugins") {
            None if load_only_inlined => {
                return Err(invalid("\"loadOnlyInlinedPlugins\" is true, and there is no \"plugins\""));
            }
            None => Vec::new(),
            Some(Value::Array(plugins)) if plugins.is_empty() => return Err(invalid("no plugins in list")),
            Some(Value::Array(plugins)) => plugins
                .iter()
                .enumerate()
                .map(|(index, plugin)| {
                    PluginConf::read(plugin).map_err(|error| error.context(format!("plugins[{index}]")))
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(invalid("invalid \"plugins\": expected a list")),
        };
        Ok(Self {
            name,
            version: choose_version(&object)?,
            disable_check: flag(&object, "disableCheck")?,
            disable_gc: flag(&object, "disableGC")?,
            load_only_inlined,
            plugins,
            bytes: bytes.to_owned(),
        })
    }

    /// Reads the configuration of a single plugin, as it was written before 1.0.0, and makes a list of it.
    ///
    /// # Errors
    /// As [`ConfList::from_bytes`].
    pub fn from_single(bytes: &[u8]) -> Result<Self, Error> {
        let context = |error: Error| error.context("error parsing configuration");
        let object = read_object(bytes).map_err(context)?;
        if text(&object, "type").map_err(context)?.unwrap_or_default().is_empty() && object.contains_key("plugins") {
            return Err(context(
                invalid("missing 'type'").with_details("a list of plugins belongs in a file *.conflist"),
            ));
        }
        let mut list = Object::new();
        for key in ["name", "cniVersion"] {
            list.insert(key.into(), text(&object, key).map_err(context)?.unwrap_or_default().into());
        }
        list.insert("plugins".into(), Value::Array(vec![Value::Object(object)]));
        Self::read(Value::Object(list).to_string().as_bytes()).map_err(context)
    }

    /// The network's name.
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// The version as text; empty if there is none, which means 0.1.0. It need not be one we speak.
    pub fn version_text(&self) -> &str {
        &self.version
    }

    /// The version results are read and prevResult is written in.
    ///
    /// # Errors
    /// Code 1 if we do not speak it.
    pub fn version(&self) -> Result<Version, Error> {
        Version::of_config(Some(&self.version)).map_err(|_| {
            Error::new(Code::INCOMPATIBLE_VERSION, "incompatible CNI versions").with_details(format!(
                "network {} is {:?}; known are 0.1.0 to {}",
                self.name,
                self.version,
                Version::CURRENT
            ))
        })
    }

    /// Whether verbs that came with `since` may be used: by number, so that a later version may.
    pub(super) fn is_since(&self, since: Version) -> bool {
        version::number(&self.version) >= version::number(since.as_str())
    }

    /// The same list in this version, if it is of an earlier one.
    pub(super) fn since(&self, version: Version) -> Self {
        let mut list = self.clone();
        if !self.is_since(version) {
            list.version = version.to_string();
        }
        list
    }

    /// `disableCheck`: CHECK does nothing and succeeds.
    pub fn disable_check(&self) -> bool {
        self.disable_check
    }

    /// `disableGC`: GC does nothing and succeeds.
    pub fn disable_gc(&self) -> bool {
        self.disable_gc
    }

    /// `loadOnlyInlinedPlugins`: the drop-in folder is not read.
    pub fn load_only_inlined(&self) -> bool {
        self.load_only_inlined
    }

    /// The plugins in the order of ADD.
    pub fn plugins(&self) -> &[PluginConf] {
        &self.plugins
    }

    /// The list as it was read, without drop-ins; this is what the cache keeps.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl PluginConf {
    /// Reads the configuration of one plugin.
    ///
    /// # Errors
    /// As [`ConfList::from_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::read(&Value::Object(read_object(bytes)?))
    }

    fn read(value: &Value) -> Result<Self, Error> {
        let Value::Object(object) = value else { return Err(invalid("expected a JSON object")) };
        let plugin_type =
            text(object, "type")?.filter(|name| !name.is_empty()).ok_or_else(|| invalid("missing 'type'"))?;
        let mut capabilities = Vec::new();
        match json::get(object, "capabilities") {
            None => {}
            Some(Value::Object(declared)) => {
                for (key, value) in declared {
                    let Value::Bool(wanted) = value else {
                        return Err(invalid(format!(
                            "invalid \"capabilities.{key}\": expected true or false, found {value}"
                        )));
                    };
                    capabilities.extend(wanted.then(|| key.clone()));
                }
            }
            Some(_) => return Err(invalid("invalid \"capabilities\": expected an object")),
        }
        Ok(Self {
            plugin_type: plugin_type.to_owned(),
            name: text(object, "name")?.filter(|name| !name.is_empty()).map(str::to_owned),
            capabilities,
            object: object.clone(),
        })
    }

    /// `type`: the name of the program.
    pub fn plugin_type(&self) -> &str {
        &self.plugin_type
    }

    /// `name` of the plugin object itself, which the plugin does not see: it gets the network's.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The capabilities that are declared with `true`.
    pub fn capabilities(&self) -> &[String] {
        &self.capabilities
    }

    /// The configuration as it is written.
    pub fn object(&self) -> &Object {
        &self.object
    }
}
