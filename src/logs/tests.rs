use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;

use super::*;

fn pipes() -> ((io::PipeReader, io::PipeWriter), (io::PipeReader, io::PipeWriter)) {
    (io::pipe().unwrap(), io::pipe().unwrap())
}

fn pump() -> LogPump {
    LogPump::start(|name, error| panic!("{name}: {error}")).unwrap()
}

fn flush(pump: &LogPump, name: &str) {
    let (sender, receiver) = mpsc::channel();
    pump.flush(name, move || sender.send(()).unwrap());
    receiver.recv().unwrap();
}

fn source(name: &str, root: &Path, running: bool) -> Source {
    Source { name: name.to_owned(), folder: root.join(name), running, from: [0; 2] }
}

fn lines(reader: &mut LogReader) -> Vec<String> {
    let mut lines = Vec::new();
    let mut emit = |line: Line<'_>| {
        let letter = if line.stream == Stream::Stdout { "o" } else { "e" };
        lines.push(format!("{}:{letter}:{}", line.container, String::from_utf8_lossy(line.text)));
        Ok(())
    };
    reader.read(&mut emit).unwrap();
    lines
}

/// Bytes in memory do not grow with a line, and what is printed is the same.
#[test]
fn a_long_line_comes_in_pieces() {
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let ((ao, mut a), (ae, _a2)) = pipes();
    let ((bo, mut b), (be, _b2)) = pipes();
    for (name, o, e) in [("a", ao, ae), ("b", bo, be)] {
        pump.add(name, &root.path().join(name), OwnedFd::from(o), OwnedFd::from(e), Limits::default()).unwrap();
    }
    let whole = |reader: &mut LogReader| {
        let mut found = vec![(String::new(), true)];
        let mut emit = |line: Line<'_>| {
            assert!(line.text.len() <= 1 << 20, "{} bytes at once", line.text.len());
            let (last, ended) = found.last_mut().unwrap();
            assert_eq!(line.begins, *ended);
            *ended = line.ends;
            assert!(line.ends || !line.complete);
            let end = if line.complete { "\n" } else { "" };
            let text = String::from_utf8_lossy(line.text);
            if line.begins {
                found.push((format!("{}:{text}{end}", line.container), line.ends));
            } else {
                last.push_str(&text);
                last.push_str(end);
            }
            Ok(())
        };
        reader.read(&mut emit).unwrap();
        found.into_iter().skip(1).map(|(text, _)| text).collect::<Vec<_>>()
    };
    let long = |letter: &str, mib: usize| letter.repeat(mib << 20);
    let both = |running| vec![source("a", root.path(), running), source("b", root.path(), running)];
    let mut reader = LogReader::open(both(true), Query::default()).unwrap();
    a.write_all(long("x", 2).as_bytes()).unwrap();
    flush(&pump, "a");
    assert!(whole(&mut reader).is_empty(), "it is not whole");
    writeln!(b, "between").unwrap();
    flush(&pump, "b");
    assert_eq!(whole(&mut reader), ["b:between\n"]);
    write!(a, "{}\nshort\n{}", long("y", 1), long("z", 3)).unwrap();
    flush(&pump, "a");
    let first = format!("a:{}{}\n", long("x", 2), long("y", 1));
    assert!(whole(&mut reader) == [first.clone(), "a:short\n".to_owned()]);
    drop(a);
    flush(&pump, "a");
    reader.update(both(false)).unwrap();
    let rest = format!("a:{}", long("z", 3));
    assert!(whole(&mut reader) == [rest.clone()]);
    // All of it at once, and the last of it.
    let mut reader = LogReader::open(both(false), Query::default()).unwrap();
    assert!(whole(&mut reader) == [first, "b:between\n".to_owned(), "a:short\n".to_owned(), rest.clone()]);
    let mut reader = LogReader::open(both(false), Query { tail: Some(1), ..Query::default() }).unwrap();
    assert!(whole(&mut reader) == ["b:between\n".to_owned(), rest]);
}

