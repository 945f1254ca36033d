//! The program: hidden process roles first, then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(role) if role == rcompose::init::REAPER_ROLE => rcompose::init::reaper_main(),
        Some(role) if role == rcompose::keeper::ROLE => rcompose::keeper::main(),
        Some(role) if role == rcompose::supervisor::ROLE => {
            rcompose::supervisor::main(std::env::args_os().skip(2).collect())
        }
        _ => rcompose::cli::main(),
    }
}
