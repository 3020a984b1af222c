//! DEL where something is gone already, or not as it was: whole chains, a row a thing. It succeeds, twice, leaves nothing
//! of the pod and everything of its neighbour; where it cannot, it does the rest and says why.

use std::fs;

use serde_json::{Value, json};
use tests::Host;

use crate::bridge_conf::{hide_firewall_programs, show_firewall_programs, with};
use crate::takeover_conf::{Life, NETWORK, Node, Suite::Ours, Way, list};
use crate::takeover_facts::Facts;

/// What is gone, and what comes of it.
struct Row {
    what: &'static str,
    damage: fn(&Node, &mut Life),
    /// It is the neighbour's as well.
    shared: bool,
    /// Lines with this word come from the damage itself, or stay until it is mended.
    left: &'static str,
    /// A word of the error, where DEL cannot succeed.
    fails: Option<&'static str>,
    /// Mends it: after that a DEL leaves nothing.
    mend: Option<fn(&Node)>,
    /// The plugin whose thing it is; empty: everybody's.
    of: &'static str,
}

const fn row(what: &'static str, damage: fn(&Node, &mut Life)) -> Row {
    Row { what, damage, shared: false, left: "", fails: None, mend: None, of: "" }
}

impl Row {
    const fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    const fn of(self, of: &'static str) -> Self {
        Self { of, ..self }
    }

    const fn left(self, left: &'static str) -> Self {
        Self { left, ..self }
    }

    const fn fails(self, words: &'static str) -> Self {
        Self { fails: Some(words), ..self }
    }

    const fn mend(self, mend: fn(&Node)) -> Self {
        Self { mend: Some(mend), ..self }
    }
}

