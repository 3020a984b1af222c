//! What the tests drive comes from Debian.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs of others that the tests read state with, and the plugins they compare with.
pub const TOOLS: [&str; 12] = [
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
    "busybox-static",
];

/// A machine with another kernel, for what this one lacks.
pub const VM: [&str; 4] = ["e2fsprogs", "qemu-system-x86", "kmod", "xz-utils"];

/// Container runtimes that drive plugins. They are never installed: their packages start daemons.
const CLIENTS: [&str; 3] = ["containerd", "runc", "podman"];

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
    let unpacked = unpack_once(&directory.join("sid"), "containernetworking-plugins of Debian sid", |work| {
        download_from_sid(work, "containernetworking-plugins")
    })?;
    Ok(unpacked.join("usr/lib/cni"))
}

/// The clients, unpacked below `directory` once: `stable` has those of this machine's own suite, with all that they need
/// and this machine lacks, `sid` has the newest containerd. Nothing is installed.
pub fn clients(directory: &Path) -> Result<PathBuf, String> {
    unpack_once(&directory.join("stable"), "containerd and podman", |work| {
        // The lists may be too old, or not be there at all.
        download_with_dependencies(work).or_else(|_| apt(&["update"]).and_then(|()| download_with_dependencies(work)))
    })?;
    unpack_once(&directory.join("sid"), "containerd of Debian sid", |work| download_from_sid(work, "containerd"))?;
    Ok(directory.to_owned())
}

/// Debian's firewalld, unpacked below `directory` once. Never installed: a machine with systemd would start it, on its own
/// network. What it is made of (`python3-firewall`) is installed; only the daemon and its configuration are here.
pub fn firewalld(directory: &Path) -> Result<PathBuf, String> {
    unpack_once(&directory.join("firewalld"), "firewalld", |work| {
        apt(&["update"])?;
        let mut download = Command::new("apt-get");
        download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", "firewalld"]).current_dir(work);
        output(&mut download).map(|_| ())
    })
}

/// Unpacks into `unpacked` what `download` leaves in its directory, unless that was done before.
fn unpack_once(unpacked: &Path, what: &str, download: impl Fn(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    if !unpacked.is_dir() {
        println!("downloading {what} (not installed)");
        let work = unpacked.with_extension("download");
        drop(fs::remove_dir_all(&work));
        let made = fs::create_dir_all(work.join("partial")); // apt wants it
        made.map_err(|e| format!("make {}: {e}", work.display()))?;
        download(&work).and_then(|()| unpack(&work)).map_err(|e| format!("{what}: {e}"))?;
        fs::rename(work.join("unpacked"), unpacked).map_err(|e| format!("rename to {}: {e}", unpacked.display()))?;
        drop(fs::remove_dir_all(&work));
    }
    Ok(unpacked.to_owned())
}

/// All packages of a directory into `unpacked`, which has /usr merged as Debian has it: what a package has in /lib is
/// found in /usr/lib.
fn unpack(directory: &Path) -> Result<(), String> {
    let unpacked = directory.join("unpacked");
    for name in ["bin", "sbin", "lib", "lib64"] {
        let made = fs::create_dir_all(unpacked.join("usr").join(name));
        let made = made.and_then(|()| symlink(Path::new("usr").join(name), unpacked.join(name)));
        made.map_err(|e| format!("make {}: {e}", unpacked.join(name).display()))?;
    }
    let files = fs::read_dir(directory).map_err(|e| format!("read {}: {e}", directory.display()))?;
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    for archive in files.flatten().map(|entry| entry.path()).filter(is_archive) {
        let tarball = archive.with_extension("tar");
        let file = fs::File::create(&tarball).map_err(|e| format!("create {}: {e}", tarball.display()))?;
        succeed(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&archive).stdout(file))?;
        succeed(
            Command::new("tar").args(["-x", "--keep-directory-symlink", "-C"]).arg(&unpacked).arg("-f").arg(&tarball),
        )?;
    }
    Ok(())
}

/// The clients, and what of their dependencies is not installed.
fn download_with_dependencies(directory: &Path) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "--yes", "--no-install-recommends", "--download-only", "-o", "APT::Sandbox::User=root"]);
    command.args(["-o", "Debug::NoLocking=1", "-o"]).arg(format!("Dir::Cache::archives={}", directory.display()));
    output(command.arg("install").args(CLIENTS)).map(|_| ())
}

/// One package of Debian's unstable suite, from where this machine's own packages come.
fn download_from_sid(directory: &Path, package: &str) -> Result<(), String> {
    let apt_files = directory.join("apt");
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt_files.join(part)).map_err(|e| format!("make {}: {e}", apt_files.display()))?;
    }
    let mirrors = output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]))?;
    let mirror = mirrors.lines().find(|line| !line.contains("security")).ok_or("apt has no mirror")?;
    let source = format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} sid main\n");
    let sources = apt_files.join("sources.list");
    fs::write(&sources, source).map_err(|e| format!("write {}: {e}", sources.display()))?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Sandbox::User=root"]);
        for (key, path) in [("Etc::sourcelist", "sources.list"), ("State::lists", "lists"), ("Cache", "cache")] {
            command.arg("-o").arg(format!("Dir::{key}={}", apt_files.join(path).display()));
        }
        command.current_dir(directory);
        command
    };
    output(apt().arg("update"))?;
    output(apt().args(["download", &format!("{package}/sid")])).map(|_| ())
}

fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("run {program}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{program}: {}", output.status)) }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().display().to_string();
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("run {program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
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