/// Who reads bytes gets them as they come, parts of lines too.
#[test]
fn bytes_come_as_they_were_written() {
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let ((o, mut out), (e, mut err)) = pipes();
    pump.add("a", &root.path().join("a"), OwnedFd::from(o), OwnedFd::from(e), Limits::default()).unwrap();
    let query = Query { raw: true, ..Query::default() };
    let mut reader = LogReader::open(vec![source("a", root.path(), true)], query).unwrap();
    let mut all = Vec::new();
    for text in ["pass", "word: ", "\n\nx\n", "y"] {
        out.write_all(text.as_bytes()).unwrap();
        flush(&pump, "a");
        err.write_all(b"!").unwrap();
        flush(&pump, "a");
        all.extend([format!("a:o:{text}"), "a:e:!".to_owned()]);
        assert_eq!(lines(&mut reader).concat(), all.split_off(0).concat());
    }
    out.write_all(&[b'z'; 3 << 20]).unwrap();
    drop(out);
    flush(&pump, "a");
    let mut length = 0;
    let mut emit = |line: Line<'_>| {
        length += line.text.len();
        assert!(line.text.len() <= 1 << 20 && !line.complete);
        Ok(())
    };
    reader.read(&mut emit).unwrap();
    assert_eq!(length, 3 << 20);
}

#[test]
fn merges_in_the_order_of_printing() {
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let ((ao, mut a), (ae, mut a2)) = pipes();
    let ((bo, mut b), (be, _b2)) = pipes();
    let add = |name: &str, o: io::PipeReader, e: io::PipeReader| {
        pump.add(name, &root.path().join(name), OwnedFd::from(o), OwnedFd::from(e), Limits::default()).unwrap();
    };
    add("a", ao, ae);
    add("b", bo, be);
    let mut expected = Vec::new();
    for round in 0..50 {
        for (letter, name, writer) in [("o", "a", &mut a as &mut dyn Write), ("o", "b", &mut b), ("e", "a", &mut a2)] {
            writeln!(writer, "{round}").unwrap();
            flush(&pump, name);
            expected.push(format!("{name}:{letter}:{round}"));
        }
    }
    let sources = vec![source("a", root.path(), true), source("b", root.path(), true)];
    let mut reader = LogReader::open(sources.clone(), Query::default()).unwrap();
    assert_eq!(lines(&mut reader), expected);
    let mut tail = LogReader::open(sources, Query { tail: Some(3), ..Query::default() }).unwrap();
    assert_eq!(lines(&mut tail), tail_of(&expected));
}

/// The last three lines of each container, merged.
fn tail_of(all: &[String]) -> Vec<String> {
    let last = |name: &str| all.iter().filter(|line| line.starts_with(name)).count() - 3;
    let (mut a, mut b) = (last("a"), last("b"));
    all.iter()
        .filter(|line| {
            let left = if line.starts_with('a') { &mut a } else { &mut b };
            let keep = *left == 0;
            *left = left.saturating_sub(1);
            keep
        })
        .cloned()
        .collect()
}

#[test]
fn a_line_without_end_is_held_back_while_the_container_runs() {
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let ((o, mut writer), (e, _err)) = pipes();
    pump.add("a", &root.path().join("a"), o.into(), e.into(), Limits::default()).unwrap();
    writer.write_all(b"one\n\x00\xff\x1b[2Jtw").unwrap();
    flush(&pump, "a");
    let mut reader = LogReader::open(vec![source("a", root.path(), true)], Query::default()).unwrap();
    assert_eq!(lines(&mut reader), ["a:o:one"]);
    writer.write_all(b"o\nthree").unwrap();
    flush(&pump, "a");
    assert_eq!(lines(&mut reader), ["a:o:\0\u{fffd}\u{1b}[2Jtwo"]);
    reader.update(vec![source("a", root.path(), false)]).unwrap();
    assert_eq!(lines(&mut reader), ["a:o:three"]);
    assert!(lines(&mut reader).is_empty());
}

