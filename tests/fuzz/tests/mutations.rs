//! The fuzz targets without cargo-fuzz: seeds, what once broke a promise, and mutations of both, for a bounded time.
//!
//! `PODWIRE_FUZZ_SECONDS` (for each target; 1.5 without it) and `PODWIRE_FUZZ_SEED` (a number) change the run. A failure
//! prints the number and the input, which is to be kept in `seeds/` under a name that says what was wrong.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::str::FromStr;
use std::time::{Duration, Instant};

use fuzz::{Mutator, seeds, target};

/// The longest that one input may take: whatever it says, it is at most 64 KiB.
const LONGEST: Duration = Duration::from_secs(5);

fn number<T: FromStr>(variable: &str, otherwise: T) -> T {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn run(name: &str) {
    let target = target(name);
    let seed = number("PODWIRE_FUZZ_SEED", 1_u64);
    let until = Instant::now() + Duration::from_secs_f64(number("PODWIRE_FUZZ_SECONDS", 1.5));
    let mut mutator = Mutator::new(seeds(name), seed);
    let mut inputs = seeds(name).into_iter().chain(std::iter::from_fn(|| Some(mutator.next_input())));
    let mut count = 0;
    while count == 0 || Instant::now() < until {
        let input = inputs.next().unwrap_or_default();
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        if let Err(panic) = outcome {
            eprintln!(
                "{name}: input {count} of seed {seed}: {:?}\nhex: {}",
                String::from_utf8_lossy(&input),
                hex(&input)
            );
            resume_unwind(panic);
        }
        assert!(start.elapsed() < LONGEST, "{name}: {:?} for {}", start.elapsed(), hex(&input));
        count += 1;
    }
    eprintln!("{name}: {count} inputs");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! targets {
    ($($test:ident $name:literal)*) => {
        $(#[test]
        fn $test() {
            run($name);
        })*

        #[test]
        fn every_target_is_run_and_has_seeds() {
            let names = [$($name),*];
            assert_eq!(fuzz::TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), names);
            for name in names {
                assert!(seeds(name).iter().any(|seed| !seed.is_empty()), "{name}");
            }
        }
    };
}

targets! {
    args "args"
    cache "cache"
    config "config"
    conflist "conflist"
    iptables "iptables"
    lease "lease"
    netlink "netlink"
    owner "owner"
    owners "owners"
    resolv_conf "resolv-conf"
    result "result"
    words "words"
}
