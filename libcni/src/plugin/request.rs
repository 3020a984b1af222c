//! What a plugin is asked: the network, and for ADD, DEL and CHECK the attachment to it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::env::{Command, Environment};
use super::{Conf, Plugin};
use crate::types::json;
use crate::types::{Code, ContainerId, Dns, Error, IfName, NetworkName, Success, Version};

/// A pair that GC is told to keep (specification, "GC").
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Its interface.
    pub ifname: String,
}

/// How long a delegate may take unless `ipam.timeoutSeconds` says otherwise. The dhcp plugin asks for up to 208 s
/// before it gives up.
const DELEGATE_DEADLINE: Duration = Duration::from_secs(220);
/// The values of `ipam.timeoutSeconds`.
const DELEGATE_SECONDS: std::ops::RangeInclusive<u64> = 1..=3600;

/// The network of a request: its name, and its configuration of this plugin.
#[derive(Clone, Debug)]
pub struct Network<C> {
    name: NetworkName,
    version: Version,
    conf: C,
    ipam: Option<String>,
    delegate_deadline: Duration,
    dns: Option<Dns>,
    valid_attachments: Option<Vec<Attachment>>,
    document: Value,
    stdin: Vec<u8>,
    path: Vec<PathBuf>,
}

/// The key that means the same in every plugin, beside `dns` and `prevResult`, which are read by themselves.
#[derive(Deserialize)]
struct Shared {
    ipam: Option<Ipam>,
}

/// What GC reads beside them.
#[derive(Default, Deserialize)]
struct Valid {
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<Attachment>>,
}

impl Valid {
    /// The specification's key wins; the older one is what some runtimes send. Their presence with `null` means what
    /// an empty list means: nothing is valid (libcni writes an empty list so).
    fn list(self, value: &Value) -> Option<Vec<Attachment>> {
        self.valid_attachments.or(self.attachments).or_else(|| {
            let present = value.as_object()?.keys().any(|key| {
                ["cni.dev/valid-attachments", "cni.dev/attachments"].iter().any(|known| known.eq_ignore_ascii_case(key))
            });
            present.then(Vec::new)
        })
    }
}

#[derive(Deserialize)]
struct Ipam {
    r#type: Option<String>,
    #[serde(rename = "timeoutSeconds")]
    timeout_seconds: Option<Value>,
}

impl Ipam {
    fn deadline(&self) -> Result<Duration, Error> {
        let Some(written) = &self.timeout_seconds else { return Ok(DELEGATE_DEADLINE) };
        let seconds = written.as_u64().filter(|seconds| DELEGATE_SECONDS.contains(seconds)).ok_or_else(|| {
            Error::new(Code::INVALID_CONFIG, format!("invalid \"ipam.timeoutSeconds\": {written}"))
                .with_details("expected a number, 1 to 3600")
        })?;
        Ok(Duration::from_secs(seconds))
    }
}

/// What stands under a key of the document.
fn get<'a>(document: &'a Value, key: &str) -> Option<&'a Value> {
    json::get(document.as_object()?, key)
}

/// `dns`, if it is more than `{}`.
fn read_dns(value: &Value) -> Result<Option<Dns>, json::Error> {
    let dns: Dns = json::from_value(value).map_err(|error| error.at("dns".to_owned()))?;
    let says = |key| value.as_object().is_some_and(|dns| json::get(dns, key).is_some());
    let list = says("nameservers") || says("search") || says("options");
    Ok(Some(dns).filter(|dns| list || !dns.domain.is_empty()))
}

impl<C: Conf> Network<C> {
    /// Reads the configuration; name and version have been checked before.
    pub(super) fn read(
        name: NetworkName,
        version: Version,
        document: Value,
        stdin: Vec<u8>,
        env: &Environment,
    ) -> Result<Self, Error> {
        let undecodable =
            |error: json::Error| Error::new(Code::DECODING_FAILURE, format!("failed to load netconf: {error}"));
        let shared: Shared = json::from_value(&document).map_err(undecodable)?;
        let valid: Valid =
            if env.is(Command::Gc) { json::from_value(&document).map_err(undecodable)? } else { Valid::default() };
        // A network that was broken after the ADD must still be left: DEL needs none of these three to be right.
        let lenient = env.is(Command::Del);
        let conf = json::from_value(&document).map_err(undecodable).and_then(|raw| C::from_raw(raw, env));
        let dns = get(&document, "dns").map_or(Ok(None), read_dns).map_err(undecodable);
        let delegate_deadline = shared.ipam.as_ref().map_or(Ok(DELEGATE_DEADLINE), Ipam::deadline);
        Ok(Self {
            name,
            version,
            conf: conf.or_else(|error| if lenient { C::for_del(env).ok_or(error) } else { Err(error) })?,
            delegate_deadline: delegate_deadline
                .or_else(|error| if lenient { Ok(DELEGATE_DEADLINE) } else { Err(error) })?,
            ipam: shared.ipam.and_then(|ipam| ipam.r#type).filter(|name| !name.is_empty()),
            dns: dns.or_else(|error| if lenient { Ok(None) } else { Err(error) })?,
            valid_attachments: if env.is(Command::Gc) { valid.list(&document) } else { None },
            document,
            stdin,
            path: env.path.clone(),
        })
    }
}

impl<C> Network<C> {
    /// The network's name.
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// The configuration's version: results are printed in it.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The plugin's own configuration.
    pub fn conf(&self) -> &C {
        &self.conf
    }

