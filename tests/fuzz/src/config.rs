//! What a plugin reads from stdin, for every plugin and verb, up to where the kernel would be asked.
//!
//! The first byte chooses the verb; the rest is stdin. So a seed is plain JSON: `{` is one of the choices.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt::Debug;
use std::marker::PhantomData;

use libcni::plugin::{self, Conf, Network, Plugin, Request};
use libcni::types::{Error, Success, json};
use serde_json::Value;

const VERBS: [&str; 5] = ["ADD", "DEL", "CHECK", "GC", "STATUS"];

/// A plugin that reads its configuration and does nothing.
struct Reads<C>(PhantomData<C>);

thread_local! {
    /// What the last plugin that was reached saw of `prevResult` and its own keys.
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn look<C: Debug>(network: &Network<C>) {
    let text =
        format!("{:?} {:?} {:?} {:?}", network.conf(), network.dns(), network.ipam(), network.delegate_deadline());
    SEEN.with(|seen| *seen.borrow_mut() = Some(text));
    let name = network.name().as_str();
    assert!(!name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0', '\n']) && !name.starts_with('.'));
}

impl<C: Conf + Debug> Plugin for Reads<C> {
    type Conf = C;
    const ABOUT: &'static str = "fuzz";

    fn add(&self, req: &Request<C>) -> Result<Success, Error> {
        look(req);
        req.prev_result()?.map_or_else(|| req.finish(Success::default()), |result| req.finish(result))
    }

    fn del(&self, req: &Request<C>) -> Result<(), Error> {
        look(req);
        req.prev_result().map(drop)
    }

    fn check(&self, req: &Request<C>) -> Result<(), Error> {
        look(req);
        req.prev_result().map(drop)
    }

    fn gc(&self, network: &Network<C>) -> Result<(), Error> {
        look(network);
        Ok(())
    }

    fn status(&self, network: &Network<C>) -> Result<(), Error> {
        look(network);
        Ok(())
    }
}

fn run<C: Conf + Debug>(verb: &str, stdin: &[u8]) -> (u8, Vec<u8>, Option<String>) {
    let var = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => verb,
            "CNI_CONTAINERID" => "ctr1",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/run/netns/none",
            "CNI_PATH" => "/opt/cni/bin",
            _ => return None,
        };
        Some(OsString::from(value))
    };
    SEEN.with(|seen| *seen.borrow_mut() = None);
    let mut stdout = Vec::new();
    let status = plugin::dispatch(&Reads::<C>(PhantomData), &var, &mut &stdin[..], &mut stdout);
    (status, stdout, SEEN.with(|seen| seen.borrow_mut().take()))
}

fn judge<C: Conf + Debug>(verb: &str, stdin: &[u8]) {
    let (status, stdout, seen) = run::<C>(verb, stdin);
    let twice = run::<C>(verb, stdin);
    assert_eq!((status, &stdout, &seen), (twice.0, &twice.1, &twice.2), "the same twice");
    let printed: Value = if stdout.is_empty() { Value::Null } else { serde_json::from_slice(&stdout).expect("JSON") };
    if status == 0 {
        assert!(seen.is_some(), "success without the plugin");
        assert_eq!(verb == "ADD", printed.is_object(), "{verb} prints {printed}");
    } else {
        assert!(printed["code"].as_u64().is_some_and(|code| code > 0), "{printed}");
        assert!(printed["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{printed}");
    }
    // What is printed for people and read by another parser means the same.
    if let Ok(value) = json::parse(stdin) {
        let (again, _, second) = run::<C>(verb, value.to_string().as_bytes());
        assert_eq!((status, seen), (again, second), "the same document, written anew");
    }
}

pub fn config(bytes: &[u8]) {
    let Some(first) = bytes.first() else { return };
    let verb = VERBS[usize::from(*first) % VERBS.len()];
    let stdin = if *first == b'{' { bytes } else { &bytes[1..] };
    judge::<bandwidth::conf::Conf>(verb, stdin);
    judge::<bridge::conf::Conf>(verb, stdin);
    judge::<firewall::conf::Conf>(verb, stdin);
    judge::<host_local::HostLocalConf>(verb, stdin);
    judge::<portmap::conf::Conf>(verb, stdin);
    judge::<ptp::conf::Conf>(verb, stdin);
    judge::<static_ipam::StaticConf>(verb, stdin);
    judge::<tuning::conf::Conf>(verb, stdin);
}
