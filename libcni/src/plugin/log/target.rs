//! Where a line goes: to a file, as JSON, or to the journal.
//!
//! The file is opened for each call, so that whoever rotates logs need tell nobody. A network's configuration may come
//! from people who may not write everywhere: nothing is appended to a file that does not begin as a log of ours does,
//! through a symbolic link, or to what is no regular file.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::journal;
use super::line::Line;

/// How every line begins.
const BEGINNING: &[u8] = b"{\"time\":\"";

/// A place for lines.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, by its absolute path.
    File(PathBuf),
    /// The systemd journal of this node.
    Journal,
}

impl Target {
    /// Reads what is written: an absolute path, `journal`, or `off` (as nothing at all), which is no target.
    ///
    /// # Errors
    /// It is something else; a relative path would be one of the runtime's working directory.
    pub fn of(text: &OsStr) -> Result<Option<Self>, String> {
        match text.as_bytes() {
            b"" | b"off" => Ok(None),
            b"journal" => Ok(Some(Self::Journal)),
            [b'/', ..] => Ok(Some(Self::File(text.into()))),
            _ => Err(format!("expected an absolute path, \"journal\" or \"off\", found {text:?}")),
        }
    }

    /// Writes a line.
    ///
    /// # Errors
    /// It is not written, and why.
    pub fn write(&self, line: &Line<'_>) -> Result<(), String> {
        match self {
            Self::File(path) => {
                let text = line.to_json().map_err(|error| format!("{}: {error}", path.display()))?;
                append(path, &text).map_err(|error| format!("{}: {error}", path.display()))
            }
            Self::Journal => journal::send(line).map_err(|error| format!("{}: {error}", journal::SOCKET)),
        }
    }
}

/// One write(2): the kernel appends it as a whole, whoever else does so at the same time.
fn append(path: &Path, text: &[u8]) -> io::Result<()> {
    // Without O_NONBLOCK the open of a FIFO that nobody reads would not return.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags.bits()).open(path);
    let mut file = file.map_err(|error| match error.raw_os_error() {
        Some(code) if code == nix::errno::Errno::ELOOP as i32 => io::Error::other("it is a symbolic link"),
        _ => error,
    })?;
    refuse_foreign(&file)?;
    let written = file.write(text)?;
    if written == text.len() { Ok(()) } else { Err(io::Error::other(format!("only {written} bytes were written"))) }
}

fn refuse_foreign(file: &File) -> io::Result<()> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut beginning = Vec::with_capacity(BEGINNING.len());
    file.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    if beginning.is_empty() || beginning == BEGINNING {
        return Ok(());
    }
    Err(io::Error::other("it is there and not a log of ours: its first line is another's"))
}
