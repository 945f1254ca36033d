//! Contexts and sources of `ADD` from elsewhere: a web server and a git server on loopback.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rcompose::image::Digest;

use super::project;

/// A web server for the files of a folder, and for what `git http-backend` would not be needed for: the simple protocol.
struct Web {
    address: SocketAddr,
    folder: tempfile::TempDir,
    /// Lines of requests and their `Authorization`.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (root, log) = (folder.path().to_owned(), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(&stream.unwrap(), &root, &log);
            }
        });
        Self { address, folder, asked }
    }

    fn put(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.folder.path().join(name), content).unwrap();
        self.url(name)
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }
}

fn answer(mut stream: &std::net::TcpStream, root: &Path, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let wanted = ["authorization", "if-none-match", "if-modified-since"];
    let headers: Vec<String> =
        headers.filter(|line| wanted.iter().any(|name| line.to_lowercase().starts_with(name))).collect();
    log.lock().unwrap().push(format!("{request} {}", headers.join(" ")));
    let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
    let file = root.join(path.trim_start_matches('/'));
    // What it says of the file beside `Last-Modified`, and is asked for again.
    let version = fs::read_to_string(file.with_extension("version")).unwrap_or_default();
    let asked = |line: &String| line.split_once(": ").is_some_and(|(_, value)| version.contains(value));
    match fs::read(&file) {
        Ok(_) if headers.iter().any(asked) => {
            write!(stream, "HTTP/1.1 304 Not Modified\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        }
        Ok(body) => {
            let time = format!("Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n{version}");
            let time = time.trim_end();
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n{time}\r\nContent-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(&body)
        }
        Err(_) => write!(stream, "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
    }
}

/// `git daemon` for the repositories of a folder.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) port: u16,
}

impl Daemon {
    pub(crate) fn new(folder: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = Command::new("git");
        command.args(["daemon", "--reuseaddr", "--listen=127.0.0.1", "--export-all"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", folder.display()));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        crate::support::eventually("the git server", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { child, port }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // `git daemon` is a child of `git`, and ends with its socket's owner only when asked.
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id())).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            crate::support::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).args(["-c", "user.name=n", "-c", "user.email=e", "-c", "protocol.file.allow=always"]);
    let output = command.args(args).env("HOME", folder).env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with a branch `main`, a tag `v1` before its last commit, a folder, and a link that leads out of it.
fn repository(above: &Path, name: &str) -> PathBuf {
    let path = above.join(name);
    fs::create_dir_all(path.join("sub")).unwrap();
    git(&path, &["init", "--quiet", "-b", "main"]);
    fs::write(path.join("Dockerfile"), "FROM base\nCOPY file /file\nRUN ls -a / > /seen\n").unwrap();
    fs::write(path.join("sub/Dockerfile"), "FROM base\nCOPY . /all/\n").unwrap();
    fs::write(path.join("file"), "first\n").unwrap();
    std::os::unix::fs::symlink("/etc", path.join("out")).unwrap();
    git(&path, &["add", "."]);
    git(&path, &["commit", "--quiet", "-m", "one"]);
    git(&path, &["tag", "v1"]);
    fs::write(path.join("file"), "second\n").unwrap();
    git(&path, &["commit", "--quiet", "-a", "-m", "two"]);
    path
}

#[test]
fn a_file_that_has_not_changed_is_not_downloaded_again() {
    let web = Web::new();
    for (name, version) in
        [("tagged", "ETag: \"one\""), ("timed", "Date: Sun, 09 Sep 2001 03:46:40 GMT"), ("fresh", "")]
    {
        let url = web.put(name, b"first\n");
        let put_version = |text: &str| fs::write(web.folder.path().join(name).with_extension("version"), text).unwrap();
        put_version(version);
        let Some(project) = project("services: {web: {build: .}}", &format!("FROM base\nADD {url} /f\nRUN cat /f\n"))
        else {
            return;
        };
        // The server compares with what it has said, so a time must be among that.
        if name == "timed" {
            put_version(&format!("{version}\r\nX-Time: Sun, 09 Sep 2001 01:46:40 GMT"));
        }
        let build = || project.run(&["build"]).ok().out;
        assert!(build().contains("first"));
        web.asked.lock().unwrap().clear();
        assert_eq!(build().matches(" CACHED").count(), 2);
        let asked = web.asked.lock().unwrap().clone();
        let condition = match name {
            "tagged" => "if-none-match: \"one\"",
            "timed" => "if-modified-since: Sun, 09 Sep 2001 01:46:40 GMT",
            _ => "HTTP/1.1",
        };
        assert!(
            asked.len() == 1 && asked[0].to_lowercase().ends_with(&condition.to_lowercase()) || name == "fresh",
            "{asked:?}"
        );
        // The file that is kept serves another step, too.
        project.write("Dockerfile", &format!("FROM base\nADD {url} /g\nRUN cat /g; stat -c %Y /g\n"));
        let other = build();
        assert!(other.contains("first") && other.contains("1000000000"), "{other}");
        web.put(name, b"second\n");
        put_version("ETag: \"two\"");
        assert!(build().contains("second"));
        let kept = project.root().join("data/images/build/downloads");
        let files: usize =
            fs::read_dir(kept).map_or(0, |all| all.map(|one| fs::read_dir(one.unwrap().path()).unwrap().count()).sum());
        assert_eq!(files, 2, "one file and its record");
    }
}

#[test]
fn a_repository_may_not_be_too_large_or_too_slow() {
    use rcompose::remote::{Address, Limits, check_out};
    use std::time::{Duration, Instant};
    if no_git() {
        return;
    }
    let above = tempfile::tempdir().unwrap();
    let path = repository(above.path(), "large");
    fs::write(path.join("zeros"), vec![0; 30 << 20]).unwrap();
    git(&path, &["add", "."]);
    git(&path, &["commit", "--quiet", "-m", "large"]);
    let daemon = Daemon::new(above.path());
    let fetch = |url: &str, limits: Limits| {
        let Address::Git(repository) = Address::parse(url).unwrap() else { panic!("{url}") };
        check_out(&repository, tempfile::tempdir().unwrap().path(), false, limits).map(drop)
    };
    let url = format!("git://127.0.0.1:{}/large", daemon.port);
    fetch(&url, Limits::default()).unwrap();
    // Its archive is a few KB; on the disk it is not.
    let error = fetch(&url, Limits { bytes: 10 << 20, ..Limits::default() }).unwrap_err();
    assert_eq!(error.to_string(), format!("`{url}` is larger than 10 MiB, the most that is fetched"));
    // One that takes the call and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://{}/x", silent.local_addr().unwrap());
    let begun = Instant::now();
    let error = fetch(&url, Limits { time: Duration::from_secs(1), ..Limits::default() }).unwrap_err();
    assert_eq!(error.to_string(), format!("`{url}` did not come within 1 seconds"));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

pub(crate) fn no_git() -> bool {
    let missing = Command::new("git").arg("daemon").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let missing = missing.map_or(true, |_| !Path::new("/usr/lib/git-core/git-daemon").exists());
    if missing {
        println!("skipped: no git daemon");
    }
    missing
}

#[test]
fn files_are_added_by_their_urls_and_checked() {
    let web = Web::new();
    let text = web.put("a%20file", b"text\n");
    fs::write(web.folder.path().join("a file"), "text\n").unwrap();
    let digest = Digest::of(b"text\n");
    let address = web.address;
    let dockerfile = format!(
        "FROM base\nADD --checksum={digest} {text} /into/\nADD --chmod=755 http://me:p%40ss@{address}/base.tar /base.tar\n\
         ADD --unpack=true http://{address}/base.tar /unpacked/\nRUN stat -c '%n %a %Y' /into/* /base.tar; ls /unpacked/bin\n"
    );
    let Some(project) = project("services:\n  web: {build: .}\n", &dockerfile) else { return };
    fs::copy(project.root().with_file_name("base.tar"), web.folder.path().join("base.tar")).unwrap();
    let built = project.run(&["build"]).ok();
    for part in ["/into/a file 600 1000000000", "/base.tar 755 1000000000", "busybox"] {
        assert!(built.out.contains(part), "{part}: {}", built.out);
    }
    assert!(web.asked.lock().unwrap().iter().any(|line| line.contains("Basic bWU6cEBzcw==")), "no login was sent");
    assert!(project.run(&["build"]).ok().out.matches(" CACHED").count() == 4, "the same contents are no change");
    let wrong = Digest::of(b"other");
    project.write("Dockerfile", &format!("FROM base\nADD --checksum={wrong} {text} /\n"));
    let error = project.run(&["build"]).fails(1).err;
    assert!(error.contains(&digest.to_string()) && error.contains("Dockerfile:2"), "{error}");
    for (source, part) in [(web.url("gone"), "404"), ("http://127.0.0.1:1/x".to_owned(), "cannot fetch")] {
        project.write("Dockerfile", &format!("FROM base\nADD {source} /\n"));
        let error = project.run(&["build"]).fails(1).err;
        assert!(error.contains(part) && error.contains("service `web`"), "{error}");
    }
}

#[test]
fn repositories_are_contexts_and_sources() {
    if no_git() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = repository(folder.path(), "repo.git");
    let commit = git(&path, &["rev-parse", "HEAD"]);
    let daemon = Daemon::new(folder.path());
    let url = format!("git://127.0.0.1:{}/repo.git", daemon.port);
    let Some(project) = project("services: {}\n", "") else { return };
    let service =
        |context: &str| project.write("compose.yaml", &format!("services:\n  web:\n    build: '{context}'\n"));
    let seen = |command: &str| project.run(&["run", "--rm", "-T", "web", "sh", "-c", command]).ok().out;
    for (reference, expected) in
        [("", "second\n"), ("#v1", "first\n"), ("#main", "second\n"), (&format!("#{commit}"), "second\n")]
    {
        service(&format!("{url}{reference}"));
        project.run(&["build"]).ok();
        assert_eq!(seen("cat /file"), expected, "{reference}");
    }
    service(&format!("{url}#v1:sub"));
    project.run(&["build"]).ok();
    assert_eq!(seen("ls -A /all"), "Dockerfile\n");
    service(&url);
    let old = git(&path, &["rev-parse", "v1"]);
    project.write(
        "compose.yaml",
        &format!("services:\n  web: {{build: {{context: ., additional_contexts: {{more: '{url}#v1'}}}}}}\n"),
    );
    let dockerfile = format!(
        "FROM base\nADD --checksum={commit} {url} /plain\nADD --keep-git-dir=true {url}#v1 /kept\nCOPY --from=more file /more\n"
    );
    project.write("Dockerfile", &dockerfile);
    project.run(&["build"]).ok();
    assert_eq!(
        seen("cat /plain/file /kept/file /more; ls -A /plain; ls /kept/.git/HEAD"),
        "second\nfirst\nfirst\nDockerfile\nfile\nout\nsub\n/kept/.git/HEAD\n"
    );
    for (context, part) in [
        (format!("{url}#nothing"), "nothing"),
        (format!("{url}#:out"), "not a folder"),
        (format!("{url}#:gone"), "not a folder"),
        ("git://127.0.0.1:1/x".to_owned(), "git cannot fetch"),
        (format!("{url}#--upload-pack=touch"), "no branch, tag or commit"),
    ] {
        service(&context);
        let error = project.run(&["build"]).fails(1).err;
        assert!(error.contains(part) && error.contains("compose.yaml:3:"), "{error}");
    }
    service(".");
    project.write("Dockerfile", &format!("FROM base\nADD --checksum={old} {url} /x\n"));
    assert!(project.run(&["build"]).fails(1).err.contains(&commit));
    project.down();
}

#[test]
fn archives_and_dockerfiles_are_contexts() {
    let web = Web::new();
    let Some(project) = project("services: {}\n", "") else { return };
    fs::create_dir_all(project.folder().join("c/sub")).unwrap();
    project.write("c/Dockerfile", "FROM base\nCOPY . /all/\n");
    project.write("c/.dockerignore", "left\n");
    project.write("c/left", "");
    project.write("c/sub/x", "x\n");
    let archive = web.folder.path().join("context.tar.gz");
    let made =
        Command::new("tar").arg("-C").arg(project.folder().join("c")).arg("-czf").arg(&archive).arg(".").status();
    assert!(made.unwrap().success());
    let plain = web.put("Dockerfile.web", b"FROM base\nRUN echo alone > /said\n");
    let compose = |context: &str| project.write("compose.yaml", &format!("services:\n  web: {{build: '{context}'}}\n"));
    let seen = |command: &str| project.run(&["run", "--rm", "-T", "web", "sh", "-c", command]).ok().out;
    compose(&web.url("context.tar.gz"));
    project.run(&["build"]).ok();
    assert_eq!(
        seen("ls /all /all/sub; ls -A /all | cat"),
        "/all:\nDockerfile\nsub\n\n/all/sub:\nx\n.dockerignore\nDockerfile\nsub\n"
    );
    compose(&plain);
    project.run(&["build", "--check"]).ok();
    project.run(&["build"]).ok();
    assert_eq!(seen("cat /said"), "alone\n");
    compose(&web.put("noise", &[0xff; 2000]));
    assert!(project.run(&["build"]).fails(1).err.contains("cannot use"));
    project.down();
}
