//! Bad input: CNI error JSON on stdout with the right code, exit status 1, and nothing changed.
//!
//! One table lists all of it; a row is a [`Row`].

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::Host;
use tests::plugin::with_prev_result;

use crate::bridge_conf::{add, of, v4, with};
use crate::refusal::{
    CONFIG, DECODING, DELEGATE, ENVIRONMENT, FAILED, OWN_NETNS, Row, TEXT, VERSION, row, write_script,
};
use crate::{masquerade_refusals, tuning_conf};

/// What is no document, or one of the wrong types.
fn documents() -> Vec<Row> {
    vec![
        row("empty stdin", DECODING, "network config").stdin(""),
        row("no JSON", DECODING, "network config").stdin("bridge"),
        row("truncated JSON", DECODING, "network config").stdin(r#"{"cniVersion":"1.0.0","name":"net","type":"#),
        row("two documents", DECODING, "network config").stdin("{}{}"),
        row("a list", DECODING, "network config").stdin("[]"),
        row("JSON without a bottom", DECODING, "network config").stdin(&format!("{{\"x\":{}", "[".repeat(200_000))),
        row("truncated JSON on DEL", DECODING, "network config").stdin("{").verb("DEL"),
        row("truncated JSON for loopback", DECODING, "network config").stdin("{").plugin("loopback"),
        row("truncated JSON for host-local", DECODING, "network config").stdin("{").plugin("host-local"),
        row("name is a number", DECODING, "name").keys(json!({"name": 5})),
        row("cniVersion is a number", DECODING, "cniVersion").keys(json!({"cniVersion": 1})),
        row("mtu is text", DECODING, "mtu").keys(json!({"mtu": "1500"})),
        row("mtu is negative", TEXT, "mtu").keys(json!({"mtu": -1})),
        row("isGateway is text", DECODING, "isGateway").keys(json!({"isGateway": "true"})),
        row("vlanTrunk holds null", TEXT, "vlanTrunk").keys(json!({"vlanTrunk": [null]})),
        row("ipam is text", DECODING, "ipam").keys(json!({"ipam": "host-local"})),
        row("ranges is an object", DECODING, "ranges").ipam(json!({"ranges": {}})),
        row("ranges is a flat list", DECODING, "ranges").ipam(json!({"ranges": [{"subnet": "10.1.0.0/24"}]})),
        row("ips holds null", TEXT, "ips").keys(json!({"runtimeConfig": {"ips": [null]}})),
        row("prevResult is text", DECODING, "prevResult")
            .keys(json!({"prevResult": "none"}))
            .verb("CHECK")
            .prepare(|host, pod| drop(add(host, &v4(), pod))),
    ]
}

fn environment() -> Vec<Row> {
    let long = "sixteen-bytes-16";
    vec![
        row("no CNI_CONTAINERID", ENVIRONMENT, "CNI_CONTAINERID").without("CNI_CONTAINERID"),
        row("no CNI_NETNS", ENVIRONMENT, "CNI_NETNS").without("CNI_NETNS"),
        row("no CNI_IFNAME", ENVIRONMENT, "CNI_IFNAME").without("CNI_IFNAME"),
        row("no CNI_PATH", ENVIRONMENT, "CNI_PATH").without("CNI_PATH"),
        row("empty CNI_IFNAME", ENVIRONMENT, "CNI_IFNAME").ifname(""),
        row("two missing", ENVIRONMENT, "[CNI_CONTAINERID,CNI_IFNAME]").ifname("").without("CNI_CONTAINERID"),
        row("no CNI_IFNAME on DEL", ENVIRONMENT, "CNI_IFNAME").without("CNI_IFNAME").verb("DEL"),
        row("unknown verb", ENVIRONMENT, "FOO").verb("FOO"),
        row("container id with /", ENVIRONMENT, "../pod").env("CNI_CONTAINERID", "../pod"),
        row("container id with a newline", ENVIRONMENT, "containerID").env("CNI_CONTAINERID", "a\nb"),
        row("interface name of 16 bytes", ENVIRONMENT, "too long").ifname(long),
        row("interface name ..", ENVIRONMENT, "..").ifname(".."),
        row("interface name with /", ENVIRONMENT, "a/b").ifname("a/b"),
        row("interface name with :", ENVIRONMENT, "a:b").ifname("a:b"),
        row("interface name with a space", ENVIRONMENT, "a b").ifname("a b"),
        row("CNI_ARGS without =", ENVIRONMENT, "IgnoreUnknown").env("CNI_ARGS", "IgnoreUnknown"),
        row("CNI_ARGS with an unknown key", ENVIRONMENT, "FOO=1").env("CNI_ARGS", "FOO=1"),
        row("IgnoreUnknown=yes", ENVIRONMENT, "yes").env("CNI_ARGS", "IgnoreUnknown=yes"),
        row("IP of CNI_ARGS", ENVIRONMENT, "foo").env("CNI_ARGS", "IP=foo").plugin("host-local"),
        row("the plugin's own netns", OWN_NETNS, "netns").env("CNI_NETNS", "/proc/self/ns/net"),
        row("the plugin's own netns on DEL", OWN_NETNS, "netns").env("CNI_NETNS", "/proc/self/ns/net").verb("DEL"),
        row("the plugin's own netns for lo", OWN_NETNS, "netns")
            .env("CNI_NETNS", "/proc/self/ns/net")
            .plugin("loopback"),
        row("a netns path that is a file", FAILED, "/etc/passwd").env("CNI_NETNS", "/etc/passwd"),
        row("a netns path that is a directory", FAILED, "/etc").env("CNI_NETNS", "/etc"),
        row("a netns path that is another kind of namespace", FAILED, "ns/mnt").env("CNI_NETNS", "/proc/self/ns/mnt"),
        row("a netns path that is not there", FAILED, "/run/netns/none").env("CNI_NETNS", "/run/netns/none"),
        row("loopback: a netns path that is a file", FAILED, "/etc/passwd")
            .env("CNI_NETNS", "/etc/passwd")
            .plugin("loopback"),
        row("DEL: a netns path that is a file", FAILED, "/etc/passwd")
            .env("CNI_NETNS", "/etc/passwd")
            .verb("DEL")
            .prepare(|host, pod| drop(add(host, &v4(), pod))),
    ]
}

fn versions() -> Vec<Row> {
    vec![
        row("an unknown version", VERSION, "1.2.0").keys(json!({"cniVersion": "1.2.0"})),
        row("a version that is none", VERSION, "abc").keys(json!({"cniVersion": "abc"})),
        row("an unknown version on DEL", VERSION, "2.0.0").keys(json!({"cniVersion": "2.0.0"})).verb("DEL"),
        row("CHECK before 0.4.0", VERSION, "CHECK").keys(json!({"cniVersion": "0.3.1"})).verb("CHECK"),
        row("CHECK with a version that is none", DECODING, "abc").keys(json!({"cniVersion": "abc"})).verb("CHECK"),
        row("STATUS before 1.1.0", VERSION, "STATUS").verb("STATUS"),
        row("GC before 1.1.0", VERSION, "GC").verb("GC"),
        row("two addresses of a family before 0.3.0", CONFIG, "0.2.0")
            .keys(json!({"cniVersion": "0.2.0", "ipam": {"ranges":
                [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}})),
        row("no prevResult", &[7, 999], "prevResult").verb("CHECK").prepare(|host, pod| drop(add(host, &v4(), pod))),
    ]
}

fn configurations() -> Vec<Row> {
    let mac = |mac: &str| json!({"runtimeConfig": {"mac": mac}});
    vec![
        row("no name", CONFIG, "name").keys(json!({"name": null})),
        row("a name with /", CONFIG, "a/b").keys(json!({"name": "a/b"})),
        row("a name that climbs", CONFIG, "../net").keys(json!({"name": "../net"})),
        row("a bridge name of 16 bytes", CONFIG, "sixteen-bytes-16").keys(json!({"bridge": "sixteen-bytes-16"})),
        row("a bridge name with /", CONFIG, "a/b").keys(json!({"bridge": "a/b"})),
        row("an empty bridge name", CONFIG, "bridge").keys(json!({"bridge": ""})),
        row("vlan 4095", CONFIG, "4095").keys(json!({"vlan": 4095})),
        row("vlan -100", CONFIG, "-100").keys(json!({"vlan": -100})),
        row("vlan 65636, which is 100 in 16 bits", CONFIG, "65636").keys(json!({"vlan": 65636})),
        row("a trunk without its end", CONFIG, "maxID").keys(json!({"vlanTrunk": [{"minID": 10}]})),
        row("a trunk that ends before it begins", CONFIG, "minID")
            .keys(json!({"vlanTrunk": [{"minID": 20, "maxID": 10}]})),
        row("a trunk of 4095", CONFIG, "4095").keys(json!({"vlanTrunk": [{"id": 4095}]})),
        row("a vlan gateway's name of 16 bytes", CONFIG, "my-bridge-12.100")
            .keys(json!({"bridge": "my-bridge-12", "vlan": 100})),
        row("hairpin and promiscuous mode", CONFIG, "hairpin").keys(json!({"hairpinMode": true, "promiscMode": true})),
        row("an interface that is down, with ipam", CONFIG, "DisableContainerInterface")
            .keys(json!({"disableContainerInterface": true})),
        row("an unknown backend", CONFIG, "foo").keys(json!({"ipMasq": true, "ipMasqBackend": "foo"})),
        row("an empty backend", CONFIG, "ipMasqBackend").keys(json!({"ipMasq": true, "ipMasqBackend": ""})),
        row("a MAC of five bytes", TEXT, "02:00:00:00:01").keys(mac("02:00:00:00:01")),
        row("a MAC of eight bytes", TEXT, "02:00:00:00:00:00:00:01").keys(mac("02:00:00:00:00:00:00:01")),
        row("a MAC that is none", TEXT, "zz").keys(json!({"args": {"cni": {"mac": "zz"}}})),
        row("a multicast MAC", CONFIG, "01:00:5e:00:00:01").keys(mac("01:00:5e:00:00:01")),
        row("a MAC of five bytes in CNI_ARGS", &[4, 6, 7], "02:00:00:00:01")
            .env("CNI_ARGS", "IgnoreUnknown=1;MAC=02:00:00:00:01"),
        row("timeoutSeconds 0", CONFIG, "timeoutSeconds").keys(json!({"ipam": {"timeoutSeconds": 0}})),
    ]
}

/// What host-local refuses; asked through bridge, so that the error has to travel and the bridge to go.
fn ranges() -> Vec<Row> {
    let set = |ranges: Value| json!({ "ranges": ranges });
    let one = |keys: Value| json!({ "ranges": [[with(&json!({"subnet": "10.1.0.0/24"}), keys)]] });
    vec![
        row("a subnet of /31", CONFIG, "10.1.0.0/31").ipam(json!({"subnet": "10.1.0.0/31"})),
        row("a subnet of /32", CONFIG, "10.1.0.1/32").ipam(json!({"subnet": "10.1.0.1/32"})),
        row("a subnet of /127", CONFIG, "fd00::/127").ipam(json!({"subnet": "fd00::/127"})),
        row("a subnet of /128", CONFIG, "fd00::1/128").ipam(set(json!([[{"subnet": "fd00::1/128"}]]))),
        row("a subnet without a length", TEXT, "10.1.0.0").ipam(json!({"subnet": "10.1.0.0"})),
        row("a subnet with host bits", CONFIG, "10.1.0.0").ipam(json!({"subnet": "10.1.0.7/24"})),
        row("a subnet that is none", TEXT, "foo").ipam(json!({"subnet": "foo"})),
        row("no subnet", CONFIG, "range").ipam(json!({})),
        row("an empty range set", CONFIG, "range set").ipam(set(json!([[]]))),
        row("a range without a subnet", CONFIG, "subnet").ipam(set(json!([[{"rangeStart": "10.1.0.5"}]]))),
        row("overlapping ranges of one set", CONFIG, "overlap")
            .ipam(set(json!([[{"subnet": "10.1.0.0/16"}, {"subnet": "10.1.5.0/24"}]]))),
        row("overlapping range sets", CONFIG, "overlaps")
            .ipam(set(json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/24"}]]))),
        row("two families in one set", CONFIG, "mixed")
            .ipam(set(json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]))),
        row("a start outside", CONFIG, "10.9.0.1").ipam(one(json!({"rangeStart": "10.9.0.1"}))),
        row("an end outside", CONFIG, "10.9.0.1").ipam(one(json!({"rangeEnd": "10.9.0.1"}))),
        row("an end before the start", CONFIG, "10.1.0.9")
            .ipam(one(json!({"rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.5"}))),
        row("a gateway outside its subnet", CONFIG, "10.2.0.1").ipam(one(json!({"gateway": "10.2.0.1"}))),
        row("a gateway outside its subnet, in ipam", CONFIG, "10.2.0.1")
            .ipam(json!({"subnet": "10.1.0.0/24", "gateway": "10.2.0.1"})),
        row("a gateway of the other family", CONFIG, "fd00::1").ipam(one(json!({"gateway": "fd00::1"}))),
        row("a gateway that is none", TEXT, "foo").ipam(one(json!({"gateway": "foo"}))),
        row("a route that is none", TEXT, "foo").ipam(with(&one(json!({})), json!({"routes": [{"dst": "foo"}]}))),
        row("ips that is none", TEXT, "1.2.3").keys(json!({"runtimeConfig": {"ips": ["1.2.3"]}})),
        row("ips outside the ranges", &[7, 999], "10.9.0.9").keys(json!({"runtimeConfig": {"ips": ["10.9.0.9"]}})),
        row("ips with the gateway", &[7, 999], "10.1.0.1").keys(json!({"runtimeConfig": {"ips": ["10.1.0.1"]}})),
        row("no ipam", CONFIG, "ipam").keys(json!({"ipam": null})).plugin("host-local"),
        row("CHECK of a container without a lease", FAILED, "0000000000").verb("CHECK").plugin("host-local"),
        row("a resolvConf that is not there", FAILED, "/none").keys(json!({"ipam": {"resolvConf": "/none"}})),
        row("a range that is used up", FAILED, "10.1.0.2")
            .ipam(one(json!({"rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.2"})))
            .prepare(|host, _| drop(add(host, &v4(), &host.pod()))),
    ]
}

fn delegates() -> Vec<Row> {
    vec![
        row("an IPAM plugin that is not there", &[7, 999], "missing").keys(json!({"ipam": {"type": "missing"}})),
        row("an IPAM plugin with a path", &[7, 999], "../host-local").keys(json!({"ipam": {"type": "../host-local"}})),
        row("an IPAM plugin that prints garbage", DELEGATE, "fake").fake("echo garbage"),
        row("an IPAM plugin that fails with garbage", DELEGATE, "garbage").fake("echo garbage; exit 1"),
        row("an IPAM plugin that prints nothing", DELEGATE, "result").fake("exit 0"),
        row("an IPAM plugin that fails on stderr", DELEGATE, "disk on fire").fake("echo disk on fire >&2; exit 1"),
        row("an IPAM plugin that fails silently", DELEGATE, "fake").fake("exit 3"),
        row("an IPAM plugin that is killed", DELEGATE, "fake").fake("kill -9 $$"),
        row("an IPAM plugin that prints without end", DELEGATE, "fake").fake("cat /dev/zero"),
        row("an IPAM plugin with an error of its own", &[11], "later")
            .fake(r#"echo '{"cniVersion":"1.0.0","code":11,"msg":"come back later"}'; exit 1"#),
        row("an IPAM plugin that hangs", &[999, 11, 5, 0], "fake").fake("exec sleep 50"),
        row("an IPAM plugin with a result of version 1.2.0", &[1, 6, 999], "1.2.0")
            .fake(r#"echo '{"cniVersion":"1.2.0"}'"#),
        row("an IPAM plugin without addresses", FAILED, "IP config").fake(r#"echo '{"cniVersion":"1.0.0"}'"#),
        row("an IPAM plugin with an address of another subnet", FAILED, "10.9.0.2/24")
            .fake(r#"[ $CNI_COMMAND = DEL ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24"}]}'"#),
        row("an IPAM plugin with an address that is none", &[6, 999], "10.1.0.999")
            .fake(r#"[ $CNI_COMMAND = DEL ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.999/24"}]}'"#),
    ]
}

/// What the kernel refuses, or already has.
fn kernel() -> Vec<Row> {
    vec![
        row("an mtu below the kernel's", FAILED, "mtu").keys(json!({"mtu": 67})),
        row("an mtu above the kernel's", FAILED, "mtu").keys(json!({"mtu": 70000})),
        row("an mtu above the kernel's, the bridge being there", FAILED, "mtu")
            .keys(json!({"mtu": 70000}))
            .prepare(|host, _| drop(add(host, &v4(), &host.pod()))),
        row("an eth0 that already exists", FAILED, "eth0").prepare(|_, pod| {
            pod.run("ip link add eth0 type veth peer name other");
        }),
        row("a second ADD", FAILED, "eth0").prepare(|host, pod| drop(add(host, &v4(), pod))),
        row("a bridge name that is a veth", FAILED, "cni0").prepare(|host, _| {
            host.run("ip link add cni0 type veth peer name other");
        }),
        row("a vlan on a bridge that does not filter", &[7, 999], "VLAN")
            .keys(json!({"vlan": 100, "isDefaultGateway": false}))
            .prepare(|host, _| {
                host.run("ip link add cni0 type bridge");
            }),
        row("a bridge with another network's address", FAILED, "10.9.0.1/24").prepare(|host, _| {
            add(host, &with(&of(&["10.9.0.0/24"]), json!({"name": "other"})), &host.pod());
        }),
        row("a route that leads nowhere", FAILED, "10.9.0.0/16")
            .keys(json!({"ipam": {"routes": [{"dst": "10.9.0.0/16", "gw": "10.200.0.1"}]}})),
        row("lo with a foreign address", FAILED, "10.0.0.1").plugin("loopback").prepare(|_, pod| {
            pod.run("ip address add 10.0.0.1/32 dev lo");
        }),
    ]
}

/// ptp reads the same documents; what is its own.
fn ptp() -> Vec<Row> {
    let script = r#"[ $CNI_COMMAND = DEL ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24"}]}'"#;
    let rows = vec![
        row("truncated JSON", DECODING, "network config").stdin("{"),
        row("mtu is text", DECODING, "mtu").keys(json!({"mtu": "1500"})),
        row("mtu is negative", TEXT, "mtu").keys(json!({"mtu": -1})),
        row("ipMasq is text", DECODING, "ipMasq").keys(json!({"ipMasq": "true"})),
        row("no ipam", CONFIG, "ipam.type").keys(json!({"ipam": null})),
        row("an empty ipam.type", CONFIG, "ipam.type").keys(json!({"ipam": {"type": ""}})),
        row("no ipam on CHECK", CONFIG, "ipam.type").keys(json!({"ipam": null})).verb("CHECK"),
        row("an unknown backend", CONFIG, "foo").keys(json!({"ipMasqBackend": "foo"})),
        row("a subnet that is none", TEXT, "foo").ipam(json!({"subnet": "foo"})),
        row("an IPAM plugin that is not there", &[7, 999], "missing").keys(json!({"ipam": {"type": "missing"}})),
        row("an address without a gateway", CONFIG, "10.1.0.2/24 without a gateway").fake(script),
        row("static without a gateway", CONFIG, "10.1.0.2/24 without a gateway")
            .keys(json!({"ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}})),
        row("an mtu above the kernel's", FAILED, "mtu").keys(json!({"mtu": 70000})),
        row("an eth0 that already exists", FAILED, "eth0").prepare(|_, pod| {
            pod.run("ip link add eth0 type veth peer name other");
        }),
        row("a route that leads nowhere", FAILED, "10.9.0.0/16")
            .keys(json!({"ipam": {"routes": [{"dst": "10.9.0.0/16", "gw": "10.200.0.1"}]}})),
        row("the plugin's own netns", OWN_NETNS, "netns").env("CNI_NETNS", "/proc/self/ns/net"),
        row("a netns path that is a file", FAILED, "/etc/passwd").env("CNI_NETNS", "/etc/passwd"),
        row("DEL: a netns path that is a file", FAILED, "/etc/passwd").env("CNI_NETNS", "/etc/passwd").verb("DEL"),
        row("STATUS before 1.1.0", VERSION, "STATUS").verb("STATUS"),
        row("no prevResult", &[7, 999], "prevResult").verb("CHECK").prepare(|host, pod| {
            host.plugin("ptp").add(v4(), pod, "eth0").success();
        }),
    ];
    rows.into_iter().map(|row| row.plugin("ptp")).collect()
}

fn stores() -> Vec<Row> {
    vec![
        row("a read-only dataDir", FAILED, "/var/lib/cni").prepare(|host, _| {
            host.run("mount -t tmpfs -o ro tmpfs /var/lib/cni");
        }),
        row("a dataDir that became read-only", FAILED, "/var/lib/cni").prepare(|host, _| {
            add(host, &v4(), &host.pod());
            host.run("mount -o remount,ro,bind /var/lib/cni");
        }),
        row("a full dataDir", FAILED, "/var/lib/cni").prepare(|host, _| {
            host.run("mount -t tmpfs -o size=4k tmpfs /var/lib/cni");
            host.enter(|| fs::write("/var/lib/cni/filler", [0; 4096]).unwrap());
        }),
        row("a dataDir without a free inode", FAILED, "/var/lib/cni").prepare(|host, _| {
            host.run("mount -t tmpfs -o nr_inodes=4 tmpfs /var/lib/cni");
        }),
        row("a dataDir that is a file", FAILED, "/etc/passwd").keys(json!({"ipam": {"dataDir": "/etc/passwd"}})),
    ]
}

/// tuning with these keys, behind a plugin that made an eth0.
fn tuning(what: &'static str, codes: &'static [u64], word: &'static str, keys: Value) -> Row {
    let chained = json!({"prevResult": {"cniVersion": "1.0.0", "interfaces": []}});
    row(what, codes, word).keys(with(&chained, keys)).plugin("tuning").prepare(|_, pod| tuning_conf::add_eth0(pod))
}

fn tunings() -> Vec<Row> {
    let sysctl = |key: &str, value: &str| json!({"sysctl": {key: value}});
    let twice = r#"{"cniVersion":"1.0.0","name":"net","sysctl":{"net.ipv4.ip_forward":"1","net.ipv4.ip_forward":"0"}}"#;
    let two_spellings = twice.replace(r#"1","net.ipv4."#, r#"1","net/ipv4/"#);
    let mac = |mac: &str| json!({ "mac": mac });
    vec![
        tuning("a sysctl that is the node's", CONFIG, "kernel.hostname", sysctl("kernel.hostname", "x")),
        tuning("a sysctl that is the node's, with slashes", CONFIG, "vm/swappiness", sysctl("vm/swappiness", "1")),
        tuning("a sysctl that climbs", CONFIG, "net/../kernel/hostname", sysctl("net/../kernel/hostname", "x")),
        tuning("a sysctl that climbs with dots", CONFIG, "net.//.kernel", sysctl("net.//.kernel.hostname", "x")),
        tuning("a sysctl that is a path", CONFIG, "/etc/passwd", sysctl("/etc/passwd", "x")),
        tuning(
            "a sysctl in args that is the node's",
            CONFIG,
            "fs.file-max",
            json!({"args": {"cni": {"sysctl": {"fs.file-max": "1"}}}}),
        ),
        tuning("a sysctl that is not there", FAILED, "net/ipv4/nope", sysctl("net.ipv4.nope", "1")),
        tuning("a value that the kernel refuses", FAILED, "rp_filter", sysctl("net.ipv4.conf.all.rp_filter", "many")),
        tuning(
            "a value that is a number",
            DECODING,
            "net.ipv4.ip_forward",
            json!({"sysctl": {"net.ipv4.ip_forward": 1}}),
        ),
        tuning("sysctl is a list", DECODING, "sysctl", json!({"sysctl": ["net.ipv4.ip_forward"]})),
        tuning("a sysctl twice", CONFIG, "duplicated sysctl", json!({})).stdin(twice),
        tuning("a sysctl in two spellings", CONFIG, "net/ipv4/ip_forward", json!({})).stdin(&two_spellings),
        tuning("no prevResult for tuning", CONFIG, "Required prevResult missing", json!({"prevResult": null})),
        tuning("no prevResult for tuning's CHECK", CONFIG, "Required prevResult missing", json!({"prevResult": null}))
            .verb("CHECK"),
        tuning("tuning a MAC that is none", CONFIG, "zz", mac("zz")),
        tuning("tuning a multicast MAC", CONFIG, "01:00:5e:00:00:01", mac("01:00:5e:00:00:01")),
        tuning("tuning a MAC of zeros", CONFIG, "00:00:00:00:00:00", mac("00:00:00:00:00:00")),
        tuning("tuning a MAC of CNI_ARGS that is none", CONFIG, "zz", json!({})).env("CNI_ARGS", "MAC=zz"),
        tuning("tuning with an unknown key in CNI_ARGS", ENVIRONMENT, "FOO=1", json!({})).env("CNI_ARGS", "FOO=1"),
        tuning("tuning an mtu above the kernel's", FAILED, "mtu 70000", json!({"mtu": 70000})),
        tuning("tuning an mtu that is text", DECODING, "mtu", json!({"mtu": "1400"})),
        tuning("tuning a queue below nothing", DECODING, "txQLen", json!({"txQLen": -1})),
        tuning(
            "tuning promisc that is text",
            DECODING,
            "args.cni.promisc",
            json!({"args": {"cni": {"promisc": "yes"}}}),
        ),
        tuning("tuning an interface that is not there", FAILED, "eth7", json!({"mtu": 1400})).ifname("eth7"),
        tuning("tuning an interface with /", ENVIRONMENT, "eth/0", json!({"mtu": 1400})).ifname("eth/0"),
        tuning(
            "tuning into a dataDir that is a file",
            FAILED,
            "/etc/passwd",
            json!({"mtu": 1400, "dataDir": "/etc/passwd"}),
        ),
        tuning("tuning in a netns that is a file", FAILED, "/etc/passwd", json!({"mtu": 1400}))
            .env("CNI_NETNS", "/etc/passwd"),
        tuning("tuning the plugin's own netns", OWN_NETNS, "netns", json!({"mtu": 1400}))
            .env("CNI_NETNS", "/proc/self/ns/net"),
        tuning("truncated JSON for tuning", DECODING, "network config", json!({})).stdin("{"),
    ]
}

#[test]
fn every_refusal_is_an_error_with_its_code_and_changes_nothing() {
    let groups = [
        documents,
        environment,
        versions,
        configurations,
        ranges,
        delegates,
        kernel,
        ptp,
        stores,
        tunings,
        masquerade_refusals::rows,
    ];
    // The groups side by side: most of the time goes into looking at the state.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = groups.map(|group| scope.spawn(move || refusals(&group()))).into();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} refusals are not as they should be:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// What is wrong with how these rows were refused.
pub fn refusals(rows: &[Row]) -> Vec<String> {
    let judged = rows.iter().map(|row| (row.what, row.run()));
    judged.filter(|(_, wrong)| !wrong.is_empty()).map(|(what, wrong)| format!("{what}: {}", wrong.join("\n"))).collect()
}

#[test]
fn a_good_configuration_is_not_refused() {
    // What the rows above vary works: they fail for the reason they name.
    let host = Host::new();
    let pod = host.pod();
    let result = add(&host, &v4(), &pod);
    host.plugin("bridge").check(with_prev_result(&v4(), &result), &pod, "eth0").success();
    host.plugin("loopback").add(v4(), &pod, "lo").success();
}

#[test]
fn an_ipam_plugin_that_hangs_is_ended_with_its_children() {
    let host = Host::new();
    let pod = host.pod();
    let fakes = TempDir::new().unwrap();
    let pids = fakes.path().join("pids");
    let script = format!("sleep 50 & echo $$ $! >> {}; wait", pids.display());
    write_script(&fakes.path().join("fake"), &script);
    let conf = with(&v4(), json!({"ipam": {"type": "fake", "timeoutSeconds": 1}}));
    let start = Instant::now();
    host.plugin("bridge").env("CNI_PATH", fakes.path().display()).add(&conf, &pod, "eth0").failure();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let text = fs::read_to_string(&pids).unwrap();
    assert!(text.split_whitespace().count() >= 2, "{text}");
    for pid in text.split_whitespace() {
        // A zombie waits for its parent: it has ended all the same.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(status.is_empty() || status.contains("State:\tZ"), "process {pid} still runs:\n{status}");
    }
}
