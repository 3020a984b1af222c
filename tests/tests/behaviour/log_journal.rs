//! The log of calls in the journal: a stand-in for journald on the host reads what is sent to it, by the rules of
//! systemd's "Native Journal Protocol".

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::Host;

use crate::bridge_conf;
use crate::log::logging;

const SOCKET: &str = "/run/systemd/journal/socket";

/// journald's socket on the host.
fn listen(host: &Host) -> UnixDatagram {
    host.enter(|| {
        fs::create_dir_all("/run/systemd/journal").unwrap();
        UnixDatagram::bind(SOCKET).unwrap()
    })
}

/// The fields of the entries that wait.
fn entries(socket: &UnixDatagram) -> Vec<BTreeMap<String, String>> {
    socket.set_nonblocking(true).unwrap();
    let mut entries = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length) = socket.recv(&mut buffer) {
        entries.push(fields(&buffer[..length]));
    }
    entries
}

/// `NAME=value` and a newline; or `NAME`, a newline, the value's length in 64 bits, the value and a newline.
fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').expect("every field ends with a newline");
        let (line, rest) = (&entry[..end], &entry[end + 1..]);
        let (name, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                entry = rest;
                (&line[..at], &line[at + 1..])
            }
            None => {
                let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
                assert_eq!(rest[8 + length], b'\n');
                entry = &rest[8 + length + 1..];
                (line, &rest[8..8 + length])
            }
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let name = text(name);
        // Others journald does not take.
        assert!(name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'), "{name}");
        assert!(fields.insert(name, text(value)).is_none());
    }
    fields
}

#[test]
fn an_entry_has_fields_to_search_by() {
    let host = Host::new();
    let (pod, journal) = (host.pod(), listen(&host));
    logging(&host, "bridge", "journal").add(bridge_conf::v4(), &pod, "eth0").success();
    let entries = entries(&journal);
    assert_eq!(entries.len(), 2, "{entries:#?}");
    for (entry, plugin) in entries.iter().zip(["host-local", "bridge"]) {
        let message = &entry["MESSAGE"];
        assert!(message.starts_with(&format!("{plugin} ADD net default/web-0 eth0: 10.1.0.2/24 in ")), "{message}");
        for (name, value) in [
            ("PRIORITY", "6"),
            ("SYSLOG_IDENTIFIER", "podwire"),
            ("CNI_COMMAND", "ADD"),
            ("CNI_PLUGIN", plugin),
            ("CNI_NETWORK", "net"),
            ("CNI_CONTAINERID", &pod.id()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", &pod.path().display().to_string()),
            ("CNI_IPS", "10.1.0.2/24"),
            ("K8S_POD_NAMESPACE", "default"),
            ("K8S_POD_NAME", "web-0"),
            ("K8S_POD_UID", "1-2"),
        ] {
            assert_eq!(entry[name], value, "{name}");
        }
        assert!(entry["CNI_MS"].parse::<f64>().is_ok() && entry.contains_key("TRACEPARENT"));
    }
    assert!(entries[1]["CNI_STEPS"].contains("ipam "), "{:?}", entries[1]);
}

#[test]
fn an_error_is_an_error_there_too() {
    let host = Host::new();
    let (pod, journal) = (host.pod(), listen(&host));
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "vlan": 5000});
    let error = logging(&host, "bridge", "journal").add(&conf, &pod, "eth0").failure();
    let entry = entries(&journal).remove(0);
    let msg = error["msg"].as_str().unwrap();
    assert_eq!((&*entry["PRIORITY"], &*entry["CNI_ERROR_CODE"], &*entry["CNI_ERROR_MSG"]), ("3", "7", msg));
    assert!(entry["MESSAGE"].contains(msg) && entry["MESSAGE"].contains("failed in "), "{}", entry["MESSAGE"]);
}

/// Nobody forges a field by a newline in what he may name.
#[test]
fn a_value_of_two_lines_is_one_field() {
    let host = Host::new();
    let (pod, journal) = (host.pod(), listen(&host));
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b\nPRIORITY=0\nMESSAGE=forged";
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "loopback"});
    logging(&host, "loopback", "journal").env("CNI_ARGS", args).add(&conf, &pod, "eth0").success();
    let entry = entries(&journal).remove(0);
    assert_eq!((&*entry["PRIORITY"], &*entry["K8S_POD_NAME"]), ("6", "b\nPRIORITY=0\nMESSAGE=forged"));
}

/// A journal that hangs: its queue is full and stays so.
#[test]
fn a_journal_that_does_not_read_keeps_no_pod_waiting() {
    let host = Host::new();
    let (pod, journal) = (host.pod(), listen(&host));
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    host.enter(|| {
        let full = (0..100_000).find_map(|_| sender.send_to(b"x", SOCKET).err()).expect("no queue is as long");
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    });
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "loopback"});
    let began = Instant::now();
    let outcome = logging(&host, "loopback", "journal").add(&conf, &pod, "eth0");
    outcome.success();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(outcome.stderr.starts_with("log: /run/systemd/journal/socket: "), "{outcome}");
    drop(journal);
}
