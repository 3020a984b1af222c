//! Shapers, ifb links and redirections, read back by `tc -j`, `ip -j` and the rtnetlink crate.

use std::sync::Barrier;
use std::thread;

use futures_util::TryStreamExt;
use hostnet::tc::tbf::{self, Bucket, Tbf};
use hostnet::tc::{ingress, redirect};
use hostnet::{Netlink, Undo, ifb, link, tc};
use netlink_packet_route::tc::{
    TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute, TcFilterU32Option, TcHandle, TcMessage,
    TcOption,
};
use serde_json::Value;

use crate::lab::{json, run, with_pod};

const TBF: Tbf = Tbf { rate: 1_000_000, limit: 125_000, bucket: Bucket::Ticks(1_562_500) };

/// An ifb that is up, and its index.
fn link_to_shape(nl: &mut Netlink, name: &str) -> u32 {
    ifb::create(nl, name, 1400, None).unwrap().index
}

fn qdiscs(nl: &Netlink, name: &str) -> Value {
    json(nl, &format!("tc -raw -j qdisc show dev {name}"))
}

/// Something of traffic control, as the rtnetlink crate reads it.
fn oracle<T>(nl: &Netlink, read: impl AsyncFnOnce(rtnetlink::Handle) -> T) -> T {
    nl.in_netns(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            read(handle).await
        })
    })
    .unwrap()
}

fn kinds_by_oracle(nl: &Netlink, index: u32) -> Vec<(String, TcHandle)> {
    let all: Vec<TcMessage> = oracle(nl, async |handle| handle.qdisc().get().execute().try_collect().await.unwrap());
    let of_link = all.iter().filter(|message| message.header.index == index.cast_signed());
    let kind = |message: &TcMessage| {
        message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some((kind.clone(), message.header.parent)),
            _ => None,
        })
    };
    of_link.filter_map(kind).collect()
}

/// Where the filters that the crate finds send packets.
fn targets_by_oracle(nl: &Netlink, index: u32) -> Vec<u32> {
    let all: Vec<TcMessage> = oracle(nl, async |handle| {
        handle.traffic_filter(index.cast_signed()).get().ingress().execute().try_collect().await.unwrap()
    });
    let options = all.iter().flat_map(|message| &message.attributes).filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let actions = options.flatten().filter_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    });
    let attributes = actions.flatten().flat_map(|action| &action.attributes);
    let options = attributes.filter_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    let targets = options.flatten().filter_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror.ifindex),
        _ => None,
    });
    targets.collect()
}

#[test]
fn a_shaper_is_made_changed_and_removed() {
    with_pod(|host, _| {
        let index = link_to_shape(host, "bwp0");
        let mut undo = Undo::new();
        assert_eq!(tbf::get(host, index).unwrap(), None);
        tbf::ensure(host, index, &TBF, &mut undo).unwrap();
        assert_eq!(tbf::get(host, index).unwrap(), Some(TBF));
        let shown = &qdiscs(host, "bwp0")[0];
        assert_eq!((&shown["kind"], &shown["handle"], &shown["root"]), (&"tbf".into(), &"1:".into(), &true.into()));
        let options = &shown["options"];
        assert_eq!(
            (&options["rate"], &options["limit"], &options["burst"]),
            (&1_000_000.into(), &125_000.into(), &100_000.into())
        );
        assert_eq!(kinds_by_oracle(host, index), [("tbf".to_owned(), TcHandle::ROOT)]);
        // 64 bits of rate, bytes in place of ticks, and a bucket that takes longer than the kernel can show.
        for tbf in [
            Tbf { rate: 1 << 40, limit: u32::MAX, bucket: Bucket::Bytes(3_000_000) },
            Tbf { rate: 1000, limit: 5000, bucket: Bucket::Bytes(1_000_000_000) },
            Tbf { rate: 1_000_000, limit: 1, bucket: Bucket::Bytes(2000) },
        ] {
            tbf::ensure(host, index, &tbf, &mut undo).unwrap();
            let found = tbf::get(host, index).unwrap().unwrap();
            assert!(tbf.is(&found) && !TBF.is(&found), "{tbf:?} {found:?}");
            assert_eq!(qdiscs(host, "bwp0")[0]["options"]["rate"], tbf.rate);
        }
        undo.keep();
        assert!(tc::remove_root(host, index).unwrap() && !tc::remove_root(host, index).unwrap());
        assert_eq!(tbf::get(host, index).unwrap(), None);
    });
}

#[test]
fn what_is_undone_is_as_it_was() {
    with_pod(|host, _| {
        let index = link_to_shape(host, "bwp0");
        let to = link_to_shape(host, "bwp1");
        let before = run(host, "tc qdisc show");
        let make = |host: &mut Netlink, undo: &mut Undo<'_>| {
            tbf::ensure(host, index, &TBF, undo).unwrap();
            ingress::ensure(host, index, undo).unwrap();
            redirect::ensure(host, index, to, undo).unwrap();
        };
        let mut undo = Undo::new();
        make(host, &mut undo);
        drop(undo);
        assert_eq!(run(host, "tc qdisc show"), before);
        // What was there before stays.
        let mut undo = Undo::new();
        make(host, &mut undo);
        undo.keep();
        let made = run(host, "tc qdisc show");
        let mut undo = Undo::new();
        make(host, &mut undo);
        tbf::ensure(host, index, &Tbf { rate: 5000, ..TBF }, &mut undo).unwrap();
        drop(undo);
        assert_eq!(run(host, "tc qdisc show"), made);
        assert!(redirect::is_there(host, index, to).unwrap());
    });
}

