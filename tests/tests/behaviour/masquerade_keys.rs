//! What a network may say beside `ipMasq`: who masquerades (a family), to where not, with which address and ports. Seen by
//! packets, in both plugins, with nftables and with both iptables.

use std::net::IpAddr;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::plugin::with_prev_result;
use tests::{Host, Internet, Plugin, Pod, namespace};

use crate::bridge_conf::{FIRST_V4, FIRST_V6, rules, with};
use crate::mixed_pairs::{is_newer, nft_alone};
use crate::{bridge_conf, ptp};

pub const PLUGINS: [&str; 2] = ["bridge", "ptp"];

/// `ipMasqBackend`, and whether `iptables` is the legacy one.
const WAYS: [(&str, bool); 3] = [("nftables", false), ("iptables", false), ("iptables", true)];

/// A second machine behind the host, where the lists of these tests lead, and the host's addresses there.
const LISTED_V4: &str = "203.0.113.2";
const LISTED_V6: &str = "2001:db8:113::2";
const THERE_V4: &str = "203.0.113.1";
const THERE_V6: &str = "2001:db8:113::1";

/// An address that no machine has, and one of IPv6: both machines send what is for it to the host.
const SOURCE_V4: &str = "192.0.2.77";
const SOURCE_V6: &str = "2001:db8:77::1";

/// A machine with two addresses behind a host, on a link of that name; the host has the addresses before them. It sends
/// to the host what it has no way to.
pub fn machine_behind(host: &Host, link: &str, v4: &str, v6: &str) -> Pod {
    let machine = host.pod();
    host.run(&format!("ip link add {link} type veth peer name eth0 netns {}", machine.name()));
    let before = |addr: &str| format!("{}1", addr.strip_suffix('2').unwrap());
    for (place, link, v4, v6) in
        [(&**host, link, before(v4), before(v6)), (&*machine, "eth0", v4.to_owned(), v6.to_owned())]
    {
        place.set_sysctl(&format!("net/ipv6/conf/{link}/accept_ra"), "0");
        place.run(&format!("ip address add {v4}/24 dev {link}"));
        place.run(&format!("ip address add {v6}/64 dev {link} nodad"));
        place.run(&format!("ip link set {link} up"));
    }
    machine.run(&format!("ip route add default via {}", before(v4)));
    machine.run(&format!("ip -6 route add default via {}", before(v6)));
    machine
}

/// A host with two machines behind it, both of which know the way to the pods.
struct Lab {
    host: Host,
    internet: Internet,
    listed: Pod,
    plugin: &'static str,
    backend: &'static str,
    /// The directory of the plugin's programs, if not the host's own.
    programs: Option<TempDir>,
}

