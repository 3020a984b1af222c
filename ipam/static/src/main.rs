//! The `static` binary; what it does is in the library beside it.

fn main() -> std::process::ExitCode {
    libcni::plugin::run(&static_ipam::Static)
}
