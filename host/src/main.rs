//! The `reef` binary.

fn main() -> std::process::ExitCode {
    reef::cli::run()
}