impl Lab {
    fn new(plugin: &'static str, (backend, is_legacy): (&'static str, bool)) -> Self {
        let host = Host::new();
        let internet = host.internet();
        internet.run(&format!("ip route add default via {}", Internet::HOST_V4));
        internet.run(&format!("ip -6 route add default via {}", Internet::HOST_V6));
        let listed = machine_behind(&host, "listed", LISTED_V4, LISTED_V6);
        let programs = is_legacy.then(|| {
            let directory = TempDir::new().unwrap();
            let legacy = namespace::find("xtables-legacy-multi").unwrap();
            for name in ["iptables", "iptables-restore", "ip6tables", "ip6tables-restore"] {
                symlink(&legacy, directory.path().join(name)).unwrap();
            }
            directory
        });
        Self { host, internet, listed, plugin, backend, programs }
    }

    fn plugin(&self) -> Plugin<'_> {
        let plugin = self.host.plugin(self.plugin);
        match &self.programs {
            Some(programs) => plugin.env("PATH", programs.path().display()),
            None => plugin,
        }
    }

    fn conf(&self, keys: Value) -> Value {
        let dual = if self.plugin == "bridge" { bridge_conf::dual() } else { ptp::dual() };
        with(&with(&dual, json!({"ipMasqBackend": self.backend})), keys)
    }

    /// The masquerade rules there are, of every kind.
    fn rules(&self) -> Vec<String> {
        let mut all = rules(&self.host);
        for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
            let saved = self.host.run(program);
            all.extend(saved.lines().filter(|line| line.contains("CNI-")).map(str::to_owned));
        }
        all
    }

    /// The name of this laboratory, for a message.
    fn name(&self) -> String {
        let legacy = if self.programs.is_some() { " (legacy)" } else { "" };
        format!("{}, {}{legacy}", self.plugin, self.backend)
    }

    /// ADD, whom the four places see, CHECK, and DEL, after which nothing is left. `seen`: the internet in both families,
    /// then the places of the lists.
    #[track_caller]
    fn attach(&self, keys: &Value, seen: [&str; 4]) {
        let (conf, pod) = (self.conf(keys.clone()), self.host.pod());
        let result = self.plugin().add(&conf, &pod, "eth0").success();
        assert_eq!(self.seen(&pod), seen.map(|text| Ok(address(text))), "{}: {keys}", self.name());
        self.plugin().check(with_prev_result(&conf, &result), &pod, "eth0").success();
        self.plugin().del(with_prev_result(&conf, &result), &pod, "eth0").success();
        assert_eq!(self.rules(), [""; 0], "{}: {keys}", self.name());
    }

    fn seen(&self, pod: &Pod) -> [Result<IpAddr, String>; 4] {
        let (outside, listed) = (self.internet.listen(), self.listed.listen());
        [(Internet::V4, &outside), (Internet::V6, &outside), (LISTED_V4, &listed), (LISTED_V6, &listed)]
            .map(|(place, echo)| pod.asks(place, echo))
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Every plugin with every way to masquerade, side by side: most of the time goes into packets.
fn everywhere(test: impl Fn(&Lab) + Sync) {
    std::thread::scope(|scope| {
        for (plugin, way) in PLUGINS.iter().flat_map(|plugin| WAYS.map(|way| (*plugin, way))) {
            let test = &test;
            scope.spawn(move || test(&Lab::new(plugin, way)));
        }
    });
}

const HOST_V4: &str = "198.51.100.1";
const HOST_V6: &str = "2001:db8:51::1";

/// The addresses of the pod: host-local gives out the next one each time.
fn of_pod(number: u32) -> [String; 2] {
    [format!("10.1.0.{}", number + 2), format!("fd00:1::{}", number + 2)]
}

/// kubernetes-sigs/ip-masq-agent 35: the per-pod rules of ipMasq knew no exceptions.
#[test]
fn packets_to_the_networks_of_the_list_keep_the_pods_address() {
    everywhere(|lab| {
        let lists = [
            json!(["203.0.113.0/24", "2001:db8:113::/48"]),
            json!(["10.0.0.0/8", "203.0.112.0/20", "192.168.0.0/16", "fd00::/8", "2001:db8:113::2/128"]),
            json!(["2001:db8:100::/40", "203.0.113.2/32", "203.0.113.0/25"]),
        ];
        for (number, list) in lists.iter().enumerate() {
            let [v4, v6] = of_pod(u32::try_from(number).unwrap());
            lab.attach(&json!({"ipMasq": true, "nonMasqueradeCIDRs": list}), [HOST_V4, HOST_V6, &v4, &v6]);
        }
        let of_v4_alone = json!({"ipMasq": true, "nonMasqueradeCIDRs": ["203.0.113.0/24"]});
        lab.attach(&of_v4_alone, [HOST_V4, HOST_V6, &of_pod(3)[0], THERE_V6]);
    });
}

/// containernetworking/plugins 398, flannel 1523: IPv6 was masqueraded because IPv4 was.
#[test]
fn each_family_is_masqueraded_or_not() {
    everywhere(|lab| {
        let [_, v6] = of_pod(0);
        lab.attach(&json!({"ipMasq": true, "ipMasq6": false}), [HOST_V4, &v6, THERE_V4, &v6]);
        let [_, v6] = of_pod(1);
        lab.attach(&json!({"ipMasq4": true}), [HOST_V4, &v6, THERE_V4, &v6]);
        let [third, _] = of_pod(2);
        lab.attach(&json!({"ipMasq4": false, "ipMasq": true}), [&third, HOST_V6, &third, THERE_V6]);
        let [fourth_v4, fourth_v6] = of_pod(3);
        lab.attach(
            &json!({"ipMasq6": true, "nonMasqueradeCIDRs": ["203.0.113.0/24", "2001:db8:113::/48"]}),
            [&fourth_v4, HOST_V6, &fourth_v4, &fourth_v6],
        );
    });
}

/// containers/netavark 1100: which of the node's addresses the others see.
#[test]
fn the_internet_sees_the_source_address_that_is_told() {
    everywhere(|lab| {
        let both = json!({"ipMasq": true, "masqSourceAddress": [SOURCE_V6, SOURCE_V4]});
        lab.attach(&both, [SOURCE_V4, SOURCE_V6, SOURCE_V4, SOURCE_V6]);
        let one = json!({"ipMasq": true, "masqSourceAddress": SOURCE_V4, "masqRandomFully": true});
        lab.attach(&one, [SOURCE_V4, HOST_V6, SOURCE_V4, THERE_V6]);
        let all = json!({"ipMasq": true, "ipMasq4": false, "masqSourceAddress": [SOURCE_V6],
            "nonMasqueradeCIDRs": ["2001:db8:113::/48", "2001:db8:114::/48", "203.0.113.0/24"]});
        let [v4, v6] = of_pod(2);
        lab.attach(&all, [&v4, SOURCE_V6, &v4, &v6]);
    });
}

/// containernetworking/plugins 163: two pods with the same source port at the same time lose packets.
#[test]
fn random_ports_are_in_the_ruleset() {
    everywhere(|lab| {
        for (keys, words) in [
            (json!({"ipMasq": true}), ["masquerade", "-j MASQUERADE"]),
            (json!({"ipMasq": true, "masqRandomFully": false}), ["masquerade", "-j MASQUERADE"]),
            (
                json!({"ipMasq": true, "masqRandomFully": true}),
                ["masquerade fully-random", "-j MASQUERADE --random-fully"],
            ),
            (
                json!({"ipMasq": true, "masqRandomFully": true, "masqSourceAddress": [SOURCE_V4, SOURCE_V6]}),
                ["snat ip to 192.0.2.77 fully-random", "-j SNAT --to-source 192.0.2.77 --random-fully"],
            ),
        ] {
            let (conf, pod) = (lab.conf(keys), lab.host.pod());
            let result = lab.plugin().add(&conf, &pod, "eth0").success();
            let (listed, word) = match (lab.backend, &lab.programs) {
                ("nftables", _) => (lab.host.run("nft list ruleset").replace(" comment ", "\n"), words[0]),
                (_, None) => (lab.host.run("iptables-save -t nat"), words[1]),
                _ => (lab.host.run("iptables-legacy-save -t nat"), words[1]),
            };
            assert!(listed.lines().any(|line| line.ends_with(word)), "{}: {word}: {listed}", lab.name());
            lab.plugin().del(with_prev_result(&conf, &result), &pod, "eth0").success();
        }
    });
}

/// The configurations of one pod, one after the other; each differs from the one before by one key.
fn changes() -> Vec<Value> {
    vec![
        json!({"ipMasq": true}),
        json!({"ipMasq": true, "nonMasqueradeCIDRs": ["10.0.0.0/8", "203.0.113.0/24"]}),
        json!({"ipMasq": true, "nonMasqueradeCIDRs": ["10.0.0.0/8"]}),
        json!({"ipMasq": true, "nonMasqueradeCIDRs": ["10.0.0.0/8"], "masqRandomFully": true}),
        json!({"ipMasq": true, "nonMasqueradeCIDRs": ["10.0.0.0/8"], "masqSourceAddress": SOURCE_V4}),
        json!({"ipMasq": true, "masqSourceAddress": "192.0.2.78"}),
        json!({"ipMasq": true, "masqSourceAddress": ["192.0.2.78", SOURCE_V6]}),
    ]
}

/// A container that comes again with its address, after a life that no DEL ended, has what the network says now.
#[test]
fn the_newest_add_decides() {
    everywhere(|lab| {
        let ipam = json!({"type": "static", "addresses": [
            {"address": "10.1.0.7/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::7/64", "gateway": "fd00:1::1"}]});
        let (v4, v6) = ("10.1.0.7", "fd00:1::7");
        let list = |list: Value| json!({"ipMasq": true, "nonMasqueradeCIDRs": list});
        for (keys, seen) in [
            (json!({"ipMasq": true}), [HOST_V4, HOST_V6, THERE_V4, THERE_V6]),
            (list(json!(["203.0.113.0/24"])), [HOST_V4, HOST_V6, v4, THERE_V6]),
            (list(json!(["10.0.0.0/8", "2001:db8:113::/48"])), [HOST_V4, HOST_V6, THERE_V4, v6]),
            (json!({"ipMasq": true, "masqSourceAddress": SOURCE_V4}), [SOURCE_V4, HOST_V6, SOURCE_V4, THERE_V6]),
            (json!({"ipMasq": true, "masqRandomFully": true}), [HOST_V4, HOST_V6, THERE_V4, THERE_V6]),
        ] {
            let (conf, pod) = (with(&lab.conf(keys.clone()), json!({ "ipam": ipam })), lab.host.pod());
            let plugin = || lab.plugin().env("CNI_CONTAINERID", "again");
            let result = plugin().add(&conf, &pod, "eth0").success();
            assert_eq!(lab.seen(&pod), seen.map(|text| Ok(address(text))), "{}: {keys}", lab.name());
            plugin().check(with_prev_result(&conf, &result), &pod, "eth0").success();
            pod.run("ip link del eth0");
            lab.host.run("ip neigh flush all");
            if keys.get("masqRandomFully").is_some() {
                plugin().del(with_prev_result(&conf, &result), &pod, "eth0").success();
            }
        }
        assert_eq!(lab.rules(), [""; 0], "{}", lab.name());
    });
}

#[test]
fn check_notices_every_change_and_del_removes_whatever_the_configuration_says() {
    everywhere(|lab| {
        for (number, keys) in changes().iter().enumerate() {
            let (conf, pod) = (lab.conf(keys.clone()), lab.host.pod());
            let result = lab.plugin().add(&conf, &pod, "eth0").success();
            for (other, keys) in changes().iter().enumerate() {
                let checked = with_prev_result(&lab.conf(keys.clone()), &result);
                let outcome = lab.plugin().check(checked, &pod, "eth0");
                if other == number {
                    outcome.success();
                } else {
                    let msg = outcome.failure()["msg"].as_str().unwrap().to_owned();
                    assert!(msg.contains("masquerade"), "{}: {number}, {other}: {msg}", lab.name());
                }
            }
            // The list in another order, and what is in it twice, says the same.
            if number == 1 {
                let list = json!(["203.0.113.9/24", "10.0.0.0/8", "10.0.0.0/8"]);
                let same = with(&with_prev_result(&conf, &result), json!({"nonMasqueradeCIDRs": list}));
                lab.plugin().check(same, &pod, "eth0").success();
            }
            // Switched off, or broken, since.
            let since = [json!({"ipMasq": false}), json!({"ipMasqBackend": "none"}), json!({"nonMasqueradeCIDRs": 7})];
            let since = with(&with_prev_result(&conf, &result), since[number % 3].clone());
            lab.plugin().del(since, &pod, "eth0").success();
            assert_eq!(lab.rules(), [""; 0], "{}: {keys}", lab.name());
        }
    });
}

/// A second interface finds the chain there: what it needs belongs before the rule that masquerades.
#[test]
fn a_second_interface_leaves_the_first_its_list() {
    for way in WAYS {
        let lab = Lab::new("bridge", way);
        let keys = json!({"ipMasq": true, "isDefaultGateway": false, "isGateway": true,
            "nonMasqueradeCIDRs": ["203.0.113.0/24", "2001:db8:113::/48", "10.0.0.0/8"]});
        let (conf, pod) = (lab.conf(keys), lab.host.pod());
        let results = ["eth0", "eth1"].map(|ifname| lab.plugin().add(&conf, &pod, ifname).success());
        for (ifname, result) in ["eth0", "eth1"].iter().zip(&results) {
            lab.plugin().check(with_prev_result(&conf, result), &pod, ifname).success();
        }
        lab.plugin().del(with_prev_result(&conf, &results[1]), &pod, "eth1").success();
        lab.plugin().check(with_prev_result(&conf, &results[0]), &pod, "eth0").success();
        pod.run("ip route add default via 10.1.0.1");
        pod.run("ip -6 route add default via fd00:1::1");
        assert_eq!(lab.seen(&pod), [HOST_V4, HOST_V6, FIRST_V4, FIRST_V6].map(|text| Ok(address(text))), "{way:?}");
        lab.plugin().del(with_prev_result(&conf, &results[0]), &pod, "eth0").success();
        assert_eq!(lab.rules(), [""; 0], "{way:?}");
    }
}

/// The network of a /32 is the address alone, so that neighbours see the node, unless the list has their range.
#[test]
fn neighbours_with_an_address_of_32_bits_see_the_pod_if_the_list_says_so() {
    for way in WAYS {
        for (keys, seen) in [
            (json!({"ipMasq": true}), "169.254.1.1"),
            (json!({"ipMasq": true, "nonMasqueradeCIDRs": ["10.1.0.0/24"]}), FIRST_V4),
        ] {
            let lab = Lab::new("ptp", way);
            let pods = [FIRST_V4, "10.1.0.3"].map(|address| {
                let mut conf = lab.conf(keys.clone());
                conf["ipam"] = json!({"type": "static", "routes": [{"dst": "0.0.0.0/0"}],
                    "addresses": [{"address": format!("{address}/32"), "gateway": "169.254.1.1"}]});
                let pod = lab.host.pod();
                let result = lab.plugin().add(&conf, &pod, "eth0").success();
                lab.plugin().check(with_prev_result(&conf, &result), &pod, "eth0").success();
                pod
            });
            let neighbour = pods[1].listen();
            assert_eq!(pods[0].asks("10.1.0.3", &neighbour), Ok(address(seen)), "{way:?}: {keys}");
            assert_eq!(pods[0].asks(Internet::V4, &lab.internet.listen()), Ok(address(HOST_V4)), "{way:?}: {keys}");
        }
    }
}

/// The reference ignores the keys: its CHECK passes, and its DEL removes what they made.
#[test]
fn what_we_added_with_the_keys_the_reference_checks_and_deletes() {
    let keys = [
        json!({"ipMasq": true, "nonMasqueradeCIDRs": ["10.9.0.0/16", "203.0.113.0/24", "fd00:9::/64"], "masqRandomFully": true}),
        json!({"ipMasq": true, "nonMasqueradeCIDRs": ["203.0.113.0/24", "172.16.0.0/12", "fd00:9::/64", "fd00:99::/64"],
            "masqSourceAddress": [SOURCE_V4, SOURCE_V6]}),
        json!({"ipMasq": true, "ipMasq6": false, "masqRandomFully": true}),
    ];
    for (plugin, backend, keys) in PLUGINS
        .iter()
        .flat_map(|plugin| ["iptables", "nftables"].map(|backend| (*plugin, backend)))
        .flat_map(|(plugin, backend)| keys.iter().map(move |keys| (plugin, backend, keys)))
    {
        for which in 0..Host::new().references(plugin).len() {
            let lab = Lab::new(plugin, (backend, false));
            let mut theirs = lab.host.references(plugin).swap_remove(which);
            let nft = nft_alone();
            if backend == "nftables" {
                if !is_newer(&theirs) {
                    continue;
                }
                theirs = theirs.env("PATH", nft.path().display());
            }
            let mut conf = lab.conf(keys.clone());
            // 1.1.1 does not find a route without a next hop again, not even its own.
            conf["ipam"]["routes"] =
                json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0", "gw": "fd00:1::1"}]);
            if plugin == "bridge" {
                conf["isDefaultGateway"] = false.into();
                conf["isGateway"] = true.into();
            }
            let (pod, before) = (lab.host.pod(), lab.host.state());
            let result = lab.plugin().add(&conf, &pod, "eth0").success();
            let known = with_prev_result(&conf, &result);
            theirs.check(&known, &pod, "eth0").success();
            let deleted = theirs.del(&known, &pod, "eth0");
            if keys["ipMasq6"] == false && backend == "iptables" {
                // It asks for the chain of both families, and takes iptables 1.8.9's answer for a failure. All is gone
                // by then, and once more it has nothing to ask for.
                assert!(deleted.failure()["msg"].as_str().unwrap().contains("ip6tables"), "{deleted}");
                theirs.del(&known, &pod, "eth0").success();
            } else {
                deleted.success();
            }
            assert_eq!(lab.rules(), [""; 0], "{}, reference {which}: {keys}", lab.name());
            lab.host.state().without_link("cni0").without("sysctls").assert_same(&before.without("sysctls"));
        }
    }
}

/// What the reference made knows nothing of the keys: CHECK says so, and DEL removes it.
#[test]
fn what_the_reference_added_lacks_what_the_keys_ask_for() {
    for plugin in PLUGINS {
        for which in 0..Host::new().references(plugin).len() {
            let lab = Lab::new(plugin, ("iptables", false));
            let theirs = lab.host.references(plugin).swap_remove(which);
            let (conf, pod) = (lab.conf(json!({"ipMasq": true})), lab.host.pod());
            let result = theirs.add(&conf, &pod, "eth0").success();
            let known = with_prev_result(&conf, &result);
            lab.plugin().check(&known, &pod, "eth0").success();
            let listed = with(&known, json!({"nonMasqueradeCIDRs": ["203.0.113.0/24"]}));
            let msg = lab.plugin().check(&listed, &pod, "eth0").failure()["msg"].as_str().unwrap().to_owned();
            assert!(msg.contains("203.0.113.0/24"), "{msg}");
            lab.plugin().del(&listed, &pod, "eth0").success();
            assert_eq!(lab.rules(), [""; 0], "{plugin}, reference {which}");
        }
    }
}
