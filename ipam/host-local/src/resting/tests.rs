use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn boot(n: u32) -> BootId {
    BootId::parse(&format!("00000000-0000-4000-8000-{n:012}")).unwrap()
}

fn ip(n: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

#[test]
fn the_file_stays_small_and_the_newest_stay_in_it() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..10_000 {
        note(dir.path(), &boot(1), HOUR, "a", ip(n)).unwrap();
    }
    let length = std::fs::metadata(dir.path().join(NAME)).unwrap().len();
    assert!(length <= (HEADER + RECORDS_MAX * RECORD) as u64, "{length}");
    let resting = Resting::get(dir.path(), &boot(1), HOUR, "b");
    assert!((10_000 - 1024..10_000).all(|n| resting.contains(ip(n))));
    assert!(Resting::get(dir.path(), &boot(2), HOUR, "b").longest_first().is_empty());
    // In another boot it begins anew.
    note(dir.path(), &boot(2), HOUR, "a", ip(1)).unwrap();
    assert_eq!(Resting::get(dir.path(), &boot(2), HOUR, "b").longest_first(), [ip(1)]);
}

#[test]
fn the_last_owner_counts_and_a_rest_ends() {
    let dir = tempfile::tempdir().unwrap();
    note(dir.path(), &boot(1), HOUR, "a", ip(1)).unwrap();
    note(dir.path(), &boot(1), HOUR, "b", ip(1)).unwrap();
    assert!(Resting::get(dir.path(), &boot(1), HOUR, "a").contains(ip(1)));
    assert!(!Resting::get(dir.path(), &boot(1), HOUR, "b").contains(ip(1)));
    assert!(!Resting::get(dir.path(), &boot(1), Duration::ZERO, "a").contains(ip(1)));
}

#[test]
fn what_is_damaged_is_no_rest() {
    let dir = tempfile::tempdir().unwrap();
    for content in [&b""[..], b"x", &[0; 64], &[0xff; 100]] {
        std::fs::write(dir.path().join(NAME), content).unwrap();
        assert!(Resting::get(dir.path(), &boot(1), HOUR, "a").longest_first().is_empty());
        note(dir.path(), &boot(1), HOUR, "a", ip(1)).unwrap();
        assert!(Resting::get(dir.path(), &boot(1), HOUR, "b").contains(ip(1)));
    }
}
