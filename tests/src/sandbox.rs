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
use crate::echo::Echo;
use crate::namespace::{Namespace, PATH, number, run};
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

/// Where the control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";

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
    if env::var_os(INSIDE).is_some() {
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

/// A control group in every hierarchy, the first half of a namespace.
#[derive(Debug)]
struct Groups(Vec<PathBuf>);

impl Groups {
    /// Makes them, and removes those of tests that were killed.
    fn create() -> Self {
        let name = format!("podwire-{}-{}", std::process::id(), number());
        let roots = hierarchies().into_iter().map(|(path, _)| path);
        Self(roots.map(|root| Self::create_below(&root, &name)).collect())
    }

    fn create_below(root: &Path, name: &str) -> PathBuf {
        remove_abandoned(root);
        let group = root.join(name);
        let both = [group.clone(), group.join("init")];
        if let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers")) {
            pass_on(root, &controllers);
        }
        for group in &both {
            fs::create_dir(group).unwrap_or_else(|e| panic!("make the control group {}: {e}", group.display()));
            // A group of v1 takes no process before it has processors and memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read(root.join(file)) {
                    drop(fs::write(group.join(file), value));
                }
            }
        }
        drop(fs::write(group.join("cgroup.clone_children"), "1"));
        group
    }

    fn names(&self) -> String {
        self.0.iter().map(|group| group.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    /// The kernel needs a moment to end what was inside.
    fn remove(&self) {
        for group in &self.0 {
            wait_for(&format!("the end of the control group {}", group.display()), || {
                remove_tree(group);
                if group.exists() { Err("it is in use".to_owned()) } else { Ok(()) }
            });
        }
    }
}

/// Of two worlds only the older one: container runtimes do not take a mixture.
fn hierarchies() -> Vec<(PathBuf, String)> {
    let mounts = fs::read_to_string("/proc/mounts").expect("read /proc/mounts");
    let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let of_kind = |kind: &'static str| {
        let of_kind = lines.clone().filter(move |line| line[2] == kind && line[1].starts_with(CGROUPS));
        of_kind.map(|line| (PathBuf::from(line[1]), line[3].to_owned())).collect::<Vec<_>>()
    };
    let old = of_kind("cgroup");
    let all = if old.is_empty() { of_kind("cgroup2") } else { old };
    assert!(!all.is_empty(), "no control groups below {CGROUPS}");
    all
}

/// The options of a mounted v1 hierarchy that say which one it is.
fn controllers(options: &str) -> String {
    const OF_ANY_MOUNT: [&str; 6] = ["rw", "ro", "relatime", "nosuid", "nodev", "noexec"];
    options.split(',').filter(|option| !OF_ANY_MOUNT.contains(option)).collect::<Vec<_>>().join(",")
}

/// Lets the children of a v2 group have its controllers, as far as they can be had.
fn pass_on(group: &Path, controllers: &str) {
    for controller in controllers.split_whitespace() {
        drop(fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")));
    }
}

fn remove_abandoned(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix("podwire-").and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(process).exists() {
            remove_tree(&entry.path());
        }
    }
}

fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path());
    }
    drop(fs::remove_dir(group));
}

/// The first thing inside: the file systems of the machine.
fn lay_out(suites: &[&str]) -> Sandbox {
    let packages =
        env::var_os(CLIENTS).unwrap_or_else(|| panic!("{CLIENTS} is not set; try cargo xtask test --clients"));
    let layers: Vec<PathBuf> = suites.iter().map(|suite| Path::new(&packages).join(suite)).collect();
    mount_memory("/run");
    make(&[OUTSIDE, "/run/etc", "/run/work", "/run/netns", "/run/lock"]);
    bind("/", OUTSIDE, MsFlags::MS_REC);
    overlay("usr", &layers, "");
    overlay("etc", &layers, ",upperdir=/run/etc,workdir=/run/work");
    mount_kernel();
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

fn make(directories: &[&str]) {
    for directory in directories {
        fs::create_dir_all(directory).unwrap_or_else(|e| panic!("make {directory}: {e}"));
    }
}

/// /sys of the new network namespace, and the control groups as the new namespace shows them.
fn mount_kernel() {
    let hierarchies = hierarchies();
    mount_new("sysfs", "/sys", "");
    if hierarchies.iter().all(|(path, _)| path == Path::new(CGROUPS)) {
        mount_new("cgroup2", CGROUPS, "");
        pass_on(Path::new(CGROUPS), &fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default());
        return;
    }
    mount_memory(CGROUPS);
    for (path, options) in hierarchies {
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
        mount_new("cgroup", &path.display().to_string(), &controllers(&options));
    }
}

/// Shows a top directory of the unpacked packages over the machine's own.
fn overlay(top: &str, layers: &[PathBuf], options: &str) {
    let own = [PathBuf::from("/")];
    let directories = layers.iter().chain(&own).map(|layer| layer.join(top)).filter(|path| path.is_dir());
    let directories: Vec<String> = directories.map(|path| path.display().to_string().replace(':', "\\:")).collect();
    mount_new("overlay", &format!("/{top}"), &format!("lowerdir={}{options}", directories.join(":")));
}

fn mount_memory(path: &str) {
    mount_new("tmpfs", path, if path == "/tmp" { "mode=1777" } else { "mode=755" });
}

fn mount_new(kind: &str, path: &str, options: &str) {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), Some(options))
        .unwrap_or_else(|e| panic!("mount {kind} ({options}) on {path}: {e}"));
}

fn bind(from: &str, to: &str, flags: MsFlags) {
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND | flags, none).unwrap_or_else(|e| panic!("show {from} as {to}: {e}"));
}
