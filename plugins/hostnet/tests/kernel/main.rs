//! hostnet against the kernel. What it writes is read back by `ip -j` and the rtnetlink crate.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod address;
mod endpoint;
mod lab;
mod link;
mod netns;
mod route;
