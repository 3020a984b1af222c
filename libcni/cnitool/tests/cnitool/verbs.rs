//! The contract of the reference's cnitool (`add`, `check`, `del`, `gc`, `status`), `plugins` and the help.

use crate::node::{Node, RESULT, text};

/// A node with a network of two plugins.
fn node() -> Node {
    let node = Node::new();
    node.plugin("first", &format!("[ $CNI_COMMAND != ADD ] || echo '{RESULT}'"));
    node.plugin("second", &format!("echo a log line >&2; [ $CNI_COMMAND != ADD ] || echo '{RESULT}'"));
    node.conf(
        "10-net.conflist",
        r#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"first"},{"type":"second","capabilities":{"mac":true}}]}"#,
    );
    node
}

/// The id is the reference's for this path.
const TESTING: &str = "cnitool-77383ca0a0715733ca6f /var/run/netns/testing";

#[test]
fn the_verbs() {
    let node = node();
    let add = node.run(&["add", "net", "/var/run/netns/testing"]);
    // Four spaces, no newline, the version of the last plugin; logs of plugins on stderr.
    let result = "{\n    \"cniVersion\": \"1.0.0\",\n    \"ips\": [\n        {\n            \"address\": \"10.1.2.3/24\"\n        }\n    ]\n}";
    assert_eq!((text(&add.stdout).as_str(), text(&add.stderr).as_str()), (result, "a log line\n"));
    assert_eq!(node.calls(), [format!("first ADD {TESTING} eth0"), format!("second ADD {TESTING} eth0")]);
    assert!(node.path("cache/results/net-cnitool-77383ca0a0715733ca6f-eth0").exists());

    for verb in ["check", "status", "del", "del", "gc"] {
        let output = node.run(&[verb, "net", "/var/run/netns/../netns/testing"]);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), ""));
    }
    let calls = node.calls();
    let verbs: Vec<String> = calls.iter().map(|call| call.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    let twice = ["second DEL", "first DEL"];
    assert_eq!(verbs[..4], ["first CHECK", "second CHECK", "first STATUS", "second STATUS"]);
    assert_eq!(
        (&verbs[4..6], &verbs[6..8], &verbs[8..]),
        (&twice.map(String::from)[..], &twice.map(String::from)[..], &["first GC", "second GC"].map(String::from)[..])
    );
    assert_eq!(calls[4], format!("second DEL {TESTING} eth0"));
}

#[test]
fn gc_detaches_all_that_is_remembered() {
    let node = node();
    node.run(&["add", "net", "/a"]);
    node.run(&["add", "net", "/b"]);
    node.calls();
    assert!(node.run(&["gc", "net", "/unused"]).status.success());
    assert_eq!(node.calls().iter().filter(|call| call.contains(" DEL ")).count(), 4);
    assert_eq!(std::fs::read_dir(node.path("cache/results")).unwrap().count(), 0);
    assert!(!std::fs::read_to_string(node.path("stdin")).unwrap().contains("cni.dev"));
}

