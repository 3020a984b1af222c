//! The configuration of tuning as a library, for the fuzz targets in `tests/fuzz`; the plugin is `main.rs`.

pub mod attributes;
pub mod conf;
pub mod sysctl;
