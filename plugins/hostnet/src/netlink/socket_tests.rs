//! The socket against a kernel that is played, and against the real one.

use std::collections::VecDeque;

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::*;

const PORT: u32 = 77;
const RTM_NEWLINK: u16 = 16;

/// What the played kernel does with the n-th datagram it is sent: the bytes of its answers, given the sequence
/// number of the (first) request. An `Err` is what the receiving system call says.
type Script = Box<dyn FnMut(u32) -> Vec<io::Result<Vec<u8>>> + Send>;

struct Played {
    script: Script,
    answers: VecDeque<io::Result<Vec<u8>>>,
}

impl Wire for Played {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let sequence = u32::from_ne_bytes(datagram[8..12].try_into().unwrap());
        self.answers.extend((self.script)(sequence));
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        *buffer = self.answers.pop_front().unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))?;
        Ok(())
    }

    fn set_timeout(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn join(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }
}

fn played(script: impl FnMut(u32) -> Vec<io::Result<Vec<u8>>> + Send + 'static) -> Socket {
    Socket::over(Box::new(Played { script: Box::new(script), answers: VecDeque::new() }), PORT)
}

fn message(kind: u16, flags: u16, sequence: u32, port: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(port.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A link without attributes: `struct ifinfomsg` with this index.
fn link(index: u32, flags: u16, sequence: u32) -> Vec<u8> {
    let mut payload = [0; 16];
    payload[4..8].copy_from_slice(&index.to_ne_bytes());
    message(RTM_NEWLINK, NLM_F_MULTIPART | flags, sequence, PORT, &payload)
}

fn done(code: i32, flags: u16, sequence: u32) -> Vec<u8> {
    message(NLMSG_DONE, NLM_F_MULTIPART | flags, sequence, PORT, &code.to_ne_bytes())
}

fn ack(code: i32, sequence: u32) -> Vec<u8> {
    let request = message(RTM_NEWLINK, 0, sequence, PORT, &[]);
    message(NLMSG_ERROR, NLM_F_CAPPED, sequence, PORT, &[code.to_ne_bytes().as_slice(), &request].concat())
}

fn get_link() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

fn indexes(messages: &[RouteNetlinkMessage]) -> Vec<u32> {
    let index = |message: &_| match message {
        RouteNetlinkMessage::NewLink(link) => link.header.index,
        other => panic!("{other:?}"),
    };
    messages.iter().map(index).collect()
}

#[test]
fn an_interrupted_dump_is_repeated() {
    // The flag stands on an object in the first dump, on the end mark in the second.
    let mut attempt = 0;
    let mut socket = played(move |sequence| {
        attempt += 1;
        let intr = |on: bool| if on { NLM_F_DUMP_INTR } else { 0 };
        vec![
            Ok([link(1, 0, sequence), link(2, intr(attempt == 1), sequence)].concat()),
            Ok([link(attempt + 2, 0, sequence), done(0, intr(attempt == 2), sequence)].concat()),
        ]
    });
    assert_eq!(indexes(&socket.dump::<_, RouteNetlinkMessage>(get_link()).unwrap()), [1, 2, 5]);
}

#[test]
fn a_dump_that_never_holds_still_is_an_error() {
    let attempts = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = attempts.clone();
    let mut socket = played(move |sequence| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        vec![Ok([link(1, NLM_F_DUMP_INTR, sequence), done(0, 0, sequence)].concat())]
    });
    let failure = socket.dump::<_, RouteNetlinkMessage>(get_link()).unwrap_err();
    assert!(failure.to_string().contains("kept changing"), "{failure}");
    assert_eq!(attempts.load(std::sync::atomic::Ordering::Relaxed), DUMP_ATTEMPTS);
}

#[test]
fn a_dump_with_a_lost_datagram_is_repeated() {
    let mut attempt = 0;
    let mut socket = played(move |sequence| {
        attempt += 1;
        let lost = (attempt == 1).then(|| Err(io::Error::from_raw_os_error(libc::ENOBUFS)));
        lost.into_iter().chain([Ok([link(attempt, 0, sequence), done(0, 0, sequence)].concat())]).collect()
    });
    assert_eq!(indexes(&socket.dump::<_, RouteNetlinkMessage>(get_link()).unwrap()), [2]);
}

#[test]
fn a_dump_may_end_in_a_refusal() {
    let mut socket = played(|sequence| vec![Ok([link(1, 0, sequence), done(-libc::EPERM, 0, sequence)].concat())]);
    assert_eq!(socket.dump::<_, RouteNetlinkMessage>(get_link()).unwrap_err().errno(), Some(libc::EPERM));
}

#[test]
fn only_our_answers_count() {
    let mut socket = played(|sequence| {
        let other = message(NLMSG_ERROR, NLM_F_CAPPED, sequence, PORT + 1, &[0xff; 20]);
        vec![Ok([ack(-libc::EPERM, sequence.wrapping_sub(1)), other].concat()), Ok(ack(0, sequence))]
    });
    for _ in 0..3 {
        socket.request(get_link(), 0).unwrap();
    }
    socket.sequence = u32::MAX - 1;
    for _ in 0..3 {
        socket.request(get_link(), 0).unwrap();
    }
}

#[test]
fn the_kernels_words_are_kept() {
    let text = b"\x0e\0\x01\0Too silly\0\0\0";
    for (flags, request_length) in [(NLM_F_CAPPED, 400u32), (0, 16)] {
        let mut socket = played(move |sequence| {
            let mut request = message(RTM_NEWLINK, 0, sequence, PORT, &[]);
            request[..4].copy_from_slice(&request_length.to_ne_bytes());
            let payload = [(-libc::EINVAL).to_ne_bytes().as_slice(), &request, text].concat();
            vec![Ok(message(NLMSG_ERROR, flags | NLM_F_ACK_TLVS, sequence, PORT, &payload))]
        });
        let error = socket.request(get_link(), 0).unwrap_err().doing("paint it");
        assert_eq!(error.to_string(), "paint it: Invalid argument (kernel: Too silly)");
    }
}

#[test]
fn nonsense_is_an_error_and_not_a_panic() {
    let whole = |sequence| [link(1, 0, sequence), ack(-libc::EINVAL, sequence), done(0, 0, sequence)].concat();
    for cut in 0..whole(1).len() {
        let mut socket = played(move |sequence| vec![Ok(whole(sequence)[..cut].to_vec())]);
        let _ = socket.dump::<_, RouteNetlinkMessage>(get_link());
    }
    for length in [0u32, 1, 15, 17, 4096, u32::MAX] {
        let mut socket = played(move |sequence| {
            let mut bytes = link(1, 0, sequence);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            vec![Ok(bytes)]
        });
        assert!(socket.get::<_, RouteNetlinkMessage>(get_link()).is_err(), "{length}");
    }
}

#[test]
fn silence_is_an_error() {
    let failure = played(|_| vec![]).request(get_link(), 0).unwrap_err();
    assert!(failure.to_string().contains("did not answer"), "{failure}");
}

#[test]
fn a_batch_names_the_message_that_was_refused() {
    let refusing = |which: u32, errno: i32| {
        played(move |begin| {
            let refusal = (errno != 0).then(|| ack(-errno, begin + which));
            vec![Ok([refusal.unwrap_or_default(), ack(0, begin + 3)].concat())]
        })
    };
    let three = || {
        (0..3)
            .map(|_| NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(get_link())))
            .collect::<Vec<_>>()
    };
    refusing(0, 0).batch(three()).unwrap();
    for (which, index) in [(0, None), (1, Some(0)), (3, Some(2))] {
        let error = refusing(which, libc::ENOENT).batch(three()).unwrap_err();
        assert_eq!((error.index, error.error.errno()), (index, Some(libc::ENOENT)));
    }
    played(|_| panic!("an empty batch is not sent")).batch(Vec::<NetlinkMessage<RouteNetlinkMessage>>::new()).unwrap();
}

#[test]
fn the_real_kernel() {
    let mut socket = Socket::open(NETLINK_ROUTE).unwrap();
    let links = indexes(&socket.dump::<_, RouteNetlinkMessage>(get_link()).unwrap());
    assert!(links.contains(&1), "no lo in {links:?}");
    let mut lo = LinkMessage::default();
    lo.header.index = 1;
    assert_eq!(indexes(&[socket.get(RouteNetlinkMessage::GetLink(lo)).unwrap()]), [1]);
    // Nobody has this index; strict checking refuses a dump that asks for a flag it does not know.
    let mut absent = LinkMessage::default();
    absent.header.index = 0x7fff_fff0;
    let error =
        socket.get::<_, RouteNetlinkMessage>(RouteNetlinkMessage::GetLink(absent)).unwrap_err().doing("get link");
    assert!(error.is_not_found(), "{error}");
    let mut strict = LinkMessage::default();
    strict.header.index = 1;
    let error =
        socket.dump::<_, RouteNetlinkMessage>(RouteNetlinkMessage::GetLink(strict)).unwrap_err().doing("list links");
    assert_eq!(error.errno(), Some(libc::EINVAL));
    assert!(error.kernel_text().is_some_and(|text| text.contains("dump")), "{error}");
}
