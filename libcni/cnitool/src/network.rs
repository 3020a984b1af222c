//! The verbs of a network, with the environment variables of the reference's cnitool.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use libcni::runtime::{Attachment, ConfList, Runtime};
use libcni::types::{ContainerId, json};
use libcni::{Code, Error};
use sha2::{Digest, Sha512};

use crate::arguments::{Call, Verb};
use crate::{conf_dir, ipam, variable};

/// The interface unless somebody says otherwise.
const IFNAME: &str = "eth0";

/// Calls the plugins of a network; what is returned is to be printed.
pub fn run(call: &Call) -> Result<Vec<u8>, Error> {
    let list = ConfList::from_dir(&conf_dir(), &call.net)?;
    let attachment = attachment(call)?;
    let path = variable("CNI_PATH")?.unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| !dir.as_os_str().is_empty()).collect();
    let unset = path.is_empty();
    // Whoever sets CNI_NETNS_OVERRIDE for cnitool means the plugins: we have no namespace to speak of.
    let mut runtime = Runtime::new(path).with_netns_override();
    if let Some(dir) = &call.cache_dir {
        runtime = runtime.with_cache_dir(dir.clone());
    }
    let done = match call.verb {
        Verb::Add => {
            runtime.add(&list, &attachment).map(|(version, success)| json::pretty(&success.to_value_as_read(version)))
        }
        Verb::Check => runtime.check(&list, &attachment).map(|()| Vec::new()),
        Verb::Del => runtime.del(&list, &attachment).map(|()| Vec::new()),
        Verb::Gc => runtime.gc_where(&list, None, &ipam::leads_home).map(|()| Vec::new()),
        Verb::Status => runtime.status(&list).map(|()| Vec::new()),
    };
    done.map_err(|error| match unset && error.msg().contains("no paths provided") {
        true => error.with_details("set CNI_PATH to the directories of the plugins, like CNI_PATH=/opt/cni/bin"),
        false => error,
    })
}

fn attachment(call: &Call) -> Result<Attachment, Error> {
    let capability_args = match variable("CAP_ARGS")? {
        None => json::Object::new(),
        Some(text) => json::from_slice(text.as_bytes())
            .map_err(|error| invalid(format!("CAP_ARGS is not a JSON object: {error}")))?,
    };
    let args = cni_args(&variable("CNI_ARGS")?.unwrap_or_default())?;
    let ifname = call.ifname.clone().or(variable("CNI_IFNAME")?).unwrap_or_else(|| IFNAME.to_owned());
    let netns = absolute(&call.netns)?;
    let mut attachment = Attachment::new(container_id(&netns)?, Some(netns), ifname.parse()?);
    (attachment.args, attachment.capability_args) = (args, capability_args);
    Ok(attachment)
}

fn invalid(msg: String) -> Error {
    Error::new(Code::INVALID_ENVIRONMENT, msg)
}

/// Pairs separated by `;`, each with one `=` and something on both sides.
fn cni_args(text: &str) -> Result<Vec<(String, String)>, Error> {
    let pair = |piece: &str| match piece.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() && !value.contains('=') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(invalid(format!("invalid CNI_ARGS pair {piece:?}"))),
    };
    if text.is_empty() { Ok(Vec::new()) } else { text.split(';').map(pair).collect() }
}

/// The path from the root, without looking at the file system: the namespace may be gone, and links keep the name
/// they were called by.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    // Asked only if it is needed: it may have been removed.
    let from = match path.is_absolute() {
        true => PathBuf::new(),
        false => std::env::current_dir()
            .map_err(|error| Error::new(Code::IO_FAILURE, format!("cannot tell the working directory: {error}")))?,
    };
    let mut clean = PathBuf::from("/");
    for component in from.join(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

/// The container's id: one namespace path, one container. It is the reference's, so that either tool can detach
/// what the other attached: the first ten bytes of the path's SHA-512, in hexadecimal.
fn container_id(netns: &Path) -> Result<ContainerId, Error> {
    let netns: &OsStr = netns.as_os_str();
    let digest = Sha512::digest(netns.as_bytes());
    let hex: String = digest.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    format!("cnitool-{hex}").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the reference.
    #[test]
    fn container_ids() {
        for (path, id) in [
            ("/var/run/netns/testing", "cnitool-77383ca0a0715733ca6f"),
            ("/run/netns/testing", "cnitool-43057b9dcc39fe733071"),
        ] {
            assert_eq!(container_id(Path::new(path)).unwrap().as_str(), id);
        }
    }

    #[test]
    fn paths_become_absolute_by_their_text_alone() {
        let here = std::env::current_dir().unwrap();
        for (path, expected) in [
            ("/run/netns/../netns//./x/", PathBuf::from("/run/netns/x")),
            ("/../../x", "/x".into()),
            ("x", here.join("x")),
            ("./a/../b", here.join("b")),
            ("", here.clone()),
        ] {
            assert_eq!(absolute(Path::new(path)).unwrap(), expected);
        }
    }

    #[test]
    fn pairs_of_cni_args() {
        assert_eq!(cni_args("").unwrap(), []);
        assert_eq!(cni_args("A=1;B=2").unwrap(), [("A".into(), "1".into()), ("B".into(), "2".into())]);
        for (text, piece) in
            [("A", "A"), ("A=1;", ""), ("A=", "A="), ("=1", "=1"), ("A=1=2", "A=1=2"), ("A=1;;B=2", "")]
        {
            assert_eq!(cni_args(text).unwrap_err().msg(), format!("invalid CNI_ARGS pair {piece:?}"));
        }
    }
}
