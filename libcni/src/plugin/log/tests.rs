//! The line, as JSON and as the journal has it, and what may be written to. Expected values are of RFC 3339, of the
//! journal's documentation, or written by hand.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use serde_json::json;

use super::super::{Network, Plugin, Request, dispatch};
use super::*;
use crate::types::{Code, IpConfig};

/// Does some steps, and fails if it is told to.
#[derive(Default)]
struct Stepper {
    fail: RefCell<Option<Error>>,
}

impl Plugin for Stepper {
    type Conf = ();
    const ABOUT: &'static str = "CNI stepper plugin v1.2.3";

    fn add(&self, _: &Request<()>) -> Result<Success, Error> {
        for _ in 0..2 {
            let _outer = step("veth");
            let _inner = step("lock");
        }
        drop(step("ipam"));
        note(|| "somebody waited".to_owned());
        let ips = vec![IpConfig::new("10.0.0.2/8".parse().unwrap(), None)];
        self.fail.take().map_or(Ok(Success { ips, ..Success::default() }), Err)
    }

    fn del(&self, _: &Request<()>) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, _: &Request<()>) -> Result<(), Error> {
        Ok(())
    }

    fn gc(&self, _: &Network<()>) -> Result<(), Error> {
        drop(step("veth"));
        Ok(())
    }
}

fn run(plugin: &Stepper, vars: &[(&str, &str)], stdin: &str) -> u8 {
    let complete = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "ctr1"),
        ("CNI_NETNS", "/nowhere"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;PASSWORD=secret"),
        ("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let var = |name: &str| {
        let changed = vars.iter().find(|(key, _)| *key == name);
        changed.or_else(|| complete.iter().find(|(key, _)| *key == name)).map(|(_, value)| OsString::from(value))
    };
    dispatch(plugin, &var, &mut stdin.as_bytes(), &mut Vec::new())
}

