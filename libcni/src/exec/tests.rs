//! The reference's checklist "raw exec", "exec", "delegate", "timeouts", "invoke args" with scripts for plugins,
//! and its weaknesses 2 and 13 to 16.
//!
//! Not here: "decode called", "default executor used if none" (there is no exchangeable executor); "appends if absent",
//! "inherited = nil env" (how Go builds an environment; std does it here). "find" is in `find`; its "extension hit" is of
//! Windows, and so not here: a Linux plugin's name is its type.

use std::time::{Duration, Instant};

use super::delegate::Delegate;
use super::fake::Plugins;
use super::*;
use crate::plugin::Command;

fn invoke(plugins: &Plugins, stdin: &[u8], deadline: Duration) -> Result<Vec<u8>, Box<Failure>> {
    let program = plugins.dir().join("fake");
    let vars = vec![("CNI_IFNAME", "eth0".into()), ("CNI_PATH", "/first".into()), ("CNI_PATH", "/second".into())];
    Invocation { program, verb: Command::Add, vars, netns_override: false, stdin, deadline }.run()
}

fn run(script: &str) -> Result<Vec<u8>, Box<Failure>> {
    let plugins = Plugins::new();
    plugins.create_bare("fake", script);
    invoke(&plugins, b"", Duration::from_secs(20))
}

#[test]
fn stdin_and_environment_go_in_and_stdout_comes_out() {
    let plugins = Plugins::new();
    plugins.create("fake", "echo '{\"a\":1}'");
    assert_eq!(invoke(&plugins, b"hello", Duration::from_secs(20)).unwrap(), b"{\"a\":1}\n");
    assert_eq!(plugins.calls(), ["fake ADD"]);
    assert_eq!(plugins.stdin("fake", "ADD"), "hello");
    assert_eq!(plugins.var("fake", "ADD", "CNI_IFNAME").as_deref(), Some("eth0"));
    assert_eq!(plugins.var("fake", "ADD", "CNI_PATH").as_deref(), Some("/second"));
    assert_eq!(plugins.var("fake", "ADD", "PATH"), std::env::var("PATH").ok());
    assert_eq!(plugins.var("fake", "ADD", "CNI_NETNS_OVERRIDE"), None);
}

#[test]
fn big_input_and_output_at_once() {
    let plugins = Plugins::new();
    plugins.create_bare("fake", "cat");
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| b'a' + u8::try_from(i % 26).unwrap()).collect();
    assert!(invoke(&plugins, &big, Duration::from_secs(30)).unwrap() == big);
    // A plugin that never reads is as good as another.
    plugins.create_bare("fake", "echo '{}'");
    assert_eq!(invoke(&plugins, &big, Duration::from_secs(30)).unwrap(), b"{}\n");
}

#[test]
fn failures_in_the_references_words() {
    for (script, code, msg) in [
        ("exit 3", 0, "netplugin failed with no error message: exit status 3"),
        ("kill -9 $$", 0, "netplugin failed with no error message: killed by signal 9"),
        ("echo oops >&2; exit 1", 0, "netplugin failed: \"oops\": exit status 1"),
        ("echo '{\"code\":11,\"msg\":\"later\"}'; echo log >&2; exit 1", 11, "later"),
        ("echo '{}'; exit 4", 0, "netplugin failed with no error message: exit status 4"),
        (
            "echo nonsense; exit 1",
            0,
            "netplugin failed but error parsing its diagnostic message \"nonsense\": expected ident at line 1 column 2",
        ),
        (
            "echo '[]'; exit 1",
            0,
            "netplugin failed but error parsing its diagnostic message \"[]\": not an error object",
        ),
    ] {
        let failure = run(script).unwrap_err();
        assert_eq!((failure.error().code().0, failure.error().msg()), (code, msg));
        assert_eq!((failure.plugin(), failure.verb(), failure.status().is_some()), ("fake", Command::Add, true));
    }
}

/// Weaknesses 15 and 16 of the reference: stderr and exit status are lost.
#[test]
fn an_error_says_who_and_what_the_plugin_wrote() {
    let error: Error =
        run("echo '{\"code\":11,\"msg\":\"later\",\"details\":\"d\"}'; echo why >&2; exit 1").unwrap_err().into();
    assert_eq!(error.to_string(), "later; d; stderr: \"why\"");
    let error: Error = run("echo why >&2; exit 7").unwrap_err().into();
    assert_eq!(error.msg(), "netplugin failed: \"why\": exit status 7");
    assert!(error.details().starts_with("fake ADD after 0."), "{error}");
}

