//! bandwidth: what passes is what was asked for, measured with TCP between a pod and its node, over IPv4 and IPv6.
//!
//! A machine that is busy with something else delays a flow, and a receiver that slept finds much at once. So there are
//! two numbers: what came since the first byte, less the burst, which no delay makes larger, and must never be too much;
//! and what came after the burst, which must be right in one of a few attempts.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::plugin::with_prev_result;
use tests::{Host, Namespace, Pod};

use crate::bandwidth_conf::CONTAINERD_BURST;
use crate::bridge_conf::{dual, with};

const ATTEMPTS: usize = 4;
/// Addresses of the node and of the first pod.
const NODE: [&str; 2] = ["10.1.0.1", "fd00:1::1"];
const POD: [&str; 2] = ["10.1.0.2", "fd00:1::2"];

/// Bits a second.
struct Flow {
    /// From the first byte on, without the burst.
    whole: f64,
    /// From the end of twice the burst on.
    after_burst: f64,
}

/// From one namespace to an address of another, for as long as `time` after twice the `burst`, which is in bytes.
fn measure(from: &Namespace, to: &Namespace, address: &str, burst: u32, time: Duration) -> Flow {
    let address: IpAddr = address.parse().unwrap();
    let listener = to.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    thread::scope(|scope| {
        scope.spawn(move || {
            let address = SocketAddr::new(address, port);
            let mut stream = from.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(5))).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            // Until the receiver has seen enough, and closes.
            while stream.write_all(&[7; 16 * 1024]).is_ok() {}
        });
        receive(&listener, burst, time)
    })
}

fn receive(listener: &TcpListener, burst: u32, time: Duration) -> Flow {
    let (mut stream, _) = listener.accept().unwrap();
    let start = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0_u32;
    let mut until = |enough: &dyn Fn(u32, Instant) -> bool| loop {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the sender gave up");
        bytes += u32::try_from(count).unwrap();
        let now = Instant::now();
        if enough(bytes, now) {
            return (bytes, now);
        }
    };
    let (before, middle) = until(&|bytes, _| bytes > 2 * burst);
    let (all, end) = until(&|_, now| now - middle >= time);
    let rate = |bytes: u32, time: Duration| f64::from(bytes) * 8.0 / time.as_secs_f64();
    Flow { whole: rate(all - burst, end - start), after_burst: rate(all - before, end - middle) }
}

/// Within 15 % of the rate. A frame has 14 bytes and a header of 52 or 72 that the receiver does not count.
fn assert_rate(what: &str, rate: f64, measure: impl Fn() -> Flow) {
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let flow = measure();
        seen.push((flow.whole.round(), flow.after_burst.round()));
        assert!(flow.whole <= rate * 1.15, "{what}: {rate} bit/s were asked for, it is {seen:?}");
        if (rate * 0.85..=rate * 1.15).contains(&flow.after_burst) {
            return;
        }
    }
    panic!("{what}: {rate} bit/s were asked for, it is {seen:?}");
}

fn chain(host: &Host, plugin: &str, limits: Value) -> (Pod, Value) {
    let pod = host.pod();
    let main = with(&dual(), json!({"type": plugin}));
    let made = host.plugin(plugin).add(&main, &pod, "eth0").success();
    let conf =
        json!({"cniVersion": "1.0.0", "name": "net", "type": "bandwidth", "runtimeConfig": {"bandwidth": limits}});
    let conf = with_prev_result(&conf, &made);
    host.plugin("bandwidth").add(&conf, &pod, "eth0").success();
    (pod, conf)
}

/// Bits a second into the pod and out of it.
fn assert_both(host: &Host, pod: &Pod, rates: [u32; 2], burst: u32, time: Duration) {
    for family in 0..2 {
        assert_rate(&format!("to {}", POD[family]), rates[0].into(), || measure(host, pod, POD[family], burst, time));
        assert_rate(&format!("to {}", NODE[family]), rates[1].into(), || measure(pod, host, NODE[family], burst, time));
    }
}

#[test]
fn twenty_megabits_behind_bridge_ten_and_forty_behind_ptp() {
    for (plugin, rates) in [("bridge", [20_000_000, 20_000_000]), ("ptp", [10_000_000, 40_000_000])] {
        let host = Host::new();
        let limits = json!({"ingressRate": rates[0], "ingressBurst": 2_000_000, "egressRate": rates[1], "egressBurst": 2_000_000});
        let (pod, _) = chain(&host, plugin, limits);
        assert_both(&host, &pod, rates, 250_000, Duration::from_millis(1500));
    }
}

/// What containerd sends for a pod with an annotation of a rate.
#[test]
fn a_rate_alone_is_kept_from_the_first_second_on() {
    let host = Host::new();
    let limits = json!({"IngressRate": 1_000_000, "IngressBurst": CONTAINERD_BURST,
        "EgressRate": 1_000_000, "EgressBurst": CONTAINERD_BURST});
    let (pod, _) = chain(&host, "bridge", limits);
    assert_both(&host, &pod, [1_000_000, 1_000_000], 15_180, Duration::from_millis(2500));
}

/// B8: with the reference such a shaper drops all but the smallest packets.
#[test]
fn a_burst_below_a_packet_does_not_slow_a_flow_down() {
    let host = Host::new();
    let limits = json!({"ingressRate": 2_000_000, "ingressBurst": 8, "egressRate": 2_000_000, "egressBurst": 800});
    let (pod, _) = chain(&host, "bridge", limits);
    assert_both(&host, &pod, [2_000_000, 2_000_000], 1518, Duration::from_millis(1500));
}

#[test]
fn the_other_direction_is_as_fast_as_it_was() {
    for (limits, free) in [
        (json!({"ingressRate": 10_000_000, "ingressBurst": 1_000_000}), "out"),
        (json!({"egressRate": 10_000_000, "egressBurst": 1_000_000}), "in"),
    ] {
        let host = Host::new();
        let (pod, conf) = chain(&host, "bridge", limits);
        let time = Duration::from_millis(300);
        let towards = || measure(&host, &pod, POD[0], 125_000, time).after_burst;
        let from = || measure(&pod, &host, NODE[0], 125_000, time).after_burst;
        let (limited, unlimited) = if free == "out" { (towards(), from()) } else { (from(), towards()) };
        assert!(limited <= 20_000_000.0 && unlimited > 10.0 * limited, "{free}: {limited} {unlimited}");
        // And after DEL both are.
        host.plugin("bandwidth").del(&conf, &pod, "eth0").success();
        assert!(towards() > 10.0 * limited && from() > 10.0 * limited);
    }
}
