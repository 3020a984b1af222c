//! What travels between a runtime and a plugin. Every type here is parsed, not validated later: a
//! value that exists is a value the specification allows.

pub mod args;
pub mod cidr;
pub mod error;
pub mod json;
pub mod mac;
pub mod names;
pub mod result;
pub mod version;

pub use args::CniArgs;
pub use cidr::Cidr;
pub use error::{Code, Error};
pub use mac::Mac;
pub use names::{ContainerId, IfName, NetworkName};
pub use result::{Dns, Interface, IpConfig, Route, Success};
pub use version::Version;
