//! Which target to build for: static musl, because a plugin lives a millisecond and starts six times as fast so.

use std::path::Path;
use std::process::Command;

/// The musl triple of this machine, made available if rustup can; None (said aloud) where it cannot.
pub fn musl() -> Result<Option<String>, String> {
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let output = output.map_err(|e| format!("run rustc: {e}"))?;
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if Path::new(&sysroot).join("lib/rustlib").join(&triple).join("lib").is_dir() {
        return Ok(Some(triple));
    }
    println!("target {triple} is not installed: rustup target add {triple}");
    if Command::new("rustup").args(["target", "add", &triple]).status().is_ok_and(|status| status.success()) {
        return Ok(Some(triple));
    }
    println!("it cannot be had here; the binaries are built for the host's own target and need its libc");
    Ok(None)
}
