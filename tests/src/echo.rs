//! A server that tells its clients which source address it sees: the proof, or the refutation, of a masquerade.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;

/// How long an answer may take. A link that has just come up may lose what is sent in its first second or two, while
/// the kernel looks for duplicates of its addresses.
const PATIENCE: Duration = Duration::from_secs(4);
/// UDP is sent again as often.
const REPEAT: Duration = Duration::from_millis(250);

/// What a question is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One connection.
    Tcp,
    /// One socket; its datagram is repeated.
    Udp,
}

/// A UDP and TCP server on one port, both families, until dropped.
#[derive(Debug)]
pub struct Echo {
    port: u16,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// One that answers with the address alone.
    pub(crate) fn start(place: &Namespace) -> Self {
        Self::start_with(place, "")
    }

    /// One that answers `NAME saw ADDRESS`: there is more than one, and the question is also who answered.
    pub fn named(place: &Namespace, name: &str) -> Self {
        Self::start_with(place, &format!("{name} saw "))
    }

    fn start_with(place: &Namespace, prefix: &str) -> Self {
        let (udp, tcp) = place.enter(|| {
            let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("bind a UDP socket");
            let port = udp.local_addr().expect("the UDP socket's address").port();
            (udp, TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("bind a TCP socket"))
        });
        let port = tcp.local_addr().expect("the TCP socket's address").port();
        udp.set_read_timeout(Some(Duration::from_millis(100))).expect("set a timeout");
        tcp.set_nonblocking(true).expect("set non-blocking");
        let ended = Arc::new(AtomicBool::new(false));
        let (ended_udp, ended_tcp) = (ended.clone(), ended.clone());
        let (prefix_udp, prefix_tcp) = (prefix.to_owned(), prefix.to_owned());
        // A socket stays in the namespace it was made in; where its thread runs does not matter.
        let threads = vec![
            std::thread::spawn(move || while_running(&ended_udp, || answer_udp(&udp, &prefix_udp))),
            std::thread::spawn(move || while_running(&ended_tcp, || answer_tcp(&tcp, &prefix_tcp))),
        ];
        Self { port, ended, threads }
    }

    /// The port, the same for UDP and TCP.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn while_running(ended: &AtomicBool, mut once: impl FnMut()) {
    while !ended.load(Ordering::Relaxed) {
        once();
    }
}

fn answer_udp(socket: &UdpSocket, prefix: &str) {
    let mut buffer = [0; 16];
    if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
        drop(socket.send_to(seen(prefix, peer).as_bytes(), peer));
    }
}

fn answer_tcp(listener: &TcpListener, prefix: &str) {
    match listener.accept() {
        Ok((mut stream, peer)) => drop(stream.write_all(seen(prefix, peer).as_bytes())),
        Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(10)),
        Err(_) => {}
    }
}

fn seen(prefix: &str, peer: SocketAddr) -> String {
    format!("{prefix}{}", peer.ip().to_canonical())
}

/// Asks over UDP and TCP from where the calling thread is.
pub(crate) fn ask(address: IpAddr, port: u16) -> Result<IpAddr, String> {
    let there = SocketAddr::new(address, port);
    let udp = ask_udp(there).map_err(|e| format!("UDP to {there}: {e}"))?;
    let tcp = ask_tcp(there).map_err(|e| format!("TCP to {there}: {e}"))?;
    assert_eq!(udp, tcp, "{there} sees one address over UDP and another over TCP");
    udp.parse().map_err(|e| format!("{there} answered {udp:?}: {e}"))
}

/// Asks once from where the calling thread is; the answer as it came.
pub(crate) fn ask_by(protocol: Protocol, there: SocketAddr) -> std::io::Result<String> {
    match protocol {
        Protocol::Tcp => ask_tcp(there),
        Protocol::Udp => ask_udp(there),
    }
}

fn ask_udp(there: SocketAddr) -> std::io::Result<String> {
    let any: IpAddr = if there.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(there)?;
    socket.set_read_timeout(Some(REPEAT))?;
    let end = Instant::now() + PATIENCE;
    let mut buffer = [0; 64];
    loop {
        // An error may be an earlier packet's, brought back by ICMP.
        match socket.send(b"?").and_then(|_| socket.recv(&mut buffer)) {
            Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
}

fn ask_tcp(there: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&there, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
