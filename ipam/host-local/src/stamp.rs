//! The stamp of a lease: an extended attribute of its file that names a boot in which the lease was there.
//!
//! The file's content is the reference's to the byte, and so are its name and its mode; an attribute is seen by
//! nobody who does not ask for it. It is part of the inode: it comes with the lease in one step, a lease that is made
//! anew has none, and there is no second file that could tell another story. Where the file system has no attributes,
//! there are no stamps, and leases are judged by time ([`crate::boot`]).

use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, lremovexattr, lsetxattr};
use rustix::io::{self, Errno};

use crate::boot::BootId;

/// The attribute. `user.` is writable without capabilities, and kept by `cp -a`.
const NAME: &str = "user.podwire.boot";

/// A boot, and what happened to the lease in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The boot.
    pub boot: BootId,
    /// Whether the lease was made or renewed in that boot; otherwise it was only there.
    pub made: bool,
}

impl Stamp {
    /// Of a lease that is made or renewed.
    #[must_use]
    pub fn made(boot: &BootId) -> Self {
        Self { boot: boot.clone(), made: true }
    }

    /// Of a lease that was found.
    #[must_use]
    pub fn seen(boot: &BootId) -> Self {
        Self { boot: boot.clone(), made: false }
    }

    fn parse(text: &str) -> Option<Self> {
        let (what, boot) = text.split_once(' ')?;
        let made = match what {
            "made" => true,
            "seen" => false,
            _ => return None,
        };
        Some(Self { boot: BootId::parse(boot)?, made })
    }
}

/// A lease's stamp. `None`: it has none.
///
/// # Errors
/// It cannot be read, or is none of this build's: what it says is unknown, and might be that the lease is of this boot.
pub fn get(path: &Path) -> io::Result<Option<Stamp>> {
    let mut value = [0; 64];
    let length = match lgetxattr(path, NAME, &mut value) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        length => length?,
    };
    let text = value.get(..length).and_then(|value| str::from_utf8(value).ok());
    text.and_then(Stamp::parse).map(Some).ok_or(Errno::ILSEQ)
}

/// Gives a lease a stamp, in the place of any that it has.
///
/// # Errors
/// The file system has no attributes, or the file cannot be changed.
pub fn set(path: &Path, stamp: &Stamp) -> io::Result<()> {
    let what = if stamp.made { "made" } else { "seen" };
    lsetxattr(path, NAME, format!("{what} {}", stamp.boot).as_bytes(), XattrFlags::empty())
}

/// Takes a lease's stamp away; one that has none is fine.
///
/// # Errors
/// The file cannot be changed.
pub fn remove(path: &Path) -> io::Result<()> {
    match lremovexattr(path, NAME) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        removed => removed,
    }
}
