//! A host: what a node is to a plugin. Its own network, its own /run and its own /var/lib/cni.

use std::fs::{self, File};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use tempfile::TempDir;

use crate::echo::Echo;
use crate::namespace::{Namespace, number};
use crate::plugin::{Cnitool, Plugin};
use crate::pod::Pod;
use crate::state::State;
use crate::{Internet, bins};

const STORE: &str = "/var/lib/cni";

/// A node of the lab. Everything of it is gone when the last handle is dropped, or the process dies.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    directory: TempDir,
}

impl Host {
    /// A host with only `lo`, an empty /var/lib/cni, and a /run of its own (so no firewalld, no locks of others).
    #[expect(clippy::new_without_default, reason = "it makes kernel objects; a default does not")]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("podwire-lab-").tempdir().expect("make a temporary directory");
        let store = directory.path().join("cni");
        fs::create_dir(&store).expect("make the store");
        let namespace = Namespace::create(|| {
            // Held open: it may lie below a directory that is covered now.
            let held = File::open(&store).expect("open the store");
            let none: Option<&str> = None;
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).expect("mount /run");
            fs::create_dir_all("/run/netns").expect("make /run/netns");
            fs::create_dir_all("/run/lock").expect("make /run/lock");
            provide_directory(Path::new(STORE), Path::new("/run/lab-layer"));
            let held = format!("/proc/thread-self/fd/{}", held.as_raw_fd());
            mount(Some(held.as_str()), STORE, none, MsFlags::MS_BIND, none).expect("put the store on /var/lib/cni");
        });
        Self { namespace, directory }
    }

    /// As `update-alternatives --set iptables /usr/sbin/iptables-legacy`, in the host's own mount namespace.
    pub fn choose_legacy(&self) {
        let directory = Path::new("/etc/alternatives");
        self.enter(|| {
            let entries = fs::read_dir(directory).expect("read the alternatives").flatten();
            let links: Vec<_> = entries.filter_map(|e| Some((e.file_name(), fs::read_link(e.path()).ok()?))).collect();
            let none: Option<&str> = None;
            mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), none).expect("cover the alternatives");
            for (name, target) in links {
                let target = target.to_string_lossy().replace("/iptables-nft", "/iptables-legacy");
                let target = target.replace("/ip6tables-nft", "/ip6tables-legacy");
                symlink(&target, directory.join(name)).unwrap_or_else(|e| panic!("link to {target}: {e}"));
            }
        });
        for program in
            ["iptables", "iptables-restore", "iptables-save", "ip6tables", "ip6tables-restore", "ip6tables-save"]
        {
            let version = self.run(&format!("{program} --version"));
            assert!(version.contains("legacy"), "{program}: {version}");
        }
    }

    /// A new pod: an empty network namespace at /run/netns/... of this host.
    pub fn pod(&self) -> Pod {
        Pod::create(&self.namespace, &format!("cni-{}-{}", std::process::id(), number()))
    }

    /// Puts an internet behind this host and makes the host forward.
    pub fn internet(&self) -> Internet {
        Internet::create(&self.namespace)
    }

    /// A new echo server in this host's network.
    pub fn listen(&self) -> Echo {
        Echo::start(&self.namespace)
    }

    /// Our plugin of that name; it finds its IPAM plugin among ours.
    pub fn plugin(&self, name: &str) -> Plugin<'_> {
        Plugin::new(self, &bins::directory(), name)
    }

    /// The reference's plugin of that name; it finds its IPAM plugin among the reference's.
    pub fn reference(&self, name: &str) -> Plugin<'_> {
        self.references(name).swap_remove(0)
    }

    /// The same in every version of the reference that is there: Debian's, and under `cargo xtask test` the newest.
    pub fn references(&self, name: &str) -> Vec<Plugin<'_>> {
        bins::reference_directories().iter().map(|directory| Plugin::new(self, directory, name)).collect()
    }

    /// Our cnitool with the configuration lists of a directory.
    pub fn cnitool(&self, conf_dir: &Path) -> Cnitool<'_> {
        Cnitool::new(self, conf_dir)
    }

    /// What there is now: links, addresses, routes, rules, sysctls, files.
    pub fn state(&self) -> State {
        State::of_host(self)
    }

    /// This host's /var/lib/cni, as seen from outside (the test). Inside it is [`Host::STORE`].
    pub fn store(&self) -> PathBuf {
        self.directory.path().join("cni")
    }

    /// Where a plugin on this host sees [`Host::store`].
    pub const STORE: &str = STORE;
}

impl Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// A directory to mount something on. Where it cannot be made (an ordinary user), its parent is laid out once more in
/// `layer`, a directory in memory, with the same entries and this one more. Nobody may ever clear `layer` by walking it:
/// the entries are the machine's own.
fn provide_directory(path: &Path, layer: &Path) {
    let parent = path.parent().expect("a path with a parent");
    if path.is_dir() || fs::create_dir(path).is_ok() {
        return;
    }
    let none: Option<&str> = None;
    fs::create_dir(layer).unwrap_or_else(|e| panic!("make {}: {e}", layer.display()));
    for entry in fs::read_dir(parent).unwrap_or_else(|e| panic!("read {}: {e}", parent.display())).flatten() {
        let place = layer.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::create_dir(&place).expect("make a mount point"),
            Ok(kind) if kind.is_file() => fs::write(&place, "").expect("make a mount point"),
            _ => continue,
        }
        mount(Some(&entry.path()), &place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
            .unwrap_or_else(|e| panic!("show {} again: {e}", entry.path().display()));
    }
    mount(Some(layer), parent, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .unwrap_or_else(|e| panic!("cover {}: {e}", parent.display()));
    fs::create_dir(path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
}
