//! The configuration of firewall as a library, for the fuzz targets in `tests/fuzz`; the plugin is `main.rs`.

pub mod backend;
pub mod bridge;
pub mod conf;
pub mod firewalld;
pub mod iptables;
pub mod nftables;
pub mod pod;
pub mod policy;
pub mod rules;
pub mod sources;
