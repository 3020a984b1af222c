//! Why a file of the store could not be used.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libcni::{Code, Error};

/// A file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An operation failed.
    #[error("failed to {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("{} has been locked by another process for {} s", path.display(), waited.as_secs())]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl StoreError {
    /// What turns a system error into ours.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::Io { .. } => Code::IO_FAILURE,
            StoreError::Busy { .. } => Code::TRY_AGAIN_LATER,
        };
        Self::new(code, error.to_string())
    }
}
