//! The `reef` binary.

/// The store is millions of small allocations made on many threads. glibc keeps their pages in one arena per thread when they
/// are freed; this one gives them back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    reef::cli::run()
}
