//! portmap killed in the middle of its work: what it had started makes nothing more. (Killed at every step: `tests/faults/`.)

use std::time::Duration;

use tempfile::TempDir;
use tests::Host;
use tests::namespace::{PATH, find};
use tests::plugin::with_prev_result;

use crate::portmap_conf::{PORT, both, conf, result_of, rules};
use crate::refusal::write_script;

/// `iptables-restore` may wait for its lock when a runtime loses patience with portmap, kills it and calls DEL.
#[test]
fn what_it_had_started_makes_nothing_after_del() {
    for program in ["iptables-restore", "ip6tables-restore"] {
        let host = Host::new();
        let pod = host.pod();
        let result = result_of(&pod, &["10.77.0.2/24", "fd00:77::2/64"]);
        let directory = TempDir::new().unwrap();
        let done = directory.path().join("done");
        let script =
            format!("kill -9 $PPID; sleep 0.3; {} \"$@\"; touch {}", find(program).unwrap().display(), done.display());
        write_script(&directory.path().join(program), &script);
        let conf = with_prev_result(&conf("iptables", both(PORT, 80)), &result);
        let path = format!("{}:{PATH}", directory.path().display());
        let outcome = host.plugin("portmap").env("PATH", path).add(&conf, &pod, "eth0");
        assert_eq!(outcome.status, None, "{program}: it lives\n{outcome}");
        host.plugin("portmap").del(&conf, &pod, "eth0").success();
        std::thread::sleep(Duration::from_secs(1));
        assert!(!done.exists(), "{program} went on");
        assert_eq!(rules(&host), [""; 0], "{program}");
    }
}