fn conf(key: &str) -> String {
    format!(r#"{{"cniVersion":"1.1.0","name":"net","type":"stepper"{key}}}"#)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_says_who_was_connected_to_what_and_how_long_it_took() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = ("PODWIRE_LOG", path.to_str().unwrap());
    assert_eq!(run(&Stepper::default(), &[log], &conf(r#","secret":"secret""#)), 0);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("secret") && text.ends_with("}\n"), "{text}");

    let mut line = lines(&path).remove(0);
    let object = line.as_object_mut().unwrap();
    let time = object.remove("time").unwrap();
    let time = time.as_str().unwrap();
    assert!(time.len() == "2026-11-21T13:40:28.123456789Z".len() && time.ends_with('Z'), "{time}");
    let ms = object.remove("ms").unwrap().as_f64().unwrap();
    let Value::Object(steps) = object.remove("steps").unwrap() else { panic!("steps is an object") };
    assert_eq!(steps.keys().collect::<Vec<_>>(), ["veth", "veth/lock", "ipam"]);
    assert!(steps["veth"].as_f64() >= steps["veth/lock"].as_f64());
    assert!(steps["veth"].as_f64().unwrap() + steps["ipam"].as_f64().unwrap() <= ms + 0.002, "{steps:?} in {ms}");
    assert_eq!(
        line,
        json!({"verb": "ADD", "plugin": "stepper", "version": "1.2.3", "network": "net", "container": "ctr1",
            "interface": "eth0", "netns": "/nowhere", "pod": {"namespace": "default", "name": "web-0"},
            "pid": std::process::id(), "ppid": std::os::unix::process::parent_id(),
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ips": ["10.0.0.2/8"], "notes": ["somebody waited"]})
    );
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn every_call_has_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = ("PODWIRE_LOG", path.to_str().unwrap());
    let failing = Stepper { fail: RefCell::new(Some(Error::new(Code(100), "no").with_details("not now"))) };
    for (verb, plugin, stdin, error) in [
        ("DEL", Stepper::default(), conf(""), Value::Null),
        ("CHECK", Stepper::default(), conf(""), Value::Null),
        ("GC", Stepper::default(), conf(""), Value::Null),
        ("STATUS", Stepper::default(), conf(""), Value::Null),
        ("VERSION", Stepper::default(), String::new(), Value::Null),
        ("ADD", failing, conf(""), json!({"code": 100, "msg": "no", "details": "not now"})),
        ("add", Stepper::default(), conf(""), json!({"code": 4, "msg": "unknown CNI_COMMAND: add"})),
        ("ADD", Stepper::default(), "{}".to_owned(), json!({"code": 7, "msg": "missing network name"})),
    ] {
        let before = lines(&path).len();
        run(&plugin, &[log, ("CNI_COMMAND", verb)], &stdin);
        let all = lines(&path);
        assert_eq!(all.len(), before + 1, "{verb}");
        assert_eq!((&all[before]["verb"], &all[before]["error"]), (&json!(verb), &error));
        let of_attachment = !["GC", "STATUS", "VERSION"].contains(&verb);
        assert_eq!(all[before]["container"].is_string(), of_attachment, "{verb}");
    }
    // What is refused before the configuration is read, with the value that was refused.
    run(&Stepper::default(), &[log, ("CNI_CONTAINERID", "a/b")], &conf(""));
    run(&Stepper::default(), &[log], "{");
    let all = lines(&path);
    let [bad_id, bad_json] = &all[all.len() - 2..] else { panic!("two lines more") };
    assert_eq!(
        (&bad_id["container"], &bad_id["error"]["code"], &bad_id["network"]),
        (&json!("a/b"), &json!(4), &Value::Null)
    );
    assert_eq!(bad_json["error"]["code"], 6);
    // A person who asks what this is, is no call.
    run(&Stepper::default(), &[log, ("CNI_COMMAND", "")], "");
    assert_eq!(lines(&path).len(), all.len());
}

#[test]
fn the_configuration_counts_more_than_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let (of_env, of_conf) = (directory.path().join("env"), directory.path().join("conf"));
    let log = ("PODWIRE_LOG", of_env.to_str().unwrap());
    let key = |value: &str| conf(&format!(r#","LOG":{value}"#));
    let named = key(&format!("{of_conf:?}"));
    let count = || (lines(&of_env).len(), lines(&of_conf).len() - 1);
    assert_eq!(run(&Stepper::default(), &[("PODWIRE_LOG", of_conf.to_str().unwrap())], &conf("")), 0);
    for (vars, stdin, expected) in [
        (&[log][..], named.clone(), (0, 1)),
        (&[], named, (0, 2)),
        (&[log], key("\"off\""), (0, 2)),
        (&[log], key("\"\""), (0, 2)),
        (&[], conf(""), (0, 2)),
        (&[log], key("null"), (1, 2)),
        // What makes no sense is said on stderr, and the environment's target stays.
        (&[log], key("7"), (2, 2)),
        (&[log], key("\"relative\""), (3, 2)),
        (&[("PODWIRE_LOG", "off")], conf(""), (3, 2)),
        (&[("PODWIRE_LOG", "relative")], conf(""), (3, 2)),
    ] {
        assert_eq!(run(&Stepper::default(), vars, &stdin), 0);
        assert_eq!(count(), expected, "{vars:?} {stdin}");
    }
}

#[test]
fn what_is_not_a_log_is_left_alone_and_the_call_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("list"), r#"{"cniVersion":"1.0.0"}"#).unwrap();
    fs::write(path("short"), "{").unwrap();
    symlink(path("elsewhere"), path("link")).unwrap();
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for name in ["list", "short", "link", "fifo", "missing/log", "."] {
        let log = ("PODWIRE_LOG", path(name).to_str().unwrap().to_owned());
        assert_eq!(run(&Stepper::default(), &[(log.0, &log.1)], &conf("")), 0, "{name}");
    }
    assert_eq!(fs::read_to_string(path("list")).unwrap(), r#"{"cniVersion":"1.0.0"}"#);
    assert_eq!(fs::read_to_string(path("short")).unwrap(), "{");
    assert!(!path("elsewhere").exists() && !path("missing").exists());
}

/// Whoever may write a configuration need not be somebody who may make files on the node.
#[test]
fn a_configuration_makes_no_file_but_below_the_logs() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let name =
        |path: &str| assert_eq!(run(&Stepper::default(), &[], &conf(&format!(r#","log":{path:?}"#))), 0, "{path}");
    fs::write(path("empty"), "").unwrap();
    assert_eq!(run(&Stepper::default(), &[("PODWIRE_LOG", &path("log"))], &conf("")), 0);
    name(&path("new"));
    name(&path("empty"));
    name(&path("log"));
    name(&format!("/var/log/../..{}", path("up")));
    assert!(!Path::new(&path("new")).exists() && !Path::new(&path("up")).exists());
    assert_eq!((lines(Path::new(&path("empty"))).len(), lines(Path::new(&path("log"))).len()), (0, 2));
}

/// What a line looks like to somebody who reads the journal.
fn entry(call: &Call, vars: &[(&str, &str)], error: Option<&Error>) -> String {
    let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    String::from_utf8(journal::entry(&Line::new(call, Stepper::ABOUT, &var, error))).unwrap()
}

#[test]
fn an_entry_of_the_journal() {
    let mut call = Call::new(Target::Journal);
    call.network = Some("net".to_owned());
    call.ips = vec!["10.0.0.2/8".to_owned(), "fd00::2/64".to_owned()];
    call.steps = vec![("veth".to_owned(), Duration::from_micros(812)), ("ipam".to_owned(), Duration::from_millis(2))];
    let vars = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "ctr1"), ("CNI_IFNAME", "eth0")];
    let good = entry(&call, &vars, None);
    assert!(good.starts_with("MESSAGE=stepper ADD net ctr1 eth0: 10.0.0.2/8, fd00::2/64 in "), "{good}");
    assert!(good.lines().next().unwrap().ends_with(" ms (veth 0.812, ipam 2)"), "{good}");
    for field in [
        "PRIORITY=6",
        "SYSLOG_IDENTIFIER=podwire",
        "CNI_COMMAND=ADD",
        "CNI_PLUGIN=stepper",
        "CNI_NETWORK=net",
        "CNI_CONTAINERID=ctr1",
        "CNI_IFNAME=eth0",
        "CNI_STEPS=veth 0.812, ipam 2",
        "CNI_IPS=10.0.0.2/8 fd00::2/64",
    ] {
        assert!(good.lines().any(|line| line == field), "{field}: {good}");
    }
    assert!(!good.contains("CNI_NETNS") && !good.contains("ERROR"), "{good}");

    // A value of two lines is not two fields.
    let error = Error::new(Code(7), "bad\nPRIORITY=0").with_details("x");
    let bad = entry(&call, &vars, Some(&error));
    assert!(bad.contains("\nPRIORITY=3\n"), "{bad}");
    assert!(bad.contains("\nCNI_ERROR_MSG\n\u{e}\0\0\0\0\0\0\0bad\nPRIORITY=0\nCNI_ERROR_DETAILS=x\n"), "{bad}");
}

#[test]
fn what_is_long_is_cut() {
    let call = Call::new(Target::Journal);
    let error = Error::internal("ä".repeat(100_000)).with_details("b".repeat(100_000));
    let long = "c".repeat(100_000);
    let var = |_: &str| Some(OsString::from(&long));
    let line = Line::new(&call, "something else", &var, Some(&error)).to_json().unwrap();
    assert!(line.len() < 64 << 10, "{}", line.len());
    let line: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&line["plugin"], line.get("version")), (&json!("something else"), None));
    assert!(line["error"]["msg"].as_str().unwrap().ends_with("ä..."));
}
