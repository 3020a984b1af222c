//! A virtual machine with Debian's kernel, for one command: what this machine's kernel lacks, that one has.
//!
//! The machine sees this one's files at the same paths (over 9p, read only); what it writes stays in its memory. It has
//! no network device. Without KVM qemu emulates the processor, which takes some seconds to boot and is good enough.
//! Three serial ports: the kernel's messages, what the command prints, and its exit status.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Seconds after which the machine is ended.
const DEADLINE: &str = "900";

/// What is needed to see the root file system; the rest is loaded from there.
const BOOT_MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// What the tests use and the kernel does not load on demand from a network namespace.
const MODULES: &str = "bridge br_netfilter veth 8021q dummy af_packet nf_tables nft_compat ip_tables ip6_tables";

/// Where a machine that has a disk sees it.
pub const DISK: &str = "/mnt/disk";

/// What is different from one boot to the other.
#[derive(Default)]
pub struct Boot<'a> {
    /// A file with an ext4 file system, which outlives the machine.
    pub disk: Option<&'a Path>,
    /// What the hardware's clock says, as `1970-01-02T00:00:00`; absent: the time.
    pub clock: Option<&'a str>,
}

/// A kernel and an initial file system, ready to boot.
pub struct Machine {
    directory: PathBuf,
    kernel: PathBuf,
}

impl Machine {
    /// Downloads and unpacks Debian's kernel below `directory`, if that was not done before. Nothing is installed.
    pub fn prepare(directory: &Path) -> Result<Self, String> {
        if std::env::consts::ARCH != "x86_64" {
            return Err("the virtual machine is made for x86_64 only".to_owned());
        }
        let root = directory.join("kernel");
        if !root.is_dir() {
            download(directory, &root)?;
        }
        let boot = fs::read_dir(root.join("boot")).map_err(|e| format!("read {}: {e}", root.display()))?;
        let is_kernel = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-"));
        let kernel = boot.flatten().map(|entry| entry.path()).find(is_kernel);
        let kernel = kernel.ok_or_else(|| format!("no kernel in {}", root.display()))?;
        let machine = Self { directory: directory.to_owned(), kernel };
        fs::write(machine.initramfs(), machine.initial_files()?).map_err(|e| format!("write the initramfs: {e}"))?;
        Ok(machine)
    }

    /// Runs a program as root in a new machine; what it prints appears here. Returns its exit status.
    pub fn run(
        &self,
        program: &Path,
        arguments: &[String],
        env: &[(&str, String)],
        boot: &Boot<'_>,
    ) -> Result<i32, String> {
        let script = self.directory.join("guest.sh");
        fs::write(&script, guest_script(program, arguments, env, boot.disk.is_some()))
            .map_err(|e| format!("write the script: {e}"))?;
        let (messages, result) = (self.directory.join("console"), self.directory.join("status"));
        let mut qemu = Command::new("timeout");
        qemu.args([DEADLINE, "qemu-system-x86_64", "-M", "q35", "-nodefaults", "-no-user-config", "-display", "none"]);
        qemu.args(["-no-reboot", "-m", "1024", "-smp", "2"]).args(accelerator());
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(self.initramfs());
        qemu.args(["-append", "console=ttyS0 loglevel=4 panic=-1 random.trust_cpu=on no_timer_check"]);
        qemu.arg("-serial").arg(format!("file:{}", messages.display()));
        qemu.args(["-chardev", "stdio,id=out,signal=off", "-serial", "chardev:out"]);
        qemu.arg("-serial").arg(format!("file:{}", result.display()));
        qemu.args(["-device", "virtio-rng-pci"]);
        qemu.args(["-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"]);
        if let Some(disk) = boot.disk {
            qemu.arg("-drive").arg(format!("file={},if=virtio,format=raw", disk.display()));
        }
        if let Some(clock) = boot.clock {
            qemu.args(["-rtc", &format!("base={clock}")]);
        }
        let status = qemu.stdin(Stdio::null()).status().map_err(|e| format!("run qemu: {e}"))?;
        let said = fs::read_to_string(&result).unwrap_or_default();
        said.trim().parse().map_err(|_| {
            let console = String::from_utf8_lossy(&fs::read(&messages).unwrap_or_default()).into_owned();
            format!("the virtual machine ended ({status}) without a result; its last words:\n{}", tail(&console))
        })
    }

