//! Many questions to echo servers and their answers, told together: a path that does not work must not hide the next.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::echo::{self, Protocol};
use crate::namespace::Namespace;

/// How often a Service is asked until each of its endpoints has answered. With two of them, a test fails without a
/// reason once in 2^39.
const TRIES: u32 = 40;

/// What "at once" is: within the second packet. In the lab the first one of TCP over IPv6 is refused while the kernel is
/// still busy sending it, and that refusal is not heard; the packet is repeated after one second.
const AT_ONCE: Duration = Duration::from_millis(2500);

/// A datagram is sent as often in this time: nobody else repeats it.
const REPEATS: u32 = 5;

/// The answers to many questions: all are asked before the test fails, with all that was wrong.
#[derive(Debug)]
#[must_use = "nothing is proved before `finish`"]
pub struct Findings {
    combination: String,
    good: usize,
    wrong: Vec<String>,
}

impl Findings {
    /// None yet, of a combination of plugin, backend and so on.
    pub fn new(combination: &str) -> Self {
        Self { combination: combination.to_owned(), good: 0, wrong: Vec::new() }
    }

    /// Asks over TCP and UDP; any of the answers will do.
    pub fn ask_any(&mut self, path: &str, from: &Namespace, to: SocketAddr, accepted: &[String]) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let answer = from.enter(|| echo::ask_by(protocol, to)).map_err(|e| format!("no answer: {e}"));
            let outcome = match answer {
                Ok(answer) if accepted.contains(&answer) => Ok(answer),
                Ok(other) | Err(other) => Err(format!("{other}; expected {}", accepted.join(" or "))),
            };
            self.note(&format!("{path}, {protocol:?} to {to}"), outcome);
        }
    }

    /// Asks over TCP and UDP until all the expected answers were given, and no other.
    pub fn ask(&mut self, path: &str, from: &Namespace, to: SocketAddr, expected: &[String]) {
        self.ask_over(&[Protocol::Tcp, Protocol::Udp], path, from, to, expected);
    }

    /// The same over some protocols only.
    pub fn ask_over(
        &mut self,
        protocols: &[Protocol],
        path: &str,
        from: &Namespace,
        to: SocketAddr,
        expected: &[String],
    ) {
        for protocol in protocols {
            let mut seen = BTreeSet::new();
            let outcome = from.enter(|| {
                for _ in 0..TRIES {
                    let answer = echo::ask_by(*protocol, to).map_err(|e| format!("no answer: {e}"))?;
                    if !expected.contains(&answer) {
                        return Err(answer);
                    }
                    seen.insert(answer);
                    if seen.len() == expected.len() {
                        return Ok(());
                    }
                }
                Err(format!("in {TRIES} times only {seen:?}"))
            });
            let outcome = outcome.map_err(|seen| format!("{seen}; expected {}", expected.join(", ")));
            self.note(&format!("{path}, {protocol:?} to {to}"), outcome.map(|()| expected.join(", ")));
        }
    }

    /// Expects to be refused over TCP and UDP, without having to wait. All questions at the same time.
    pub fn refused(&mut self, questions: &[(String, &Namespace, SocketAddr)]) {
        let outcomes = thread::scope(|scope| {
            let asking: Vec<_> = questions
                .iter()
                .flat_map(|question| [(Protocol::Tcp, question), (Protocol::Udp, question)])
                .map(|(protocol, (path, from, to))| {
                    let answer = scope.spawn(move || from.enter(|| refusal(protocol, *to)));
                    (format!("{path}, {protocol:?} to {to}"), answer)
                })
                .collect();
            let answers = asking.into_iter().map(|(question, answer)| (question, answer.join().expect("ask")));
            answers.collect::<Vec<_>>()
        });
        for (question, outcome) in outcomes {
            self.note(&question, outcome.map(|()| "refused".to_owned()));
        }
    }

    fn note(&mut self, question: &str, outcome: Result<String, String>) {
        match outcome {
            Ok(answer) => {
                eprintln!("{}: {question}: {answer}", self.combination);
                self.good += 1;
            }
            Err(error) => self.wrong.push(format!("{question}: {error}")),
        }
    }

    /// Panics if anything was wrong.
    #[track_caller]
    pub fn finish(self) {
        let Self { combination, good, wrong } = self;
        assert!(wrong.is_empty(), "{combination}: {good} held, {} did not:\n  {}", wrong.len(), wrong.join("\n  "));
    }
}

fn refusal(protocol: Protocol, to: SocketAddr) -> Result<(), String> {
    let answer = match protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&to, AT_ONCE).map(|_| ()),
        Protocol::Udp => refusal_of_udp(to),
    };
    match answer {
        // The latter is REJECT in OUTPUT, heard by the sender of a datagram on the node itself.
        Err(error) if [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied].contains(&error.kind()) => Ok(()),
        Err(error) => Err(format!("not refused at once, but {error}")),
        Ok(()) => Err("not refused, but answered".to_owned()),
    }
}

fn refusal_of_udp(to: SocketAddr) -> std::io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(AT_ONCE / REPEATS))?;
    let mut outcome = Ok(());
    for _ in 0..REPEATS {
        outcome = socket.send(b"?").and_then(|_| socket.recv(&mut [0; 64])).map(|_| ());
        if !outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            break;
        }
    }
    outcome
}
