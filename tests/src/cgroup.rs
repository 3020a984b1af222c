//! The control groups of a sandbox, in cgroup v1 or v2: made outside, rooted by a namespace, mounted inside, removed
//! outside. A container runtime makes its own below them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::namespace::number;
use crate::sandbox::{mount_memory, mount_new, wait_for};

/// Where they are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A control group in every hierarchy, the first half of a namespace.
#[derive(Debug)]
pub(crate) struct Groups(Vec<PathBuf>);

impl Groups {
    /// Makes them, and removes those of tests that were killed.
    pub(crate) fn create() -> Self {
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

    pub(crate) fn names(&self) -> String {
        self.0.iter().map(|group| group.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    /// The kernel needs a moment to end what was inside.
    pub(crate) fn remove(&self) {
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

/// Shows the control groups inside as the new namespace has them.
pub(crate) fn mount_all() {
    let hierarchies = hierarchies();
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
