use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

fn addr(n: u32) -> IpAddr {
    if n.is_multiple_of(2) { std::net::Ipv4Addr::from_bits(n).into() } else { Ipv6Addr::from_bits(n.into()).into() }
}

fn boot() -> BootId {
    BootId::current().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is entered and struck out, the table has what a map has, through every growth.
    #[test]
    fn has_what_was_entered(
        first in proptest::collection::vec((0u32..50, 0u32..1000), 0..100),
        then in proptest::collection::vec((any::<bool>(), 0u32..50, 0u32..1000), 0..1000),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut model: HashMap<String, BTreeSet<IpAddr>> = HashMap::new();
        let leases: Vec<Lease> = first.into_iter().map(|(id, n)| (format!("c{id}\r\neth0"), addr(n))).collect();
        leases.iter().for_each(|(content, addr)| { model.entry(content.clone()).or_default().insert(*addr); });
        let mut owners = Owners::create(dir.path(), &leases, &boot()).unwrap();
        for (enter, id, n) in then {
            let content = format!("c{id}\r\neth0");
            if enter {
                if model.entry(content.clone()).or_default().insert(addr(n)) {
                    owners.insert(dir.path(), &content, addr(n)).unwrap();
                }
            } else if model.entry(content.clone()).or_default().remove(&addr(n)) {
                while owners.get_addresses(&content).unwrap().contains(&addr(n)) {
                    owners.remove(&content, addr(n)).unwrap();
                }
            }
        }
        for (content, addresses) in &model {
            let found: BTreeSet<IpAddr> = owners.get_addresses(content).unwrap().into_iter().collect();
            prop_assert_eq!(&found, addresses);
        }
    }
}

#[test]
fn believed_only_as_it_was_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let dir_file = File::open(dir.path()).unwrap();
    let owners = Owners::create(dir.path(), &[("a".into(), addr(2))], &boot()).unwrap();
    assert!(Owners::get(dir.path(), &dir_file, &boot()).is_none());
    owners.seal(&dir_file).unwrap();
    assert_eq!(Owners::get(dir.path(), &dir_file, &boot()).unwrap().get_addresses("a").unwrap(), [addr(2)]);
    fs::write(dir.path().join("new"), "").unwrap();
    assert!(Owners::get(dir.path(), &dir_file, &boot()).is_none());
    owners.seal(&dir_file).unwrap();
    assert!(Owners::get(dir.path(), &dir_file, &boot()).is_some());
    fs::remove_file(dir.path().join("new")).unwrap();
    assert!(Owners::get(dir.path(), &dir_file, &boot()).is_none());
}
