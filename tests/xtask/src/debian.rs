//! What the tests drive comes from Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs of others that the tests read state with, and the plugins they compare with.
pub const TOOLS: [&str; 11] = [
    "iptables",
    "nftables",
    "iproute2",
    "iputils-ping",
    "tcpdump",
    "conntrack",
    "strace",
    "containernetworking-plugins",
    "dbus-daemon",
    "python3-firewall",
    "python3-nftables",
];

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

/// The plugins of the reference in Debian's unstable suite, unpacked below `directory` once; nothing is installed and
/// apt's configuration is not changed. Returns the directory with the binaries.
pub fn newest_reference(directory: &Path) -> Result<PathBuf, String> {
    let unpacked = directory.join("sid");
    if !unpacked.is_dir() {
        println!("downloading the newest containernetworking-plugins (not installed)");
        let work = directory.join("download");
        fetch(&work).map_err(|e| format!("containernetworking-plugins of Debian sid: {e}"))?;
        fs::rename(work.join("unpacked"), &unpacked).map_err(|e| format!("rename to {}: {e}", unpacked.display()))?;
        drop(fs::remove_dir_all(&work));
    }
    Ok(unpacked.join("usr/lib/cni"))
}

/// Debian's firewalld, unpacked below `directory` once. Never installed: a machine with systemd would start it, on its own
/// network. What it is made of (`python3-firewall`) is installed; only the daemon and its configuration are here.
pub fn firewalld(directory: &Path) -> Result<PathBuf, String> {
    let unpacked = directory.join("firewalld");
    if !unpacked.is_dir() {
        println!("downloading firewalld (not installed)");
        apt(&["update"])?;
        let work = directory.join("download-firewalld");
        let unpack = || -> Result<(), String> {
            drop(fs::remove_dir_all(&work));
            fs::create_dir_all(&work).map_err(|e| format!("make {}: {e}", work.display()))?;
            let mut download = Command::new("apt-get");
            download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", "firewalld"]).current_dir(&work);
            output(&mut download)?;
            unpack_archive(&work)
        };
        unpack().map_err(|e| format!("firewalld: {e}"))?;
        fs::rename(work.join("unpacked"), &unpacked).map_err(|e| format!("rename to {}: {e}", unpacked.display()))?;
        drop(fs::remove_dir_all(&work));
    }
    Ok(unpacked)
}

/// Unpacks the one archive of a directory into `unpacked` there.
fn unpack_archive(work: &Path) -> Result<(), String> {
    let files = fs::read_dir(work).map_err(|e| format!("read {}: {e}", work.display()))?;
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let archive = files.flatten().map(|entry| entry.path()).find(is_archive).ok_or("apt-get downloaded nothing")?;
    output(Command::new("dpkg-deb").arg("-x").arg(archive).arg(work.join("unpacked"))).map(|_| ())
}

fn fetch(work: &Path) -> Result<(), String> {
    drop(fs::remove_dir_all(work));
    for directory in ["lists/partial", "cache/archives/partial", "unpacked"] {
        fs::create_dir_all(work.join(directory)).map_err(|e| format!("make {}: {e}", work.display()))?;
    }
    // From where this machine's own packages come.
    let mirrors = output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]))?;
    let mirror = mirrors.lines().find(|line| !line.contains("security")).ok_or("apt has no mirror")?;
    let source = format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} sid main\n");
    let sources = work.join("sources.list");
    fs::write(&sources, source).map_err(|e| format!("write {}: {e}", sources.display()))?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Sandbox::User=root"]);
        for (key, path) in [("Etc::sourcelist", "sources.list"), ("State::lists", "lists"), ("Cache", "cache")] {
            command.arg("-o").arg(format!("Dir::{key}={}", work.join(path).display()));
        }
        command.current_dir(work);
        command
    };
    output(apt().arg("update"))?;
    output(apt().args(["download", "containernetworking-plugins/sid"]))?;
    unpack_archive(work)
}

fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("run {program}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{program}: {}", output.status)) }
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
