//! The configuration of portmap as a library, for the fuzz targets in `tests/fuzz`; the plugin is `main.rs`.

pub mod conditions;
pub mod conf;
