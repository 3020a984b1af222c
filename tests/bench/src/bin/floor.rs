//! The floor: the kernel objects of a bridge pod, made by the fewest netlink requests, and by nothing else. No JSON,
//! no child, no lease, no question about what is there, no undo. What a plugin takes longer is its own.
//!
//! ```text
//! floor add NETNS HOST_IFNAME BRIDGE_INDEX MASQUERADE ADDRESS/LENGTH=GATEWAY...
//! floor del NETNS
//! ```
//!
//! ADD sends three datagrams: the pair, its host end up and a port of the bridge; the question for the number of the
//! pod's end; that end up, with its addresses and default routes. MASQUERADE is `nftables` for a fourth one, with a
//! rule for each address, or anything else for none. DEL sends one: the end of the pair.
//!
//! The codec is this file's own, so that no library's cost is taken for the kernel's.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::sched::{CloneFlags, setns};

const IFNAME: &[u8] = b"eth0\0";
const UP: u32 = 1;

// linux/netlink.h
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const EXCL: u16 = 0x200;
const APPEND: u16 = 0x800;
const NESTED: u16 = 1 << 15;
// linux/rtnetlink.h, linux/if_link.h, linux/veth.h, linux/if_addr.h
const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const RTA_GATEWAY: u16 = 5;
// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWRULE: u16 = 10 << 8 | 6;
const INET: u8 = 1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["add", netns, host_ifname, bridge, masquerade, addresses @ ..] => {
            add(netns, host_ifname, bridge, *masquerade == "nftables", addresses)
        }
        ["del", netns] => del(netns),
        _ => Err(wrong("floor add NETNS HOST_IFNAME BRIDGE_INDEX MASQUERADE ADDRESS/LENGTH=GATEWAY... | del NETNS")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn add(netns: &str, host_ifname: &str, bridge: &str, masquerade: bool, addresses: &[&str]) -> io::Result<()> {
    let addresses = addresses.iter().map(|text| Address::parse(text)).collect::<io::Result<Vec<_>>>()?;
    let bridge: u32 = bridge.parse().map_err(|_| wrong("the bridge's number"))?;
    let pod = File::open(netns)?;
    let host = socket(NETLINK_ROUTE)?;
    // Here: later the thread is in the pod.
    let rules = if masquerade { Some(socket(NETLINK_NETFILTER)?) } else { None };
    request(&host, &pair(&pod, host_ifname, bridge)?)?;

    setns(&pod, CloneFlags::CLONE_NEWNET)?;
    let inside = socket(NETLINK_ROUTE)?;
    let index = index_of_pod_end(&inside)?;
    let mut datagram = message(NEWLINK, REQUEST, &[&link(index, UP)]);
    for address in &addresses {
        datagram.extend(address.message(index));
    }
    for (place, address) in addresses.iter().enumerate() {
        let last = place + 1 == addresses.len();
        datagram.extend(address.default_route(if last { ACK } else { 0 }));
    }
    request(&inside, &datagram)?;
    rules.map_or(Ok(()), |rules| request(&rules, &batch(&addresses)))
}

fn del(netns: &str) -> io::Result<()> {
    setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
    let inside = socket(NETLINK_ROUTE)?;
    request(&inside, &message(DELLINK, REQUEST | ACK, &[&link(0, 0), &attribute(IFLA_IFNAME, IFNAME)]))
}

/// An address of the pod, and the gateway that its default route leads to.
struct Address {
    ip: Vec<u8>,
    prefix_len: u8,
    gateway: Vec<u8>,
}

impl Address {
    fn parse(text: &str) -> io::Result<Self> {
        let parts = text.split_once('=').and_then(|(cidr, gateway)| Some((cidr.split_once('/')?, gateway)));
        let ((ip, prefix_len), gateway) = parts.ok_or_else(|| wrong(text))?;
        let prefix_len = prefix_len.parse().map_err(|_| wrong(text))?;
        Ok(Self { ip: octets(ip)?, prefix_len, gateway: octets(gateway)? })
    }

    /// `AF_INET` or `AF_INET6`.
    fn family(&self) -> u8 {
        if self.ip.len() == 4 { 2 } else { 10 }
    }

    /// `struct ifaddrmsg` and the address. IPv6 without the test for duplicates: the address was chosen for the pod.
    fn message(&self, index: u32) -> Vec<u8> {
        let header = [&[self.family(), self.prefix_len, IFA_F_NODAD, 0][..], &index.to_ne_bytes()].concat();
        let parts = [&header[..], &attribute(IFA_LOCAL, &self.ip), &attribute(IFA_ADDRESS, &self.ip)];
        message(NEWADDR, REQUEST | CREATE | EXCL, &parts)
    }

    /// `struct rtmsg`: table main, protocol boot, scope universe, unicast.
    fn default_route(&self, flags: u16) -> Vec<u8> {
        let header = [self.family(), 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        message(NEWROUTE, REQUEST | CREATE | EXCL | flags, &[&header, &attribute(RTA_GATEWAY, &self.gateway)])
    }

    /// The address's network.
    fn network(&self) -> Vec<u8> {
        let mut left = self.prefix_len;
        let mut mask = || {
            let bits = left.min(8);
            left -= bits;
            !(u8::MAX.checked_shr(bits.into()).unwrap_or(0))
        };
        self.ip.iter().map(|byte| byte & mask()).collect()
    }
}

/// The pair: its host end `host_ifname`, up, a port of the bridge; the pod's end in its namespace.
fn pair(pod: &File, host_ifname: &str, bridge: u32) -> io::Result<Vec<u8>> {
    let namespace = u32::try_from(pod.as_raw_fd()).map_err(io::Error::other)?;
    // As the plugins': the kernel makes more queues than it uses, unless told.
    let one_queue = [IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES].map(|kind| attribute(kind, &1u32.to_ne_bytes())).concat();
    let peer = [
        &link(0, 0)[..],
        &attribute(IFLA_IFNAME, IFNAME),
        &attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes()),
        &one_queue,
    ];
    let peer = attribute(VETH_INFO_PEER | NESTED, &peer.concat());
    let info = [attribute(IFLA_INFO_KIND, b"veth"), attribute(IFLA_INFO_DATA | NESTED, &peer)].concat();
    let name = [host_ifname.as_bytes(), b"\0"].concat();
    Ok(message(
        NEWLINK,
        REQUEST | ACK | CREATE | EXCL,
        &[
            &link(0, UP),
            &attribute(IFLA_IFNAME, &name),
            &attribute(IFLA_MASTER, &bridge.to_ne_bytes()),
            &one_queue,
            &attribute(IFLA_LINKINFO | NESTED, &info),
        ],
    ))
}

fn index_of_pod_end(inside: &Socket) -> io::Result<u32> {
    inside.send(&message(GETLINK, REQUEST, &[&link(0, 0), &attribute(IFLA_IFNAME, IFNAME)]), 0)?;
    let answer = receive(inside)?;
    // Behind the header (16 bytes), ifi_index follows family and type.
    answer.get(20..24).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes).ok_or_else(|| wrong("answer"))
}

