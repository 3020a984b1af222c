//! A machine of its own for programs of others that want a whole one: containerd, podman.
//!
//! A test of theirs runs twice. The first time, outside, it makes a control group, starts its own executable for this one
//! test in new pid, mount, network, uts, ipc and cgroup namespaces, and waits. The second time, inside, it lays out the
//! machine and tells its story, where everything may be touched: when the story ends, or anybody who waits for it dies,
//! the kernel ends every process inside, and with them mounts, links and rules. Nothing is ever killed by name.
//!
//! The programs come from Debian's packages, which are unpacked, not installed: a read-only overlay shows them at their
//! own paths, over this machine's /usr and /etc. /run, /var, /opt, /tmp and /root are empty.

use std::any::type_name;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use crate::Internet;
use crate::cgroup::{self, Groups};
use crate::echo::Echo;
use crate::namespace::{Namespace, PATH, run};
use crate::state::State;

/// Names the directory with the unpacked packages; `cargo xtask test` sets it. Below it is a directory for every suite.
pub const CLIENTS: &str = "PODWIRE_CLIENTS_DIR";

/// Names the directory that the calls of clients go to, if they are to be recorded.
pub const RECORD: &str = "PODWIRE_RECORD_DIR";

/// Set for the second run, inside.
const INSIDE: &str = "PODWIRE_SANDBOX";

/// Seconds after which a sandbox is ended, whatever it does.
const DEADLINE: &str = "240";

/// Where a sandbox shows the file systems as they were.
const OUTSIDE: &str = "/run/outside";

/// From a shell to pid 1 of a sandbox. A control group namespace shows the group that one was in when it was made; then
/// on to a child of it, because in cgroup v2 only leaves hold processes. Pid 1 is a shell because it reaps orphans.
const ENTER: &str = r#"
for group in $SANDBOX_GROUPS; do echo 0 >$group/cgroup.procs || exit 125; done
exec unshare --cgroup -- bash -c '
for group in $SANDBOX_GROUPS; do echo 0 >$group/init/cgroup.procs || exit 125; done
exec setpriv --pdeathsig KILL unshare --mount --pid --net --uts --ipc --fork --kill-child --mount-proc \
    --propagation private -- bash -c "\"\$@\"; exit \$?" init "$@"' enter "$@""#;

/// The machine, for those who are inside.
#[derive(Debug)]
pub struct Sandbox {
    namespace: Namespace,
}

impl Sandbox {
    /// Where plugins are: an empty directory, shown in every place where a client may look.
    pub const PLUGINS: &str = "/opt/cni/bin";
    /// Where configuration lists are looked for.
    pub const CONF: &str = "/etc/cni/net.d";
    /// The state of plugins and runtimes.
    pub const STORE: &str = "/var/lib/cni";

    /// Where a file of the machine outside is: what is built or unpacked may lie below a directory that is covered.
    pub fn outside(&self, path: &Path) -> PathBuf {
        Path::new(OUTSIDE).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Puts an internet behind the machine and makes the machine forward.
    pub fn internet(&self) -> Internet {
        Internet::create(self)
    }

    /// A new echo server in a network namespace of this machine.
    pub fn listen(&self, place: &Namespace, port: u16) -> Echo {
        Echo::on(place, port)
    }

    /// What there is now: links, addresses, routes, rules, sysctls, files.
    pub fn state(&self) -> State {
        State::of_node(self, Path::new(Self::STORE))
    }
}

impl Deref for Sandbox {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// Runs `story` in a sandbox. It must be a closure that stands in a test function, which is the one that is run again.
/// `suites` are the directories of packages, what shall be seen first is first. Lines that the story prints
/// with [`tell`] are shown here; all that it prints is in the panic if it fails.
///
/// # Panics
/// When the story does, when it cannot be told, or when something is left of the sandbox.
#[track_caller]
pub fn run_inside<F: FnOnce(&Sandbox)>(suites: &[&str], story: F) {
    if is_inside() {
        story(&lay_out(suites));
        return;
    }
    let test = test_of::<F>();
    let groups = Groups::create();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "timeout", "--signal=KILL", DEADLINE, "bash", "-c", ENTER, "enter"]);
    command.arg(env::current_exe().expect("this executable"));
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.env(INSIDE, "1").env("SANDBOX_GROUPS", groups.names()).env("PATH", PATH).stdin(Stdio::null());
    let output = command.output().expect("run setpriv (util-linux)");
    groups.remove();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for line in said.lines().filter(|line| line.starts_with(TOLD)) {
        drop(writeln!(io::stderr(), "{line}")); // past the harness, which shows no output of a test that passes
    }
    assert!(output.status.success(), "{test} in its sandbox: {}\n{said}", output.status);
    assert!(said.contains(" 1 passed"), "{test} did not run in its sandbox\n{said}");
}