/// By place, whatever the clock says: what was printed in the middle of a line is not told again, and its rest is.
#[test]
fn what_was_printed_by_a_moment_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let ((o, mut writer), (e, mut errors)) = pipes();
    assert_eq!(lengths(&root.path().join("a")).unwrap(), [0, 0]);
    pump.add("a", &root.path().join("a"), o.into(), e.into(), Limits::default()).unwrap();
    writer.write_all(b"old\nbegin").unwrap();
    errors.write_all(b"older\n").unwrap();
    flush(&pump, "a");
    let from = lengths(&root.path().join("a")).unwrap();
    assert_eq!(from, [9, 6]);
    writer.write_all(b" and end\nnew\n").unwrap();
    errors.write_all(b"newer\n").unwrap();
    flush(&pump, "a");
    let mut reader =
        LogReader::open(vec![Source { from, ..source("a", root.path(), true) }], Query::default()).unwrap();
    let mut read = lines(&mut reader);
    read.sort_unstable();
    assert_eq!(read, ["a:e:newer", "a:o: and end", "a:o:new"]);
}

#[test]
fn since_and_until_bound_the_lines() {
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let ((o, mut writer), (e, _err)) = pipes();
    pump.add("a", &root.path().join("a"), o.into(), e.into(), Limits::default()).unwrap();
    for round in 0..20 {
        writeln!(writer, "{round}").unwrap();
        flush(&pump, "a");
    }
    let sources = || vec![source("a", root.path(), true)];
    let mut times = Vec::new();
    let mut all = LogReader::open(sources(), Query::default()).unwrap();
    let mut note = |line: Line<'_>| {
        times.push(line.time);
        Ok(())
    };
    all.read(&mut note).unwrap();
    assert!(times.is_sorted());
    let query = Query { since: Some(times[5]), until: Some(times[8]), ..Query::default() };
    let mut some = LogReader::open(sources(), query).unwrap();
    assert_eq!(lines(&mut some), ["a:o:5", "a:o:6", "a:o:7", "a:o:8"]);
}

#[test]
fn what_a_killed_writer_did_not_index_is_not_lost() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("stdout.log"), "one\ntwo\n").unwrap();
    fs::write(folder.join("stdout.idx"), Record { time: 5, end: 4 }.to_bytes()).unwrap();
    let mut reader = LogReader::open(vec![source("a", root.path(), true)], Query::default()).unwrap();
    assert_eq!(lines(&mut reader), ["a:o:one"]);
    reader.update(vec![source("a", root.path(), false)]).unwrap();
    assert_eq!(lines(&mut reader), ["a:o:two"]);
    let pump = pump();
    let ((o, mut writer), (e, _err)) = pipes();
    pump.add("a", &folder, o.into(), e.into(), Limits::default()).unwrap();
    writer.write_all(b"three\n").unwrap();
    flush(&pump, "a");
    assert_eq!(lines(&mut reader), ["a:o:three"]);
    let mut fresh = LogReader::open(vec![source("a", root.path(), true)], Query::default()).unwrap();
    assert_eq!(lines(&mut fresh), ["a:o:one", "a:o:two", "a:o:three"]);
}

#[test]
fn old_output_is_given_up_and_the_newest_stays() {
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let ((o, mut writer), (e, _err)) = pipes();
    let folder = root.path().join("a");
    pump.add("a", &folder, o.into(), e.into(), Limits { max_size: 65536, step: 32768 }).unwrap();
    for number in 0..20_000 {
        writeln!(writer, "line {number}").unwrap();
    }
    flush(&pump, "a");
    let mut reader = LogReader::open(vec![source("a", root.path(), true)], Query::default()).unwrap();
    let found = lines(&mut reader);
    assert_eq!(found.last().unwrap(), "a:o:line 19999");
    let first: usize = found[0].rsplit(' ').next().unwrap().parse().unwrap();
    let expected: Vec<_> = (first..20_000).map(|number| format!("a:o:line {number}")).collect();
    assert_eq!(found, expected);
    if first == 0 {
        println!("skipped: this file system cannot punch holes");
    }
}

