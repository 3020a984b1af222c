//! What stands in a line. It is for people and for programs, and it may be read by more of them than the configuration:
//! of that, and of `CNI_ARGS`, it has only what says who was connected to what.

use std::ffi::OsString;
use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::Call;
use super::time::rfc3339;
use crate::types::Error;

/// The longest value of a variable. Nobody's names are as long, and what is no valid name is logged too.
const VALUE_MAX: usize = 1 << 10;
/// The longest text of an error, which may quote the stderr of others.
const TEXT_MAX: usize = 16 << 10;

/// A line. What is not known is not in it.
#[derive(Serialize)]
pub struct Line<'a> {
    /// When the call began. The first of all fields: the log is known by it.
    pub time: String,
    /// `CNI_COMMAND`.
    pub verb: String,
    /// The plugin's name and version, as it says itself.
    pub plugin: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    pub pid: u32,
    pub ppid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Milliseconds of the whole call.
    pub ms: f64,
    #[serde(skip_serializing_if = "Steps::is_empty")]
    pub steps: Steps<'a>,
    /// The addresses that an ADD gave.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub ips: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub notes: &'a [String],
}

/// The Kubernetes pod, as its runtime names it in `CNI_ARGS`.
#[derive(Default, PartialEq, Serialize)]
pub struct Pod {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// A CNI error.
#[derive(Serialize)]
pub struct Failure {
    pub code: u64,
    pub msg: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// Milliseconds of each step, as an object.
pub struct Steps<'a>(&'a Call);

impl<'a> Line<'a> {
    /// The line of a call that is over. The variables are taken as they are, valid or not: an environment that was
    /// refused is logged too.
    pub fn new(call: &'a Call, about: &'a str, var: &dyn Fn(&str) -> Option<OsString>, error: Option<&Error>) -> Self {
        let text = |name: &str| {
            let value = var(name).filter(|value| !value.is_empty())?;
            Some(cut(&value.to_string_lossy(), VALUE_MAX))
        };
        let verb = text("CNI_COMMAND").unwrap_or_default();
        // What the runtime's environment has of an attachment means nothing to the others.
        let is_of_attachment = !matches!(verb.as_str(), "GC" | "STATUS" | "VERSION");
        let of_attachment = |name: &str| text(name).filter(|_| is_of_attachment);
        let (plugin, version) = name_and_version(about);
        Self {
            time: rfc3339(call.began),
            verb,
            plugin,
            version,
            network: call.network.as_deref().map(|name| cut(name, VALUE_MAX)),
            container: of_attachment("CNI_CONTAINERID"),
            interface: of_attachment("CNI_IFNAME"),
            netns: of_attachment("CNI_NETNS"),
            pod: var("CNI_ARGS").filter(|_| is_of_attachment).and_then(|args| Pod::of(&args.to_string_lossy())),
            pid: std::process::id(),
            ppid: std::os::unix::process::parent_id(),
            traceparent: text("TRACEPARENT"),
            ms: millis(call.clock.elapsed()),
            steps: Steps(call),
            ips: &call.ips,
            error: error.map(|error| Failure {
                code: error.code().0,
                msg: cut(error.msg(), TEXT_MAX),
                details: cut(error.details(), TEXT_MAX),
            }),
            notes: &call.notes,
        }
    }

    /// JSON, with the newline that ends it.
    ///
    /// # Errors
    /// None that is known: every field is text or a number.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// For people: `bridge ADD podnet default/web-0 eth0: 10.1.0.2/24 in 3.412 ms (veth 0.812, ipam 1.204)`.
impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.plugin, self.verb)?;
        let pod = self.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name));
        for who in [&self.network, &pod.or_else(|| self.container.clone()), &self.interface].into_iter().flatten() {
            write!(f, " {who}")?;
        }
        match &self.error {
            Some(error) if error.details.is_empty() => write!(f, ": {}; failed", error.msg)?,
            Some(error) => write!(f, ": {}; {}; failed", error.msg, error.details)?,
            None if self.ips.is_empty() => f.write_str(": done")?,
            None => write!(f, ": {}", self.ips.join(", "))?,
        }
        write!(f, " in {} ms", self.ms)?;
        if self.steps.is_empty() { Ok(()) } else { write!(f, " ({})", self.steps) }
    }
}

impl Pod {
    /// `None` where nothing is said of a pod. What is malformed is passed over: to complain is the plugin's part.
    fn of(args: &str) -> Option<Self> {
        let mut pod = Self::default();
        for (key, value) in args.split(';').filter_map(|pair| pair.split_once('=')) {
            match key {
                "K8S_POD_NAMESPACE" => pod.namespace = cut(value, VALUE_MAX),
                "K8S_POD_NAME" => pod.name = cut(value, VALUE_MAX),
                "K8S_POD_UID" => pod.uid = cut(value, VALUE_MAX),
                _ => {}
            }
        }
        Some(pod).filter(|pod| *pod != Self::default())
    }
}

impl Steps<'_> {
    /// Whether nothing was timed.
    pub fn is_empty(&self) -> bool {
        self.0.steps.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.steps.iter().map(|(name, took)| (name.as_str(), millis(*took)))
    }
}

impl Serialize for Steps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.0.steps.len()))?;
        for (name, ms) in self.iter() {
            object.serialize_entry(name, &ms)?;
        }
        object.end()
    }
}

impl fmt::Display for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.iter().map(|(name, ms)| format!("{name} {ms}")).collect();
        f.write_str(&steps.join(", "))
    }
}

/// Milliseconds, to the microsecond.
fn millis(took: std::time::Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// `CNI bridge plugin v1.2.3` is `bridge`, `1.2.3`; what is not of that form is all name.
fn name_and_version(about: &str) -> (&str, &str) {
    let of_form = || about.strip_prefix("CNI ")?.split_once(" plugin v");
    of_form().unwrap_or((about, ""))
}

/// The beginning of a text, not in the middle of a character.
fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}...", text.get(..end).unwrap_or_default())
}
