//! What this node has now: links that say whose they are, and the addresses in every network namespace that can be
//! found. A namespace is found by a process in it, or where it is mounted, in whichever mount namespace.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hostnet::ifb;
use hostnet::link::{self, Link};
use hostnet::netns::Netns;
use hostnet::tc::redirect;
use hostnet::{Error, Netlink, Owner, addr};

use super::view;

/// Device and inode of a namespace.
pub type Id = (u64, u64);

/// A network namespace, not the node's own.
pub struct Space {
    pub path: PathBuf,
    /// Each with the name of its interface; those of the loopback interface and link-local ones are left out.
    pub addresses: Vec<(IpAddr, String)>,
    pub links: Vec<Link>,
}

impl Space {
    /// The namespace that a path leads to.
    ///
    /// # Errors
    /// To none that can be entered.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let mut pod = Netlink::open_in(Netns::open(path)?)?;
        let links = link::list(&mut pod)?;
        Ok(Self { path: path.to_owned(), addresses: addresses(&mut pod, &links)?, links })
    }
}

/// The node.
#[derive(Default)]
pub struct Node {
    /// Links of this namespace.
    pub links: Vec<Link>,
    /// Addresses of this namespace, as [`Space::addresses`] has them.
    pub addresses: Vec<(IpAddr, String)>,
    pub owners: HashMap<Owner, String>,
    pub own: Option<Id>,
    pub spaces: BTreeMap<Id, Space>,
    /// Where namespaces are mounted, as those see it who have them there, and the way to each from here.
    mounted: Vec<(PathBuf, PathBuf)>,
    /// Links of kind ifb that the bandwidth plugin made, and that nothing sends packets to.
    pub idle_ifbs: Vec<Link>,
}

/// The namespace that a path leads to, if it does.
pub fn id_of(path: &Path) -> Option<Id> {
    let (file, own) = (fs::metadata(path).ok()?, fs::metadata("/proc/self/ns/net").ok()?);
    (file.dev() == own.dev()).then_some((file.dev(), file.ino()))
}

impl Node {
    /// Looks around. Also returns what could not be looked at.
    pub fn read(paths: impl Iterator<Item = PathBuf>) -> (Self, Vec<String>) {
        let mut node = Self { own: id_of(Path::new("/proc/self/ns/net")), ..Self::default() };
        let mut failed = Vec::new();
        failed.extend(node.read_links().err().map(|error| error.to_string()));
        failed.extend(hidden());
        node.mounted = mounted().collect();
        let mounts: Vec<PathBuf> = node.mounted.iter().map(|(_, way)| way.clone()).collect();
        for path in paths.chain(named()).chain(of_processes()).chain(mounts) {
            let Some(id) = id_of(&path).filter(|id| Some(*id) != node.own) else { continue };
            if node.spaces.contains_key(&id) {
                continue;
            }
            match Space::at(&path) {
                Ok(space) => drop(node.spaces.insert(id, space)),
                // It has ended since, or is of another kind.
                Err(_) if id_of(&path) != Some(id) => {}
                Err(error) => failed.push(error.to_string()),
            }
        }
        (node, failed)
    }

    fn read_links(&mut self) -> Result<(), Error> {
        let mut host = Netlink::open()?;
        self.links = link::list(&mut host)?;
        self.addresses = addresses(&mut host, &self.links)?;
        for link in &self.links {
            if let Some(owner) = link.alias.as_deref().filter(|_| link.is_kind("veth")).and_then(Owner::from_alias) {
                self.owners.insert(owner, link.name.clone());
            }
        }
        let is_ours = |link: &&Link| link.is_kind(ifb::KIND) && link.name.starts_with(ifb::PREFIX);
        let ifbs: Vec<Link> = self.links.iter().filter(is_ours).cloned().collect();
        if ifbs.is_empty() {
            return Ok(());
        }
        let mut used = HashSet::new();
        for link in self.links.iter().filter(|link| !link.is_kind(ifb::KIND)) {
            // One that has just gone sends nothing.
            used.extend(redirect::targets(&mut host, link.index).unwrap_or_default());
        }
        self.idle_ifbs = ifbs.into_iter().filter(|ifb| !used.contains(&ifb.index)).collect();
        Ok(())
    }

