//! hostnet against the kernel. What it writes is read back by `ip -j` and the rtnetlink crate.
//!
//! Of the reference's checklist these are not here: the list of addresses that deleting a link returns (rules are found by
//! their owner, nobody needs it); sysctl names with dots between their parts (ours have slashes, a dot belongs to the
//! interface's name); a namespace closed twice (it is an open file that is owned, and closes once).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod address;
mod announcement;
mod echo;
mod endpoint;
mod lab;
mod link;
mod netns;
mod route;
mod tc;
