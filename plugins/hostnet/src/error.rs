//! The error of everything that asks the kernel: what was being done and to which object, the errno, and the
//! kernel's own words. Callers ask [`Error::is_not_found`] and [`Error::is_exists`], and never match on text.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on a kernel object. Printed as `create veth pair eth0: Invalid argument (kernel: …)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    doing: String,
    errno: Option<i32>,
    why: String,
    kernel_text: Option<String>,
}

impl Error {
    /// A system call's or a netlink request's refusal. `doing` names the operation and the object.
    pub fn os(doing: impl Into<String>, errno: i32) -> Self {
        Self { doing: doing.into(), errno: Some(errno), why: describe(errno), kernel_text: None }
    }

    /// The same from the standard library's error.
    pub fn io(doing: impl Into<String>, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::os(doing, errno),
            None => Self::other(doing, error),
        }
    }

    /// A failure that has no errno: an answer that makes no sense, a time-out, a state that should not be.
    pub fn other(doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { doing: doing.into(), errno: None, why: why.to_string(), kernel_text: None }
    }

    /// The same with the kernel's own explanation (extack); an empty one is none.
    #[must_use]
    pub fn with_kernel_text(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        self.kernel_text = (!text.is_empty()).then_some(text);
        self
    }

    /// The errno, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// The kernel's own explanation (extack), where it gave one.
    pub fn kernel_text(&self) -> Option<&str> {
        self.kernel_text.as_deref()
    }

    /// Whether the object was not there: `ENOENT`, `ENODEV`, `ESRCH`, `ENXIO`.
    pub fn is_not_found(&self) -> bool {
        self.errno.is_some_and(|errno| [libc::ENOENT, libc::ENODEV, libc::ESRCH, libc::ENXIO].contains(&errno))
    }

    /// Whether the object was there already: `EEXIST`.
    pub fn is_exists(&self) -> bool {
        self.errno == Some(libc::EEXIST)
    }
}

/// The C library's text for an errno, the same on glibc and musl.
fn describe(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => format!("errno {errno}"),
        Errno::EOPNOTSUPP => "Operation not supported".to_owned(), // nix speaks of transport endpoints here
        known => known.desc().to_owned(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.why)?;
        match &self.kernel_text {
            Some(text) => write!(f, " (kernel: {text})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for libcni::types::Error {
    fn from(error: Error) -> Self {
        Self::internal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_on_what_and_why() {
        let error = Error::os("create veth pair eth0", libc::EINVAL).with_kernel_text("Invalid MTU");
        assert_eq!(error.to_string(), "create veth pair eth0: Invalid argument (kernel: Invalid MTU)");
        assert_eq!(Error::os("x", libc::ENODEV).with_kernel_text("").to_string(), "x: No such device");
        assert_eq!(Error::os("x", 4095).to_string(), "x: errno 4095");
        assert_eq!(Error::other("read y", "nonsense").to_string(), "read y: nonsense");
        assert_eq!(Error::io("x", &io::Error::from_raw_os_error(17)), Error::os("x", 17));
        let cni = libcni::types::Error::from(error);
        assert_eq!((cni.code(), cni.msg().contains("Invalid MTU")), (libcni::types::Code::INTERNAL, true));
    }

    #[test]
    fn what_is_gone_and_what_is_there() {
        for errno in [libc::ENOENT, libc::ENODEV, libc::ESRCH, libc::ENXIO] {
            assert!(Error::os("x", errno).is_not_found() && !Error::os("x", errno).is_exists());
        }
        assert!(Error::os("x", libc::EEXIST).is_exists() && !Error::os("x", libc::EEXIST).is_not_found());
        assert!(!Error::other("x", "y").is_not_found() && !Error::os("x", libc::EPERM).is_not_found());
    }
}