    /// The namespaces that have an address, each with the interface that has it.
    pub fn with(&self, address: IpAddr) -> impl Iterator<Item = (Id, &Space, &str)> {
        self.spaces.iter().flat_map(move |(id, space)| {
            let found = space.addresses.iter().filter(move |(there, _)| *there == address);
            found.map(move |(_, ifname)| (*id, space, ifname.as_str()))
        })
    }

    /// Whose the host's end of a link says that the link is.
    pub fn owner_of(&self, space: &Space, ifname: &str) -> Option<Owner> {
        let pod = space.links.iter().find(|link| link.name == ifname)?;
        // Numbers of links are each namespace's own: both ends must name the other.
        let is_end =
            |link: &&Link| link.is_kind("veth") && pod.parent == Some(link.index) && link.parent == Some(pod.index);
        Owner::from_alias(self.links.iter().find(is_end)?.alias.as_deref()?)
    }

    /// The ways to what is mounted at a path where others see it: a runtime may have a mount namespace of its own, and so
    /// may we.
    pub fn ways_to(&self, path: &Path) -> impl Iterator<Item = &Path> {
        let wanted = without_var(path);
        self.mounted.iter().filter(move |(place, _)| without_var(place) == wanted).map(|(_, way)| way.as_path())
    }
}

/// `/var/run` is `/run`, and runtimes say either.
fn without_var(path: &Path) -> PathBuf {
    path.strip_prefix("/var/run").map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
}

fn addresses(nl: &mut Netlink, links: &[Link]) -> Result<Vec<(IpAddr, String)>, Error> {
    let names: HashMap<u32, &String> = links.iter().map(|link| (link.index, &link.name)).collect();
    // 0 is the whole world, to which every other scope is local.
    let global = addr::list_all(nl)?.into_iter().filter(|(_, address)| address.scope == 0);
    Ok(global.filter_map(|(index, address)| Some((address.cidr.addr(), (*names.get(&index)?).clone()))).collect())
}

/// Where `ip netns` and the runtimes mount namespaces.
fn named() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path())
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)).map(|entry| entry.path())
}

fn of_processes() -> impl Iterator<Item = PathBuf> {
    processes().map(|process| process.join("ns/net"))
}

/// Why namespaces of processes cannot be looked at, if so. To a process of another user namespace the right is not given,
/// and it is of no node of ours. The node's first process, which some systems let nobody look into, is no pod.
fn hidden() -> Option<String> {
    let is_denied =
        |path: &PathBuf| fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let mut denied = of_processes().filter(is_denied).filter(|path| !path.starts_with("/proc/1"));
    let first = denied.next().filter(|_| view::is_of_initial_user())?;
    let (first, others) = (first.display(), denied.count());
    Some(format!("{first}, and so of {others} other processes: permission denied (root needs CAP_SYS_PTRACE)"))
}

/// Namespaces that are mounted somewhere: where, and the way there through a process that sees them there.
fn mounted() -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let mut seen = HashSet::new();
    processes().flat_map(move |process| {
        let new = fs::read_link(process.join("ns/mnt")).is_ok_and(|id| seen.insert(id));
        let table = new.then(|| fs::read_to_string(process.join("mountinfo")).ok()).flatten().unwrap_or_default();
        let root = process.join("root");
        let place = |line: &str| {
            // Identity, parent, device, root of the mount, place: proc_pid_mountinfo(5).
            let mut fields = line.split(' ').skip(3);
            let place = fields.next().filter(|root| root.starts_with("net:[")).and(fields.next())?;
            Some(place.trim_start_matches('/').replace("\\040", " "))
        };
        let both = |place: String| (Path::new("/").join(&place), root.join(place));
        table.lines().filter_map(place).map(both).collect::<Vec<_>>()
    })
}
