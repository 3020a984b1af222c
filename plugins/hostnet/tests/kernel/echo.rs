//! Echo requests between a host and a pod, seen as they pass and remembered as neighbours.

use std::net::IpAddr;
use std::time::Duration;

use hostnet::capture::Capture;
use hostnet::icmp::{Answer, Echo};
use hostnet::{Netlink, neighbour};

use crate::lab::{json, run, with_pod};

const PATIENCE: Duration = Duration::from_secs(5);

/// A cable between the two. The pod's end is made by its process's namespace, so by its own `ip`.
fn connect(host: &Netlink, pod: &Netlink) {
    run(host, "ip link add far type veth peer name near");
    let path = pod.netns().path().display().to_string();
    let file = path.rsplit('/').next().unwrap().to_owned();
    run(host, &format!("ip link set far netns /proc/{}/fd/{file}", std::process::id()));
    for (nl, link, number) in [(host, "near", 1), (pod, "far", 2)] {
        for line in [
            format!("ip address add 10.0.0.{number}/24 dev {link}"),
            format!("ip address add fd00::{number}/64 dev {link} nodad"),
            format!("ip link set {link} up"),
            "ip link set lo up".to_owned(),
        ] {
            run(nl, &line);
        }
    }
}

#[test]
fn who_answers_is_heard_and_seen() {
    with_pod(|host, pod| {
        connect(host, pod);
        let near = json(host, "ip -j link show near")[0]["ifindex"].as_u64().unwrap();
        for (here, there) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (here, there): (IpAddr, IpAddr) = (here.parse().unwrap(), there.parse().unwrap());
            let capture = Capture::open(host).unwrap();
            let echo = Echo::open(host, there).unwrap();
            echo.send(1, 1500).unwrap();
            assert_eq!(echo.wait(PATIENCE).unwrap(), Some(Answer::Reply), "{there}");
            let seen = capture.take(echo.token()).unwrap();
            let seen: Vec<_> = seen.iter().filter(|seen| u64::from(seen.link) == near).collect();
            assert!(
                seen.iter().any(|seen| seen.outgoing && (seen.source, seen.destination) == (here, there)),
                "{seen:?}"
            );
            assert!(
                seen.iter().any(|seen| !seen.outgoing && (seen.source, seen.destination) == (there, here)),
                "{seen:?}"
            );
            let index = u32::try_from(near).unwrap();
            assert_eq!(neighbour::answers(host, index, there).unwrap(), Some(true));
            // Of another question nothing is heard or seen.
            let other = Echo::open(host, there).unwrap();
            assert_eq!(other.wait(Duration::ZERO).unwrap(), None);
            assert!(capture.take(other.token()).unwrap().is_empty());
        }
    });
}

#[test]
fn who_is_not_there_and_what_goes_nowhere() {
    with_pod(|host, pod| {
        connect(host, pod);
        let near = json(host, "ip -j link show near")[0]["ifindex"].as_u64().unwrap();
        let nobody = "10.0.0.9".parse().unwrap();
        let echo = Echo::open(host, nobody).unwrap();
        echo.send(1, 0).unwrap();
        let answer = echo.wait(PATIENCE).unwrap();
        assert!(matches!(answer, Some(Answer::Error { kind: 3, code: 1, .. })), "host unreachable: {answer:?}");
        assert_ne!(neighbour::answers(host, u32::try_from(near).unwrap(), nobody).unwrap(), Some(true));
        let error = Echo::open(host, "192.0.2.1".parse().unwrap()).unwrap().send(1, 0).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENETUNREACH as i32), "{error}");
    });
}
