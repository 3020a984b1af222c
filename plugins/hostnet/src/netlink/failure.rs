//! Why a netlink exchange failed, before anyone has said what it was for. A caller turns it into an
//! [`Error`] with [`Failure::doing`], which names the operation and the object.

use std::fmt;
use std::io;

use netlink_packet_core::NlasIterator;

use crate::error::Error;

/// `NLMSGERR_ATTR_MSG` of linux/netlink.h: the kernel's explanation, NUL-terminated.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Why a request, a dump or a batch failed.
#[derive(Debug)]
pub enum Failure {
    /// The kernel refused it.
    Kernel {
        /// The (positive) errno.
        errno: i32,
        /// The kernel's explanation (extack), where it gave one.
        text: Option<String>,
    },
    /// Sending or receiving failed.
    Io(io::Error),
    /// The answer makes no sense, or there was none.
    Answer(String),
}

impl Failure {
    /// Reads the attributes that follow the header of an `NLMSG_ERROR` or the code of an `NLMSG_DONE`.
    pub(super) fn kernel(errno: i32, attributes: &[u8]) -> Self {
        let text = NlasIterator::new(attributes)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
            .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned());
        Self::Kernel { errno, text }
    }

    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Io(error) => error.raw_os_error(),
            Self::Answer(_) => None,
        }
    }

    /// The error it is once it is known what was being done, and to which object.
    pub fn doing(self, doing: impl Into<String>) -> Error {
        match self {
            Self::Kernel { errno, text } => Error::os(doing, errno).with_kernel_text(text.unwrap_or_default()),
            Self::Io(error) => Error::io(doing, &error),
            Self::Answer(why) => Error::other(doing, why),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { errno, text } => {
                write!(f, "{}", io::Error::from_raw_os_error(*errno))?;
                text.as_ref().map_or(Ok(()), |text| write!(f, " (kernel: {text})"))
            }
            Self::Io(error) => error.fmt(f),
            Self::Answer(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A failed batch: nothing of it was applied.
#[derive(Debug)]
pub struct BatchError {
    /// The message that the kernel refused, counted from 0; `None` where it refused the batch as a whole.
    pub index: Option<usize>,
    /// Why.
    pub error: Failure,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "message {index}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl std::error::Error for BatchError {}
