//! A repository's files at one commit, by the program `git`.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};

use super::address::{Repository, without_password};
use super::{Error, Limits};
use crate::sys::{inroot, path};

/// Variables that would lead git elsewhere.
const MISLEADING: [&str; 6] =
    ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_TEMPLATE_DIR"];
/// Settings of no repository: nothing that lies in one is executed, and files come as they are.
const SETTINGS: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "advice.detachedHead=false",
    "protocol.ext.allow=never",
    "protocol.file.allow=user",
    // Large files are copied as they come, not held in memory.
    "core.bigFileThreshold=32m",
    "core.deltaBaseCacheLimit=32m",
    "core.packedGitLimit=256m",
    "pack.threads=2",
];

/// The list of a repository's references is longer than anything else that git prints.
const MOST_OUTPUT: u64 = 64 << 20;
/// Address space of git and of each of its helpers, in KiB: what a repository can make it take.
const MOST_MEMORY: u64 = 4 << 20;
/// How long git runs before anybody looks at what it has brought, and between two looks.
const FIRST_LOOK: Duration = Duration::from_millis(200);

/// Fetches a repository with its submodules into `into`, an empty folder. Returns the commit, and the folder that was asked
/// for. Without `keep_git_dir` git's own files are taken out.
///
/// # Errors
/// There is no git, or it cannot fetch that; the folder is none.
pub fn check_out(
    repository: &Repository,
    into: &Path,
    keep_git_dir: bool,
    limits: Limits,
) -> Result<(String, PathBuf), Error> {
    let git = Git { into, url: &repository.url, grows: true, limits, until: Instant::now() + limits.time };
    let url = repository.url.as_str();
    git.run("prepare a folder for", &["init", "--quiet", "--template="])?;
    git.run("remember", &["config", "--local", "--add", "remote.origin.url", url])?;
    let reference = repository.reference.as_deref().unwrap_or("HEAD");
    let fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
    let from = ["--end-of-options", "origin", reference];
    let shallow = git.run("fetch", &[&fetch[..], &["--depth=1"], &from].concat());
    if let Err(error @ (Error::TooLarge { .. } | Error::TooSlow { .. })) = shallow {
        return Err(error);
    }
    if shallow.is_err() {
        // Simple servers know no depth, and some give no commit that nothing points to.
        let whole = git.run("fetch", &[&fetch[..], &from].concat());
        if whole.is_err() && is_commit(reference) {
            let all = ["--end-of-options", "origin", "+refs/*:refs/remotes/origin/*"];
            git.run("fetch", &[&fetch[..], &all].concat())?;
        } else {
            whole?;
        }
    }
    let commit = if is_commit(reference) { reference } else { "FETCH_HEAD" };
    git.run("check out", &["checkout", "--quiet", "--detach", commit, "--"])?;
    if into.join(".gitmodules").exists() {
        git.run("fetch the submodules of", &["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])?;
    }
    let commit = git.run("read", &["rev-parse", "HEAD"])?;
    if !keep_git_dir {
        without_git(into).map_err(|source| Error::Io { url: without_password(url), source })?;
    }
    Ok((commit.trim().to_owned(), folder(repository, into)?))
}

/// The commit that a branch or tag of a repository leads to now.
///
/// # Errors
/// There is no git, no such repository, or nothing of that name in it.
pub fn commit(repository: &Repository) -> Result<String, Error> {
    let reference = repository.reference.as_deref().unwrap_or("HEAD");
    if is_commit(reference) {
        return Ok(reference.to_ascii_lowercase());
    }
    let url = repository.url.as_str();
    let limits = Limits::default();
    let git = Git { into: Path::new("/"), url, grows: false, limits, until: Instant::now() + limits.time };
    let listed = git.run("read", &["ls-remote", "--end-of-options", url, reference])?;
    let found = listed.lines().filter_map(|line| line.split_once('\t'));
    // An annotated tag is listed with what it is a tag of; of the rest, git itself takes tags before branches.
    let rank = |name: &str| match name.strip_suffix(reference) {
        Some("" | "refs/") => Some(0),
        Some("refs/tags/") => Some(1),
        Some("refs/heads/") => Some(2),
        _ => None,
    };
    let best = found.filter_map(|(commit, name)| Some((rank(name)?, commit))).min();
    let commit = best.map(|(_, commit)| commit.to_owned()).filter(|commit| is_commit(commit));
    commit.ok_or_else(|| Error::NoReference { reference: reference.to_owned(), url: without_password(url) })
}

/// The file or folder at a path of a checked out repository: links in it do not lead out of it.
///
/// # Errors
/// There is none.
pub fn find(root: &Path, path: &str) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let found = inroot::open(&fs::File::open(root)?, path.as_bytes(), OFlags::PATH)?;
    fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

struct Git<'a> {
    into: &'a Path,
    url: &'a str,
    /// What it fetches goes into the folder.
    grows: bool,
    limits: Limits,
    until: Instant,
}

impl Git<'_> {
    /// Runs git in the folder; returns what it prints.
    fn run(&self, doing: &'static str, arguments: &[&str]) -> Result<String, Error> {
        let mut command = limited(&path::program("git").map_err(Error::NoGit)?).map_err(Error::NoGit)?;
        command.current_dir(self.into).stdin(Stdio::null());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(arguments);
        for name in MISLEADING {
            command.env_remove(name);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").env("PATH", path::absolute());
        if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
            command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        }
        // Ctrl-C is for the build, which waits for it.
        command.process_group(0);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(Error::NoGit)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (status, stdout, stderr) = thread::scope(|scope| {
            let (stdout, stderr) = (scope.spawn(|| beginning(stdout)), scope.spawn(|| beginning(stderr)));
            let status = self.watch(&mut child);
            let text = |reader: thread::ScopedJoinHandle<'_, Vec<u8>>| reader.join().unwrap_or_default();
            (status, text(stdout), text(stderr))
        });
        if status?.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&stderr);
        let said = reason(&said).replace(self.url, &without_password(self.url));
        let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
        Err(Error::Git { doing, url: without_password(self.url), said })
    }
}

