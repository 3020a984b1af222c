//! nf_tables without the nft program: what it prints of what we wrote, and what we read of what it wrote.

use hostnet::nft::{Batch, Expression, Family, Nft, Operator, Table, Verdict};

use super::lab::*;

const TABLE: Table = Table { family: Family::Inet, name: "t" };

/// A rule set with expressions nobody here knows: rules are listed all the same.
const FOREIGN: &str = r#"
add table inet t { comment "a table"; }
add chain inet t c { comment "a chain"; }
add chain inet t other
add set inet t s { type ipv4_addr . inet_service; flags interval; }
add rule inet t c ip saddr . tcp dport @s counter log prefix "x" comment "first"
add rule inet t c ct state established limit rate 5/second accept
add rule inet t c fib daddr type local meta mark set 0x42 jump other comment "third"
add rule inet t other drop comment "not in c"
"#;

#[test]
fn foreign_rules_are_listed() {
    in_namespace(|| {
        feed("nft", &["-f", "-"], FOREIGN);
        let mut nft = Nft::default();
        let rules = nft.rules(TABLE.chain("c")).unwrap();
        let comments: Vec<_> = rules.iter().map(|rule| rule.comment()).collect();
        assert_eq!(comments, [Some(b"first".as_slice()), None, Some(b"third".as_slice())]);
        let jump = Expression::Verdict(Verdict::Jump("other".to_owned()));
        assert_eq!(rules[2].expressions().last(), Some(&jump));
        assert!(rules[2].mentions("other") && !rules[0].mentions("other"));
        let listed = run("nft", &["-a", "list", "chain", "inet", "t", "c"]);
        for rule in &rules {
            assert!(listed.contains(&format!("# handle {}\n", rule.handle())), "{listed}");
        }
    });
}

/// Of every family and table, with what becomes of packets that no rule decides.
#[test]
fn base_chains_of_all_tables() {
    in_namespace(|| {
        feed(
            "nft",
            &["-f", "-"],
            "add table inet a
             add chain inet a plain
             add chain inet a gate { type filter hook forward priority 0; policy drop; }
             add table ip b
             add chain ip b gate { type filter hook forward priority 10; policy accept; }
             add chain ip b door { type filter hook input priority 10; policy drop; }
             add table ip6 c
             add chain ip6 c gate { type filter hook forward priority 10; }
             add rule ip6 c gate drop comment \"whose\"",
        );
        let mut nft = Nft::default();
        let chains = nft.base_chains().unwrap();
        let forward = |ipv4| {
            let chains = chains.iter().filter(|chain| chain.sees_forwarded(ipv4));
            chains.map(|chain| (chain.to_string(), chain.drops)).collect::<Vec<_>>()
        };
        assert_eq!(forward(true), [("inet a gate".to_owned(), true), ("ip b gate".to_owned(), false)]);
        assert_eq!(forward(false), [("inet a gate".to_owned(), true), ("ip6 c gate".to_owned(), false)]);
        assert_eq!(chains.len(), 4);
        let rules = nft.all_rules().unwrap();
        assert_eq!(rules.iter().map(|rule| rule.comment()).collect::<Vec<_>>(), [Some(b"whose".as_slice())]);
    });
}

#[test]
fn absent_chains() {
    in_namespace(|| {
        let mut nft = Nft::default();
        assert!(!nft.has_chain(TABLE.chain("c")).unwrap() && nft.rules(TABLE.chain("c")).unwrap().is_empty());
        feed("nft", &["-f", "-"], FOREIGN);
        assert!(nft.has_chain(TABLE.chain("c")).unwrap() && !nft.has_chain(TABLE.chain("d")).unwrap());
        assert!(nft.rules(TABLE.chain("d")).unwrap().is_empty());
        let other_family = Table { family: Family::Ip, name: "t" };
        assert!(nft.rules(other_family.chain("c")).unwrap().is_empty());
        assert!(Nft::is_usable());
    });
}

#[test]
fn a_batch_holds_as_a_whole_and_says_what_failed() {
    in_namespace(|| {
        let mut nft = Nft::default();
        nft.commit(Batch::default()).unwrap();
        let mut batch = Batch::default();
        batch.ensure_table(TABLE, Some("a table"));
        batch.create_chain(TABLE.chain("c"), None, None);
        batch.append_rule(TABLE.chain("c"), vec![Expression::Verdict(Verdict::Jump("absent".to_owned()))], None);
        let error = nft.commit(batch).unwrap_err();
        assert!(error.is_not_found() && error.to_string().starts_with("add rule to inet t c: "), "{error}");
        assert!(ruleset().is_empty());

        let mut batch = Batch::default();
        batch.ensure_table(TABLE, Some("a table"));
        batch.create_chain(TABLE.chain("c"), None, Some("a chain"));
        batch.append_rule(TABLE.chain("c"), vec![Expression::Verdict(Verdict::Accept)], Some(b"yes"));
        nft.commit(batch).unwrap();
        let wanted = "add table inet t { comment \"a table\"; }\nadd chain inet t c { comment \"a chain\"; }\n\
                      add rule inet t c accept comment \"yes\"\n";
        assert_eq!(ruleset(), ruleset_of(wanted));

        let mut batch = Batch::default();
        batch.create_chain(TABLE.chain("c"), None, None);
        assert!(nft.commit(batch).unwrap_err().is_exists());
        let mut batch = Batch::default();
        batch.flush_chain(TABLE.chain("c"));
        batch.remove_chain(TABLE.chain("c"));
        nft.commit(batch).unwrap();
        assert_eq!(ruleset().len(), 1);
    });
}

#[test]
fn expressions_are_read_as_they_were_written() {
    in_namespace(|| {
        let all = vec![
            Expression::Meta(hostnet::nft::MetaKey::Nfproto),
            Expression::Compare(Operator::Equal, vec![2]),
            Expression::Payload { base: 1, offset: 16, len: 4 },
            Expression::Mask(vec![255, 255, 0xf0, 0]),
            Expression::Compare(Operator::NotEqual, vec![10, 1, 0x10, 0]),
            Expression::Verdict(Verdict::Return),
        ];
        let mut nft = Nft::default();
        let mut batch = Batch::default();
        batch.ensure_table(TABLE, None);
        batch.create_chain(TABLE.chain("c"), None, None);
        batch.append_rule(TABLE.chain("c"), all.clone(), None);
        nft.commit(batch).unwrap();
        assert_eq!(nft.rules(TABLE.chain("c")).unwrap()[0].expressions(), all);
        assert!(run("nft", &["list", "ruleset"]).contains("ip daddr != 10.1.16.0/20 return"));
    });
}

/// Somebody else is faster between the look and the change.
#[test]
fn a_change_is_planned_again_when_the_state_has_changed() {
    in_namespace(|| {
        let mut looks = 0;
        let settled = Nft::default().settle(|nft| {
            looks += 1;
            let mut batch = Batch::default();
            batch.ensure_table(TABLE, None);
            if !nft.has_chain(TABLE.chain("c"))? {
                batch.create_chain(TABLE.chain("c"), None, None);
            }
            if looks == 1 {
                feed("nft", &["-f", "-"], "add table inet t\nadd chain inet t c\n");
            }
            Ok(batch)
        });
        settled.unwrap();
        assert_eq!(looks, 2);
        let hopeless = Nft::default().settle(|_| {
            looks += 1;
            let mut batch = Batch::default();
            batch.create_chain(TABLE.chain("c"), None, None);
            Ok(batch)
        });
        assert!(hopeless.unwrap_err().is_exists() && looks < 20);
    });
}