    /// `ipam.type`: the plugin that allocates addresses; `None` if there is none (layer 2 only).
    pub fn ipam(&self) -> Option<&str> {
        self.ipam.as_deref()
    }

    /// How long a delegate may take: `ipam.timeoutSeconds`, a key of ours that others ignore, else 220 s.
    pub fn delegate_deadline(&self) -> Duration {
        self.delegate_deadline
    }

    /// `dns` of the configuration, which replaces that of IPAM as a whole; `None` if it says nothing. An
    /// empty list says something: no name servers.
    pub fn dns(&self) -> Option<&Dns> {
        self.dns.as_ref()
    }

    /// What an ADD ends with: the result as it is to be printed, with [`dns`](Self::dns) in place of what IPAM says.
    ///
    /// # Errors
    /// The version cannot say it (before 0.3.0, without an address): better known while all can be undone.
    pub fn finish(&self, mut result: Success) -> Result<Success, Error> {
        if let Some(dns) = &self.dns {
            result.dns = dns.clone();
        }
        result.check_version(self.version)?;
        Ok(result)
    }

    /// The attachments that GC keeps. `None`: the runtime did not say, so nothing may be removed.
    pub fn valid_attachments(&self) -> Option<&[Attachment]> {
        self.valid_attachments.as_deref()
    }

    /// The request as it came in; a delegate gets the same bytes.
    pub fn stdin(&self) -> &[u8] {
        &self.stdin
    }

    /// The same, read: keys as they were spelled ([`json::get`]). `prevResult` is in it, too.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// `CNI_PATH`: where delegates are looked for, in order.
    pub fn path(&self) -> &[PathBuf] {
        &self.path
    }

    /// `prevResult`, which may be of another version than the configuration.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn prev_result(&self) -> Result<Option<Success>, Error> {
        let read = |value: &Value| Success::from_value(value.clone(), self.version).map(|(_, success)| success);
        get(&self.document, "prevResult")
            .map(read)
            .transpose()
            .map_err(|error| error.context("could not parse prevResult"))
    }
}

/// An ADD, DEL or CHECK: a network and an attachment to it.
#[derive(Clone, Debug)]
pub struct Request<C> {
    network: Network<C>,
    container_id: ContainerId,
    netns: Option<PathBuf>,
    ifname: IfName,
}

impl<C> Request<C> {
    /// `None` where the environment lacks what the verb needs, which [`Environment::read`] has refused.
    pub(super) fn new(network: Network<C>, env: &Environment) -> Option<Self> {
        Some(Self {
            network,
            container_id: env.container_id.clone()?,
            netns: env.netns.clone(),
            ifname: env.ifname.clone()?,
        })
    }

    /// The container.
    pub fn container_id(&self) -> &ContainerId {
        &self.container_id
    }

    /// The interface in the pod.
    pub fn ifname(&self) -> &IfName {
        &self.ifname
    }

    /// The pod's network namespace. ADD and CHECK always have one.
    ///
    /// # Errors
    /// Code 4 on a DEL without one; where that is no error, ask [`Request::netns_if_any`].
    pub fn netns(&self) -> Result<&Path, Error> {
        self.netns_if_any()
            .ok_or_else(|| Error::new(Code::INVALID_ENVIRONMENT, "required env variables [CNI_NETNS] missing"))
    }

    /// The pod's network namespace; on DEL it may be unknown, and it may be gone.
    pub fn netns_if_any(&self) -> Option<&Path> {
        self.netns.as_deref()
    }
}

impl<C> Deref for Request<C> {
    type Target = Network<C>;

    fn deref(&self) -> &Network<C> {
        &self.network
    }
}

/// The configuration of a plugin's requests.
pub(super) type ConfOf<P> = <P as Plugin>::Conf;
