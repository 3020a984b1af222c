//! The three that are compared, and where their programs are.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One of those that are compared; also their order in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// What the kernel alone charges.
    Floor,
    /// The plugins of this repository.
    Ours,
    /// The plugins of containernetworking.
    Reference,
}

impl Suite {
    /// All, in the table's order.
    pub const ALL: [Self; 3] = [Self::Floor, Self::Ours, Self::Reference];

    /// The heading of its column.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ours => "ours",
            Self::Reference => "reference",
        }
    }
}

/// In one piece: the kernel takes a file that it copies by itself (`fs::copy`) page by page.
fn write_anew(program: &Path, directory: &Path) -> io::Result<()> {
    let copy = directory.join(program.file_name().unwrap_or_default());
    fs::create_dir_all(directory)?;
    fs::write(&copy, fs::read(program)?)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The directory of our plugins.
    pub ours: PathBuf,
    /// The directory of the reference's.
    pub reference: PathBuf,
    /// The directory of the bench's own: `floor` and `witness`.
    pub own: PathBuf,
}

impl Programs {
    /// The same programs, written anew below `directory`: all of them in one way and in one hour. How a file came into the page
    /// cache decides in what pieces it lies there, and the same binary takes 1.9 ms or 2.1 (NOTES.md).
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn written_anew(&self, directory: &Path) -> io::Result<Self> {
        let place = |name: &str| directory.join(name);
        let copies = Self { ours: place("ours"), reference: place("reference"), own: place("own") };
        for (from, to) in [(&self.ours, &copies.ours), (&self.reference, &copies.reference)] {
            for file in fs::read_dir(from)? {
                let file = file?;
                if file.metadata()?.is_file() {
                    write_anew(&file.path(), to)?;
                }
            }
        }
        for program in [self.floor(), self.witness()] {
            write_anew(&program, &copies.own)?;
        }
        Ok(copies)
    }

    /// The directory of a suite's plugins; the floor has none.
    pub fn directory(&self, suite: Suite) -> Option<&PathBuf> {
        match suite {
            Suite::Floor => None,
            Suite::Ours => Some(&self.ours),
            Suite::Reference => Some(&self.reference),
        }
    }

    /// The floor program.
    pub fn floor(&self) -> PathBuf {
        self.own.join("floor")
    }

    /// The program that tells the peak memory of another.
    pub fn witness(&self) -> PathBuf {
        self.own.join("witness")
    }

    /// Whether a suite has a plugin, and the reference's has this word in it: older ones would take a backend that they
    /// have never heard of for the default.
    pub fn knows(&self, suite: Suite, plugin: &str, word: &str) -> bool {
        let has_word = |program: &Path| {
            let bytes = fs::read(program).unwrap_or_default();
            bytes.windows(word.len()).any(|part| part == word.as_bytes())
        };
        match suite {
            Suite::Floor => true,
            Suite::Ours => self.ours.join(plugin).is_file(),
            Suite::Reference => has_word(&self.reference.join(plugin)),
        }
    }
}
