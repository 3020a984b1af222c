//! Namespaces: which paths are one, and that a thread is where it should be afterwards.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;

use crate::lab::{Space, run, with_pod};
use hostnet::{Netlink, Netns, forwarding, sysctl};

fn current() -> String {
    fs::read_link("/proc/thread-self/ns/net").unwrap().display().to_string()
}

#[test]
fn paths_that_are_no_network_namespace() {
    let gone = Path::new("/run/netns/podwire-absent");
    let error = Netns::open(gone).unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("podwire-absent"), "{error}");
    assert!(Netns::get(gone).unwrap().is_none());
    for (path, why) in [
        ("/dev/null", "unknown FS magic"),
        ("/proc/self/status", "not a namespace"),
        ("/proc/self/ns/mnt", "another kind"),
        ("/proc/self/ns", "namespace"),
    ] {
        let error = Netns::open(Path::new(path)).unwrap_err();
        assert!(error.to_string().contains(why) && !error.is_not_found(), "{error}");
    }
}

#[test]
fn a_thread_returns_home() {
    let (one, two) = (Space::new(), Space::new());
    let (one, two) = (Netns::open(&one.path()).unwrap(), Netns::open(&two.path()).unwrap());
    let home = current();
    one.enter(|| {
        let inside = current();
        assert_ne!(inside, home);
        two.enter(|| assert_ne!(current(), inside)).unwrap();
        one.enter(|| assert_eq!(current(), inside)).unwrap();
        let elsewhere = thread::spawn(|| Netns::current().unwrap());
        assert!(elsewhere.join().unwrap().same_as(&one)); // a thread begins where its parent is
        assert_eq!(current(), inside);
    })
    .unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| one.enter(|| panic!("on purpose")))).is_err());
    assert_eq!(current(), home);
    assert!(!one.same_as(&two) && Netns::current().unwrap().is_current().unwrap());
}

#[test]
fn many_threads_each_in_its_own() {
    let spaces: Vec<_> = (0..8).map(|_| Space::new()).collect();
    thread::scope(|scope| {
        for space in &spaces {
            scope.spawn(|| {
                let netns = Netns::open(&space.path()).unwrap();
                for _ in 0..200 {
                    let (inside, outside) =
                        (netns.enter(|| Netns::current().unwrap()).unwrap(), Netns::current().unwrap());
                    assert!(inside.same_as(&netns) && !outside.same_as(&netns));
                }
            });
        }
    });
}

#[test]
fn open_is_the_calling_threads() {
    with_pod(|host, pod| {
        assert!(Netlink::open().unwrap().netns().same_as(host.netns()) && !host.netns().same_as(pod.netns()));
    });
}

#[test]
fn sysctls_of_the_right_namespace() {
    with_pod(|host, pod| {
        sysctl::set(pod, "net/ipv4/ip_forward", "1").unwrap();
        assert_eq!(sysctl::get(pod, "net/ipv4/ip_forward").unwrap().as_deref(), Some("1"));
        assert_eq!(run(pod, "cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        assert_eq!(run(host, "cat /proc/sys/net/ipv4/ip_forward"), "0\n");
        run(pod, "ip link add eth0.5 type veth peer name b");
        sysctl::set(pod, "net/ipv4/conf/eth0.5/arp_notify", "1").unwrap();
        assert_eq!(run(pod, "cat /proc/sys/net/ipv4/conf/eth0.5/arp_notify"), "1\n");
        assert_eq!(sysctl::get(pod, "net/ipv4/conf/absent/arp_notify").unwrap(), None);
        assert!(sysctl::set(pod, "net/ipv4/conf/absent/arp_notify", "1").unwrap_err().is_not_found());
        assert!(sysctl::set(pod, "net/../../etc/hostname", "x").unwrap_err().to_string().contains("not a key"));
        let error = sysctl::set(pod, "net/ipv4/ip_forward", "many").unwrap_err();
        assert!(error.to_string().contains("net/ipv4/ip_forward") && error.errno() == Some(libc::EINVAL), "{error}");
    });
}

/// A value that is there is not written again: a write of `ip_forward` alone flushes routes, and the file may be read-only.
#[test]
fn a_sysctl_that_is_so_already_is_not_written() {
    with_pod(|_, pod| {
        let read_only = "net/ipv4/tcp_available_congestion_control";
        let present = run(pod, &format!("cat /proc/sys/{read_only}"));
        sysctl::set(pod, read_only, present.trim_end()).unwrap();
        assert!(sysctl::set(pod, read_only, "other").is_err());
    });
}

/// Asked by netlink, changed by file; both families by themselves.
#[test]
fn forwarding_of_the_right_namespace_and_family() {
    with_pod(|host, pod| {
        assert!(!forwarding::get(pod, true).unwrap() && !forwarding::get(pod, false).unwrap());
        forwarding::ensure(pod, true).unwrap();
        assert_eq!(run(pod, "cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        assert_eq!(run(pod, "cat /proc/sys/net/ipv6/conf/all/forwarding"), "0\n");
        sysctl::set(pod, "net/ipv4/ip_forward", "0").unwrap();
        sysctl::set(pod, "net/ipv6/conf/all/forwarding", "1").unwrap();
        assert!(!forwarding::get(pod, true).unwrap() && forwarding::get(pod, false).unwrap());
        sysctl::set(pod, "net/ipv6/conf/all/forwarding", "0").unwrap();
        forwarding::ensure(pod, false).unwrap();
        assert_eq!(run(pod, "cat /proc/sys/net/ipv6/conf/all/forwarding"), "1\n");
        assert_eq!(run(pod, "cat /proc/sys/net/ipv4/ip_forward"), "0\n");
        assert!(!forwarding::get(host, true).unwrap());
    });
}