/// The pump keeps up with it, so each batch is small.
#[test]
fn the_pump_rests_in_every_flood() {
    use super::file::BATCH;
    use super::pump::{FLOOD, REST};
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let ((o, mut writer), (e, _err)) = pipes();
    let folder = root.path().join("a");
    pump.add("a", &folder, o.into(), e.into(), Limits::default()).unwrap();
    for _ in 0..1000 {
        while rustix::io::ioctl_fionread(&writer).unwrap() > 0 {
            std::hint::spin_loop();
        }
        writer.write_all(&[b'x'; 4096]).unwrap();
    }
    flush(&pump, "a");
    let index = fs::read(folder.join(Stream::Stdout.index_file())).unwrap();
    let records: Vec<Record> = index.as_chunks().0.iter().map(|bytes| Record::from_bytes(*bytes)).collect();
    let mut begun = 0;
    for pair in records.windows(2) {
        let [before, after] = pair else { unreachable!() };
        if i128::from(after.time - before.time) >= REST.as_nanos() as i128 {
            begun = before.end;
        }
        assert!(after.end - begun < FLOOD + BATCH as u64, "no rest between byte {begun} and byte {}", after.end);
    }
}

#[test]
fn follows_growth_and_new_containers_until_told_to_stop() {
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let ((ao, mut a), (ae, _ae)) = pipes();
    pump.add("a", &root.path().join("a"), ao.into(), ae.into(), Limits::default()).unwrap();
    let mut reader = LogReader::open(Vec::new(), Query::default()).unwrap();
    let (stop, stopper) = io::pipe().unwrap();
    let (seen, got) = mpsc::channel();
    let folder = root.path().to_owned();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut rescan = || {
                let names = ["a", "b"].into_iter().filter(|name| folder.join(name).exists());
                Ok(Scan { sources: names.map(|name| source(name, &folder, true)).collect(), over: false })
            };
            let how = Follow {
                folders: &|| Ok(vec![folder.clone()]),
                rescan: &mut rescan,
                settled: &mut || Ok(()),
                stop: stop.as_fd(),
            };
            let mut emit =
                |line: Line<'_>| seen.send((line.container.to_owned(), line.text.to_owned())).map_err(io::Error::other);
            follow(&mut reader, how, &mut emit).unwrap();
        });
        writeln!(a, "one").unwrap();
        assert_eq!(got.recv().unwrap(), ("a".to_owned(), b"one".to_vec()));
        let ((bo, mut b), (be, _be)) = pipes();
        pump.add("b", &root.path().join("b"), bo.into(), be.into(), Limits::default()).unwrap();
        writeln!(b, "two").unwrap();
        assert_eq!(got.recv().unwrap(), ("b".to_owned(), b"two".to_vec()));
        drop(stopper);
        assert!(got.recv().is_err());
    });
}

#[test]
fn a_terminal_goes_through_its_pipe() {
    let root = tempfile::tempdir().unwrap();
    let pump = pump();
    let pty = nix::pty::openpty(None, None).unwrap();
    let pipe = LogPump::terminal_pipe().unwrap();
    pump.add_terminal("a", &root.path().join("a"), pty.master, pipe, Limits::default()).unwrap();
    let mut slave = fs::File::from(pty.slave);
    slave.write_all(b"hello\n").unwrap();
    flush(&pump, "a");
    let mut reader = LogReader::open(vec![source("a", root.path(), true)], Query::default()).unwrap();
    assert_eq!(lines(&mut reader), ["a:o:hello\r"]);
}

/// Not a test of its own: the process that the tests below kill. What is printed comes in on descriptor 0, a pipe or,
/// when `RCOMPOSE_TEST_PIPE` names the ends of its pipe, a terminal.
#[test]
fn pump_process() {
    let Some(folder) = std::env::var_os("RCOMPOSE_TEST_PUMP") else { return };
    let folder = Path::new(&folder);
    let input = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let pump = pump();
    let (silent, _writer) = io::pipe().unwrap();
    match std::env::var("RCOMPOSE_TEST_PIPE") {
        Ok(ends) => {
            let (read, write) = ends.split_once(' ').unwrap();
            let read = fs::File::open(read).unwrap();
            let write = fs::File::options().write(true).open(write).unwrap();
            pump.add_terminal("a", folder, input, (read.into(), write.into()), Limits::default()).unwrap();
        }
        Err(_) => pump.add("a", folder, input, silent.into(), Limits::default()).unwrap(),
    }
    std::thread::park();
}