    /// A new disk with an empty ext4 file system.
    pub fn disk(&self) -> Result<PathBuf, String> {
        let path = self.directory.join("disk");
        let file = fs::File::create(&path).and_then(|file| file.set_len(32 << 20));
        file.map_err(|e| format!("make {}: {e}", path.display()))?;
        must(Command::new("/sbin/mkfs.ext4").arg("-q").arg(&path))?;
        Ok(path)
    }

    fn initramfs(&self) -> PathBuf {
        self.directory.join("initramfs")
    }

    /// busybox, the modules that lead to the root file system, and a script that goes there.
    fn initial_files(&self) -> Result<Vec<u8>, String> {
        let version = self.kernel.file_name().unwrap_or_default().to_string_lossy().replacen("vmlinuz-", "", 1);
        let modules = self.directory.join("kernel/lib/modules").join(version);
        let index = fs::read_to_string(modules.join("modules.dep")).map_err(|e| format!("read modules.dep: {e}"))?;
        let mut order = Vec::new();
        for name in BOOT_MODULES {
            needed(&index, name, &mut order);
        }
        let mut archive = Archive(Vec::new());
        for directory in ["proc", "sys", "dev", "lower", "upper", "new", "modules"] {
            archive.add(directory, 0o040_755, b"");
        }
        for (place, file) in order.iter().enumerate() {
            let bytes = uncompressed(&modules.join(file))?;
            archive.add(&format!("modules/{place:02}"), 0o100_644, &bytes);
        }
        let busybox = ::tests::namespace::find("busybox").ok_or("busybox-static is not installed")?;
        let busybox = fs::read(&busybox).map_err(|e| format!("read {}: {e}", busybox.display()))?;
        archive.add("busybox", 0o100_755, &busybox);
        archive.add("init", 0o100_755, self.init_script().as_bytes());
        Ok(archive.finish())
    }

