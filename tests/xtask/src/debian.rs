//! What the tests drive comes from Debian.

use std::process::{Command, Stdio};

/// Programs of others that the tests read state with, and the plugins they compare with.
pub const TOOLS: [&str; 7] =
    ["iptables", "nftables", "iproute2", "iputils-ping", "tcpdump", "conntrack", "containernetworking-plugins"];

/// A machine with another kernel, for what this one lacks.
pub const VM: [&str; 4] = ["qemu-system-x86", "busybox-static", "kmod", "xz-utils"];

/// Those that are not installed.
pub fn missing(packages: &[&str]) -> Vec<String> {
    let installed = |package: &str| {
        let query = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).output();
        query.is_ok_and(|output| output.stdout == b"installed")
    };
    packages.iter().filter(|package| !installed(package)).map(|package| (*package).to_owned()).collect()
}

/// Installs what is missing, and says so.
pub fn install(packages: &[&str]) -> Result<(), String> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing from Debian: {}", missing.join(" "));
    apt(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(missing.iter().map(String::as_str));
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command.stdout(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("apt-get {}: {status}", arguments.join(" "))),
        Err(error) => Err(format!("apt-get: {error}; install by hand what is named above")),
    }
}
