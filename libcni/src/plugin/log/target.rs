//! Where a line goes: to a file, as JSON, or to the journal.
//!
//! The file is opened for each call, so that whoever rotates logs need tell nobody. A network's configuration may come
//! from people who may not write everywhere: nothing is appended to a file that does not begin as a log of ours does,
//! through a symbolic link, or to what is no regular file. Nor does a configuration make a file anywhere: one in /etc or
//! in a directory of cron may mean something by its name alone. The runtime's environment is the node's own, and may.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use super::journal;
use super::line::Line;

/// How every line begins.
const BEGINNING: &[u8] = b"{\"time\":\"";
/// Where a configuration may have a file made.
const LOGS: &str = "/var/log";

/// Who names a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The runtime's environment: whoever sets it has the node.
    Environment,
    /// A network's configuration: whoever writes it may have no more than that.
    Configuration,
}

/// A place for lines.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, by its absolute path.
    File(PathBuf, NamedBy),
    /// The systemd journal of this node.
    Journal,
}

impl Target {
    /// Reads what is written: an absolute path, `journal`, or `off` (as nothing at all), which is no target.
    ///
    /// # Errors
    /// It is something else; a relative path would be one of the runtime's working directory.
    pub fn of(text: &OsStr, by: NamedBy) -> Result<Option<Self>, String> {
        match text.as_bytes() {
            b"" | b"off" => Ok(None),
            b"journal" => Ok(Some(Self::Journal)),
            [b'/', ..] => Ok(Some(Self::File(text.into(), by))),
            _ => Err(format!("expected an absolute path, \"journal\" or \"off\", found {text:?}")),
        }
    }

    /// Writes a line.
    ///
    /// # Errors
    /// It is not written, and why.
    pub fn write(&self, line: &Line<'_>) -> Result<(), String> {
        match self {
            Self::File(path, by) => {
                let text = line.to_json().map_err(|error| format!("{}: {error}", path.display()))?;
                append(path, *by, &text).map_err(|error| format!("{}: {error}", path.display()))
            }
            Self::Journal => journal::send(line).map_err(|error| format!("{}: {error}", journal::SOCKET)),
        }
    }
}

/// One write(2): the kernel appends it as a whole, whoever else does so at the same time.
fn append(path: &Path, by: NamedBy, text: &[u8]) -> io::Result<()> {
    let file = match (by, below_logs(path)) {
        (NamedBy::Environment, _) => open(AT_FDCWD, path, OFlag::O_CREAT)?,
        (NamedBy::Configuration, Some(below)) => create_in_logs(below)?,
        (NamedBy::Configuration, None) => return append_to_known(path, text),
    };
    refuse_foreign(&file, true)?;
    write(file, text)
}

/// Where nothing is made. What is empty is no log yet: its name may be all that it needs to become something else.
fn append_to_known(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = open(AT_FDCWD, path, OFlag::empty()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!("{error}; a configuration makes logs below {LOGS} alone")),
        _ => error,
    })?;
    refuse_foreign(&file, false)?;
    write(file, text)
}

/// What of a path is below the directory of logs, and does not lead out of it again.
fn below_logs(path: &Path) -> Option<&Path> {
    let below = path.strip_prefix(LOGS).ok().filter(|below| !below.as_os_str().is_empty())?;
    below.components().all(|part| matches!(part, Component::Normal(_))).then_some(below)
}

/// No link is followed below the directory of logs, also not to a directory: some are of daemons that are not root.
fn create_in_logs(below: &Path) -> io::Result<File> {
    let enter = |above: OwnedFd, name: Component<'_>| {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(above, name.as_os_str(), flags, Mode::empty())
    };
    let directories = below.parent().into_iter().flat_map(Path::components);
    let directory = directories.into_iter().try_fold(File::open(LOGS)?.into(), enter)?;
    open(directory, Path::new(below.file_name().unwrap_or_default()), OFlag::O_CREAT)
}

fn open(directory: impl AsFd, path: &Path, create: OFlag) -> io::Result<File> {
    // Without O_NONBLOCK the open of a FIFO that nobody reads would not return.
    let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    match openat(directory, path, flags | create, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(file) => Ok(file.into()),
        Err(Errno::ELOOP) => Err(io::Error::other("it is a symbolic link")),
        Err(errno) => Err(errno.into()),
    }
}

/// Beyond the limit of file sizes (RLIMIT_FSIZE) the kernel sends a signal that ends us, with the pod connected and no
/// answer given. With a handler the write fails, and that is all. Plugins that we start do not inherit it.
fn write(mut file: File, text: &[u8]) -> io::Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let written = file.write(text)?;
    if written == text.len() { Ok(()) } else { Err(io::Error::other(format!("only {written} bytes were written"))) }
}

fn refuse_foreign(file: &File, may_be_empty: bool) -> io::Result<()> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut beginning = Vec::with_capacity(BEGINNING.len());
    file.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    match beginning.as_slice() {
        BEGINNING => Ok(()),
        [] if may_be_empty => Ok(()),
        [] => Err(io::Error::other(format!("it is empty; a configuration begins logs below {LOGS} alone"))),
        _ => Err(io::Error::other("it is there and not a log of ours: its first line is another's")),
    }
}