    fn init_script(&self) -> String {
        let directory = self.directory.display();
        format!(
            r"#!/busybox sh
B=/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
for module in /modules/*; do $B insmod $module; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro root /lower
$B mount -t tmpfs upper /upper
$B mkdir /upper/files /upper/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work,xino=off root /new
$B mkdir -p /new/lib/modules
$B mount --bind /new{directory}/kernel/lib/modules /new/lib/modules
$B mount -t tmpfs run /new/run
for there in proc sys dev; do $B mount --move /$there /new/$there; done
exec $B switch_root /new /bin/sh {directory}/guest.sh
"
        )
    }
}

fn guest_script(program: &Path, arguments: &[String], env: &[(&str, String)], disk: bool) -> String {
    let exports: String = env.iter().map(|(key, value)| format!("export {key}={}\n", quoted(value))).collect();
    let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    let (program, words) = (quoted(&program.display().to_string()), words.join(" "));
    let mount = format!("modprobe -a virtio_blk ext4\nmkdir -p {DISK}\nmount -t ext4 /dev/vda {DISK}\n");
    let mount = if disk { mount } else { String::new() };
    format!(
        r"{exports}mkdir -p /run/lock /run/netns /var/lib/cni
modprobe -a {MODULES}
ip link set lo up
{mount}stty -F /dev/ttyS1 raw
cd /
{program} {words} </dev/null >/dev/ttyS1 2>&1
echo $? >/dev/ttyS2
sync
busybox reboot -f
"
    )
}

/// Fetches the kernel that Debian's meta package names and unpacks it into `root`.
fn download(directory: &Path, root: &Path) -> Result<(), String> {
    let output = Command::new("apt-cache").args(["depends", "linux-image-amd64"]).output();
    let output = output.map_err(|e| format!("run apt-cache: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let package = package.ok_or("apt knows no kernel; try apt-get update")?;
    println!("downloading Debian's kernel {package} (it is not installed)");

    let work = directory.join("download");
    drop(fs::remove_dir_all(&work));
    fs::create_dir_all(&work).map_err(|e| format!("make {}: {e}", work.display()))?;
    let name = format!("linux-image-{package}");
    must(Command::new("apt-get").args(["-qq", "-o", "APT::Sandbox::User=root", "download", &name]).current_dir(&work))?;
    let files = fs::read_dir(&work).map_err(|e| format!("read {}: {e}", work.display()))?;
    let archive = files.flatten().next().ok_or("apt-get downloaded nothing")?.path();
    let unpacked = work.join("kernel");
    must(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&unpacked))?;
    must(Command::new("/sbin/depmod").arg("-b").arg(&unpacked).arg(package))?;
    fs::rename(&unpacked, root).map_err(|e| format!("rename {}: {e}", unpacked.display()))
}

fn must(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("run {}: {e}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", command.get_program().display())) }
}

/// Appends the files of a module to `order`, what it depends on first. A module that is built in has none.
fn needed(index: &str, name: &str, order: &mut Vec<String>) {
    let is_it = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split('.').next().is_some_and(|stem| stem.replace('-', "_") == name)
    };
    let Some((file, others)) = index.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| is_it(path))
    else {
        return;
    };
    // modules.dep lists every module that is needed, the most basic one last.
    for file in others.split_whitespace().rev().chain([file]) {
        if !order.iter().any(|known| known == file) {
            order.push(file.to_owned());
        }
    }
}

fn uncompressed(path: &Path) -> Result<Vec<u8>, String> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz").arg("-dc").arg(path).output().map_err(|e| format!("run xz: {e}"))?;
        return if output.status.success() { Ok(output.stdout) } else { Err(format!("xz -dc {}", path.display())) };
    }
    fs::read(path).map_err(|e| format!("read {}: {e}", path.display()))
}

/// KVM where the processor has it, else emulation. A /dev/kvm without the processor's flag does not run every kernel.
fn accelerator() -> [&'static str; 4] {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flag = processor.split_whitespace().any(|word| word == "vmx" || word == "svm");
    match fs::OpenOptions::new().write(true).open("/dev/kvm") {
        Ok(_) if flag => ["-accel", "kvm", "-cpu", "host"],
        _ => ["-accel", "tcg,thread=multi", "-cpu", "max"],
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}

/// A cpio archive as the kernel unpacks it ("newc", Documentation/driver-api/early-userspace/buffer-format.rst).
struct Archive(Vec<u8>);

impl Archive {
    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        let number = self.0.len();
        // Writing to a vector cannot fail.
        let _: io::Result<()> = write!(
            self.0,
            "070701{number:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{name}\0",
            0, // uid
            0, // gid
            1, // links
            0, // mtime
            bytes.len(),
            0, // the device of the file: major, minor
            0,
            0, // the device that the file is
            0,
            name.len() + 1,
            0, // checksum, unused
        );
        self.pad();
        self.0.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Archive, needed, quoted};

    /// Lines as depmod writes them: a module, then all that it needs, the most basic one last.
    const INDEX: &str = "kernel/net/9p/9pnet.ko: kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko
kernel/fs/netfs/netfs.ko:
kernel/drivers/virtio/virtio-pci.ko.xz:
";

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let mut order = Vec::new();
        for name in ["9pnet_virtio", "virtio_pci", "9pnet", "built_in"] {
            needed(INDEX, name, &mut order);
        }
        let names: Vec<&str> = order.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["netfs.ko", "9pnet.ko", "9pnet_virtio.ko", "virtio-pci.ko.xz"]);
    }

    #[test]
    fn a_word_survives_the_shell() {
        let output =
            std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted("a 'b' $c \\"))]).output();
        assert_eq!(output.unwrap().stdout, b"a 'b' $c \\");
    }

    #[test]
    fn an_archive_is_aligned_and_ends_with_its_trailer() {
        let mut archive = Archive(Vec::new());
        archive.add("init", 0o100_755, b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        // Header 110 and name 5 make 115, padded to 116; 5 bytes of content, padded to 124.
        assert_eq!(&bytes[116..121], b"12345");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes[124..].windows(10).any(|part| part == b"TRAILER!!!"));
    }
}