#[test]
fn what_cannot_be_started() {
    let plugins = Plugins::new();
    let error = invoke(&plugins, b"", Duration::from_secs(5)).unwrap_err();
    assert!(error.error().msg().starts_with("failed to start plugin: exec /"), "{error}");
    assert_eq!(error.error().code(), Code::INTERNAL);
    assert!(error.error().msg().contains("No such file"), "{error}");
    std::fs::write(plugins.dir().join("fake"), "not a program").unwrap();
    assert!(invoke(&plugins, b"", Duration::from_secs(5)).unwrap_err().error().msg().contains("Permission denied"));
}

#[test]
fn the_deadline_kills_the_plugin_and_its_family() {
    let plugins = Plugins::new();
    // One descendant in the plugin's group, one in a session and group of its own.
    plugins.create_bare(
        "fake",
        "cd $(dirname $0)\nsleep 60 & echo $! >a\nsetsid sh -c 'echo $$ >b; exec sleep 60' &\necho working >&2\nwait",
    );
    let started = Instant::now();
    let failure = invoke(&plugins, b"", Duration::from_millis(1500)).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(failure.error().msg(), "netplugin failed: \"working\": killed: it did not end within 1.5s");
    for name in ["a", "b"] {
        let pid = std::fs::read_to_string(plugins.dir().join(name)).unwrap();
        assert!(gone(pid.trim()), "{name} lives on");
    }
    plugins.create_bare("fake", "exec sleep 60");
    let failure = invoke(&plugins, b"", Duration::from_millis(100)).unwrap_err();
    assert!(failure.error().msg().starts_with("netplugin failed with no error message"), "{failure}");
    // A plugin that has closed its pipes is not forgotten.
    plugins.create_bare("fake", "exec sleep 60 <&- >&- 2>&-");
    assert!(invoke(&plugins, b"", Duration::from_millis(100)).unwrap_err().status().is_none());
}

/// Whether a process has ended; an orphan may stay a zombie for as long as its new parent likes.
fn gone(pid: &str) -> bool {
    let ended = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z")
    };
    (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        ended()
    })
}

/// Weakness 14 of the reference: a daemon that inherited stdout blocks the caller.
#[test]
fn a_daemon_that_holds_stdout_does_not_block() {
    let started = Instant::now();
    assert_eq!(run("sleep 5 & echo '{}'").unwrap(), b"{}\n");
    assert!(started.elapsed() < Duration::from_secs(3));
    // Nor does a helper that is a moment late lose its words.
    assert_eq!(run("(sleep 0.03; echo late) & echo early").unwrap(), b"early\nlate\n");
}

#[test]
fn output_is_bounded() {
    let failure = run("exec cat /dev/zero").unwrap_err();
    assert!(failure.error().msg().contains("more than 10 MiB"), "{failure}");
    let failure = run("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1").unwrap_err();
    assert_eq!(failure.stderr().len(), (64 << 10) - 1);
    assert!(failure.stderr().ends_with("xthe end") && failure.error().msg().len() < 5000);
}

/// Weakness 2 of the reference: its retry fails, and when it is exhausted the call succeeds.
#[test]
fn a_program_that_is_being_written_is_waited_for() {
    let plugins = Plugins::new();
    let program = plugins.create_bare("fake", "echo '{}'");
    let writer = std::fs::OpenOptions::new().append(true).open(&program).unwrap();
    let failure = invoke(&plugins, b"", Duration::from_millis(300)).unwrap_err();
    assert!(failure.error().msg().to_lowercase().contains("text file busy"), "{failure}");
    let installer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(writer);
    });
    assert_eq!(invoke(&plugins, b"", Duration::from_secs(20)).unwrap(), b"{}\n");
    installer.join().unwrap();
}