/// Whether this is the second run of a test.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

const TOLD: &str = "client: ";

/// Says something that is shown also when the test passes: the version of a client.
pub fn tell(text: &str) {
    drop(writeln!(io::stderr(), "{TOLD}{}", text.trim()));
}

/// Waits for something that nobody announces. Panics with why it is not so yet after a time in which every machine
/// has done it.
#[track_caller]
pub fn wait_for<T>(what: &str, mut happened: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match happened() {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < end, "waited in vain for {what}: {why}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The test that a closure stands in: `crate::module::test::{{closure}}` without its ends.
fn test_of<F>() -> &'static str {
    let name = type_name::<F>();
    let name = name.strip_suffix("::{{closure}}").unwrap_or_else(|| panic!("{name} is no closure"));
    name.split_once("::").map_or(name, |(_, path)| path)
}

/// The first thing inside: the file systems of the machine.
fn lay_out(suites: &[&str]) -> Sandbox {
    let layers: Vec<PathBuf> = suites.iter().map(|suite| packages().join(suite)).collect();
    mount_memory("/run");
    make(&[OUTSIDE, "/run/etc", "/run/work", "/run/netns", "/run/lock"]);
    bind("/", OUTSIDE, MsFlags::MS_REC);
    overlay("usr", &layers, "");
    overlay("etc", &layers, ",upperdir=/run/etc,workdir=/run/work");
    mount_new("sysfs", "/sys", ""); // of the new network namespace
    cgroup::mount_all();
    for directory in ["/var", "/opt", "/tmp", "/root"] {
        mount_memory(directory);
    }
    symlink("/run", "/var/run").expect("make /var/run");
    make(&["/var/tmp", "/etc/cni", Sandbox::STORE, Sandbox::PLUGINS]);
    mount_memory("/etc/cni"); // podman's package has a network of its own
    make(&[Sandbox::CONF]);
    // ctr and podman also look there: a plugin that we lack would silently be Debian's.
    for place in ["/usr/lib/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/local/libexec/cni"] {
        if Path::new(place).is_dir() {
            bind(Sandbox::PLUGINS, place, MsFlags::empty());
        }
    }
    run("hostname node");
    run("ip link set lo up");
    Sandbox { namespace: Namespace::here() }
}

fn packages() -> PathBuf {
    let named = env::var_os(CLIENTS);
    named.unwrap_or_else(|| panic!("{CLIENTS} is not set; try cargo xtask test --clients")).into()
}

fn make(directories: &[&str]) {
    for directory in directories {
        fs::create_dir_all(directory).unwrap_or_else(|e| panic!("make {directory}: {e}"));
    }
}

/// Shows a top directory of the unpacked packages over the machine's own.
fn overlay(top: &str, layers: &[PathBuf], options: &str) {
    if layers.is_empty() && options.is_empty() {
        return; // nothing to show, and nothing is written
    }
    let own = [PathBuf::from("/")];
    let directories = layers.iter().chain(&own).map(|layer| layer.join(top)).filter(|path| path.is_dir());
    let directories: Vec<String> = directories.map(|path| path.display().to_string().replace(':', "\\:")).collect();
    mount_new("overlay", &format!("/{top}"), &format!("lowerdir={}{options}", directories.join(":")));
}

pub(crate) fn mount_memory(path: &str) {
    mount_new("tmpfs", path, if path == "/tmp" { "mode=1777" } else { "mode=755" });
}

pub(crate) fn mount_new(kind: &str, path: &str, options: &str) {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), Some(options))
        .unwrap_or_else(|e| panic!("mount {kind} ({options}) on {path}: {e}"));
}

fn bind(from: &str, to: &str, flags: MsFlags) {
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND | flags, none).unwrap_or_else(|e| panic!("show {from} as {to}: {e}"));
}
