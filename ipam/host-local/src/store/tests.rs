use libcni::Code;

use super::*;
use crate::boot::Age;
use crate::stamp::{self, Stamp};

fn owner(id: &str) -> Owner {
    Owner::new(&id.parse().unwrap(), &"eth0".parse().unwrap())
}

fn ip(last: u8) -> IpAddr {
    [10, 1, 2, last].into()
}

fn open(dir: &Path) -> Store {
    Store::open(dir, Duration::from_secs(5)).unwrap()
}

#[test]
fn a_held_lock_ends_the_wait() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open(dir.path());
    let error = Store::open(dir.path(), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    let error = Error::from(error);
    assert_eq!(error.code(), Code::TRY_AGAIN_LATER);
    assert!(error.msg().contains("/lock has been locked by another process"), "{error}");
}

#[test]
fn a_directory_that_is_removed_while_waiting_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let network = dir.path().join("net");
    let held = open(&network);
    let waiter = std::thread::spawn({
        let network = network.clone();
        move || open(&network).reserve(std::iter::once(ip(2)), &owner("a")).unwrap()
    });
    std::thread::sleep(Duration::from_millis(100));
    fs::remove_dir_all(&network).unwrap();
    drop(held);
    assert_eq!(waiter.join().unwrap(), Some(ip(2)));
    assert!(network.join("10.1.2.2").exists());
}

#[test]
fn reserve_takes_the_first_free_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.reserve([ip(2), ip(3)].into_iter(), &owner("a")).unwrap(), Some(ip(2)));
    assert_eq!(store.reserve([ip(2), ip(3)].into_iter(), &owner("b")).unwrap(), Some(ip(3)));
    assert_eq!(store.reserve([ip(2), ip(3)].into_iter(), &owner("c")).unwrap(), None);
    assert_eq!(store.get_free([ip(2), ip(4)].into_iter()).unwrap(), Some(ip(4)));
    // Behind more than are tried one by one.
    for last in 4..200 {
        store.reserve(std::iter::once(ip(last)), &owner("d")).unwrap();
    }
    assert_eq!(store.reserve((2..=255).map(ip), &owner("e")).unwrap(), Some(ip(200)));
    assert_eq!(store.held_by(owner("d").key()).unwrap().len(), 196);
    assert_eq!(store.taken().unwrap().len(), 199);
}

#[test]
fn last_reserved_shrinks_and_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.last_reserved(0), None);
    for last in [9, 200, 7] {
        store.set_last_reserved(0, ip(last)).unwrap();
        assert_eq!(store.last_reserved(0), Some(ip(last)));
    }
    assert_eq!(fs::read_to_string(dir.path().join("last_reserved_ip.0")).unwrap(), "10.1.2.7");
}

#[test]
fn only_files_named_by_an_address_are_leases() {
    let dir = tempfile::tempdir().unwrap();
    let key = owner("a").key().to_owned();
    for name in ["10.1.2.2", "10.1.2.02", "2001:DB8::2", "x10.1.2.3", "notes", "last_reserved_ip.0"] {
        fs::write(dir.path().join(name), &key).unwrap();
    }
    fs::create_dir(dir.path().join("10.1.2.9")).unwrap();
    fs::write(dir.path().join("10.1.2.9").join("10.1.2.10"), &key).unwrap();
    let mut store = open(dir.path());
    store.release_owner(&owner("a")).unwrap();
    drop(store);
    let left = fs::read_dir(dir.path()).unwrap().count();
    // The five that are no leases, the directory, the lock and the index. (The reference would have removed
    // every one of them: it looks at contents only, in every directory below.)
    assert_eq!(left, 8);
}

#[test]
fn large_files_and_strange_ones_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("10.1.2.2"), vec![b'x'; 1 << 20]).unwrap();
    fs::write(dir.path().join("10.1.2.3"), [0xff, 0xfe]).unwrap();
    std::os::unix::fs::symlink("/nonexistent", dir.path().join("10.1.2.4")).unwrap();
    let mut store = open(dir.path());
    assert!(store.held_by(owner("a").key()).unwrap().is_empty());
    assert_eq!(store.reserve((2..9).map(ip), &owner("a")).unwrap(), Some(ip(5)));
}

#[test]
fn leases_for_tools() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.reserve([ip(9), ip(3)].into_iter(), &owner("a")).unwrap();
    fs::write(dir.path().join("10.1.2.2"), "old").unwrap();
    fs::write(dir.path().join("10.1.2.4"), "").unwrap();
    let earlier = crate::boot::BootId::parse("00000000-0000-4000-8000-000000000001").unwrap();
    fs::write(dir.path().join("10.1.2.5"), "b\r\neth1").unwrap();
    stamp::set(&dir.path().join("10.1.2.5"), &Stamp::seen(&earlier)).unwrap();
    let mut store = {
        drop(store);
        open(dir.path()).read_only()
    };
    let all = store.leases().unwrap();
    let brief: Vec<_> = all.iter().map(|e| (e.address, e.container.as_str(), e.ifname.as_deref(), e.age)).collect();
    assert_eq!(
        brief,
        [
            (ip(2), "old", None, Age::Unknown),
            (ip(5), "b", Some("eth1"), Age::EarlierBoot),
            (ip(9), "a", Some("eth0"), Age::ThisBoot),
        ]
    );
    assert!(all.iter().all(|entry| entry.written.elapsed().unwrap() < Duration::from_secs(60)));
    assert!(dir.path().join("10.1.2.4").exists(), "to look is not to change");
    assert_eq!(stamp::get(&dir.path().join("10.1.2.2")), Ok(None));
}
