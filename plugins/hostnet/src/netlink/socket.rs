//! A synchronous netlink socket. A plugin does one thing after the other and lives a millisecond: an event loop
//! would cost more than the requests, and the crates that bring one hide the flag that tells an interrupted dump.
//!
//! Messages are the typed ones of the netlink-packet crates; the framing around them is read here, because
//! it is here that sequence numbers, port ids, `NLM_F_DUMP_INTR` and the kernel's explanations are seen.

use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_ECHO, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};

use libcni::plugin::dry_run;

use super::failure::{BatchError, Failure};
use super::frame::{self, Answer, Frame, Frames};
use super::wire::{BUFFER, Kernel, Wire};

/// Longest wait for an answer. The kernel answers within the system call; this is for a kernel that hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often a dump that others keep interrupting is begun. On a node where fifty pods start at once
/// a few are normal, and on a machine with no time left a dump is interrupted more often than not: one takes a fraction
/// of a millisecond, so this is most of a second. The reference gives up after five and goes on with what it has.
const DUMP_ATTEMPTS: usize = 500;

type Result<T> = std::result::Result<T, Failure>;

/// A netlink socket of one protocol, in the network namespace in which it was opened.
pub struct Socket {
    wire: Box<dyn Wire + Send>,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What came to a socket that joined multicast groups.
#[derive(Debug)]
pub enum Event<M> {
    /// The kernel's messages, in order; those that `M` cannot read are left out.
    Messages(Vec<M>),
    /// The kernel dropped events because they came faster than they were read: read the state anew.
    Lost,
    /// The time is over.
    TimedOut,
}

impl Socket {
    /// Opens a socket of this protocol (`NETLINK_ROUTE`, `NETLINK_NETFILTER` of [`netlink_sys::protocols`]) in
    /// the calling thread's network namespace.
    ///
    /// # Errors
    /// The errno of the system call.
    pub fn open(protocol: isize) -> Result<Self> {
        let (kernel, port) = Kernel::open(protocol)?;
        let mut socket = Self::over(Box::new(kernel), port);
        socket.wire.set_timeout(TIMEOUT)?;
        Ok(socket)
    }

    pub(super) fn over(wire: Box<dyn Wire + Send>, port: u32) -> Self {
        Self { wire, port, sequence: 0, buffer: Vec::with_capacity(BUFFER) }
    }

    /// Sends `message` and waits for the acknowledgement. `flags` are the header's beside `NLM_F_REQUEST` and
    /// `NLM_F_ACK`: `NLM_F_CREATE`, `NLM_F_EXCL`…
    ///
    /// # Errors
    /// The kernel's refusal. In a dry run, whatever was not left out before it came here.
    pub fn request<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> Result<()> {
        if dry_run::is_on() {
            return Err(Failure::Answer("a dry run changes nothing".to_owned()));
        }
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            for frame in self.receive(sequence, sequence)? {
                if let Answer::Done(result) = frame?.answer() {
                    return result;
                }
            }
        }
    }

    /// Sends `message` and returns the one message that the kernel answers with, read as the caller wants it.
    ///
    /// # Errors
    /// The kernel's refusal, or an answer that does not parse.
    pub fn get<Q: NetlinkSerializable, A: NetlinkDeserializable>(&mut self, message: Q) -> Result<A> {
        let answer = self.get_one(message, 0)?;
        answer.ok_or_else(|| Failure::Answer("the kernel answered nothing".to_owned()))
    }

