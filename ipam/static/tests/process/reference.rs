//! The same calls to the reference's `static`: the same results, and refusals of the same things.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::call::{OURS, Outcome, call, conf, with};

/// The reference's plugin in every version of it that is there: Debian's, and under `cargo xtask test` the newest.
fn references() -> Vec<PathBuf> {
    let named = std::env::var_os("PODWIRE_REFERENCE_DIR").unwrap_or_else(|| "/usr/lib/cni".into());
    let all = [Some(named), std::env::var_os("PODWIRE_NEWEST_REFERENCE_DIR")];
    let programs: Vec<PathBuf> = all.into_iter().flatten().map(|dir| PathBuf::from(dir).join("static")).collect();
    for program in &programs {
        let hint = "install containernetworking-plugins, or set PODWIRE_REFERENCE_DIR";
        assert!(program.exists(), "{} is missing: {hint}", program.display());
    }
    programs
}

/// The versions that a plugin says it speaks.
fn versions(program: &Path) -> Vec<String> {
    let answer = call(program, "VERSION", &json!({ "cniVersion": "1.0.0" }), "");
    answer.success()["supportedVersions"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// Newer versions of the reference leave an empty `dns` out, as we do.
fn normal(outcome: &Outcome) -> Value {
    let mut json = outcome.json.clone();
    if json["dns"] == json!({}) {
        json.as_object_mut().unwrap().remove("dns");
    }
    json
}

/// `ipam`, other keys, `CNI_ARGS`.
fn calls() -> Vec<(Value, Value, &'static str)> {
    let one = |address: &str| json!({ "addresses": [{ "address": address }] });
    let dual = json!({
        "addresses": [{ "address": "10.1.0.2/24", "gateway": "10.1.0.1" }, { "address": "FD00:1:0::2/64", "gateway": "fd00:1::1" }],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "192.168.1.9/16", "gw": "10.1.0.9" }, { "dst": "fd00:2::/64" }],
        "dns": { "nameservers": ["10.1.0.1"], "domain": "d", "search": ["s"], "options": ["o"] },
    });
    let args = |ips: Value| json!({ "args": { "cni": { "ips": ips } } });
    let runtime = |ips: Value| json!({ "RuntimeConfig": { "ips": ips } });
    let both = |args: Value, runtime: Value| json!({ "args": { "cni": { "ips": args } }, "runtimeConfig": { "ips": runtime } });
    vec![
        (json!({}), json!({}), ""),
        (json!(null), runtime(json!(["10.4.0.1/24"])), ""),
        (dual.clone(), json!({}), ""),
        (dual.clone(), json!({}), "IP=10.2.0.1/24;GATEWAY=10.2.0.254"),
        (dual.clone(), json!({}), "IP=;GATEWAY="),
        (dual.clone(), args(json!(["10.3.0.1/24", "fd00:3::1/64"])), "IP=10.2.0.1/24"),
        (dual.clone(), both(json!(["10.3.0.1/24"]), json!(["10.4.0.1/24"])), ""),
        (dual.clone(), both(json!(["10.3.0.1/24"]), json!([])), ""),
        (dual.clone(), both(json!(["foo"]), json!(["10.4.0.1/24"])), ""),
        (dual, runtime(json!(["foo"])), ""),
        (one("foo"), args(json!(["10.3.0.1/24"])), ""),
        (one("foo"), runtime(json!([])), ""),
        (one("10.1.0.2/24"), json!({}), "IP= 10.2.0.1/24 , 10.3.0.2/24;GATEWAY= 10.3.0.9 ,10.3.0.10"),
        (one("10.1.0.2/24"), json!({}), "GATEWAY=10.1.0.1"),
        (one("10.1.0.2/24"), json!({}), "GATEWAY=foo"),
        (one("10.1.0.2/24"), json!({}), "GATEWAY=10.1.0.1,"),
        (one("10.1.0.2/24"), json!({}), "IP=10.1.0.3/24,"),
        (one("10.1.0.2/24"), json!({}), "IP=10.1.0.3"),
        (one("10.1.0.2/24"), json!({}), "IP=10.1.0.2/24"),
        (one("10.1.0.2/24"), json!({}), "FOO=1"),
        (one("10.1.0.2/24"), json!({}), "FOO=1;IgnoreUnknown=true"),
        (one("::ffff:10.1.0.1/120"), json!({}), "IP=::ffff:10.3.0.1/120;GATEWAY=::ffff:10.3.0.9"),
        (one("0.0.0.0/0"), json!({}), ""),
        (one("10.1.0.2/32"), json!({}), ""),
        (one("10.1.0.2"), json!({}), ""),
        (one(""), json!({}), ""),
        (json!({ "addresses": [{ "address": "10.1.0.2/24", "gateway": "192.0.2.1" }] }), json!({}), ""),
        (json!({ "addresses": [{ "address": "10.1.0.2/24", "gateway": "fd00::1" }] }), json!({}), ""),
        (json!({ "addresses": [{ "address": "10.1.0.2/24", "gateway": "" }] }), json!({}), ""),
        (json!({ "addresses": [{ "address": "10.1.0.2/24", "gateway": "foo" }] }), json!({}), ""),
        (json!({ "addresses": [] }), json!({}), ""),
        (json!({ "ADDRESSES": [{ "address": "10.1.0.2/24", "Gateway": "10.1.0.1" }] }), json!({}), ""),
        (json!({ "addresses": [{ "address": "10.1.0.2/24" }, { "address": "10.1.0.3/24" }] }), json!({}), ""),
        (json!({ "addresses": "10.1.0.2/24" }), json!({}), ""),
    ]
}

