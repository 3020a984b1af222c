//! One question by ping: whether an address answers, and what was seen of the packets on the node meanwhile.

use std::net::IpAddr;
use std::time::Duration;

use hostnet::Netlink;
use hostnet::capture::{Capture, Seen};
use hostnet::icmp::{Answer, Echo};

/// A link that has just come up may lose what is sent in its first seconds, while the kernel looks for duplicates of its
/// addresses.
const ATTEMPTS: u16 = 8;
const PAUSE: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Clone, Copy)]
pub struct Question {
    pub to: IpAddr,
    /// Bytes of the IP packet; 0 is the smallest.
    pub size: usize,
    /// Routers it may pass: not more, and the last of them answers.
    pub hops: Option<u8>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Asked {
    pub answer: Option<Answer>,
    /// What the node's links saw, in order.
    pub seen: Vec<Seen>,
    /// Why nothing could be sent.
    pub failure: Option<String>,
}

impl Asked {
    /// Whether the address answered.
    pub fn is_answered(&self) -> bool {
        self.answer == Some(Answer::Reply)
    }
}

impl Question {
    /// A small packet.
    pub fn to(to: IpAddr) -> Self {
        Self { to, size: 0, hops: None }
    }

    /// Asks from a namespace until there is an answer or the patience is over; `wanted` says which answer is one.
    pub fn ask(self, from: &Netlink, capture: Option<&Capture>, wanted: impl Fn(Answer) -> bool) -> Asked {
        let mut asked = Asked::default();
        let outcome = self.try_all(from, &mut asked, wanted, capture);
        if let Err(error) = outcome {
            asked.failure = Some(error.to_string());
        }
        asked
    }

    fn try_all(
        self,
        from: &Netlink,
        asked: &mut Asked,
        wanted: impl Fn(Answer) -> bool,
        capture: Option<&Capture>,
    ) -> hostnet::Result<()> {
        let echo = Echo::open(from, self.to)?;
        if let Some(hops) = self.hops {
            echo.set_hop_limit(hops)?;
        }
        let mut sent = Ok(());
        for sequence in 1..=ATTEMPTS {
            // What cannot be sent now may be sent a moment later, with an address that is no longer tentative.
            sent = echo.send(sequence, self.size);
            let answer = echo.wait(PAUSE)?;
            asked.answer = answer.or(asked.answer);
            if let Some(capture) = capture {
                asked.seen.extend(capture.take(echo.token())?);
            }
            if answer.is_some_and(&wanted) {
                return Ok(());
            }
        }
        sent
    }
}

/// The usual answer.
pub fn reply(answer: Answer) -> bool {
    answer == Answer::Reply
}

/// Whether a router says that its neighbour is not there.
pub fn is_host_unreachable(answer: Answer) -> bool {
    match answer {
        Answer::Reply => false,
        Answer::Error { from, kind, code } => {
            (from.is_ipv4() && (kind, code) == (3, 1)) || (from.is_ipv6() && (kind, code) == (1, 3))
        }
    }
}

/// An ICMP error in words.
pub fn describe(answer: Answer) -> Option<String> {
    let Answer::Error { from, kind, code } = answer else { return None };
    let what = match (from.is_ipv4(), kind, code) {
        (true, 3, 4) | (false, 2, _) => "it is too big",
        (true, 3, 0 | 6) | (false, 1, 0) => "there is no route",
        (true, 3, 1 | 7) | (false, 1, 3) => "the host does not answer",
        (true, 3, 9 | 10 | 13) | (false, 1, 1 | 5 | 6) => "it is prohibited (REJECT)",
        (true, 3, 3) | (false, 1, 4) => "it is rejected",
        (true, 11, _) | (false, 3, _) => "it has passed too many routers",
        _ => return Some(format!("{from} answers with ICMP type {kind}, code {code}")),
    };
    Some(format!("{from} answers that {what}"))
}
