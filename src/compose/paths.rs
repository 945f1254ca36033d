//! Relative paths of a file become absolute, or relative to where the project is.

use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;

use crate::model::tree::{Map, Node, Value};

/// Where relative paths start, and where `~` is.
pub(super) struct Base<'a> {
    pub(super) folder: &'a FilePath,
    pub(super) home: Option<&'a str>,
}

/// Slash-separated path without `.`, `..` and doubled slashes where they can be resolved by text alone.
pub(super) fn clean(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let mut parts: Vec<&str> = Vec::new();
    let absolute = path.starts_with('/');
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            _ => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// `folder` joined with `path`, cleaned; an absolute path as it is.
pub(super) fn join(folder: &FilePath, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    clean(&format!("{}/{path}", folder.display()).replace("//", "/"))
}

/// The way from `folder` to `path`, both absolute; `path` itself when they share nothing.
pub(super) fn relative(folder: &FilePath, path: &FilePath) -> PathBuf {
    let mut from = folder.components().peekable();
    let mut to = path.components().peekable();
    while let (Some(a), Some(b)) = (from.peek(), to.peek()) {
        if a != b {
            break;
        }
        from.next();
        to.next();
    }
    let up = from.filter(|part| matches!(part, Component::Normal(_))).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to).collect();
    if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
}

impl Base<'_> {
    /// The path as seen from the folder; `~` is the home folder.
    pub(super) fn path(&self, path: &str) -> String {
        // Whatever stands behind it is below the home folder, as in the reference: `~a` is no other user's.
        if let (Some(rest), Some(home)) = (path.strip_prefix('~'), self.home) {
            return clean(&format!("{home}/{rest}"));
        }
        if path.is_empty() || path.starts_with('/') { path.to_owned() } else { join(self.folder, path) }
    }

    fn context(&self, path: &str) -> String {
        let elsewhere = ["https://", "http://", "git://", "ssh://", "github.com/", "git@", "service:"];
        if path.contains("://") || elsewhere.iter().any(|prefix| path.starts_with(prefix)) {
            return path.to_owned();
        }
        self.path(path)
    }

    /// A path that may be one of Windows, which is left alone.
    fn maybe_unix(&self, path: &str) -> String {
        if is_windows_absolute(path) { path.to_owned() } else { self.path(path) }
    }

    /// The same; without a path it is the folder.
    fn here_or(&self, path: &str) -> String {
        if path.is_empty() { self.path(".") } else { self.maybe_unix(path) }
    }

    /// Links are followed, as file watching needs it.
    fn watched(&self, path: &str) -> String {
        let path = self.path(path);
        match std::fs::canonicalize(&path) {
            Ok(real) => real.to_string_lossy().into_owned(),
            Err(_) => path,
        }
    }

    /// Resolves every path of a canonical file.
    pub(super) fn resolve(&self, root: &mut Node) {
        if let Some(services) = root.get_mut("services").and_then(Node::as_map_mut) {
            for (_, service) in services.values_mut() {
                if let Some(map) = service.as_map_mut() {
                    self.service(map);
                }
            }
        }
        for kind in ["configs", "secrets"] {
            for resource in members(root.get_mut(kind)) {
                change(resource.get_mut("file"), |path| self.here_or(path));
            }
        }
        for volume in members(root.get_mut("volumes")) {
            self.bind_volume(volume);
        }
    }

    fn service(&self, service: &mut Map) {
        if let Some((_, build)) = service.get_mut("build") {
            change(build.get_mut("context"), |path| self.context(path));
            for context in members(build.get_mut("additional_contexts")) {
                change(Some(context), |path| self.context(path));
            }
            for key in members(build.get_mut("ssh")) {
                change(Some(key), |path| self.maybe_unix(path));
            }
        }
        for file in items(service, "env_file") {
            change(file.get_mut("path"), |path| self.path(path));
        }
        for file in items(service, "label_file") {
            change(Some(file), |path| self.path(path));
        }
        if let Some((_, extends)) = service.get_mut("extends") {
            change(extends.get_mut("file"), |path| self.path(path));
        }
        if let Some((_, develop)) = service.get_mut("develop")
            && let Some(watches) = develop.get_mut("watch").and_then(Node::as_list_mut)
        {
            for watch in watches {
                change(watch.get_mut("path"), |path| if path.is_empty() { String::new() } else { self.watched(path) });
            }
        }
        for volume in items(service, "volumes") {
            if volume.get("type").and_then(Node::as_str) == Some("bind") {
                change(volume.get_mut("source"), |path| self.here_or(path));
            }
        }
    }

    /// A local volume that is a bind mount has the path of it among its options.
    fn bind_volume(&self, volume: &mut Node) {
        // Where no driver is named, the reference leaves the path alone.
        if volume.get("driver").and_then(Node::as_str) != Some("local") {
            return;
        }
        let Some(options) = volume.get_mut("driver_opts") else { return };
        if options.get("o").and_then(Node::as_str) == Some("bind") {
            change(options.get_mut("device"), |path| self.here_or(path));
        }
    }
}

/// `C:\x`, `\\server\share`
fn is_windows_absolute(path: &str) -> bool {
    let bytes = path.as_bytes();
    let drive = matches!(bytes, [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
    drive || path.starts_with("\\\\")
}

fn members(node: Option<&mut Node>) -> impl Iterator<Item = &mut Node> {
    node.and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut().map(|(_, node)| node))
}

fn items<'a>(map: &'a mut Map, key: &str) -> impl Iterator<Item = &'a mut Node> {
    map.get_mut(key).and_then(|(_, node)| node.as_list_mut()).into_iter().flatten()
}

fn change(node: Option<&mut Node>, new: impl FnOnce(&str) -> String) {
    if let Some(node) = node
        && let Some(path) = node.as_str()
    {
        node.value = Value::String(Arc::from(new(path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [("/a/../b//c/.", "/b/c"), ("./x", "x"), ("../x", "../x"), ("a/..", "."), ("/..", "/")]
        {
            assert_eq!(clean(path), expected);
        }
        assert_eq!(relative(FilePath::new("/a/b"), FilePath::new("/a/c/d")), PathBuf::from("../c/d"));
        assert_eq!(relative(FilePath::new("/a"), FilePath::new("/a")), PathBuf::from("."));
    }
}