/// The rules, as one transaction: for each address the same expressions as the suites'.
fn batch(addresses: &[Address]) -> Vec<u8> {
    // struct nfgenmsg: family, version, resource; that of a batch names nf_tables.
    let mark = |kind| message(kind, REQUEST, &[&[0, 0, 0, 10]]);
    let mut datagram = mark(BATCH_BEGIN);
    for (place, address) in addresses.iter().enumerate() {
        let ack = if place + 1 == addresses.len() { ACK } else { 0 };
        let expressions: Vec<u8> = masquerade(address).iter().flat_map(|one| attribute(1 | NESTED, one)).collect();
        let rule = [
            &[INET, 0, 0, 0][..],
            &attribute(1, b"cni_plugins_masquerade\0"),
            &attribute(2, b"masq_checks\0"),
            &attribute(4 | NESTED, &expressions),
        ];
        datagram.extend(message(NEWRULE, REQUEST | CREATE | APPEND | ack, &rule));
    }
    datagram.extend(mark(BATCH_END));
    datagram
}

/// `ip saddr ADDRESS ip daddr != NETWORK masquerade`, in the registers' language of nf_tables.
fn masquerade(address: &Address) -> Vec<Vec<u8>> {
    let length = u32::try_from(address.ip.len()).unwrap_or_default();
    let (source, destination) = if length == 4 { (12, 16) } else { (8, 24) };
    let zero = vec![0; address.ip.len()];
    let mask = Address { ip: vec![u8::MAX; address.ip.len()], prefix_len: address.prefix_len, gateway: Vec::new() };
    vec![
        expression("meta", &[number(2, 15), number(1, 1)]), // key NFT_META_NFPROTO to register 1
        compare(0, &[address.family()]),
        load(source, length),
        compare(0, &address.ip),
        load(destination, length),
        expression(
            "bitwise",
            &[number(1, 1), number(2, 1), number(3, length), value(4, &mask.network()), value(5, &zero)],
        ),
        compare(1, &address.network()),
        expression("masq", &[]),
    ]
}

fn expression(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let name = [name.as_bytes(), b"\0"].concat();
    [attribute(1, &name), attribute(2 | NESTED, &attributes.concat())].concat()
}

/// Bytes of the network header (base 1) to register 1.
fn load(offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[number(1, 1), number(2, 1), number(3, offset), number(4, length)])
}

/// Register 1 equal (0) or not equal (1) to these bytes.
fn compare(operator: u32, bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, 1), number(2, operator), value(3, bytes)])
}

fn number(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, &attribute(1, bytes))
}

/// `struct ifinfomsg`; `change` is both the flag and its mask.
fn link(index: u32, change: u32) -> Vec<u8> {
    [&[0; 4][..], &index.to_ne_bytes(), &change.to_ne_bytes(), &change.to_ne_bytes()].concat()
}

/// `struct nlattr`, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `struct nlmsghdr` and what follows it. Nobody looks at the sequence number.
fn message(kind: u16, flags: u16, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], &body].concat()
}

fn socket(protocol: isize) -> io::Result<Socket> {
    let socket = Socket::new(protocol)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a datagram whose last request asks for an acknowledgement.
fn request(socket: &Socket, datagram: &[u8]) -> io::Result<()> {
    socket.send(datagram, 0)?;
    receive(socket).map(drop)
}

/// The next answer; an error of the kernel is one.
fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut answer = Vec::with_capacity(8192);
    socket.recv(&mut answer, 0)?;
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let errno = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, errno) {
        (Some(2), Some(errno)) if errno != 0 => Err(io::Error::from_raw_os_error(-errno)),
        _ => Ok(answer),
    }
}

fn octets(text: &str) -> io::Result<Vec<u8>> {
    match text.parse().map_err(|_| wrong(text))? {
        IpAddr::V4(v4) => Ok(v4.octets().to_vec()),
        IpAddr::V6(v6) => Ok(v6.octets().to_vec()),
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
