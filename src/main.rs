//! The program: hidden process roles first, then the command line.

fn main() -> std::process::ExitCode {
    rcompose::cli::main()
}
