//! A network namespace, held open. `setns(2)` moves the calling thread alone, so everything here is said about
//! a thread: a plugin has one, tests have many.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libcni::plugin::own_netns;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, statfs};

use crate::error::{Error, Result};
use crate::sys;

/// What the namespace of the calling thread is called; it is opened by [`own_netns`].
const CURRENT: &str = "/proc/thread-self/ns/net";

/// An open network namespace; it lives at least as long as this.
pub struct Netns {
    file: File,
    path: PathBuf,
    id: (u64, u64),
}

impl Netns {
    /// Opens the namespace at `path`: a bind mount of one, or `/proc/…/ns/net`.
    ///
    /// # Errors
    /// The path does not exist ([`Error::is_not_found`]), cannot be read, or is not a network namespace.
    pub fn open(path: &Path) -> Result<Self> {
        // What is opened must be a namespace before it is opened: to open a device or a pipe has effects.
        let kind = statfs(path)
            .map_err(|errno| Error::os(format!("failed to Statfs {path:?}"), errno as i32))?
            .filesystem_type();
        if kind != NSFS_MAGIC && kind != PROC_SUPER_MAGIC {
            return Err(Error::other(format!("unknown FS magic on {path:?}"), format!("{:x} is not nsfs", kind.0)));
        }
        let doing = || format!("open network namespace {path:?}");
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| Error::io(doing(), &error))?;
        match sys::namespace_type(file.as_fd()) {
            Ok(libc::CLONE_NEWNET) => {}
            Ok(_) => return Err(Error::other(doing(), "it is a namespace of another kind")),
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                return Err(Error::other(doing(), "it is not a namespace"));
            }
            Err(error) => return Err(Error::io(doing(), &error)),
        }
        Self::of(file, path).map_err(|error| Error::io(doing(), &error))
    }

    fn of(file: File, path: &Path) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { file, path: path.to_owned(), id: (metadata.dev(), metadata.ino()) })
    }

    /// The same; `None` where the path does not exist, as after the death of its process or a reboot, or is the empty
    /// file that a namespace was mounted on: a crash leaves it behind, and the reference then fails every DEL.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn get(path: &Path) -> Result<Option<Self>> {
        match Self::open(path) {
            Ok(netns) => Ok(Some(netns)),
            Err(error) if error.is_not_found() || is_mount_point_only(path) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn current() -> Result<Self> {
        let doing = || format!("open network namespace {CURRENT:?}");
        let file = File::open(own_netns()).map_err(|error| Error::io(doing(), &error))?;
        Self::of(file, Path::new(CURRENT)).map_err(|error| Error::io(doing(), &error))
    }

    /// A new namespace without a name, which ends with this: to try what the kernel can, where nothing remains of it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn create() -> Result<Self> {
        let home = Self::current()?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::os("create a network namespace", errno as i32))?;
        let home = Home(&home);
        let made = Self::current();
        drop(home);
        made
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both are one namespace: the same inode, by whatever paths.
    pub fn same_as(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether the calling thread is in it.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn is_current(&self) -> Result<bool> {
        let metadata = std::fs::metadata(own_netns()).map_err(|error| Error::io(format!("stat {CURRENT}"), &error))?;
        Ok(self.id == (metadata.dev(), metadata.ino()))
    }

    /// Runs `f` with the calling thread in this namespace, and returns to where the thread was.
    ///
    /// If it cannot return, the process ends at once: going on in the wrong namespace would configure
    /// the network of somebody else.
    ///
    /// # Errors
    /// The namespace could not be entered; `f` has not run.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        if self.is_current()? {
            return Ok(f());
        }
        self.enter_from(&Self::current()?, f)
    }

    /// The same for a thread that is known to be in `home`: to ask `/proc` takes longer than to go there and back.
    pub(crate) fn enter_from<T>(&self, home: &Self, f: impl FnOnce() -> T) -> Result<T> {
        if self.same_as(home) {
            return Ok(f());
        }
        let home = Home(home);
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::os(format!("enter network namespace {self}"), errno as i32))?;
        let result = f();
        drop(home);
        Ok(result)
    }
}

/// A namespace looks like an empty file, too: one that cannot be opened for another reason is not gone.
fn is_mount_point_only(path: &Path) -> bool {
    let is_empty_file = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0);
    is_empty_file && statfs(path).is_ok_and(|on| on.filesystem_type() != NSFS_MAGIC)
}

/// The way back, taken on drop so that a panic takes it too.
struct Home<'a>(&'a Netns);

impl Drop for Home<'_> {
    fn drop(&mut self) {
        if let Err(errno) = setns(&self.0.file, CloneFlags::CLONE_NEWNET) {
            libcni::log::warn(format_args!("cannot return to the network namespace {}: {errno}", self.0));
            std::process::abort();
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Netns({}, {:?})", self.path.display(), self.id)
    }
}
