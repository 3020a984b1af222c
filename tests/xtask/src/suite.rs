//! `cargo xtask test`: every test there is, on a machine that had nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;
use tests::bins::{self, Workspace};
use tests::{Host, firewalld, namespace, sandbox};

use crate::{debian, toolchain, vm};

/// Where the behaviour tests have the calls of real clients.
const RECORDED: &str = "tests/tests/behaviour/recorded";

/// What was asked for.
pub struct Options {
    /// The release build instead of the quick one.
    pub release: bool,
    /// The VLAN tests in a virtual machine whatever this kernel can.
    pub vm: bool,
    /// The real clients and nothing else.
    pub clients: bool,
    /// The calls of the clients are recorded anew.
    pub record: bool,
    /// Parts of test names; none means all.
    pub filters: Vec<String>,
}

/// Runs everything; false when a test failed.
pub fn run(options: &Options) -> Result<bool, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err(not_root());
    }
    debian::install(&debian::TOOLS)?;
    let profile = if options.release { "release" } else { "quick" };
    println!("building the plugins ({profile}) ...");
    let plugins = bins::collect(profile, toolchain::musl()?.as_deref())?;
    let workspace = Workspace::read()?;
    let env = environment(&workspace, &plugins)?;

    if options.clients {
        return clients(&workspace, &env, options);
    }
    let mut good = ours(&workspace.root, &env, &options.filters)?;
    if options.filters.is_empty() {
        let mut documentation = bins::cargo(&workspace.root);
        documentation.args(["test", "--quiet", "--workspace", "--doc"]).envs(env.clone());
        good &= status(&mut documentation)?;
    }
    good &= vlan(&workspace, &env, options)?;
    good &= reboots(&workspace, &env, options)?;
    good &= clients(&workspace, &env, options)?;
    println!("{}", if good { "all tests passed" } else { "some tests FAILED" });
    Ok(good)
}