/// One plugin that has a dry run, one that refuses it as every plugin refuses a command it does not know.
#[test]
fn gc_without_a_namespace_detaches_what_is_gone() {
    let node = node();
    let answer = r#"{"cniVersion":"1.1.0","dryRun":{"changes":["remove rule 7"],"silent":[]}}"#;
    node.plugin("first", &format!("case $CNI_COMMAND in PODWIRE*) echo '{answer}';; ADD) echo '{RESULT}';; esac"));
    let refusal = r#"{"code":4,"msg":"unknown CNI_COMMAND: PODWIRE"}"#;
    node.plugin(
        "second",
        &format!("case $CNI_COMMAND in PODWIRE*) echo '{refusal}'; exit 1;; ADD) echo '{RESULT}';; esac"),
    );
    // The number of a process of the node's own namespace, which no container is in, and a path that is gone.
    for netns in ["/proc/self/ns/net", "/gone"] {
        assert!(node.run(&["add", "net", netns]).status.success());
    }
    node.calls();
    let report = node.run(&["gc", "net", "--dry-run", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let report = &report["networks"][0];
    assert_eq!((report["detach"].as_array().unwrap().len(), &report["errors"]), (2, &serde_json::json!([])));
    assert!(report["remove"].as_array().unwrap().contains(&"remove rule 7".into()), "{report}");
    assert_eq!(report["notKnown"], serde_json::json!(["second: unknown CNI_COMMAND: PODWIRE"]));
    assert!(node.calls().iter().all(|call| call.contains(" PODWIRE_DRY_RUN_")));
    assert_eq!(std::fs::read_dir(node.path("cache/results")).unwrap().count(), 2);

    let done = node.run(&["gc", "net"]);
    assert!(done.status.success() && text(&done.stdout).contains("its namespace /gone is gone"), "{done:?}");
    let verbs: Vec<String> =
        node.calls().iter().map(|call| call.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert!(verbs.ends_with(&["first GC".to_owned(), "second GC".to_owned()]), "{verbs:?}");
}

#[test]
fn the_environment() {
    let node = node();
    let vars = [("CNI_ARGS", "A=1;B=2"), ("CAP_ARGS", r#"{"mac":"0a:00:00:00:00:01","x":1}"#), ("CNI_IFNAME", "net1")];
    assert!(node.run_with(&vars, &["add", "net", "ns"]).status.success());
    let call = &node.calls()[1];
    assert!(call.ends_with(&format!(" {}/ns net1 A=1;B=2", node.0.path().canonicalize().unwrap().display())), "{call}");
    let stdin = std::fs::read_to_string(node.path("stdin")).unwrap();
    assert!(stdin.contains(r#""runtimeConfig":{"mac":"0a:00:00:00:00:01"}"#), "{stdin}");
    // The option is nearer than the variable.
    node.run_with(&vars, &["del", "net", "ns", "-i", "net2"]);
    assert!(node.calls()[0].ends_with("net2 A=1;B=2"));
}

/// The reference prints it; a plugin of before 0.3.0 may have nothing to say.
#[test]
fn a_result_without_an_address_of_the_first_versions() {
    let node = Node::new();
    node.plugin("first", "[ $CNI_COMMAND != ADD ] || echo '{}'");
    node.conf("10-net.conf", r#"{"name":"net","type":"first"}"#);
    let output = node.run(&["add", "net", "/x"]);
    let printed = "{\n    \"cniVersion\": \"0.1.0\",\n    \"dns\": {}\n}";
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), (printed, ""));
}

/// Go's runtime does not inherit this, ours does: every exit status was lost.
#[test]
fn whoever_starts_us_may_ignore_sigchld() {
    let node = node();
    let status = std::process::Command::new("env")
        .args(["--ignore-signal=CHLD", env!("CARGO_BIN_EXE_cnitool"), "add", "net", "/x", "--cache-dir"])
        .arg(node.path("cache"))
        .envs([("NETCONFPATH", node.path("conf")), ("CNI_PATH", node.path("bin"))])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn refusals_are_one_line() {
    let node = node();
    for (vars, args, expected) in [
        (&[][..], &["add"][..], "NET and NETNS are missing: cnitool add NET NETNS"),
        (&[], &["remove", "net", "/x"], "unknown command \"remove\""),
        (&[], &["chekc", "net", "/x"], "unknown command \"chekc\"; did you mean \"check\"?"),
        (&[("CNI_ARGS", "A")], &["add", "net", "/x"], "invalid CNI_ARGS pair \"A\""),
        (&[("CAP_ARGS", "[]")], &["add", "net", "/x"], "CAP_ARGS is not a JSON object"),
        (&[("CAP_ARGS", "{")], &["add", "net", "/x"], "CAP_ARGS is not a JSON object"),
        (&[("CNI_IFNAME", "1234567890123456")], &["add", "net", "/x"], "interface name is too long"),
        (
            &[("CNI_PATH", "")],
            &["add", "net", "/x"],
            "plugin type=\"first\" failed (add): no paths provided; set CNI_PATH to the directories of the plugins, like CNI_PATH=/opt/cni/bin",
        ),
    ] {
        let line = node.refused(vars, args);
        assert!(line.starts_with(expected), "{line}");
    }
    let conf = node.path("conf");
    let expected = format!("no net configuration with name \"absent\" in {}", conf.display());
    assert_eq!(node.refused(&[], &["add", "absent", "/x"]), expected);
    let expected = "no net configurations found in /nowhere";
    assert_eq!(node.refused(&[("NETCONFPATH", "/nowhere")], &["add", "net", "/x"]), expected);
    assert_eq!(node.calls(), [""; 0]);
}

#[test]
fn a_failing_plugin() {
    let node = node();
    node.plugin(
        "second",
        r#"[ $CNI_COMMAND != ADD ] || { printf %s '{"code":11,"msg":"not\nnow"}'; echo why >&2; exit 1; }"#,
    );
    let line = node.refused(&[], &["add", "net", "/x"]);
    assert_eq!(line, r#"plugin type="second" failed (add): not now; stderr: "why""#);
    let verbs: Vec<String> =
        node.calls().iter().map(|call| call.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(verbs, ["first ADD", "second ADD", "second DEL", "first DEL"]);
    node.plugin("second", "echo '{\"code\":11,\"msg\":\"no\"}'; exit 1");
    assert_eq!(node.refused(&[], &["del", "net", "/x"]), "plugin type=\"second\" failed (delete): no");
    assert_eq!(node.refused(&[], &["check", "net", "/x"]), "no; plugin type=\"second\"");
    assert_eq!(node.refused(&[], &["status", "net", "/x"]), "no; plugin type=\"second\"");
}

#[test]
fn help() {
    let node = node();
    for args in [&[][..], &["--help"], &["help"]] {
        let output = node.run(args);
        let overview = text(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty());
        for part in ["validate [FILE|DIR]...", "CNI_PATH", "--ifname", "add NET NETNS", "plugins"] {
            assert!(overview.contains(part), "{part}");
        }
        assert!(overview.lines().all(|line| line.len() <= 100), "{overview}");
    }
    for command in ["add", "check", "del", "gc", "status", "ipam", "validate", "plugins", "help"] {
        let output = node.run(&["help", command]);
        assert!(text(&output.stdout).contains(&format!("Usage: cnitool {command}")));
        assert_eq!(node.run(&[command, "--help"]).stdout, output.stdout);
    }
    assert!(node.refused(&[], &["help", "ad"]).contains("did you mean \"add\"?"));
    assert!(text(&node.run(&["--version"]).stdout).starts_with("cnitool 1."));
}

#[test]
fn what_is_installed() {
    let node = node();
    node.program("old", "echo '{\"code\":4,\"msg\":\"unknown CNI_COMMAND: VERSION\"}'; exit 1");
    node.program("odd", "echo hello");
    std::fs::write(node.path("bin/text"), "").unwrap();
    std::fs::create_dir(node.path("more")).unwrap();
    std::fs::copy(node.path("bin/first"), node.path("more/first")).unwrap();
    let path = format!("{}:{}", node.path("bin").display(), node.path("more").display());
    let output = node.run_with(&[("CNI_PATH", &path)], &["plugins"]);
    let table = text(&output.stdout).replace(&node.0.path().display().to_string(), "");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let cells: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
    assert_eq!(
        cells[..3],
        [
            "PLUGIN DIRECTORY VERSIONS",
            "first /bin 0.3.1 to 1.1.0",
            "odd /bin no answer: decoding version info: expected value at line 1 column 1"
        ]
    );
    assert_eq!(
        cells[3..],
        [
            "old /bin 0.1.0",
            "second /bin 0.3.1 to 1.1.0",
            "text /bin not executable",
            "first /more hidden by the one in /bin"
        ]
    );
    assert!(output.status.success());
    assert_eq!(node.run_with(&[("CNI_PATH", "/nowhere")], &["plugins"]).status.code(), Some(1));
}
