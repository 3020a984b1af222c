//! The allocator of a program that lives a millisecond. The parsed messages of the kernel are many small lists, and musl's
//! allocator maps and unmaps memory for nearly each of them, with a page fault every time. This one keeps what it has.
//!
//! Where the C library's is good the feature costs nothing: it is for musl alone.

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
