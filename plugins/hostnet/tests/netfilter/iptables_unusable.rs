//! iptables programs that do not work: which backend is chosen then, and what is an error.

use hostnet::masquerade::{self, Backend};

use super::lab::*;

const ADDRS: [&str; 2] = ["10.1.2.14/24", "2001:db8:1::e/64"];

#[test]
fn nftables_is_chosen_where_iptables_does_not_work() {
    let broken = |dir: &std::path::Path| {
        for name in ["iptables", "iptables-restore", "ip6tables", "ip6tables-restore"] {
            script(dir, name, "echo broken >&2; exit 3");
        }
    };
    if !in_process_with_programs("iptables_unusable::nftables_is_chosen_where_iptables_does_not_work", broken) {
        return;
    }
    in_namespace(|| {
        masquerade::add(&ctr1(), None, &PLAIN, &cidrs(&ADDRS)).unwrap();
        masquerade::check(&ctr1(), Some(Backend::Nftables), &PLAIN, &cidrs(&ADDRS)).unwrap();
        masquerade::check(&ctr1(), None, &PLAIN, &cidrs(&ADDRS)).unwrap();
        let error = masquerade::add(&ctr1(), Some(Backend::Iptables), &PLAIN, &cidrs(&ADDRS)).unwrap_err();
        assert!(error.to_string().contains("broken (exit status 3)"), "{error}");
        masquerade::remove(&ctr1(), &[]).unwrap();
        assert!(!run("nft", &["list", "ruleset"]).contains("masquerade comment"));
        // Legacy rules that no program here can remove: not an error of a backend that does not work.
        feed("iptables-legacy", &["-t", "nat", "-N", "CNI-2fbf118d4cafd020f013271b"], "");
        masquerade::remove(&ctr1(), &[]).unwrap();
    });
}

#[test]
fn a_refusal_by_an_iptables_that_works_is_an_error() {
    let refusing = |dir: &std::path::Path| {
        script(dir, "iptables-restore", "cat >/dev/null; echo 'no such match' >&2; exit 2");
        script(dir, "iptables", "exit 1");
    };
    if !in_process_with_programs("iptables_unusable::a_refusal_by_an_iptables_that_works_is_an_error", refusing) {
        return;
    }
    in_namespace(|| {
        let error = masquerade::add(&ctr1(), None, &PLAIN, &cidrs(&ADDRS)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("change table nat with") && text.ends_with("no such match (exit status 2)"), "{text}");
        assert!(ruleset().is_empty());
    });
}

/// DEL of a pod that has no rules, or whose rules are in nf_tables, is done without a process.
#[test]
fn removal_starts_no_program() {
    let logging = |dir: &std::path::Path| {
        for name in ["iptables", "iptables-restore", "iptables-legacy", "iptables-legacy-restore"] {
            for name in [name.to_owned(), name.replace("iptables", "ip6tables")] {
                let log = dir.join("started").display().to_string();
                script(dir, &name, &format!("echo {name} >> {log}; exec /usr/sbin/{name} \"$@\""));
            }
        }
    };
    if !in_process_with_programs("iptables_unusable::removal_starts_no_program", logging) {
        return;
    }
    let path = std::env::var("PATH").unwrap();
    let log = std::path::Path::new(path.split(':').next().unwrap()).join("started");
    in_namespace(|| {
        masquerade::remove(&ctr1(), &[]).unwrap();
        assert!(!log.exists());
        masquerade::add(&ctr1(), None, &PLAIN, &cidrs(&ADDRS)).unwrap();
        masquerade::remove(&ctr1(), &[]).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "iptables-restore\nip6tables-restore\n");
    });
}
