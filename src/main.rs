//! The program: hidden process roles first, then the command line.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called_as = arguments.next().and_then(|path| Path::new(&path).file_name().map(OsStr::to_owned));
    if called_as.as_deref() == Some(OsStr::new(rcompose::oci::LINK_NAME)) {
        return rcompose::oci::main(arguments.collect());
    }
    match arguments.next() {
        Some(face) if face == rcompose::oci::NAME => rcompose::oci::main(arguments.collect()),
        Some(role) if role == rcompose::init::REAPER_ROLE => rcompose::init::reaper_main(),
        Some(role) if role == rcompose::build::LAUNCHER_ROLE => rcompose::build::launcher_main(),
        Some(role) if role == rcompose::keeper::ROLE => rcompose::keeper::main(),
        Some(role) if role == rcompose::network::uplink::ROLE => rcompose::network::uplink::main(arguments.collect()),
        Some(role) if role == rcompose::supervisor::ROLE => {
            rcompose::supervisor::main(std::env::args_os().skip(2).collect())
        }
        _ => rcompose::cli::main(),
    }
}
