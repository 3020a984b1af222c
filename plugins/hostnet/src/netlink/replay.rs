//! A kernel that answers from a recording, for the fuzz targets: whatever is asked, the next datagram is the answer.
//!
//! Sequence numbers and ports in it are made those of the question, as far as the recording can be read: otherwise every
//! answer would be passed over as somebody else's, and nothing behind that would be tried.

use std::io;
use std::time::Duration;

use super::wire::Wire;
use super::{Netlink, Socket};
use crate::error::Result;
use crate::netns::Netns;

const PORT: u32 = 77;
/// Where length, sequence number and port stand in `struct nlmsghdr`, and its size.
const SEQUENCE: usize = 8;
const HEADER: usize = 16;

struct Recording {
    datagrams: std::vec::IntoIter<Vec<u8>>,
    sequence: [u8; 4],
}

impl Wire for Recording {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.sequence = datagram.get(SEQUENCE..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        *buffer = self.datagrams.next().ok_or(io::ErrorKind::WouldBlock)?;
        let mut start = 0_usize;
        while let Some(header) = buffer.get_mut(start..start.saturating_add(HEADER)) {
            let length = header.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length));
            let answers = self.sequence.into_iter().chain(PORT.to_ne_bytes());
            header.iter_mut().skip(SEQUENCE).zip(answers).for_each(|(byte, value)| *byte = value);
            start =
                start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX).max(HEADER)).saturating_add(3) & !3;
        }
        Ok(())
    }

    fn set_timeout(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn join(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// A socket on which these datagrams arrive, one after the other, and then nothing.
    pub fn replaying(datagrams: Vec<Vec<u8>>) -> Self {
        Self::over(Box::new(Recording { datagrams: datagrams.into_iter(), sequence: [0; 4] }), PORT)
    }
}

impl Netlink {
    /// The calling thread's namespace, with a socket that only [replays](Socket::replaying).
    ///
    /// # Errors
    /// No `/proc`.
    pub fn replaying(datagrams: Vec<Vec<u8>>) -> Result<Self> {
        Ok(Self { socket: Socket::replaying(datagrams), netns: Netns::current()? })
    }
}
