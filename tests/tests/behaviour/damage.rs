//! What CHECK is for: each damage is done to a pod of its own, and CHECK must name it and mend nothing.

use serde_json::Value;
use tests::plugin::with_prev_result;
use tests::{Host, Pod};

/// Breaks something, at the pod or the host; the result of the ADD says what is there.
pub type Damage = fn(&Host, &Pod, &Value);

/// What is broken, what the message must contain, and how it is broken.
pub type Table = [(&'static str, &'static str, Damage)];

/// Every damage of the table is found by the plugin's CHECK.
pub fn is_found(plugin: &str, conf: &Value, table: &Table) {
    let mut wrong = Vec::new();
    for (what, word, damage) in table {
        let host = Host::new();
        let pod = host.pod();
        let plugin = host.plugin(plugin);
        let result = plugin.add(conf, &pod, "eth0").success();
        let known = with_prev_result(conf, &result);
        plugin.check(&known, &pod, "eth0").success();
        damage(&host, &pod, &result);
        let before = (host.state(), pod.state());
        let outcome = plugin.check(&known, &pod, "eth0");
        if outcome.status != Some(1) || !outcome.stdout.contains(word) {
            wrong.push(format!("{what}: expected an error with {word:?}\n{outcome}"));
        }
        host.state().assert_same(&before.0);
        pod.state().assert_same(&before.1);
    }
    assert!(wrong.is_empty(), "with {conf}:\n{}", wrong.join("\n\n"));
}
