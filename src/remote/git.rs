//! A repository's files at one commit, by the program `git`.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::OFlags;

use super::Error;
use super::address::{Repository, without_password};
use crate::sys::inroot;

/// Variables that would lead git elsewhere.
const MISLEADING: [&str; 6] =
    ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_TEMPLATE_DIR"];
/// Settings of no repository: nothing that lies in one is executed, and files come as they are.
const SETTINGS: [&str; 6] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "advice.detachedHead=false",
    "protocol.ext.allow=never",
    "protocol.file.allow=user",
];

/// Fetches a repository with its submodules into `into`, an empty folder. Returns the commit, and the folder that was asked
/// for. Without `keep_git_dir` git's own files are taken out.
///
/// # Errors
/// There is no git, or it cannot fetch that; the folder is none.
pub fn check_out(repository: &Repository, into: &Path, keep_git_dir: bool) -> Result<(String, PathBuf), Error> {
    let git = Git { into, url: &repository.url };
    let url = repository.url.as_str();
    git.run("prepare a folder for", &["init", "--quiet", "--template="])?;
    git.run("remember", &["config", "--local", "--add", "remote.origin.url", url])?;
    let reference = repository.reference.as_deref().unwrap_or("HEAD");
    let fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
    let from = ["--end-of-options", "origin", reference];
    let shallow = git.run("fetch", &[&fetch[..], &["--depth=1"], &from].concat());
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
    let listed = Git { into: Path::new("/"), url }.run("read", &["ls-remote", "--end-of-options", url, reference])?;
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
}

impl Git<'_> {
    /// Runs git in the folder; returns what it prints.
    fn run(&self, doing: &'static str, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new("git");
        command.current_dir(self.into).stdin(Stdio::null());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(arguments);
        for name in MISLEADING {
            command.env_remove(name);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
            command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        }
        // Ctrl-C is for the build, which waits for it.
        command.process_group(0);
        let output = command.output().map_err(Error::NoGit)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = reason(&said).replace(self.url, &without_password(self.url));
        let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
        Err(Error::Git { doing, url: without_password(self.url), said })
    }
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
    use super::reason;

    #[test]
    fn of_what_git_says_the_cause_is_shown() {
        let ssh = "ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.\n\n\
                   Please make sure you have the correct access rights\nand the repository exists.\n";
        assert_eq!(reason(ssh), "ssh: connect to host h port 22: Connection refused");
        assert_eq!(reason("warning: x\nfatal: unable to access\n"), "unable to access");
        assert_eq!(reason(""), "");
    }
}
