//! The dispatcher, against the reference's documented checks (its order, codes and words).
//!
//! Not here: "error without about" (every plugin has an `ABOUT`, the trait requires it); what is printed of it is asserted
//! where there is a stderr, in `without_a_verb_a_plugin_says_what_it_is` of `tests/`. "callback error untyped" (a verb returns
//! `Error` and nothing else).

use std::cell::RefCell;
use std::ffi::OsString;
use std::time::Duration;

use serde_json::Value;

use super::dispatch::{dispatch, keep_gc_out, serve};
use super::*;
use crate::lock::Lock;
use crate::types::{Code, IpConfig};

/// Notes which verb was called; fails if it is told to.
#[derive(Default)]
struct Recorder {
    called: RefCell<Vec<&'static str>>,
    fail: Option<Error>,
}

impl Recorder {
    fn note(&self, verb: &'static str) -> Result<(), Error> {
        self.called.borrow_mut().push(verb);
        self.fail.clone().map_or(Ok(()), Err)
    }
}

#[derive(Debug)]
struct RecorderConf;

#[derive(serde::Deserialize)]
struct RecorderRaw {
    #[expect(dead_code, reason = "read for its type only")]
    mtu: Option<u32>,
}

impl Conf for RecorderConf {
    type Raw = RecorderRaw;