    /// The same of traffic control, which answers by a notification: whoever asks gets a copy only with `NLM_F_ECHO`. It
    /// has none, and no error, for what it does not show; then only the acknowledgement comes.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_echoed<M: NetlinkSerializable + NetlinkDeserializable>(&mut self, message: M) -> Result<Option<M>> {
        self.get_one(message, NLM_F_ACK | NLM_F_ECHO)
    }

    fn get_one<Q, A>(&mut self, message: Q, flags: u16) -> Result<Option<A>>
    where
        Q: NetlinkSerializable,
        A: NetlinkDeserializable,
    {
        let sequence = self.send(message, NLM_F_REQUEST | flags)?;
        loop {
            for frame in self.receive(sequence, sequence)? {
                let frame = frame?;
                match frame.answer() {
                    Answer::Done(Err(failure)) => return Err(failure),
                    Answer::Done(Ok(())) => return Ok(None),
                    Answer::Message => return frame.parse().map(Some),
                    Answer::Noise => {}
                }
            }
        }
    }

    /// Sends `message` as a dump and returns all answers: a consistent list. A dump during which the list
    /// changed (`NLM_F_DUMP_INTR`) may lack entries that were there all the time, and is repeated.
    ///
    /// # Errors
    /// The kernel's refusal, an answer that does not parse, or a list that never held still.
    pub fn dump<Q, A>(&mut self, message: Q) -> Result<Vec<A>>
    where
        Q: NetlinkSerializable,
        A: NetlinkDeserializable,
    {
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.send_message(&mut request, NLM_F_REQUEST | NLM_F_DUMP)?;
            if let Some(messages) = self.collect(sequence)? {
                return Ok(messages);
            }
        }
        Err(Failure::Answer(format!("the list kept changing while it was read ({DUMP_ATTEMPTS} attempts)")))
    }

    /// The answers to one dump; `None` where it was interrupted.
    fn collect<M: NetlinkDeserializable>(&mut self, sequence: u32) -> Result<Option<Vec<M>>> {
        let mut messages = Vec::new();
        let mut interrupted = false;
        loop {
            let frames = match self.receive(sequence, sequence) {
                // An answer was dropped; the end of the dump still comes.
                Err(Failure::Io(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    interrupted = true;
                    continue;
                }
                frames => frames?,
            };
            for frame in frames {
                let frame = frame?;
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.answer() {
                    Answer::Done(result) => return result.map(|()| (!interrupted).then_some(messages)),
                    Answer::Message if !interrupted => messages.push(frame.parse()?),
                    Answer::Message | Answer::Noise => {}
                }
            }
        }
    }

    /// Sends messages to nf_tables as one transaction: all are applied or none. The flags of a message beside
    /// `NLM_F_REQUEST` are those of its header. The acknowledgement is asked of the last message and not of
    /// the end mark (kernels before 6.10 do not always answer that one); an empty batch is not sent.
    ///
    /// # Errors
    /// The first message that the kernel refused.
    pub fn batch<M>(&mut self, messages: Vec<NetlinkMessage<M>>) -> std::result::Result<(), BatchError>
    where
        M: NetlinkSerializable,
    {
        let count = messages.len();
        if count == 0 {
            return Ok(());
        }
        let whole = |error| BatchError { index: None, error };
        let begin = self.next_sequence();
        let mut datagram = frame::batch_mark(frame::BATCH_BEGIN, begin);
        let mut last = begin;
        for (index, mut message) in messages.into_iter().enumerate() {
            last = self.next_sequence();
            message.header.flags |= NLM_F_REQUEST | if index + 1 == count { NLM_F_ACK } else { 0 };
            message.header.sequence_number = last;
            frame::append(&mut datagram, &mut message);
        }
        datagram.extend(frame::batch_mark(frame::BATCH_END, self.next_sequence()));
        self.wire.send(&datagram).map_err(|error| whole(error.into()))?;
        loop {
            for frame in self.receive(begin, last).map_err(whole)? {
                let frame = frame.map_err(whole)?;
                let index = usize::try_from(frame.sequence.wrapping_sub(begin)).unwrap_or_default().checked_sub(1);
                match frame.answer() {
                    Answer::Done(Err(error)) => return Err(BatchError { index, error }),
                    Answer::Done(Ok(())) if frame.sequence == last => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    /// Joins a multicast group (`RTNLGRP_…` of linux/rtnetlink.h) for [`event`](Self::event). Use a socket of its
    /// own for it.
    ///
    /// # Errors
    /// The errno of the system call.
    pub fn join(&mut self, group: u32) -> Result<()> {
        Ok(self.wire.join(group)?)
    }

    /// Waits for events of the joined groups until `deadline`.
    ///
    /// # Errors
    /// Receiving failed.
    pub fn event<M: NetlinkDeserializable>(&mut self, deadline: Instant) -> Result<Event<M>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Event::TimedOut);
        }
        self.wire.set_timeout(left)?;
        match self.wire.receive(&mut self.buffer) {
            Ok(()) => {
                // Others' links may have attributes that the typed crate cannot read; that must not fail this pod.
                let messages = Frames::new(&self.buffer).filter_map(|frame| frame.ok()?.parse().ok());
                Ok(Event::Messages(messages.collect()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Event::TimedOut),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Event::Lost),
            Err(error) => Err(error.into()),
        }
    }

    fn send<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> Result<u32> {
        self.send_message(
            &mut NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message)),
            flags,
        )
    }

    fn send_message<M: NetlinkSerializable>(&mut self, message: &mut NetlinkMessage<M>, flags: u16) -> Result<u32> {
        let sequence = self.next_sequence();
        message.header.flags = flags;
        message.header.sequence_number = sequence;
        let mut datagram = Vec::new();
        frame::append(&mut datagram, message);
        self.wire.send(&datagram)?;
        Ok(sequence)
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// The next datagram's answers to the requests numbered `first` to `last`. Others are late answers to a
    /// request that was given up, and are passed over.
    fn receive(&mut self, first: u32, last: u32) -> Result<impl Iterator<Item = Result<Frame<'_>>>> {
        let port = self.port;
        self.wire.receive(&mut self.buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Failure::Answer(format!("the kernel did not answer within {TIMEOUT:?}")),
            _ => Failure::Io(error),
        })?;
        let ours = move |frame: &Frame<'_>| {
            frame.port == port && frame.sequence.wrapping_sub(first) <= last.wrapping_sub(first)
        };
        Ok(Frames::new(&self.buffer).filter(move |frame| frame.as_ref().map_or(true, ours)))
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
