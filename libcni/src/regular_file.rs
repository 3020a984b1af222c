//! Files and directories that are opened as what they are, below a directory that others may write to (a pod may have it
//! mounted): a symbolic link is not followed, as it would lead a process of root out of the directory, and a pipe is not
//! waited for.
//!
//! This is about the last part of a path. What stands before it is the administrator's: `/var/lib/cni` may be a link to a
//! larger disk.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// What is there instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strange {
    Link,
    NoFile,
    Long(u64),
}

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("it is a symbolic link, which is not followed"),
            Self::NoFile => f.write_str("it is no regular file"),
            Self::Long(limit) => write!(f, "it has more than {limit} bytes"),
        }
    }
}

impl std::error::Error for Strange {}

/// Whether a name is taken by something else than what was to be opened.
pub fn is_strange(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Strange>())
}

/// Opens a regular file, or makes it if `options` say so.
///
/// # Errors
/// As [`OpenOptions::open`]; there is something else under the name ([`is_strange`]).
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = options.custom_flags(flags.bits()).open(path).map_err(named)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other(Strange::NoFile)) }
}

/// Opens a directory.
///
/// # Errors
/// As [`File::open`]; there is something else under the name ([`is_strange`]).
pub fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    opened.map_err(|error| {
        // A link to a directory is no directory, says the kernel; and so it says of a file.
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if is_link { io::Error::other(Strange::Link) } else { named(error) }
    })
}

/// The content of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`]; it is longer.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_at_most(open(path, OpenOptions::new().read(true))?, limit)
}

/// What is left of a file that was opened otherwise, at most `limit` bytes: also a device has an end then.
///
/// # Errors
/// It cannot be read; it is longer.
pub fn read_at_most(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit { Err(io::Error::other(Strange::Long(limit))) } else { Ok(content) }
}

/// What a strange thing under the name is, where the kernel's word for it says something else.
pub(crate) fn named(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP) => io::Error::other(Strange::Link),
        // A socket, or a pipe that nobody reads.
        Some(Errno::ENXIO) => io::Error::other(Strange::NoFile),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn only_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "content").unwrap();
        fs::create_dir(at("directory")).unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        symlink(at("directory"), at("way")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        assert_eq!(read(&at("file"), 7).unwrap(), b"content");
        assert!(is_strange(&read(&at("file"), 6).unwrap_err()));
        for strange in ["link", "dangling", "directory", "pipe"] {
            for options in [OpenOptions::new().read(true), OpenOptions::new().append(true).create(true).read(true)] {
                let error = open(&at(strange), options).unwrap_err();
                assert!(is_strange(&error) || error.kind() == io::ErrorKind::IsADirectory, "{strange}: {error}");
            }
        }
        assert!(!at("nothing").exists());
        assert_eq!(open(&at("nothing"), OpenOptions::new().read(true)).unwrap_err().kind(), io::ErrorKind::NotFound);

        open_directory(&at("directory")).unwrap();
        assert!(open_directory(&at("way")).unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(open_directory(&at("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(open_directory(&at("file")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