    fn from_raw(_: RecorderRaw, _: &Environment) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl Plugin for Recorder {
    type Conf = RecorderConf;
    const ABOUT: &'static str = "CNI recorder plugin v1.2.3";
    const DRY_RUN: bool = true;

    fn add(&self, req: &Request<RecorderConf>) -> Result<Success, Error> {
        self.note("ADD")?;
        assert_eq!((req.container_id().as_str(), req.ifname().as_str()), ("ctr1", "eth0"));
        Ok(Success { ips: vec![IpConfig::new("10.0.0.2/8".parse().unwrap(), None)], ..Success::default() })
    }

    fn del(&self, _: &Request<RecorderConf>) -> Result<(), Error> {
        self.note("DEL")
    }

    fn check(&self, _: &Request<RecorderConf>) -> Result<(), Error> {
        self.note("CHECK")
    }

    fn gc(&self, network: &Network<RecorderConf>) -> Result<(), Error> {
        self.note(match network.valid_attachments() {
            None => "GC absent",
            Some([]) => "GC none",
            Some(_) => "GC some",
        })
    }

    fn status(&self, _: &Network<RecorderConf>) -> Result<(), Error> {
        self.note("STATUS")
    }
}

const CONF: &str = r#"{"cniVersion":"1.1.0","name":"net","type":"recorder"}"#;

/// Runs the recorder with a complete environment, changed by `vars`.
fn run(vars: &[(&str, &str)], stdin: &str) -> (u8, String, Vec<&'static str>) {
    let plugin = Recorder::default();
    let (status, stdout) = run_plugin(&plugin, vars, stdin);
    (status, stdout, plugin.called.into_inner())
}

fn run_plugin(plugin: &Recorder, vars: &[(&str, &str)], stdin: &str) -> (u8, String) {
    let complete = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "ctr1"),
        ("CNI_NETNS", "/nowhere"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let var = |name: &str| {
        let changed = vars.iter().find(|(key, _)| *key == name);
        changed.or_else(|| complete.iter().find(|(key, _)| *key == name)).map(|(_, value)| OsString::from(value))
    };
    let mut stdout = Vec::new();
    let status = dispatch(plugin, &var, &mut stdin.as_bytes(), &mut stdout);
    (status, String::from_utf8(stdout).unwrap())
}

fn refusal(vars: &[(&str, &str)], stdin: &str) -> (u64, String) {
    let (status, stdout, called) = run(vars, stdin);
    assert_eq!((status, called), (1, vec![]), "{stdout}");
    let error: Value = serde_json::from_str(&stdout).unwrap();
    assert!(error["cniVersion"].is_string());
    (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
}

#[test]
fn each_verb_is_called() {
    for (verb, called) in
        [("ADD", "ADD"), ("DEL", "DEL"), ("CHECK", "CHECK"), ("GC", "GC absent"), ("STATUS", "STATUS")]
    {
        let (status, stdout, calls) = run(&[("CNI_COMMAND", verb)], CONF);
        assert_eq!((status, calls), (0, vec![called]), "{stdout}");
        assert_eq!(stdout.is_empty(), verb != "ADD");
    }
}

/// A plugin whose ADD is at work while somebody wants to collect.
struct AtWork(std::path::PathBuf);

impl AtWork {
    fn is_kept_out(&self) -> Result<(), Error> {
        let held = Lock::alone(&self.0, Duration::ZERO).is_err();
        if held { Err(Error::internal("kept out")) } else { Ok(()) }
    }
}

impl Plugin for AtWork {
    type Conf = ();
    const ABOUT: &'static str = "CNI at-work plugin v1.2.3";

    fn add(&self, _: &Request<()>) -> Result<Success, Error> {
        self.is_kept_out().map(|()| Success::default())
    }

    fn del(&self, _: &Request<()>) -> Result<(), Error> {
        self.is_kept_out()
    }

    fn check(&self, _: &Request<()>) -> Result<(), Error> {
        self.is_kept_out()
    }

    fn gc(&self, _: &Network<()>) -> Result<(), Error> {
        self.is_kept_out()
    }
}

/// The whole of an ADD, and no other verb: a GC calls DEL and GC itself, and would wait for them.
#[test]
fn an_add_keeps_a_gc_out() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("below/gc.lock");
    let plugin = AtWork(file.clone());
    let call = |verb: &str, file: &std::path::Path| {
        let var = |name: &str| {
            let vars = [("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/")];
            let all = vars.into_iter().chain([("CNI_COMMAND", verb)]);
            all.into_iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let mut stdout = Vec::new();
        let lock = || keep_gc_out(file, Duration::from_millis(20));
        let status = serve(&plugin, &var, &mut CONF.as_bytes(), &mut stdout, &lock);
        (status, String::from_utf8(stdout).unwrap().contains("kept out"))
    };
    assert_eq!(call("ADD", &file), (1, true));
    for verb in ["DEL", "CHECK", "GC"] {
        assert_eq!(call(verb, &file), (0, false), "{verb}");
    }
    // One that hangs, or no place for the file, is no reason not to start a container.
    let gc = Lock::alone(&file, Duration::ZERO).unwrap();
    assert_eq!(call("ADD", &file), (1, true));
    drop(gc);
    assert_eq!(call("ADD", &file.join("no-directory")), (0, false));
}

#[test]
fn missing_variables_are_listed_together_in_the_references_words() {
    for (verb, expected) in [
        ("ADD", "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"),
        ("CHECK", "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"),
        ("DEL", "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing"),
        ("GC", "required env variables [CNI_PATH] missing"),
        ("STATUS", "required env variables [CNI_PATH] missing"),
    ] {
        let empty =
            [("CNI_COMMAND", verb), ("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_IFNAME", ""), ("CNI_PATH", "")];
        assert_eq!(refusal(&empty, CONF), (4, expected.to_owned()));
    }
}

#[test]
fn invalid_variables() {
    for (name, value, msg) in [
        ("CNI_CONTAINERID", "a/b", "invalid characters in containerID"),
        ("CNI_IFNAME", "1234567890123456", "interface name is too long"),
        ("CNI_IFNAME", "..", "interface name is . or .."),
        ("CNI_IFNAME", "a:b", "interface name contains / or : or whitespace characters"),
        ("CNI_COMMAND", "add", "unknown CNI_COMMAND: add"),
    ] {
        assert_eq!(refusal(&[(name, value)], CONF), (4, msg.to_owned()));
    }
    // GC does not look at them.
    assert_eq!(run(&[("CNI_COMMAND", "GC"), ("CNI_IFNAME", "a:b")], CONF).0, 0);
    // An invalid value is reported before a missing one.
    assert_eq!(refusal(&[("CNI_CONTAINERID", "a/b"), ("CNI_PATH", "")], CONF).1, "invalid characters in containerID");
}

#[test]
fn stdin() {
    for (text, code, part) in [
        ("", 6, "EOF"),
        ("{", 6, "line 1 column 1"),
        ("[]", 6, ""),
        ("{\"name\":7}", 6, "name"),
        ("{}", 7, "missing network name"),
        ("null", 7, "missing network name"),
        ("{\"name\":\"a/b\"}", 7, "invalid characters found in network name"),
        (r#"{"name":"net","cniVersion":7}"#, 6, "cniVersion"),
        (r#"{"name":"net","cniVersion":"1.0.0","mtu":"big"}"#, 6, "mtu"),
        (r#"{"name":"net","cniVersion":"1.0.0"} x"#, 6, "trailing"),
    ] {
        let (found, msg) = refusal(&[], text);
        assert_eq!(found, code, "{msg}");
        assert!(msg.contains(part), "{msg}");
    }
}

#[test]
fn versions() {
    for (verb, version, code, msg) in [
        ("ADD", "0.5.0", 1, "incompatible CNI versions"),
        ("DEL", "1.0", 1, "incompatible CNI versions"),
        ("CHECK", "0.3.1", 1, "config version does not allow CHECK"),
        ("CHECK", "", 1, "config version does not allow CHECK"),
        ("CHECK", "1.2.0", 1, "plugin version does not allow CHECK"),
        ("CHECK", "abc", 6, "cniVersion \"abc\" is not a version number"),
        ("GC", "1.0.0", 1, "config version does not allow GC"),
        ("STATUS", "1.0.0", 1, "config version does not allow STATUS"),
    ] {
        let conf = format!(r#"{{"cniVersion":"{version}","name":"net"}}"#);
        assert_eq!(refusal(&[("CNI_COMMAND", verb)], &conf), (code, msg.to_owned()));
    }
    // No version means 0.1.0, and the result has its shape.
    let (status, stdout, _) = run(&[], r#"{"name":"net"}"#);
    assert_eq!((status, stdout.contains("\"ip4\"")), (0, true));
}

#[test]
fn version_needs_nothing_but_the_command() {
    let none = [("CNI_COMMAND", "VERSION"), ("CNI_CONTAINERID", ""), ("CNI_IFNAME", ""), ("CNI_PATH", "")];
    let (status, stdout, called) = run(&none, "not JSON");
    let versions = r#"["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]"#;
    assert_eq!(
        stdout,
        format!("{{\"cniVersion\":\"1.1.0\",\"podwireDryRun\":true,\"supportedVersions\":{versions}}}\n")
    );
    assert_eq!((status, called), (0, vec![]));
}

#[test]
fn a_person_is_told_what_this_is() {
    let (status, stdout, called) = run(&[("CNI_COMMAND", "")], "");
    assert_eq!((status, stdout.as_str(), called), (0, "", vec![]));
}

/// Reference defect 15: it looks when the work is done.
#[test]
fn the_plugins_own_namespace_is_refused_before_the_work() {
    let own = [("CNI_NETNS", "/proc/thread-self/ns/net")];
    let refused = (8, "plugin's netns and netns from CNI_NETNS should not be the same".to_owned());
    assert_eq!(refusal(&own, CONF), refused);
    assert_eq!(refusal(&[own[0], ("CNI_COMMAND", "DEL")], CONF), refused);
    for leave in ["1", "TRUE"] {
        assert_eq!(run(&[own[0], ("CNI_NETNS_OVERRIDE", leave)], CONF).0, 0);
    }
}

#[test]
fn a_plugins_error_is_printed_in_the_configurations_version() {
    let plugin = Recorder { fail: Some(Error::new(Code::TRY_AGAIN_LATER, "later")), ..Recorder::default() };
    let (status, stdout) = run_plugin(&plugin, &[], r#"{"cniVersion":"0.4.0","name":"net"}"#);
    assert_eq!(
        (status, stdout.as_str()),
        (1, "{\n    \"cniVersion\": \"0.4.0\",\n    \"code\": 11,\n    \"msg\": \"later\"\n}")
    );
}

#[test]
fn gc_tells_absent_from_empty() {
    for (key, called) in [
        (r#""x":1"#, "GC absent"),
        (r#""cni.dev/valid-attachments":[]"#, "GC none"),
        (r#""cni.dev/valid-attachments":null"#, "GC none"),
        (r#""cni.dev/attachments":[{"containerID":"a","ifname":"b"}]"#, "GC some"),
    ] {
        let conf = format!(r#"{{"cniVersion":"1.1.0","name":"net",{key}}}"#);
        assert_eq!(run(&[("CNI_COMMAND", "GC")], &conf).2, [called]);
    }
}

/// The reference refuses, and what the ADD made stays.
#[test]
fn del_does_not_need_what_it_does_not_use() {
    for keys in [
        r#""dns":{"nameservers":"x"}"#,
        r#""dns":7"#,
        r#""ipam":{"type":"x","timeoutSeconds":0}"#,
        r#""ipam":{"type":"x","timeoutSeconds":"5 s"}"#,
        r#""cni.dev/attachments":7"#,
        r#""prevResult":7"#,
    ] {
        let conf = format!(r#"{{"cniVersion":"1.1.0","name":"net",{keys}}}"#);
        assert_eq!(run(&[("CNI_COMMAND", "DEL")], &conf).2, ["DEL"], "{keys}");
    }
    let (code, msg) = refusal(&[], r#"{"cniVersion":"1.1.0","name":"net","dns":{"nameservers":"x"}}"#);
    assert!(code == 6 && msg.contains("dns: nameservers: "), "{msg}");
    assert_eq!(refusal(&[("CNI_COMMAND", "GC")], &CONF.replace('}', r#","cni.dev/attachments":7}"#)).0, 6);
}

#[test]
fn the_time_a_delegate_has() {
    for (seconds, status) in [("1", 0), ("3600", 0), ("null", 0), ("0", 1), ("3601", 1), ("-1", 1), ("\"5\"", 1)] {
        let conf = format!(r#"{{"name":"net","ipam":{{"type":"x","timeoutSeconds":{seconds}}}}}"#);
        let (found, stdout, _) = run(&[], &conf);
        assert_eq!(found, status, "{stdout}");
        assert_eq!(stdout.contains("timeoutSeconds"), status == 1, "{stdout}");
    }
}

/// A plugin of few versions.
struct Few;

impl Plugin for Few {
    type Conf = ();
    const ABOUT: &'static str = "CNI few plugin v1.2.3";
    const VERSIONS: &'static [Version] = &[Version::V0_2_0, Version::V0_3_1];

    fn add(&self, req: &Request<()>) -> Result<Success, Error> {
        Ok(req.prev_result()?.unwrap_or_default())
    }

    fn del(&self, _: &Request<()>) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, _: &Request<()>) -> Result<(), Error> {
        Ok(())
    }
}

fn run_few(verb: &str, stdin: &mut dyn std::io::Read) -> (u8, Value) {
    let var = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => verb,
            "CNI_CONTAINERID" => "ctr1",
            "CNI_NETNS" => "/nowhere",
            "CNI_IFNAME" => "eth0",
            "CNI_PATH" => "/opt/cni/bin",
            _ => return None,
        };
        Some(OsString::from(value))
    };
    let mut stdout = Vec::new();
    let status = dispatch(&Few, &var, stdin, &mut stdout);
    (status, serde_json::from_slice(&stdout).unwrap_or_default())
}

/// Who knows nothing of dry runs would do the real thing.
#[test]
fn a_dry_run_is_opted_into() {
    let conf = r#"{"cniVersion":"0.3.1","name":"net"}"#;
    let (_, versions) = run_few("VERSION", &mut "".as_bytes());
    assert_eq!(versions, serde_json::json!({"cniVersion": "1.1.0", "supportedVersions": ["0.2.0", "0.3.1"]}));
    for verb in ["DEL", "GC"] {
        let command = format!("{}{verb}", dry_run::PREFIX);
        let (status, refused) = run_few(&command, &mut conf.as_bytes());
        let msg = format!("unknown CNI_COMMAND: {command}");
        assert_eq!((status, &refused["code"], &refused["msg"]), (1, &4.into(), &msg.into()));
    }
    assert_eq!(run_few("DEL", &mut conf.as_bytes()).0, 0);
    assert!(!dry_run::is_on());
}

#[test]
fn a_plugin_that_speaks_few_versions() {
    let few = |verb: &str, version: &str| {
        let (status, printed) = run_few(verb, &mut format!(r#"{{"cniVersion":"{version}","name":"net"}}"#).as_bytes());
        assert_eq!(status, 1, "{printed}");
        (printed["code"].as_u64().unwrap(), printed["msg"].to_string(), printed["details"].to_string())
    };
    let (code, msg, details) = few("ADD", "");
    assert_eq!((code, msg.as_str()), (1, r#""incompatible CNI versions""#));
    assert_eq!(details, r#""config is \"\", plugin supports [\"0.2.0\" \"0.3.1\"]""#);
    assert_eq!(few("DEL", "0.3.0").0, 1);
    assert_eq!(few("CHECK", "0.4.0").1, r#""plugin version does not allow CHECK""#);
    assert_eq!(few("GC", "1.1.0").1, r#""plugin version does not allow GC""#);
}

#[test]
fn stdin_that_cannot_be_read() {
    // Reading a directory fails.
    let (status, printed) = run_few("ADD", &mut std::fs::File::open("/").unwrap());
    assert_eq!((status, &printed["code"]), (1, &Value::from(5)), "{printed}");
}

/// The reference's list: there, absent, of an unknown version; of another family (which it refuses), and in capitals.
#[test]
fn results_of_earlier_plugins() {
    for (prev, expected) in [
        (r#""x":1"#, Ok("{}")),
        (r#""prevResult":null"#, Ok("{}")),
        (r#""prevResult":{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.2/8"}]}"#, Ok("10.0.0.2/8")),
        (r#""PREVRESULT":{"ips":[{"version":"4","address":"10.0.0.2/8"}]}"#, Ok("10.0.0.2/8")),
        (r#""prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/8"}]}"#, Ok("10.0.0.2/8")),
        (r#""prevResult":{"cniVersion":"5.0.0"}"#, Err(1)),
        (r#""prevResult":{"ips":7}"#, Err(6)),
        (r#""prevResult":[]"#, Err(6)),
    ] {
        let conf = format!(r#"{{"cniVersion":"0.3.1","name":"net",{prev}}}"#);
        let (_, printed) = run_few("ADD", &mut conf.as_bytes());
        match expected {
            Ok(part) => assert!(printed.get("code").is_none() && (part == "{}" || printed.to_string().contains(part))),
            Err(code) => {
                assert_eq!(printed["code"], code, "{printed}");
                assert!(printed["msg"].as_str().unwrap().starts_with("could not parse prevResult: "), "{printed}");
            }
        }
    }
}