#[test]
fn results_of_any_version() {
    let version = |text: &str, assumed| decode_result(text.as_bytes(), assumed).unwrap().0;
    assert_eq!(version("{}", Version::V0_3_1), Version::V0_3_1);
    assert_eq!(version(r#"{"cniVersion":""}"#, Version::V1_0_0), Version::V1_0_0);
    assert_eq!(version(r#"{"cniVersion":"0.4.0"}"#, Version::V1_0_0), Version::V0_4_0);
    for bad in ["", "\n", "[]", "\"x\"", "{", r#"{"cniVersion":"0.4567.0"}"#] {
        assert!(decode_result(bad.as_bytes(), Version::V1_0_0).is_err(), "{bad}");
    }
}

fn delegate<'a>(path: &'a [std::path::PathBuf]) -> Delegate<'a> {
    let (version, deadline) = (Version::V1_0_0, Duration::from_secs(2));
    Delegate { plugin_type: "fake", path, stdin: b"the request", version, deadline }
}

#[test]
fn a_delegate_gets_our_environment_and_our_request() {
    let plugins = Plugins::new();
    plugins.create("fake", r#"echo '{"ips":[{"address":"10.0.0.2/24"}]}'"#);
    let path = plugins.path();
    let success = delegate(&path).add().unwrap();
    assert_eq!(success.ips[0].address.to_string(), "10.0.0.2/24");
    for (verb, name) in
        [(Command::Del, "DEL"), (Command::Check, "CHECK"), (Command::Status, "STATUS"), (Command::Gc, "GC")]
    {
        delegate(&path).call(verb).unwrap();
        assert_eq!(plugins.var("fake", name, "CNI_COMMAND").as_deref(), Some(name));
        assert_eq!(plugins.stdin("fake", name), "the request");
    }
    assert_eq!(plugins.var("fake", "ADD", "PATH"), std::env::var("PATH").ok());
    assert_eq!(plugins.calls(), ["fake ADD", "fake DEL", "fake CHECK", "fake STATUS", "fake GC"]);
    // Our own environment is not changed.
    assert_eq!(std::env::var_os("CNI_COMMAND"), None);
}

/// In a process of its own, whose runtime has called it for something else: the environment of this one is every test's.
#[test]
fn a_foreign_command_is_overridden_in_the_child_only() {
    let Ok(foreign) = std::env::var("CNI_COMMAND") else {
        let name = "exec::tests::a_foreign_command_is_overridden_in_the_child_only";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let again = again.args(["--exact", name]).env("CNI_COMMAND", "FOREIGN").env("CNI_IFNAME", "eth7").output();
        let said = String::from_utf8(again.unwrap().stdout).unwrap();
        assert!(said.contains("1 passed"), "{said}");
        return;
    };
    let plugins = Plugins::new();
    plugins.create("fake", "");
    let path = plugins.path();
    for (verb, name) in [(Command::Del, "DEL"), (Command::Check, "CHECK"), (Command::Status, "STATUS")] {
        delegate(&path).call(verb).unwrap();
        assert_eq!(plugins.var("fake", name, "CNI_COMMAND").as_deref(), Some(name));
        assert_eq!(plugins.var("fake", name, "CNI_IFNAME").as_deref(), Some("eth7"));
    }
    assert_eq!((foreign.as_str(), std::env::var("CNI_COMMAND").as_deref()), ("FOREIGN", Ok("FOREIGN")));
}

#[test]
fn a_delegate_whose_add_fails_is_told_to_del() {
    let plugins = Plugins::new();
    let path = plugins.path();
    for (script, error) in [
        ("[ $CNI_COMMAND = DEL ] || { echo '{\"code\":11,\"msg\":\"full\"}'; exit 1; }", "full"),
        ("[ $CNI_COMMAND = DEL ] || echo nonsense", "failed to read the plugin's result: "),
        ("[ $CNI_COMMAND = DEL ] || exec sleep 30", "killed: it did not end within 2s"),
        ("echo '{\"msg\":\"no\"}'; exit 1", "no; fake ADD after 0"),
    ] {
        plugins.create("fake", script);
        let found = delegate(&path).add().unwrap_err();
        assert!(found.to_string().contains(error), "{found}");
        assert_eq!(plugins.calls(), ["fake ADD", "fake DEL"]);
    }
    let both = delegate(&path).add().unwrap_err();
    assert!(both.details().contains("DEL after the failed ADD failed too: no"), "{both}");
    let missing = Delegate { plugin_type: "absent", ..delegate(&path) }.add().unwrap_err();
    assert!(missing.msg().starts_with("failed to find plugin \"absent\""), "{missing}");
}

#[test]
fn a_begun_add_works_beside_its_caller() {
    let plugins = Plugins::new();
    let path = plugins.path();
    let here = plugins.dir().join("here");
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", here.display());
    plugins.create("fake", &format!("{wait}; echo '{{\"cniVersion\":\"1.0.0\",\"ips\":[]}}'"));
    let begun = delegate(&path).begin_add().unwrap();
    // It waits for what its caller does now.
    std::fs::write(&here, "").unwrap();
    assert!(begun.end().unwrap().ips.is_empty());
    assert_eq!(plugins.calls(), ["fake ADD"]);
}

/// Whoever fails meanwhile does not leave it at work; to take back what it did is the caller's.
#[test]
fn a_begun_add_is_waited_for() {
    let plugins = Plugins::new();
    let path = plugins.path();
    let done = plugins.dir().join("done");
    plugins.create("fake", &format!("sleep 0.3; echo >{}", done.display()));
    drop(delegate(&path).begin_add().unwrap());
    assert!(done.exists());
    assert_eq!(plugins.calls(), ["fake ADD"]);
}
