//! The journal's native protocol: one datagram of fields for each entry
//! (systemd's documentation, "Native Journal Protocol"). No library is needed to write it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::line::Line;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// What all plugins are found under: `journalctl -t podwire`.
const IDENTIFIER: &str = "podwire";
/// How long a journal that does not read may keep a pod waiting.
const PATIENCE: Duration = Duration::from_millis(200);
/// Of syslog.
const ERROR: &str = "3";
const INFO: &str = "6";

/// Sends a line.
///
/// # Errors
/// Nobody listens, or nobody reads.
pub fn send(line: &Line<'_>) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to(&entry(line), SOCKET).map(drop)
}

/// The fields of a line, those that it has.
pub fn entry(line: &Line<'_>) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            push(&mut entry, name, value);
        }
    };
    field("MESSAGE", &line.to_string());
    field("PRIORITY", if line.error.is_some() { ERROR } else { INFO });
    field("SYSLOG_IDENTIFIER", IDENTIFIER);
    field("SYSLOG_PID", &line.pid.to_string());
    field("CNI_COMMAND", &line.verb);
    field("CNI_PLUGIN", line.plugin);
    field("CNI_PLUGIN_VERSION", line.version);
    field("CNI_NETWORK", line.network.as_deref().unwrap_or_default());
    field("CNI_CONTAINERID", line.container.as_deref().unwrap_or_default());
    field("CNI_IFNAME", line.interface.as_deref().unwrap_or_default());
    field("CNI_NETNS", line.netns.as_deref().unwrap_or_default());
    if let Some(pod) = &line.pod {
        field("K8S_POD_NAMESPACE", &pod.namespace);
        field("K8S_POD_NAME", &pod.name);
        field("K8S_POD_UID", &pod.uid);
    }
    field("TRACEPARENT", line.traceparent.as_deref().unwrap_or_default());
    field("CNI_MS", &line.ms.to_string());
    field("CNI_STEPS", &line.steps.to_string());
    field("CNI_IPS", &line.ips.join(" "));
    if let Some(error) = &line.error {
        field("CNI_ERROR_CODE", &error.code.to_string());
        field("CNI_ERROR_MSG", &error.msg);
        field("CNI_ERROR_DETAILS", &error.details);
    }
    field("CNI_NOTES", &line.notes.join("\n"));
    entry
}

/// `NAME=value`; a value of several lines is counted instead: its name, its length in 64 bits, the lowest first.
fn push(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}