const ROWS: [Row; 26] = [
    row("nothing", |_, _| ()),
    row("the namespace", |node, life| {
        life.die();
        node.wait_for_ends(1);
    }),
    // A process of the pod holds it: here a server.
    row("the path of the namespace", |_, life| life.pod.destroy()),
    // So the file looks that it was mounted on.
    row("the mount of the namespace", |node, life| {
        drop(node.host.run(&format!("umount {}", life.pod.path().display())));
    }),
    row("the pod's end", |_, life| drop(life.pod.run("ip link del eth0"))),
    row("the host's end", |node, _| drop(node.host.run(&format!("ip link del {}", node.newest_end())))),
    row("the addresses", |_, life| drop(life.pod.run("ip address flush dev eth0"))),
    // The neighbour's end has no master any more.
    row("the bridge", |node, _| drop(node.host.run("ip link del cni0")))
        .of("bridge")
        .left(r#""ifname":"veth"#)
        .shared(),
    row("the bridge's name", |node, _| {
        node.host.run("ip link set cni0 down");
        node.host.run("ip link set cni0 name renamed0 up");
    })
    .of("bridge")
    .left("renamed0")
    .mend(|node| {
        node.host.run("ip link set renamed0 down");
        node.host.run("ip link set renamed0 name cni0 up");
        node.host.run("ip address add fd00:1::1/64 dev cni0 nodad"); // a link that goes down loses it
    }),
    row("the rules", |node, _| flush(node, "-F")).shared(),
    row("the rules and the chains", |node, _| {
        flush(node, "-F");
        flush(node, "-X");
        node.host.run("nft flush ruleset");
    })
    .shared(),
    row("the rules of nf_tables, but not their tables", |node, _| {
        for table in node.host.run("nft list tables").lines() {
            node.host.run(&format!("nft flush {table}"));
        }
    })
    .shared(),
    row("the leases", |node, _| fs::remove_dir_all(node.host.store().join("networks")).unwrap())
        .of("host-local")
        .shared(),
    row("the backups", |node, _| drop(node.host.run("rm -r /run/cni/tuning"))).of("tuning").shared(),
    row("/run/cni", |node, _| drop(node.host.run("rm -rf /run/cni"))).shared(),
    row("the right to write to /run", |node, _| drop(node.host.run("mount -o remount,ro /run")))
        .of("bandwidth")
        .mend(|node| drop(node.host.run("mount -o remount,rw /run"))),
    row("the ifb", |node, _| drop(node.host.run(&format!("ip link del {}", node.newest("ifb"))))).of("bandwidth"),
    row("the shapers", |node, _| {
        let end = node.newest_end();
        node.host.run(&format!("tc qdisc del dev {end} root"));
        node.host.run(&format!("tc qdisc del dev {end} clsact"));
        node.host.run(&format!("tc qdisc del dev {} root", node.newest("ifb")));
    })
    .of("bandwidth"),
    row("what the runtime remembers", |node, life| node.forget(life)),
    row("the result in it", |node, life| {
        node.remember(life, json!({"cniVersion": node.list()["cniVersion"], "dns": {}}));
    }),
    row("the half of it", |node, life| node.damage_memory(life)),
    row("the programs of iptables and nftables", |node, _| {
        hide_firewall_programs(&node.host);
        node.host.run("mount --bind /dev/null /usr/sbin/xtables-legacy-multi");
    })
    // What legacy iptables keeps only its program reaches; the next DEL, or GC, that finds it does.
    .left("-legacy-save: ")
    .mend(|node| {
        show_firewall_programs(&node.host);
        node.host.run("umount /usr/sbin/xtables-legacy-multi");
    }),
    row("the sense of the configuration", |node, _| node.configure(&nonsense(node.list()))),
    row("the capabilities of the configuration", |node, _| {
        let mut list = node.list();
        for plugin in list["plugins"].as_array_mut().unwrap() {
            plugin.as_object_mut().unwrap().remove("capabilities");
        }
        node.configure(&list);
    }),
    // The lease cannot be released, and an address that nobody can give any more must not be forgotten. Everything else goes.
    row("the IPAM plugin", |node, _| node.without_program("host-local", true))
        .of("host-local")
        .fails("host-local")
        .left("files: ")
        .mend(|node| node.without_program("host-local", false)),
    row("the right to write to the store", |node, _| {
        node.host.run("mount -o remount,ro,bind /var/lib/cni");
    })
    .of("host-local")
    .fails("ead-only file system")
    .left("files: ")
    .mend(|node| drop(node.host.run("mount -o remount,rw,bind /var/lib/cni"))),
];

/// `iptables -F` or `-X`, of both flavours and both IP versions.
fn flush(node: &Node, what: &str) {
    for program in ["iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy"] {
        for table in ["nat", "filter"] {
            node.host.run(&format!("{program} -t {table} {what}"));
        }
    }
}

/// Somebody has edited the file.
fn nonsense(mut list: Value) -> Value {
    for plugin in list["plugins"].as_array_mut().unwrap() {
        let keys = match plugin["type"].as_str().unwrap() {
            "bridge" | "ptp" => json!({"vlan": 99999, "mtu": -5, "ipMasqBackend": "none", "nonMasqueradeCIDRs": ["x"],
                "ipam": {"ranges": [[{"subnet": "10.1.0.0/33"}]], "addresses": "x"}}),
            "portmap" => json!({"markMasqBit": 99, "backend": "none", "conditionsV4": [";"]}),
            "firewall" => json!({"backend": "none", "ingressPolicy": "none", "iptablesAdminChainName": "a b"}),
            "bandwidth" => json!({"ingressRate": 5, "egressBurst": "x"}),
            _ => json!({"mtu": "big", "sysctl": {"x": 5}, "mac": "zz"}),
        };
        *plugin = with(plugin, keys);
    }
    list
}

fn way(backend: &'static str, legacy: bool) -> Way {
    Way { which: 0, newer: true, backend, legacy }
}

fn node(chain: &'static str, way: Way) -> Node {
    let node = Node::new(chain, way);
    let mut list = list(chain, way, way.backend);
    for plugin in list["plugins"].as_array_mut().unwrap().iter_mut().filter(|plugin| plugin["type"] == "firewall") {
        plugin["backend"] = way.backend.into();
    }
    node.configure(&list);
    node
}

/// Nothing came but what the row says.
fn assert_nothing_left(now: &Facts, before: &Facts, row: &Row, what: &str) {
    let difference = now.since(before);
    let is_wrong = |line: &&String| match line.starts_with('+') {
        true => row.left.is_empty() || !line.contains(row.left),
        false => !row.shared,
    };
    let wrong: Vec<&String> = difference.iter().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "{what}:\n{wrong:#?}");
}

