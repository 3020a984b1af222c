//! The table of mounts, as this process sees it: where network namespaces are mounted, and the kernel's device nodes.
//!
//! Paths are bytes there, as everywhere.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The number of the file system: `major:minor`.
    pub(crate) device: String,
    /// What of the file system is mounted; of a namespace, its name.
    pub(crate) root: Vec<u8>,
    pub(crate) place: PathBuf,
}

/// Those of a file system of that type.
///
/// # Errors
/// The table cannot be read.
pub(crate) fn of_type(name: &str) -> io::Result<Vec<Mount>> {
    Ok(in_table(&fs::read("/proc/self/mountinfo")?, name))
}

/// Those of a table in the form of `mountinfo`.
fn in_table(table: &[u8], type_name: &str) -> Vec<Mount> {
    let mark = format!(" - {type_name} ").into_bytes();
    let is_of_type = |line: &&[u8]| line.windows(mark.len()).any(|part| part == mark);
    let lines = table.split(|byte| *byte == b'\n').filter(is_of_type);
    lines.filter_map(|line| mount(line.split(|byte| *byte == b' '))).collect()
}

fn mount<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Option<Mount> {
    let mut fields = fields.skip(2);
    Some(Mount {
        device: str::from_utf8(fields.next()?).ok()?.to_owned(),
        root: unescaped(fields.next()?),
        place: OsStr::from_bytes(&unescaped(fields.next()?)).into(),
    })
}

/// A field of `mountinfo` without the four escapes that it has.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'\\', b'0', b'1', b'1', after @ ..] => (b'\t', after),
            [b'\\', b'0', b'1', b'2', after @ ..] => (b'\n', after),
            [b'\\', b'0', b'4', b'0', after @ ..] => (b' ', after),
            [b'\\', b'1', b'3', b'4', after @ ..] => (b'\\', after),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_by_bytes() {
        let table = b"22 27 0:21 / /proc rw - proc proc rw\n\
            30 27 0:40 / /mnt/\xff\xfe rw - tmpfs none rw\n\
            24 27 0:6 / /dev rw,relatime shared:2 master:1 - devtmpfs udev rw\n\
            69 42 0:4 net:[4026532388] /run/a\\040b\\011c\\012d\\134040\xff rw shared:2 - nsfs nsfs rw\n";
        let namespaces = in_table(table, "nsfs");
        let places: Vec<_> = namespaces.iter().map(|mount| mount.place.as_path()).collect();
        assert_eq!(places, [OsStr::from_bytes(b"/run/a b\tc\nd\\040\xff")]);
        assert_eq!(namespaces[0].root, b"net:[4026532388]");
        let devices = Mount { device: "0:6".into(), root: b"/".into(), place: "/dev".into() };
        assert_eq!(in_table(table, "devtmpfs"), [devices]);
    }
}
