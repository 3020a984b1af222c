//! The configuration of ptp as a library, for the fuzz targets in `tests/fuzz`; the plugin is `main.rs`.

pub mod conf;