/// What tells a test which binaries to run.
type Environment = [(&'static str, String); 4];

fn environment(workspace: &Workspace, plugins: &Path) -> Result<Environment, String> {
    let newest = match std::env::var(bins::NEWEST_REFERENCE) {
        Ok(named) => named,
        Err(_) => debian::newest_reference(&workspace.target.join("reference"))?.display().to_string(),
    };
    let reference = std::env::var(bins::REFERENCE).unwrap_or_else(|_| bins::DEBIAN.to_owned());
    let firewalld = match std::env::var(firewalld::UNPACKED) {
        Ok(named) => named,
        Err(_) => debian::firewalld(&workspace.target.join("reference"))?.display().to_string(),
    };
    Ok([
        (firewalld::UNPACKED, firewalld),
        (bins::OURS, plugins.display().to_string()),
        (bins::REFERENCE, reference),
        (bins::NEWEST_REFERENCE, newest),
    ])
}

fn not_root() -> String {
    let missing = debian::missing(&debian::TOOLS);
    let packages = match missing.as_slice() {
        [] => String::new(),
        names => format!(", and to install {}", names.join(" ")),
    };
    format!("the tests need root to make network namespaces{packages}; try: sudo env PATH=\"$PATH\" cargo xtask test")
}

fn ours(root: &Path, env: &Environment, filters: &[String]) -> Result<bool, String> {
    // Most of a test's time is waiting: for an answer that must not come, for a shaped stream.
    let threads = format!("--test-threads={}", thread::available_parallelism().map_or(2, |cores| 2 * cores.get()));
    let mut command = bins::cargo(root);
    let nextest = bins::cargo(root).args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if nextest.is_ok_and(|status| status.success()) {
        command.args([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--no-tests=pass",
            "--status-level=slow",
            // Packets get lost where too much runs at once. Once more, and it is named as flaky at the end.
            "--retries=1",
            &threads,
            "--",
        ]);
    } else {
        command.args([
            "test",
            "--quiet",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
            "--",
            &threads,
        ]);
    }
    status(command.args(filters).envs(env.clone()))
}

/// The tests of `vlan`: here, if this kernel has VLAN filtering, else in a machine with Debian's.
fn vlan(workspace: &Workspace, env: &Environment, options: &Options) -> Result<bool, String> {
    let test = executable(&workspace.root, "vlan")?;
    let mut arguments = vec!["--ignored".to_owned()];
    arguments.extend(options.filters.iter().cloned());
    if !has_tests(&test, &arguments)? {
        return Ok(true);
    }
    if !options.vm && kernel_has_vlans() {
        println!("VLAN tests:");
        return status(Command::new(test).args(arguments).envs(env.clone()));
    }
    println!("VLAN tests, in a virtual machine with Debian's kernel:");
    debian::install(&debian::VM)?;
    let machine = vm::Machine::prepare(&workspace.target.join("vm"))?;
    let mut env = env.to_vec();
    env.push(("PATH", namespace::PATH.to_owned()));
    Ok(machine.run(&test, &arguments, &env, &vm::Boot::default())? == 0)
}

/// The tests of `reboot`: each is what happens in one boot of a machine, in the order of their names, and the next has
/// the disk that the last has left. The second boots with a clock that has lost the time.
fn reboots(workspace: &Workspace, env: &Environment, options: &Options) -> Result<bool, String> {
    let test = executable(&workspace.root, "reboot")?;
    let mut arguments = vec!["--ignored".to_owned()];
    arguments.extend(options.filters.iter().cloned());
    if !has_tests(&test, &arguments)? {
        return Ok(true);
    }
    println!("a virtual machine that is rebooted:");
    debian::install(&debian::VM)?;
    let machine = vm::Machine::prepare(&workspace.target.join("vm"))?;
    let disk = machine.disk()?;
    let mut env = env.to_vec();
    env.push(("PATH", namespace::PATH.to_owned()));
    for (boot, clock) in [("first_boot", None), ("second_boot", Some("1970-01-02T00:00:00"))] {
        let arguments = ["--ignored", boot].map(str::to_owned);
        if machine.run(&test, &arguments, &env, &vm::Boot { disk: Some(&disk), clock })? != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The tests of `clients`: container runtimes, each in a machine of its own.
fn clients(workspace: &Workspace, env: &Environment, options: &Options) -> Result<bool, String> {
    let test = executable(&workspace.root, "clients")?;
    let mut arguments = vec!["--ignored".to_owned()];
    arguments.extend(options.filters.iter().cloned());
    if !has_tests(&test, &arguments)? {
        return Ok(true);
    }
    println!("real clients:");
    let packages = debian::clients(&workspace.target.join("clients"))?;
    let mut command = Command::new(test);
    command.args(arguments).env(sandbox::CLIENTS, packages).envs(env.clone());
    if options.record {
        command.env(sandbox::RECORD, workspace.root.join(RECORDED));
    }
    status(&mut command)
}

/// Whether an executable has a test that these arguments choose: a machine that boots for none costs minutes.
fn has_tests(test: &Path, arguments: &[String]) -> Result<bool, String> {
    let listed = Command::new(test).arg("--list").args(arguments).output();
    let listed = listed.map_err(|e| format!("run {}: {e}", test.display()))?;
    Ok(String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.ends_with(": test")))
}

fn kernel_has_vlans() -> bool {
    let host = Host::new();
    drop(host.try_run("ip link add filter type bridge vlan_filtering 1"));
    drop(host.try_run("ip link add link filter name tagged type vlan id 7"));
    let filters = host
        .link("filter")
        .is_some_and(|link| link.pointer("/linkinfo/info_data/vlan_filtering").is_some_and(|value| value == 1));
    filters && host.link("tagged").is_some()
}

/// Builds one test executable of the package `tests` and says where it is.
fn executable(root: &Path, test: &str) -> Result<PathBuf, String> {
    let mut command = bins::cargo(root);
    command.args(["test", "--quiet", "--package", "tests", "--test", test, "--no-run", "--message-format=json"]);
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("run cargo test --no-run: {e}"))?;
    if !output.status.success() {
        return Err(format!("build the test {test}: {}", output.status));
    }
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = messages.filter(|message| message.pointer("/target/name").is_some_and(|name| name == test));
    let path = built.find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)));
    path.ok_or_else(|| format!("cargo does not say where the test {test} is"))
}

fn status(command: &mut Command) -> Result<bool, String> {
    let status = command.status().map_err(|e| format!("run {}: {e}", command.get_program().display()))?;
    Ok(status.success())
}
