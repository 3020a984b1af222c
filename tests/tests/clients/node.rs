//! The machine that a client finds: our plugins, each behind a recorder, an internet, an image.

use std::collections::HashSet;
use std::fs;
use std::ops::Deref;
use std::path::Path;

use serde_json::{Value, json};
use tests::sandbox::{self, Sandbox};
use tests::{Echo, Internet, Namespace, State, bins, image};

/// What the recorder writes.
const CALLS: &str = "/run/calls";

/// The image, and where it lies as an archive.
pub const IMAGE: &str = "podwire.test/busybox:1";
pub const ARCHIVE: &str = "/run/image.tar";

/// One machine.
pub struct Node<'a> {
    sandbox: &'a Sandbox,
    pub internet: Internet,
    outside: Echo,
}

impl<'a> Node<'a> {
    pub fn new(sandbox: &'a Sandbox) -> Self {
        install_plugins(sandbox);
        image::write(Path::new(ARCHIVE), IMAGE);
        let internet = sandbox.internet();
        let outside = internet.listen();
        Self { sandbox, internet, outside }
    }

    /// Writes a configuration list to where runtimes look.
    pub fn configure(&self, list: &Value) {
        let path = Path::new(Sandbox::CONF).join(format!("{}.conflist", list["name"].as_str().unwrap()));
        fs::write(path, list.to_string()).unwrap();
    }

    /// A pod in its network namespace reaches the internet, which sees the node.
    pub fn assert_egress(&self, pod: &Namespace) {
        for (there, node) in [(Internet::V4, Internet::HOST_V4), (Internet::V6, Internet::HOST_V6)] {
            assert_eq!(pod.asks_at(there, self.outside.port()), Ok(node), "who asks {there}?");
        }
    }

    /// The host port leads to the pod from everywhere, and the pod sees who its client is.
    pub fn assert_host_port(&self, port: u16, mapped: &Namespace, other: &Namespace) {
        for address in [Internet::HOST_V4, Internet::HOST_V6].map(|address| address.to_string()) {
            assert!(self.internet.asks_at(&address, port).is_ok(), "{address} from the internet");
            assert!(other.asks_at(&address, port).is_ok(), "{address} from another pod");
            assert!(mapped.asks_at(&address, port).is_ok(), "{address} from the pod itself (hairpin)");
            assert!(self.asks_at(&address, port).is_ok(), "{address} from the node");
        }
        self.asks_at("127.0.0.1", port).expect("127.0.0.1 on the node");
        let seen = self.internet.asks_at(&Internet::HOST_V4.to_string(), port);
        assert_eq!(seen, Ok(Internet::V4.parse().unwrap()));
    }

    /// A server in a network namespace.
    pub fn serve(&self, place: &Namespace, port: u16) -> Echo {
        self.sandbox.listen(place, port)
    }

    /// What there is when no pod is: without the bridge, which stays by contract. So do the rules that portmap and
    /// firewall make once for all pods, so this is to be asked after the first pod came and went.
    pub fn state(&self, bridge: &str) -> State {
        self.sandbox.state().without_link(bridge)
    }

    /// The calls so far, in the order in which they began.
    pub fn calls(&self) -> Vec<Value> {
        let lines = fs::read_to_string(CALLS).unwrap_or_default();
        let mut calls: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let start = |call: &Value| call["start"].as_f64().unwrap();
        calls.sort_by(|one, other| start(one).total_cmp(&start(other)));
        calls
    }

    /// The calls of one plugin with one verb.
    pub fn calls_of(&self, plugin: &str, verb: &str) -> Vec<Value> {
        let mut calls = self.calls();
        calls.retain(|call| call["plugin"] == plugin && call["env"]["CNI_COMMAND"] == verb);
        calls
    }

    /// Keeps the calls so far for the behaviour tests, a line each, if that is what this run is for
    /// (`cargo xtask test --clients --record`). A question that a client repeats (VERSION, STATUS) is kept once.
    pub fn record(&self, name: &str, client: &str) {
        let Some(directory) = std::env::var_os(sandbox::RECORD) else { return };
        let mut asked = HashSet::new();
        let mut lines = Vec::new();
        for call in self.calls() {
            let (plugin, verb) = (&call["plugin"], &call["env"]["CNI_COMMAND"]);
            let repeatable = verb == "VERSION" || verb == "STATUS";
            if !repeatable || asked.insert(format!("{plugin} {verb}")) {
                lines.push(json!({"plugin": plugin, "env": call["env"], "stdin": call["stdin"]}).to_string());
            }
        }
        let path = self.outside(&Path::new(&directory).join(format!("{name}.json")));
        fs::write(path, format!("{{\"client\": \"{client}\", \"calls\": [\n{}\n]}}\n", lines.join(",\n"))).unwrap();
    }

    /// No call failed. Our plugins alone are there to be called, so these are calls of ours.
    pub fn assert_all_succeeded(&self) {
        let calls = self.calls();
        let failed: Vec<_> = calls.iter().filter(|call| call["status"] != 0).collect();
        assert!(!calls.is_empty() && failed.is_empty(), "{} calls; failed: {failed:#?}", calls.len());
    }
}

impl Deref for Node<'_> {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        self.sandbox
    }
}

/// A network as Kubernetes nodes have it, both families.
pub fn dual_stack(version: &str) -> Value {
    json!({"cniVersion": version, "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        }},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    ]})
}

/// Puts our plugins to where the recorder finds them, and recorders in their places.
fn install_plugins(sandbox: &Sandbox) {
    let (plugins, real) = (Path::new(Sandbox::PLUGINS), Path::new(Sandbox::PLUGINS).with_file_name("real"));
    let recorder = sandbox.outside(Path::new(env!("CARGO_BIN_EXE_recorder")));
    fs::create_dir(&real).unwrap();
    let ours = sandbox.outside(&bins::directory());
    let ours: Vec<_> = fs::read_dir(ours).unwrap().flatten().map(|entry| entry.path()).collect();
    for plugin in &ours {
        let name = plugin.file_name().unwrap().to_str().unwrap();
        bins::install(plugin, &real, name).unwrap();
        bins::install(&recorder, plugins, name).unwrap();
    }
    for elsewhere in ["/usr/lib/cni", "/usr/libexec/cni"] {
        let Ok(found) = fs::read(Path::new(elsewhere).join("bridge")) else { continue };
        assert_eq!(found, fs::read(recorder.as_path()).unwrap(), "{elsewhere} has plugins that are not ours");
    }
}
