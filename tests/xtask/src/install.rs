//! `cargo xtask install`: the release binaries under their CNI names, and cnitool.

use std::fs;
use std::path::Path;

use tests::bins::{self, Workspace};

use crate::toolchain;

/// Builds and puts every binary into `directory`, each whole or not at all.
pub fn run(directory: &Path) -> Result<(), String> {
    let triple = toolchain::musl()?;
    let workspace = Workspace::read()?;
    println!("building {} binaries for {} ...", workspace.binaries.len(), triple.as_deref().unwrap_or("this host"));
    let products = workspace.build("release", triple.as_deref())?;
    fs::create_dir_all(directory).map_err(|e| format!("make {}: {e}", directory.display()))?;
    for (_, name) in &workspace.binaries {
        bins::install(&products.join(name), directory, name)?;
        let size = fs::metadata(directory.join(name)).map_or(0, |file| file.len().div_ceil(1024));
        println!("{:<40} {size:>6} KiB", directory.join(name).display());
    }
    Ok(())
}