/// Lets process after process write the log while `printing` goes on, killing each when it has moved some output.
fn kill_writers(folder: &Path, printing: &std::thread::JoinHandle<()>, input: &OwnedFd, pipe: Option<String>) {
    let length = || fs::metadata(folder.join("stdout.log")).map_or(0, |data| data.len());
    let mut kills = 0;
    while !printing.is_finished() {
        let before = length();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "logs::tests::pump_process"])
            .env("RCOMPOSE_TEST_PUMP", folder)
            .envs(pipe.as_ref().map(|ends| ("RCOMPOSE_TEST_PIPE", ends)))
            .stdin(input.try_clone().unwrap())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while length() <= before + 20_000 && !printing.is_finished() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 1, "the writer was never killed");
}

#[test]
fn killing_the_writer_loses_and_doubles_nothing() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    let (reader, mut writer) = io::pipe().unwrap();
    let reader = OwnedFd::from(reader);
    let total = 200_000;
    let printing = std::thread::spawn(move || {
        for number in 0..total {
            writeln!(writer, "{number}").unwrap();
        }
    });
    kill_writers(&folder, &printing, &reader, None);
    let pump = pump();
    let (silent, _writer) = io::pipe().unwrap();
    pump.add("a", &folder, reader, silent.into(), Limits::default()).unwrap();
    flush(&pump, "a");
    let mut reader = LogReader::open(vec![source("a", root.path(), true)], Query::default()).unwrap();
    let expected: Vec<_> = (0..total).map(|number| format!("a:o:{number}")).collect();
    assert!(lines(&mut reader) == expected, "lines are missing, doubled or out of order");
}

#[test]
fn killing_the_writer_of_a_terminal_loses_and_doubles_nothing() {
    use std::os::fd::AsRawFd;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a");
    let pty = nix::pty::openpty(None, None).unwrap();
    let pipe = LogPump::terminal_pipe().unwrap();
    let end = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let ends = format!("{} {}", end(&pipe.0), end(&pipe.1));
    let mut slave = fs::File::from(pty.slave);
    let _open = slave.try_clone().unwrap();
    let total = 50_000;
    let printing = std::thread::spawn(move || {
        for number in 0..total {
            writeln!(slave, "{number}").unwrap();
        }
    });
    kill_writers(&folder, &printing, &pty.master, Some(ends));
    let pump = pump();
    pump.add_terminal("a", &folder, pty.master, pipe, Limits::default()).unwrap();
    flush(&pump, "a");
    let mut reader = LogReader::open(vec![source("a", root.path(), true)], Query::default()).unwrap();
    let expected: Vec<_> = (0..total).map(|number| format!("a:o:{number}\r")).collect();
    assert!(lines(&mut reader) == expected, "lines are missing, doubled or out of order");
}

#[test]
fn what_is_sent_on_is_sent_once_whoever_sends_it() {
    use crate::spec::logging::{Destination, SyslogAddress, SyslogFormat};
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("syslog");
    let server = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    server.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let address = SyslogAddress::Unixgram(socket);
    let destination = Destination::Syslog { address, facility: 3, format: SyslogFormat::Plain };
    let received = || {
        let mut bytes = [0; 200];
        let length = server.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).rsplit(": ").next().unwrap().trim_end().to_owned()
    };
    let pump = pump();
    let ((o, mut writer), (e, _err)) = pipes();
    let folder = root.path().join("a");
    pump.add("a", &folder, o.into(), e.into(), Limits::default()).unwrap();
    let forward = || {
        let (tell, told) = mpsc::channel();
        let done = move || tell.send(()).unwrap();
        let forwarder =
            Forwarder::start(&folder, Origin::default(), &destination, |text| panic!("{text}"), done).unwrap();
        flush(&pump, "a");
        forwarder.end();
        told.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    };
    writer.write_all(b"one\ntwo\n").unwrap();
    forward();
    assert_eq!([received(), received()], ["one", "two"]);
    forward();
    writer.write_all(b"three\n").unwrap();
    forward();
    assert_eq!(received(), "three");
}
