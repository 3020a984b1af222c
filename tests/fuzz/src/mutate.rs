//! Inputs that are nearly right, made of seeds with a fixed sequence of random numbers: the same in every run.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that readers look for, and numbers that readers stumble over.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"/",
    b"..",
    b"../",
    b"=",
    b";",
    b" ",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e400",
    b"65536",
    b"4294967296",
    b"18446744073709551616",
    b"::ffff:",
    b"/129",
    b"/0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x04\0",
    b"\xff\xff",
    b"\xf0\x9f\x98\x80",
    b"\\u0000",
    b"\\ud800",
    b"[[[[[[[[",
    b"{\"a\":",
    b"CNI-",
    b"! ",
];

/// Longest input, in bytes.
const LENGTH_MAX: usize = 64 << 10;

/// The seeds of a target, by their names.
///
/// # Panics
/// They cannot be read.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let Ok(entries) = fs::read_dir(&directory) else { return vec![Vec::new()] };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a seed").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a seed")).collect()
}

/// Makes inputs.
#[derive(Clone, Debug)]
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    state: u64,
}

impl Mutator {
    /// From these seeds; two with the same number make the same inputs.
    pub fn new(seeds: Vec<Vec<u8>>, number: u64) -> Self {
        Self { seeds, state: number }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.seed();
        for _ in 0..1 << self.below(4) {
            self.change(&mut input);
        }
        input.truncate(LENGTH_MAX);
        input
    }

    fn seed(&mut self) -> Vec<u8> {
        let index = self.below(self.seeds.len().max(1));
        self.seeds.get(index).cloned().unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let length = input.len();
        let at = self.below(length + 1);
        let end = (at + 1 + self.below(16)).min(length);
        match self.below(9) {
            0 => input.truncate(at),
            1 if at < length => input[at] ^= 1 << self.below(8),
            2 if at < length => input[at] = self.next_number().to_le_bytes()[0],
            3 => drop(input.splice(at..at, PIECES[self.below(PIECES.len())].iter().copied())),
            4 => drop(input.splice(at..end.max(at), PIECES[self.below(PIECES.len())].iter().copied())),
            5 => drop(input.drain(at..end.max(at))),
            // Twice the same: a key, a message, an attribute.
            6 => {
                let end = (at + 1 + self.below(length + 1)).min(length);
                let again = input[at.min(end)..end].to_vec();
                drop(input.splice(at..at, again));
            }
            // The beginning of this one, and the end of another.
            7 => {
                let other = self.seed();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            // A length of netlink that is wrong by a little, where lengths are.
            _ if length >= 4 => {
                let at = at.min(length - 4) & !3;
                let wrong = self.below(64).to_le_bytes();
                input[at..at + 2].copy_from_slice(&wrong[..2]);
            }
            _ => {}
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next_number() % u64::try_from(end).expect("64 bits")).expect("less than a usize")
    }

    /// splitmix64
    fn next_number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}
