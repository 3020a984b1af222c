//! `cnitool plugins`: what is installed, and which versions of the specification it speaks.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libcni::{Version, exec};

/// A file in one of the directories.
struct Row {
    name: String,
    directory: String,
    versions: String,
}

/// Prints a table of the plugins in `dirs`. `false` if there is none.
pub fn list(dirs: &[PathBuf], out: &mut impl Write) -> io::Result<bool> {
    let mut rows: Vec<Row> = Vec::new();
    for dir in dirs {
        match std::fs::read_dir(dir) {
            Ok(entries) => {
                let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                files.sort();
                for file in files {
                    rows.extend(row(&file, dir, &rows));
                }
            }
            Err(error) => writeln!(io::stderr(), "cannot read {}: {error}", dir.display())?,
        }
    }
    let width = |title: &str, cell: &dyn Fn(&Row) -> usize| rows.iter().map(cell).max().unwrap_or(0).max(title.len());
    let name = width("PLUGIN", &|row| row.name.len());
    let directory = width("DIRECTORY", &|row| row.directory.len());
    if rows.is_empty() {
        let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        writeln!(io::stderr(), "there are no plugins in {}; CNI_PATH says where to look", dirs.join(" "))?;
        return Ok(false);
    }
    writeln!(out, "{:<name$}  {:<directory$}  VERSIONS", "PLUGIN", "DIRECTORY")?;
    for row in &rows {
        writeln!(out, "{:<name$}  {:<directory$}  {}", row.name, row.directory, row.versions)?;
    }
    Ok(true)
}

/// `None` for what is no program, and for ourselves, who live in the same directory.
fn row(file: &Path, dir: &Path, before: &[Row]) -> Option<Row> {
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let name = file.file_name()?.to_string_lossy().into_owned();
    let ourselves = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    if name == "cnitool" || (ourselves.is_some() && std::fs::canonicalize(file).ok() == ourselves) {
        return None;
    }
    let earlier = before.iter().find(|row| row.name == name && row.versions != NOT_EXECUTABLE);
    let versions = if metadata.permissions().mode() & 0o111 == 0 {
        NOT_EXECUTABLE.to_owned()
    } else if let Some(earlier) = earlier {
        format!("hidden by the one in {}", earlier.directory)
    } else {
        match exec::versions(file) {
            Ok(versions) => range(&versions),
            Err(error) => format!("no answer: {error}"),
        }
    };
    Some(Row { name, directory: dir.display().to_string(), versions })
}

const NOT_EXECUTABLE: &str = "not executable";

/// All the versions between two as `0.1.0 to 1.1.0`, else each of them.
fn range(versions: &[String]) -> String {
    let known: Vec<&str> = Version::ALL.iter().map(|version| version.as_str()).collect();
    let texts: Vec<&str> = versions.iter().map(String::as_str).collect();
    match (texts.first(), texts.last()) {
        (Some(first), Some(last)) if texts.len() > 2 && known.windows(texts.len()).any(|part| part == texts) => {
            format!("{first} to {last}")
        }
        _ => texts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_versions() {
        for (versions, expected) in [
            ("0.1.0 0.2.0 0.3.0 0.3.1 0.4.0 1.0.0 1.1.0", "0.1.0 to 1.1.0"),
            ("0.3.1 0.4.0 1.0.0", "0.3.1 to 1.0.0"),
            ("0.3.1 1.0.0", "0.3.1, 1.0.0"),
            ("0.1.0 0.2.0 1.0.0", "0.1.0, 0.2.0, 1.0.0"),
            ("1.0.0", "1.0.0"),
        ] {
            let versions: Vec<String> = versions.split(' ').map(str::to_owned).collect();
            assert_eq!(range(&versions), expected);
        }
    }
}
