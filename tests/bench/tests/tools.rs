//! The bench's own eyes: `calls` and `witness`, on programs of which one knows what they do.

use std::fs;
use std::process::Command;

/// `sh` starts a program and waits for it; `:` keeps it from becoming that program.
const TWO_PROGRAMS: &str = "/bin/true; /bin/true; :";

#[test]
fn calls_are_counted_by_program() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("calls");
    let count = |arguments: &[&str]| {
        drop(fs::remove_file(&list));
        let status = Command::new(env!("CARGO_BIN_EXE_calls")).arg(&list).args(arguments).status().unwrap();
        assert!(status.success());
        let mut lines: Vec<(String, usize)> = Vec::new();
        for line in fs::read_to_string(&list).unwrap().lines() {
            let (program, number) = line.rsplit_once(' ').unwrap();
            lines.push((program.rsplit('/').next().unwrap().to_owned(), number.parse().unwrap()));
        }
        lines.sort();
        lines
    };
    let alone = count(&["/bin/true"]);
    assert!(matches!(&alone[..], [(name, 1..)] if name == "true"), "{alone:?}");
    let both = count(&["/bin/sh", "-c", TWO_PROGRAMS]);
    assert_eq!(both.len(), 2, "{both:?}");
    let twice = both.iter().find(|(name, _)| name == "true").unwrap().1;
    // The call that executes a program counts for the one that it was before, or for none.
    assert!(twice.abs_diff(2 * alone[0].1) <= 2, "{both:?}, alone {alone:?}");
}

#[test]
fn calls_and_witness_end_as_the_program_does() {
    for tool in [&[env!("CARGO_BIN_EXE_calls"), "/dev/null"][..], &[env!("CARGO_BIN_EXE_witness")]] {
        let failed = Command::new(tool[0]).args(&tool[1..]).arg("/bin/false").output().unwrap();
        assert_eq!(failed.status.code(), Some(1), "{tool:?}: {failed:?}");
    }
}

#[test]
fn the_witness_sees_memory_and_processes() {
    let watch = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_witness")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let (peak, tasks) = said.lines().last().unwrap().split_once(' ').unwrap();
        (peak.parse::<u64>().unwrap(), tasks.parse::<u64>().unwrap())
    };
    let (small, none) = watch(&["/bin/true"]);
    let (_, two) = watch(&["/bin/sh", "-c", TWO_PROGRAMS]);
    assert_eq!((none, two), (0, 2));
    // A child holds 20 MB.
    let (large, _) = watch(&["/bin/sh", "-c", "head -c 20000000 /dev/zero | tail | cat >/dev/null; :"]);
    assert!(small < 10_000 && large > 19_000, "{small} {large}");
}
