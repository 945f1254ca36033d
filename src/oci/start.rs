//! `start`.

use std::io::{self, Read as _, Write as _};

use rustix::event::{PollFd, PollFlags};

use crate::init::{ABOUT_TO_EXECUTE, FAILED, LaunchFailure};
use crate::oci::arguments::Global;
use crate::oci::create;
use crate::oci::error::OciError;
use crate::oci::state::{Container, Status};

pub(super) fn start(global: &Global, id: &str) -> Result<(), OciError> {
    let container = Container::open(global, id)?;
    let record = container.made()?;
    // Of two starts the second waits here, and then finds the container running.
    let _lock = container.lock()?;
    let mut result = container.open_result()?;
    let Ok(mut start) = container.open_start() else {
        let status = container.status(&record).name();
        return Err(OciError::WrongStatus { id: id.to_owned(), status, wanted: Status::Created.name() });
    };
    start.write_all(b"s").map_err(OciError::io("write to", "the container's process"))?;
    let report = read_report(&mut result).map_err(OciError::io("read", "the container's report"))?;
    check(&report)?;
    create::poststart(&record, &container.config()?)
}

/// Reads until the container's process has closed its end: by executing its program, or by ending.
fn read_report(result: &mut std::fs::File) -> io::Result<Vec<u8>> {
    let mut report = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        // It tells before it executes, so the end of the FIFO cannot come before its first byte.
        let mut events = [PollFd::new(&*result, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut events, None))?;
        match result.read(&mut buffer) {
            Ok(0) => return Ok(report),
            Ok(length) => report.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
}

fn check(report: &[u8]) -> Result<(), OciError> {
    let executed = report.first() == Some(&ABOUT_TO_EXECUTE);
    let ended = || OciError::Launch("the process ended before it executed its program".to_owned());
    match report.get(usize::from(executed)..).unwrap_or_default().split_first() {
        None if executed => Ok(()),
        Some((&FAILED, failure)) => {
            let failure: LaunchFailure = postcard::from_bytes(failure).map_err(|_| ended())?;
            Err(OciError::launch(&failure, &[]))
        }
        _ => Err(ended()),
    }
}