#[test]
fn add_answers_the_same() {
    for reference in references() {
        for version in versions(&reference) {
            for (ipam, keys, args) in calls() {
                let mut conf = with(&conf(json!({})), keys);
                conf["cniVersion"] = version.as_str().into();
                conf["ipam"] = ipam;
                let (ours, theirs) = (call(OURS, "ADD", &conf, args), call(&reference, "ADD", &conf, args));
                assert_eq!(ours.ok, theirs.ok, "{conf} {args:?}\n{ours:?}\n{theirs:?}");
                if ours.ok {
                    assert_eq!(normal(&ours), normal(&theirs), "{conf} {args:?}");
                }
                // Of a shape that cannot be read we name the key in our own words, and CNI_ARGS by its name.
                let own_words = !ours.ok && (ours.error().0 == 6 || ours.error().1.starts_with("CNI_ARGS: "));
                if !ours.ok && !own_words {
                    assert_eq!(ours.error().1, theirs.error().1, "{conf} {args:?}");
                }
            }
        }
    }
}

/// What ours refuses more, our own tests say; what theirs refuses, ours does, and what ours passes, theirs does.
#[test]
fn check_is_stricter_and_never_more_lenient() {
    let written = conf(
        json!({ "addresses": [{ "address": "10.1.0.2/24", "gateway": "10.1.0.1" }, { "address": "fd00:1::2/64" }] }),
    );
    let v6 = json!({ "address": "fd00:1::2/64", "gateway": "fd00:1::1" });
    for reference in references() {
        for (ips, refused_by_both) in [
            (json!([{ "address": "10.1.0.2/24", "gateway": "10.1.0.1" }, v6]), Some(false)),
            (json!([{ "address": "10.1.0.2/24", "gateway": "10.1.0.9" }, v6]), Some(true)),
            (json!([{ "address": "10.1.0.2/24" }, v6]), Some(true)),
            (json!([{ "address": "10.1.0.2/16", "gateway": "10.1.0.1" }, v6]), None),
            (json!([{ "address": "10.1.0.2/24", "gateway": "10.1.0.1" }]), None),
        ] {
            let conf = with(&written, json!({ "prevResult": { "cniVersion": "1.0.0", "ips": ips } }));
            let (ours, theirs) = (call(OURS, "CHECK", &conf, ""), call(&reference, "CHECK", &conf, ""));
            match refused_by_both {
                Some(refused) => assert_eq!((!ours.ok, !theirs.ok), (refused, refused), "{ours:?}\n{theirs:?}"),
                None => assert_eq!((ours.ok, theirs.ok), (false, true), "{ours:?}\n{theirs:?}"),
            }
            if refused_by_both == Some(true) {
                assert_eq!(ours.error().1, theirs.error().1);
            }
        }
    }
}

/// Neither reads anything of it.
#[test]
fn del_of_anything() {
    for reference in references() {
        for (ipam, keys, args) in calls() {
            let mut conf = with(&conf(json!({})), keys);
            conf["ipam"] = ipam;
            for program in [OURS.as_ref(), reference.as_path()] {
                assert!(call(program, "DEL", &conf, args).ok, "{} {conf} {args:?}", program.display());
            }
        }
    }
}
