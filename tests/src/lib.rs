//! The lab: network namespaces as hosts and pods, the built binaries run in them as a container runtime would run
//! them, and the eyes to see what came of it: state by `ip -j`, `nft -j` and `iptables-save`, and packets.
//!
//! ```no_run
//! use serde_json::json;
//! use tests::Host;
//!
//! let host = Host::new();
//! let pod = host.pod();
//! let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isGateway": true,
//!     "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}});
//! let before = host.state();
//! let result = host.plugin("bridge").add(&conf, &pod, "eth0").success();
//! assert_eq!(result["ips"][0]["address"], "10.1.0.2/24");
//! assert!(pod.pings("10.1.0.1"));
//! host.plugin("bridge").del(&conf, &pod, "eth0").success();
//! host.state().without_link("cni0").assert_same(&before);
//! ```
//!
//! Nothing here knows our own code (no `hostnet`): what we wrote is read back by programs of others. Nothing is seen
//! from outside either: a [`Host`] has its own network and mount namespace, held by open files alone, so whatever a test
//! does or however it dies, the kernel takes everything back. It needs root (or a user namespace of one's own), and a
//! test without it fails; it does not skip.
//!
//! What goes wrong in the lab itself is a panic with the command and its output: there is nobody else to tell.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failure of the lab is a failure of the test; a JSON key that is not there is Null"
)]

pub mod bins;
mod cgroup;
pub mod cluster;
pub mod dbus;
pub mod echo;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
pub mod faults;
pub mod findings;
pub mod firewalld;
pub mod frame;
pub mod host;
pub mod image;
pub mod internet;
pub mod kube_proxy;
pub mod namespace;
pub mod plugin;
pub mod pod;
pub mod sandbox;
pub mod state;

pub use cluster::Cluster;
pub use echo::Echo;
pub use findings::Findings;
pub use host::Host;
pub use internet::Internet;
pub use namespace::Namespace;
pub use plugin::{Outcome, Plugin};
pub use pod::Pod;
pub use sandbox::Sandbox;
pub use state::State;
