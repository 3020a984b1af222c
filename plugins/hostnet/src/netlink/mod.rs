//! Talking netlink: the synchronous [`Socket`], and [`Netlink`], a network namespace with a socket in it.

mod failure;
mod frame;
pub(crate) mod raw;
#[cfg(feature = "replay")]
mod replay;
mod socket;
mod wire;

use std::path::Path;

use netlink_sys::protocols::NETLINK_ROUTE;

pub use failure::{BatchError, Failure};
pub use socket::{Event, Socket};

use crate::error::{Error, Result};
use crate::netns::Netns;

/// A network namespace and an rtnetlink socket opened in it. The socket keeps working in its namespace whatever
/// the thread does, so one thread drives the host's and the pod's side by turns.
pub struct Netlink {
    /// The `NETLINK_ROUTE` socket.
    pub socket: Socket,
    netns: Netns,
}

impl Netlink {
    /// The host's side: the calling thread's namespace.
    ///
    /// # Errors
    /// No socket, or no `/proc`.
    pub fn open() -> Result<Self> {
        let _step = libcni::log::step("netlink");
        let netns = Netns::current()?;
        let socket = Socket::open(NETLINK_ROUTE);
        let socket = socket.map_err(|failure| not_opened(failure, &netns))?;
        Ok(Self { socket, netns })
    }

    /// The side of this namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered, or there is no socket.
    pub fn open_in(netns: Netns) -> Result<Self> {
        let _step = libcni::log::step("netlink");
        let socket = open_socket(&netns, NETLINK_ROUTE)?;
        Ok(Self { socket, netns })
    }

    /// The side of the namespace at `path`, as DEL needs it: `None` where the path is unknown or the namespace gone.
    ///
    /// # Errors
    /// The path is something else than a namespace: then it is not to be guessed what was meant.
    pub fn open_if_any(path: Option<&Path>) -> Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        Netns::get(path)?.map(Self::open_in).transpose()
    }

    /// The host's side and that of the pod whose namespace is at `path`.
    ///
    /// # Errors
    /// As [`Netns::open`] and [`Netlink::open_in`].
    pub fn pair(path: &Path) -> Result<(Self, Self)> {
        let pod = Netns::open(path)?;
        let host = Self::open()?;
        let _step = libcni::log::step("netlink");
        let socket = pod.enter_from(&host.netns, || Socket::open(NETLINK_ROUTE))?;
        let pod = Self { socket: socket.map_err(|failure| not_opened(failure, &pod))?, netns: pod };
        Ok((host, pod))
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Runs `f` in the namespace: for what has no netlink, as sysctls have not.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn in_netns<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        self.netns.enter(f)
    }

    /// A second socket in the namespace that hears this multicast group.
    pub(crate) fn listen(&self, group: u32) -> Result<Socket> {
        let mut socket = open_socket(&self.netns, NETLINK_ROUTE)?;
        socket.join(group).map_err(|failure| failure.doing(format!("listen to rtnetlink group {group}")))?;
        Ok(socket)
    }
}

fn open_socket(netns: &Netns, protocol: isize) -> Result<Socket> {
    netns.enter(|| Socket::open(protocol))?.map_err(|failure| not_opened(failure, netns))
}

fn not_opened(failure: Failure, netns: &Netns) -> Error {
    failure.doing(format!("open a netlink socket in {netns}"))
}