#[test]
fn a_foreign_root_is_named_and_left() {
    with_pod(|host, _| {
        let index = link_to_shape(host, "bwp0");
        run(host, "tc qdisc add dev bwp0 root handle 7f: pfifo");
        let error = tbf::ensure(host, index, &TBF, &mut Undo::new()).unwrap_err().to_string();
        assert!(error.contains("bwp0") && error.contains("pfifo 7f:"), "{error}");
        assert!(!tc::remove_root(host, index).unwrap());
        assert_eq!(qdiscs(host, "bwp0")[0]["kind"], "pfifo");
    });
}

#[test]
fn a_redirection_follows_its_link() {
    with_pod(|host, _| {
        let [from, one, two] = ["bwp0", "bwp1", "bwp2"].map(|name| link_to_shape(host, name));
        let mut undo = Undo::new();
        assert!(redirect::ensure(host, from, one, &mut undo).is_err(), "there is no hook");
        ingress::ensure(host, from, &mut undo).unwrap();
        for to in [one, one, two] {
            redirect::ensure(host, from, to, &mut undo).unwrap();
            assert_eq!(targets_by_oracle(host, from), [to]);
        }
        assert!(redirect::is_there(host, from, two).unwrap() && !redirect::is_there(host, from, one).unwrap());
        // The link goes, and a filter to nowhere is left.
        link::remove(host, "bwp2").unwrap();
        assert_eq!(targets_by_oracle(host, from), [0]);
        redirect::ensure(host, from, one, &mut undo).unwrap();
        assert_eq!(targets_by_oracle(host, from), [one]);
        assert!(!ingress::remove_unused(host, from).unwrap());
        assert!(redirect::remove(host, from, &[one]).unwrap() && !redirect::remove(host, from, &[one]).unwrap());
        assert!(ingress::remove_unused(host, from).unwrap() && !ingress::remove_unused(host, from).unwrap());
        assert_eq!(ingress::get(host, from).unwrap(), None);
        undo.keep();
        // A link that is gone has none of all this.
        assert!(!redirect::remove(host, two, &[one]).unwrap() && !tc::remove_root(host, two).unwrap());
        assert!(!ingress::remove_unused(host, two).unwrap());
    });
}

/// Two DELs of one pod run at once: while one removes the filter, the kernel calls the hook busy for the other.
#[test]
fn two_at_once_remove_a_hook() {
    with_pod(|host, _| {
        let [from, to] = ["bwp0", "bwp1"].map(|name| link_to_shape(host, name));
        let del = |start: &Barrier| {
            let mut own = Netlink::open().unwrap();
            start.wait();
            redirect::remove(&mut own, from, &[to]).unwrap();
            ingress::remove_unused(&mut own, from).unwrap();
        };
        for _ in 0..200 {
            let mut undo = Undo::new();
            ingress::ensure(host, from, &mut undo).unwrap();
            redirect::ensure(host, from, to, &mut undo).unwrap();
            undo.keep();
            let start = Barrier::new(4);
            thread::scope(|scope| [(); 4].map(|()| scope.spawn(|| del(&start))).map(|one| one.join().unwrap()));
            assert_eq!(ingress::get(host, from).unwrap(), None);
        }
    });
}

/// u32 filters of others at the hook share what the kernel keeps for ours.
#[test]
fn others_filters_stay() {
    with_pod(|host, _| {
        let [from, to] = ["bwp0", "bwp1"].map(|name| link_to_shape(host, name));
        run(host, "tc qdisc add dev bwp0 ingress");
        for arguments in ["prio 1 protocol ip", "protocol ipv6"] {
            run(
                host,
                &format!(
                    "tc filter add dev bwp0 ingress {arguments} u32 match u8 6 0xff at 9 action mirred egress mirror dev lo"
                ),
            );
        }
        let before = run(host, "tc filter show dev bwp0 ingress");
        let mut undo = Undo::new();
        ingress::ensure(host, from, &mut undo).unwrap();
        redirect::ensure(host, from, to, &mut undo).unwrap();
        assert_eq!(qdiscs(host, "bwp0")[1]["kind"], "ingress");
        assert!(redirect::is_there(host, from, to).unwrap());
        drop(undo);
        assert_eq!(run(host, "tc filter show dev bwp0 ingress"), before);
    });
}

#[test]
fn an_ifb_is_born_whole() {
    with_pod(|host, _| {
        let made = ifb::create(host, "bwp0", 1400, None).unwrap();
        let shown = &json(host, "ip -d -j link show bwp0")[0];
        assert_eq!((&shown["mtu"], &shown["linkinfo"]["info_kind"]), (&1400.into(), &"ifb".into()));
        assert!(shown["flags"].as_array().unwrap().contains(&"UP".into()) && made.up);
        assert!(ifb::create(host, "bwp0", 1400, None).unwrap_err().is_exists());
    });
}
