//! A pod: a network namespace with a path, as a runtime makes it before it calls a plugin.

use std::fs;
use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use crate::echo::{self, Echo};
use crate::frame;
use crate::namespace::Namespace;
use crate::state::State;

/// A pod of one host.
#[derive(Debug)]
pub struct Pod {
    namespace: Option<Namespace>,
    outside: Namespace,
    name: String,
    path: PathBuf,
}

impl Pod {
    pub(crate) fn create(host: &Namespace, name: &str) -> Self {
        let path = Path::new("/run/netns").join(name);
        let namespace = host.create_beside(&path);
        Self { namespace: Some(namespace), outside: host.clone(), name: name.to_owned(), path }
    }

    /// The container id: 64 hex digits as the runtimes' are, different for every pod.
    pub fn id(&self) -> String {
        let digits: String = self.name.chars().filter(char::is_ascii_digit).collect();
        format!("{digits:0>64}")
    }

    /// The name below /run/netns.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// CNI_NETNS, as the host sees it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The namespace goes away under the plugin's feet: a reboot, a runtime that was quicker. The path is gone on return.
    pub fn destroy(&mut self) {
        self.outside.enter(|| {
            umount2(&self.path, MntFlags::MNT_DETACH)
                .unwrap_or_else(|e| panic!("unmount {}: {e}", self.path.display()));
            fs::remove_file(&self.path).unwrap_or_else(|e| panic!("remove {}: {e}", self.path.display()));
        });
        self.namespace = None;
    }

    /// Links, addresses, routes and sysctls of the pod.
    pub fn state(&self) -> State {
        State::of_pod(self)
    }

    /// A new echo server in this pod.
    pub fn listen(&self) -> Echo {
        Echo::start(self)
    }

    /// Asks an echo server over UDP and TCP which source address it sees; panics when the two differ.
    /// Err when there was no answer within four seconds.
    pub fn asks(&self, address: &str, echo: &Echo) -> Result<IpAddr, String> {
        let address: IpAddr = address.parse().unwrap_or_else(|e| panic!("address {address}: {e}"));
        self.enter(|| echo::ask(address, echo.port()))
    }

    /// Sends one Ethernet frame as it stands out of a link of the pod.
    pub fn send_frame(&self, link: &str, frame: &[u8]) {
        self.enter(|| frame::send(link, frame));
    }

    /// The MAC address of a link, as `ip` prints it.
    #[track_caller]
    pub fn mac(&self, link: &str) -> String {
        let found = self.link(link).unwrap_or_else(|| panic!("no link {link} in pod {}", self.name));
        found["address"].as_str().unwrap_or_default().to_owned()
    }
}

impl Deref for Pod {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        self.namespace.as_ref().expect("the pod was destroyed")
    }
}
