//! The layers, as a test: which module of the crate may name which other.

use std::fs;
use std::path::{Path, PathBuf};

/// Module and what it may import. A module missing here fails the test.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("model", &["base"]),
    ("spec", &["base"]),
    ("compose", &["base", "model"]),
    ("plan", &["base", "model", "spec"]),
    ("control", &["base", "spec", "plan"]),
    ("state", &["base", "spec"]),
    ("runtime", &["base", "spec"]),
    ("reconcile", &["base", "spec", "plan", "runtime"]),
    ("sys", &["base"]),
    ("copy", &["base", "sys"]),
    ("init", &["base", "sys"]),
    ("keeper", &["base", "sys", "init"]),
    ("engine", &["base", "spec", "sys", "init"]),
    ("oci", &["base", "sys", "init", "engine", "ui"]),
    ("network", &["base", "spec", "sys"]),
    ("image", &["base", "spec", "sys"]),
    ("registry", &["base", "sys", "image"]),
    ("remote", &["base", "sys", "registry"]),
    ("volume", &["base", "spec", "sys"]),
    ("logs", &["base", "spec", "sys"]),
    ("build", &["base", "spec", "sys", "init", "keeper", "engine", "network", "image"]),
    (
        "supervisor",
        &[
            "base",
            "spec",
            "plan",
            "control",
            "state",
            "runtime",
            "reconcile",
            "sys",
            "init",
            "keeper",
            "engine",
            "network",
            "image",
            "volume",
            "logs",
        ],
    ),
    (
        "app",
        &[
            "base", "model", "spec", "compose", "plan", "control", "state", "sys", "keeper", "engine", "image",
            "volume", "network", "logs", "copy", "registry", "remote", "build", "ui",
        ],
    ),
    ("ui", &["base", "spec", "plan", "control", "logs", "sys", "build"]),
    (
        "cli",
        &["base", "model", "compose", "app", "ui", "control", "state", "image", "logs", "keeper", "supervisor", "oci"],
    ),
];

#[test]
fn modules_import_only_their_row() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for module in modules(&src) {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("`{module}` has no row in the import table"));
            continue;
        };
        for file in rust_files(&src.join(&module)) {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                for name in crate_paths(line) {
                    let known = MAY_IMPORT.iter().any(|(module, _)| *module == name);
                    if known && name != module && !allowed.contains(&name) {
                        let place = file.strip_prefix(&src).unwrap().display();
                        wrong.push(format!("src/{place}:{}: `{module}` may not import `{name}`", number + 1));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_lives_in_sys_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&src) {
        let place = file.strip_prefix(&src).unwrap();
        let allows = fs::read_to_string(&file).unwrap().contains("allow(unsafe_code");
        assert!(!allows || place.starts_with("sys"), "src/{} allows unsafe code", place.display());
    }
}

/// A trait is for what there are several of. The exceptions: the one seam, which the tests implement too, and what gives types of
/// others a method.
#[test]
fn no_trait_has_one_implementor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let texts: Vec<String> = rust_files(&src).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let lines = || texts.iter().flat_map(|text| text.lines().map(str::trim));
    let declared = lines().filter_map(|line| {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let at = words.iter().position(|word| *word == "trait").filter(|_| line.ends_with('{'))?;
        let starts = ["pub", "trait"].iter().any(|start| line.starts_with(start));
        starts.then(|| words.get(at + 1).copied().unwrap_or_default().to_owned())
    });
    for name in declared.filter(|name| name != "Runtime" && name != "At") {
        let implements = |line: &&str| line.starts_with("impl") && line.contains(&format!("{name} for "));
        assert!(lines().filter(implements).count() > 1, "one implementor: `trait {name}`");
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let clone = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["docs", "examples/guestbook", "compose-samples"].map(|folder| clone.join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let documents = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let anchor = |line: &str| {
        let title = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>())
    };
    for document in documents.chain([clone.join("README.md")]) {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: `{link}`: no such file", document.display());
            let has = || fs::read_to_string(&target).unwrap().lines().filter_map(anchor).any(|one| one == heading);
            assert!(heading.is_empty() || has(), "{}: `{link}`: no such heading", document.display());
        }
    }
}

fn modules(src: &Path) -> Vec<String> {
    let entries = fs::read_dir(src).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files.extend(rust_files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
    files
}

/// The first path segments after `crate::` on a line; comments do not count.
fn crate_paths(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let after = code.split("crate::").skip(1);
    after.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()).collect()
}
