//! Where a plugin's program is: the first that can be run in the directories of `CNI_PATH`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::types::{Code, Error};

/// Finds the program of a plugin type. Empty elements of `paths` are skipped: they would mean the working
/// directory, which nobody means. A file without an execute bit does not hide a good one further down.
///
/// # Errors
/// Code 7 for a type that is no file name (it must not lead out of the directories: CVE-2021-20206), code 999
/// if it is in none of them; the texts are the reference's.
pub fn find(plugin_type: &str, paths: &[PathBuf]) -> Result<PathBuf, Error> {
    if plugin_type.is_empty() {
        return Err(Error::new(Code::INVALID_CONFIG, "no plugin name provided"));
    }
    if plugin_type.contains(['/', '\0']) || matches!(plugin_type, "." | "..") {
        return Err(Error::new(Code::INVALID_CONFIG, format!("invalid plugin name: {plugin_type}"))
            .with_details("a plugin's type is a file name without a directory"));
    }
    let directories: Vec<&Path> =
        paths.iter().map(PathBuf::as_path).filter(|directory| !directory.as_os_str().is_empty()).collect();
    if directories.is_empty() {
        return Err(Error::internal("no paths provided"));
    }
    let mut not_executable = Vec::new();
    for directory in &directories {
        let file = directory.join(plugin_type);
        // Symbolic links are followed: distributions link into versioned directories.
        match std::fs::metadata(&file) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => return Ok(file),
            Ok(found) if found.is_file() => not_executable.push(file.display().to_string()),
            _ => {}
        }
    }
    let searched: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
    let error = Error::internal(format!("failed to find plugin {plugin_type:?} in path [{}]", searched.join(" ")));
    if not_executable.is_empty() {
        return Err(error);
    }
    Err(error.with_details(format!("not executable: {}", not_executable.join(", "))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(path: &Path, mode: u32) {
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_that_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
        std::fs::create_dir_all(first.join("directory")).unwrap();
        std::fs::create_dir(&second).unwrap();
        let paths = [PathBuf::new(), first.clone(), second.clone()];
        for name in ["plain", "directory", "shadowed"] {
            file(&second.join(name), 0o755);
        }
        // Weakness 13 of the reference: this one would be chosen, and fail.
        file(&first.join("shadowed"), 0o644);
        symlink(second.join("plain"), first.join("link")).unwrap();
        for name in ["plain", "directory", "shadowed"] {
            assert_eq!(find(name, &paths).unwrap(), second.join(name));
        }
        assert_eq!(find("link", &paths).unwrap(), first.join("link"));
    }

    #[test]
    fn refusals_in_the_references_words() {
        let paths = [PathBuf::from("/nowhere/a"), PathBuf::new(), PathBuf::from("/nowhere/b")];
        for (name, paths, code, msg) in [
            ("", &paths[..], 7, "no plugin name provided".to_owned()),
            ("../bridge", &paths, 7, "invalid plugin name: ../bridge".to_owned()),
            ("a/b", &paths, 7, "invalid plugin name: a/b".to_owned()),
            ("..", &paths, 7, "invalid plugin name: ..".to_owned()),
            (".", &paths, 7, "invalid plugin name: .".to_owned()),
            ("a\0", &paths, 7, "invalid plugin name: a\0".to_owned()),
            ("bridge", &[], 999, "no paths provided".to_owned()),
            ("bridge", &[PathBuf::new()], 999, "no paths provided".to_owned()),
            ("bridge", &paths, 999, r#"failed to find plugin "bridge" in path [/nowhere/a /nowhere/b]"#.to_owned()),
        ] {
            let error = find(name, paths).unwrap_err();
            assert_eq!((error.code(), error.msg()), (Code(code), msg.as_str()));
        }
    }

    #[test]
    fn what_is_there_but_cannot_be_run_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = dir.path().join("bridge");
        file(&plugin, 0o644);
        let error = find("bridge", &[dir.path().into()]).unwrap_err();
        assert_eq!(error.details(), format!("not executable: {}", plugin.display()));
    }
}
