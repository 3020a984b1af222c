//! Where the built binaries are, ours and the reference's, and how ours are built.
//!
//! What a plugin is, is said once and by cargo: every binary of the workspace outside of `tests/`.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Names the directory with our binaries; `cargo xtask test` sets it.
pub const OURS: &str = "PODWIRE_BIN_DIR";
/// Names the directory with the reference's binaries, if not Debian's.
pub const REFERENCE: &str = "PODWIRE_REFERENCE_DIR";
/// Names the directory with a second, newer version of the reference; unset: there is none.
pub const NEWEST_REFERENCE: &str = "PODWIRE_NEWEST_REFERENCE_DIR";

/// Where Debian installs the reference.
pub const DEBIAN: &str = "/usr/lib/cni";

static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// Builds the binaries for this process now; later [`directory`] says where they are. [`OURS`] goes before it.
///
/// # Errors
/// When the build fails.
pub fn build(profile: &str, triple: Option<&str>) -> Result<PathBuf, String> {
    if env::var_os(OURS).is_none() {
        let built = collect(profile, triple)?;
        BUILT.get_or_init(|| built);
    }
    Ok(directory())
}

/// A directory with our binaries and nothing else: what [`OURS`] names, else built now (once a process).
pub fn directory() -> PathBuf {
    if let Some(named) = env::var_os(OURS) {
        return named.into();
    }
    BUILT.get_or_init(|| collect("quick", None).unwrap_or_else(|e| panic!("build the plugins: {e}"))).clone()
}

/// The directories with the reference's binaries, the version that most nodes have first.
#[track_caller]
pub fn reference_directories() -> Vec<PathBuf> {
    let first = env::var_os(REFERENCE).unwrap_or_else(|| DEBIAN.into());
    let all = [Some(first), env::var_os(NEWEST_REFERENCE)];
    let directories: Vec<PathBuf> = all.into_iter().flatten().map(PathBuf::from).collect();
    for directory in &directories {
        assert!(directory.is_dir(), "no reference plugins in {} (see cargo xtask test)", directory.display());
    }
    directories
}

/// The directory of the root Cargo.toml, where the tests were built.
pub fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The workspace: what to build, and where cargo puts it.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The directory of the root Cargo.toml.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// (package, binary) of every plugin and of cnitool, sorted.
    pub binaries: Vec<(String, String)>,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo does not run or prints something else.
    pub fn read() -> Result<Self, String> {
        let root = root();
        let mut command = cargo(root);
        let output = command.args(["metadata", "--no-deps", "--format-version=1"]).stderr(Stdio::inherit()).output();
        let output = output.map_err(|e| format!("run cargo metadata: {e}"))?;
        let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
        let target = metadata["target_directory"].as_str().ok_or("cargo metadata names no target directory")?;
        let mut binaries = Vec::new();
        for package in items(&metadata["packages"]) {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
            if manifest.starts_with(root.join("tests")) {
                continue;
            }
            for product in items(&package["targets"]).iter().filter(|t| items(&t["kind"]).iter().any(|k| k == "bin")) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                binaries.push((text(&package["name"]), text(&product["name"])));
            }
        }
        binaries.sort();
        Ok(Self { root: root.to_owned(), target: target.into(), binaries })
    }

    /// Builds every binary; returns the directory where cargo left them (among other things).
    ///
    /// # Errors
    /// When the build fails; the compiler has said why.
    pub fn build(&self, profile: &str, triple: Option<&str>) -> Result<PathBuf, String> {
        let mut command = cargo(&self.root);
        command.args(["build", "--quiet", "--profile", profile, "--bins"]);
        let mut packages: Vec<&String> = self.binaries.iter().map(|(package, _)| package).collect();
        packages.dedup();
        for package in packages {
            command.args(["--package", package]);
        }
        let mut products = self.target.clone();
        if let Some(triple) = triple {
            command.args(["--target", triple]);
            products.push(triple);
        }
        let status = command.status().map_err(|e| format!("run cargo build: {e}"))?;
        if !status.success() {
            return Err(format!("cargo build --profile {profile}: {status}"));
        }
        Ok(products.join(profile))
    }
}

/// Builds, and puts the binaries alone into one directory below cargo's.
///
/// # Errors
/// When the build fails or a file cannot be copied.
pub fn collect(profile: &str, triple: Option<&str>) -> Result<PathBuf, String> {
    let workspace = Workspace::read()?;
    let products = workspace.build(profile, triple)?;
    let directory = workspace.target.join("plugins").join(format!("{profile}-{}", triple.unwrap_or("host")));
    fs::create_dir_all(&directory).map_err(|e| format!("make {}: {e}", directory.display()))?;
    for (_, name) in &workspace.binaries {
        install(&products.join(name), &directory, name)?;
    }
    Ok(directory)
}

/// Puts a binary into a directory, whole or not at all: whoever runs the old one goes on with the old one.
///
/// # Errors
/// When a file cannot be read or written.
pub fn install(built: &Path, directory: &Path, name: &str) -> Result<(), String> {
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let copy = || -> io::Result<()> {
        // In one piece, which is how it then lies in the page cache: with fs::copy a plugin takes a tenth longer.
        fs::write(&temporary, fs::read(built)?)?;
        fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        fs::rename(&temporary, directory.join(name))
    };
    copy().map_err(|e| {
        drop(fs::remove_file(&temporary));
        format!("install {name} in {}: {e}", directory.display())
    })
}

/// cargo, as whoever started us means it.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    command
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