/// A program with a limit to its memory, which its helpers inherit. A shell sets it: between fork and exec, a process with threads
/// runs no code of ours. Where there is a lower limit already, that stays.
fn limited(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(path::program("sh")?);
    let script = format!("ulimit -v {MOST_MEMORY} 2>/dev/null || :; exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(program);
    Ok(command)
}

impl Git<'_> {
    /// Waits for git, and kills it and its helpers when it takes too much.
    fn watch(&self, child: &mut Child) -> Result<ExitStatus, Error> {
        let url = || without_password(self.url);
        let failed = |source| Error::Io { url: url(), source };
        let mut pause = Duration::from_millis(1);
        let mut next_look = Instant::now() + FIRST_LOOK;
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return if self.is_too_large()? { Err(self.too_large()) } else { Ok(status) };
            }
            let now = Instant::now();
            let mut exceeded =
                (now > self.until).then(|| Error::TooSlow { url: url(), seconds: self.limits.time.as_secs() });
            if now > next_look {
                if self.is_too_large()? {
                    exceeded = Some(self.too_large());
                }
                // A look at many files takes long itself.
                next_look = Instant::now() + FIRST_LOOK.max(now.elapsed() * 10);
            }
            if let Some(error) = exceeded {
                let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                // It may have ended meanwhile.
                let _ = group.map(|group| rustix::process::kill_process_group(group, Signal::KILL));
                child.wait().map_err(failed)?;
                return Err(error);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn is_too_large(&self) -> Result<bool, Error> {
        let size = if self.grows { size_of(self.into) } else { Ok(0) };
        let size = size.map_err(|source| Error::Io { url: without_password(self.url), source })?;
        Ok(size > self.limits.bytes)
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { url: without_password(self.url), bytes: self.limits.bytes }
    }
}

/// Bytes of the files of a tree that somebody is writing. What they take on the disk is not known yet.
fn size_of(root: &Path) -> io::Result<u64> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let mut folders = vec![root.to_owned()];
    let mut size = 0;
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if gone(&error) => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Err(error) if gone(&error) => {}
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                // An empty file is something, too.
                found => size += found?.len().max(4096),
            }
        }
    }
    Ok(size)
}

/// What comes first; the rest is read and forgotten.
fn beginning(output: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut output) = output {
        // An output that cannot be read is as good as its end.
        let _ = output.by_ref().take(MOST_OUTPUT).read_to_end(&mut bytes);
        let _ = io::copy(&mut output, &mut io::sink());
    }
    bytes
}

/// What git says at last, without the advice that it has for everybody. It repeats what a helper such as ssh said before.
fn reason(said: &str) -> String {
    const ADVICE: [&str; 2] = ["Please make sure you have the correct access rights", "and the repository exists."];
    let lines = said.lines().map(|line| line.trim().trim_start_matches("fatal: "));
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !ADVICE.contains(line)).collect();
    match lines.as_slice() {
        [.., cause, "Could not read from remote repository."] | [.., cause] => (*cause).to_owned(),
        [] => String::new(),
    }
}

fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Takes every `.git` away, of submodules as well.
fn without_git(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_directory = entry.file_type()?.is_dir();
        if entry.file_name() == ".git" {
            if is_directory { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        } else if is_directory {
            without_git(&entry.path())?;
        }
    }
    Ok(())
}

/// The folder that was asked for: links in the repository do not lead out of it.
fn folder(repository: &Repository, into: &Path) -> Result<PathBuf, Error> {
    let Some(folder) = &repository.folder else { return Ok(into.to_owned()) };
    let none = || Error::NoFolder { folder: folder.clone(), url: without_password(&repository.url) };
    let found = find(into, folder).map_err(|_| none())?;
    if found.is_dir() { Ok(found) } else { Err(none()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_runs_has_a_limit_to_its_memory() {
        let Ok(sh) = path::program("sh") else { return };
        let said = limited(&sh).unwrap().args(["-c", "ulimit -v; echo \"$1\"", "x", "a b"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), format!("{MOST_MEMORY}\na b\n"));
    }

    #[test]
    fn of_what_git_says_the_cause_is_shown() {
        let ssh = "ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.\n\n\
                   Please make sure you have the correct access rights\nand the repository exists.\n";
        assert_eq!(reason(ssh), "ssh: connect to host h port 22: Connection refused");
        assert_eq!(reason("warning: x\nfatal: unable to access\n"), "unable to access");
        assert_eq!(reason(""), "");
    }
}
