//! A container image, made here: busybox and nothing else, as the archive that `docker save` writes (its
//! `manifest.json` names a configuration and the layers). containerd and podman both load it.

use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::namespace::find;

/// Programs of busybox by these names in /bin.
const PROGRAMS: [&str; 10] = ["sh", "sleep", "ip", "cat", "ping", "wget", "nc", "hostname", "ls", "true"];

/// Writes an image of that name to `path`. A container of it sleeps until it is told to end.
pub fn write(path: &Path, name: &str) {
    let busybox = find("busybox").expect("busybox-static (`cargo xtask test` installs what is missing)");
    let busybox = fs::read(busybox).expect("read busybox");
    let mut layer = Tar::default();
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "run", "var"] {
        layer.add(directory, Kind::Directory, b"");
    }
    layer.add("etc/passwd", Kind::File, b"root:x:0:0:root:/root:/bin/sh\n");
    layer.add("etc/group", Kind::File, b"root:x:0:\n");
    layer.add("bin/busybox", Kind::File, &busybox);
    for program in PROGRAMS {
        layer.add(&format!("bin/{program}"), Kind::Link("busybox"), b"");
    }
    let layer = layer.finish();

    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let conf = json!({
        "architecture": architecture, "os": "linux", "created": "1970-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh", "-c", "trap 'exit 0' TERM; sleep 2147483647 & wait"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
        "history": [{"created": "1970-01-01T00:00:00Z"}],
    });
    let conf = conf.to_string();
    let conf_name = format!("{}.json", digest(conf.as_bytes()));
    let manifest = json!([{"Config": conf_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();

    let mut image = Tar::default();
    image.add("manifest.json", Kind::File, manifest.as_bytes());
    image.add(&conf_name, Kind::File, conf.as_bytes());
    image.add("layer.tar", Kind::File, &layer);
    fs::write(path, image.finish()).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an entry is.
enum Kind {
    File,
    Directory,
    Link(&'static str),
}

/// An archive as POSIX describes it ("ustar", IEEE 1003.1 pax, "ustar Interchange Format"): a header of 512 bytes an
/// entry, its content padded to as much, two empty blocks at the end.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(&mut self, name: &str, kind: Kind, bytes: &[u8]) {
        let (flag, target) = match kind {
            Kind::File => ('0', ""),
            Kind::Link(target) => ('2', target),
            Kind::Directory => ('5', ""),
        };
        assert!(name.len() < 100, "{name} is too long for a header");
        // Name, mode, owner, group, size, time, checksum (spaces while it is computed), kind, target of a link, magic.
        let mut header = format!(
            "{name:\0<100}0000755\x000000000\x000000000\0{:011o}\000000000000\0        {flag}{target:\0<100}ustar\x0000",
            bytes.len()
        );
        let sum: u32 = header.bytes().map(u32::from).sum();
        header.replace_range(148..156, &format!("{sum:06o}\0 "));
        self.0.extend(header.as_bytes());
        self.pad();
        self.0.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::write;

    /// tar(1) knows the format better than we do.
    #[test]
    fn an_image_is_an_archive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        write(&path, "podwire.test/image:1");
        let unpacked = Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(directory.path()).status().unwrap();
        assert!(unpacked.success());
        let layer = Command::new("tar").arg("-tvf").arg(directory.path().join("layer.tar")).output().unwrap();
        let listed = String::from_utf8(layer.stdout).unwrap();
        assert!(layer.status.success(), "{}", String::from_utf8_lossy(&layer.stderr));
        assert!(listed.contains("bin/sh -> busybox"), "{listed}");
        assert!(listed.starts_with("drwxr-xr-x 0/0"), "{listed}");
    }
}