fn del_without(chain: &'static str, way: Way, row: &Row) {
    let node = node(chain, way);
    let what = format!("{} is gone, {chain}, {way:?}", row.what);
    if !row.of.is_empty() && !node.has(row.of) && node.list()["plugins"][0]["ipam"]["type"] != row.of {
        return;
    }
    let (neighbour, mut life) = (node.life(0), node.life(1));
    node.add(Ours, &neighbour);
    let list = node.list();
    let before = node.facts();
    node.add(Ours, &life);
    (row.damage)(&node, &mut life);
    for _ in 0..2 {
        let deleted = node.call(Ours, "del", &life);
        match row.fails {
            None => assert!(deleted.status == Some(0), "{what}: {deleted}"),
            Some(words) => assert!(deleted.status == Some(1) && deleted.stderr.contains(words), "{what}: {deleted}"),
        }
        assert_eq!(node.ends().len(), 1, "{what}");
        if row.mend.is_none() || row.fails.is_some() || row.left.is_empty() {
            assert_nothing_left(&node.facts(), &before, row, &what);
        }
    }
    if let Some(mend) = row.mend {
        mend(&node);
        if row.fails.is_none() {
            assert_nothing_left(&node.facts(), &before, row, &what);
        }
        node.call(Ours, "del", &life).success();
        node.facts().assert_same(&before, &what);
    }
    node.configure(&list);
    if !row.shared {
        node.call(Ours, "check", &neighbour).success();
        node.assert_works(&neighbour, &what);
    }
    // The neighbour goes as well, whatever was its.
    for _ in 0..2 {
        node.call(Ours, "del", &neighbour).success();
    }
    assert_eq!(node.ends(), [""; 0], "{what}");
    // And the next pod is as the first.
    let next = node.life(2);
    node.add(Ours, &next);
    node.call(Ours, "check", &next).success();
    node.assert_works(&next, &what);
}

fn every_row(chain: &'static str, way: Way) {
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for rows in ROWS.chunks(ROWS.len().div_ceil(4)) {
            let failed = &failed;
            scope.spawn(move || {
                for row in rows {
                    if let Err(why) = std::panic::catch_unwind(|| del_without(chain, way, row)) {
                        failed
                            .lock()
                            .unwrap()
                            .push(why.downcast::<String>().map_or_else(|_| row.what.to_owned(), |why| *why));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn kubernetes_with_iptables() {
    every_row("kubernetes", way("iptables", false));
}

#[test]
fn kubernetes_with_nftables() {
    every_row("kubernetes", way("nftables", false));
}

#[test]
fn podman_with_legacy_iptables() {
    every_row("podman", way("iptables", true));
}

#[test]
fn podman_with_nftables() {
    every_row("podman", way("nftables", false));
}

#[test]
fn a_policy_with_iptables() {
    every_row("policy", way("iptables", false));
}

#[test]
fn ptp_with_nftables() {
    every_row("ptp", way("nftables", false));
}

/// tuning's backup cannot be removed there: it says so, when everything is set back. Where there is none, there is nothing to say.
#[test]
fn a_backup_where_nothing_can_be_removed() {
    let node = node("podman", way("nftables", false));
    let nothing =
        json!({"cniVersion": "1.0.0", "name": NETWORK, "type": "tuning", "sysctl": {"net.ipv4.ip_forward": "1"}});
    let life = node.life(0);
    let before = node.facts();
    node.add(Ours, &life);
    node.host.run("mount -o remount,ro /run");
    node.host.plugin("tuning").env("CNI_CONTAINERID", "another").del(&nothing, &life.pod, "eth0").success();
    for _ in 0..2 {
        let deleted = node.call(Ours, "del", &life);
        assert!(deleted.status == Some(1) && deleted.stderr.contains("_eth0.json: Read-only"), "{deleted}");
        assert_eq!(life.pod.link("eth0").unwrap()["mtu"], 1500);
    }
    node.host.run("mount -o remount,rw /run");
    node.call(Ours, "del", &life).success();
    let left = node.facts().since(&before);
    assert!(!left.iter().any(|line| line.contains("10.1.0.2") || line.contains("tuning:")), "{left:#?}");
}

/// After a reboot there is what is on the disk, and the runtime's DEL of every pod that it remembers.
#[test]
fn after_a_reboot() {
    for chain in crate::takeover_conf::CHAINS {
        for way in [way("iptables", false), way("nftables", false)] {
            let (old, new) = (node(chain, way), node(chain, way));
            let lives = [old.life(0), old.life(1)];
            for life in &lives {
                old.add(Ours, life);
            }
            let before = new.facts();
            Host::new().run(&format!("cp -a {}/. {}", old.host.store().display(), new.host.store().display()));
            for life in lives.iter().chain(&lives) {
                new.call(Ours, "del", life).success();
            }
            new.facts().assert_same(&before, &format!("{chain}, {way:?}"));
        }
    }
}
