//! Contexts: where the Dockerfile and the files of `COPY` come from.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::error::{BuildError, SourceText};
use super::ignore::Ignore;
use super::parse::ParseError;
use super::request::{Dockerfile, Request, Source};
use super::tree::{self, Tree};
use crate::sys::inroot;

/// More than any Dockerfile has, in bytes.
const MAX_DOCKERFILE: u64 = 4 << 20;

/// The main context, opened.
pub(super) struct Opened {
    root: Option<OwnedFd>,
    path: PathBuf,
}

impl Opened {
    pub(super) fn open(request: &Request) -> Result<Self, BuildError> {
        match &request.context {
            Source::Folder(path) | Source::Fetched(path) => {
                let root = open_folder(path)?;
                Ok(Self { root: Some(root), path: path.clone() })
            }
            Source::Nothing => Ok(Self { root: None, path: PathBuf::new() }),
            Source::Image(name) => Err(BuildError::new(format!("the image `{name}` cannot be the main context"))
                .help("name it in `additional_contexts`")),
        }
    }

    /// The context as it is copied from: without what `.dockerignore` leaves out.
    pub(super) fn tree(&self, dockerfile: &Dockerfile) -> Result<Tree, BuildError> {
        let Some(root) = &self.root else {
            return Err(
                BuildError::new("there is no context to copy from").help("give the build a folder as `context`")
            );
        };
        let root = root.try_clone().map_err(|error| BuildError::because("cannot open the context", &error))?;
        Ok(Tree::of_context(root, Ignore::parse(&self.ignore(dockerfile)?)))
    }

    /// The text of `Dockerfile.dockerignore` beside the Dockerfile, or else of `.dockerignore`; empty without either.
    pub(super) fn ignore(&self, dockerfile: &Dockerfile) -> Result<String, BuildError> {
        let own = match dockerfile {
            Dockerfile::InContext(path) => self.read(&format!("{path}.dockerignore"))?,
            Dockerfile::File(path) => {
                let mut name = path.clone().into_os_string();
                name.push(".dockerignore");
                fs::read(PathBuf::from(name)).ok()
            }
            Dockerfile::Text(_) => None,
        };
        let text = match own {
            Some(own) => Some(own),
            None => self.read(".dockerignore")?,
        };
        Ok(text.map_or_else(String::new, |text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// A small file of the context; `None`: it is not there.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, BuildError> {
        let Some(root) = &self.root else { return Ok(None) };
        let path = tree::clean(path).join("/");
        let file = match inroot::open(root, path.as_bytes(), rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK)
        {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map(File::from),
        };
        let mut bytes = Vec::new();
        let read = file.and_then(|file| file.take(MAX_DOCKERFILE + 1).read_to_end(&mut bytes));
        read.map_err(|error| {
            BuildError::because(format!("cannot read `{}`", self.path.join(&path).display()), &error)
        })?;
        Ok(Some(bytes))
    }
}

/// The text of the Dockerfile.
pub(super) fn dockerfile(context: &Opened, request: &Request) -> Result<SourceText, BuildError> {
    let (name, bytes) = match &request.dockerfile {
        Dockerfile::Text(text) => ("the inline Dockerfile".to_owned(), Some(text.clone().into_bytes())),
        Dockerfile::File(path) => {
            let bytes = match fs::read(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                read => Some(
                    read.map_err(|error| BuildError::because(format!("cannot read `{}`", path.display()), &error))?,
                ),
            };
            (path.display().to_string(), bytes)
        }
        Dockerfile::InContext(path) => {
            let shown = context.path.join(path).display().to_string();
            (shown, context.read(path)?)
        }
    };
    let Some(bytes) = bytes else {
        return Err(BuildError::new(format!("there is no Dockerfile at `{name}`")).help(
            "make one, name another in `build.dockerfile`, or write it into the Compose file with `dockerfile_inline`",
        ));
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceText { name, text }),
        Err(_) => {
            let source = SourceText { name: name.clone(), text: String::new() };
            Err(BuildError::of_parse(ParseError::new(1, format!("`{name}` is not UTF-8 text")), &source))
        }
    }
}

/// A folder as an additional context.
pub(super) fn folder_tree(path: &Path) -> Result<Tree, BuildError> {
    let root = open_folder(path)?;
    let text = fs::read(path.join(".dockerignore")).unwrap_or_default();
    Ok(Tree::of_context(root, Ignore::parse(&String::from_utf8_lossy(&text))))
}

fn open_folder(path: &Path) -> Result<OwnedFd, BuildError> {
    let opened = File::open(path).and_then(|file| {
        if file.metadata()?.is_dir() { Ok(file) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
    });
    opened
        .map(OwnedFd::from)
        .map_err(|error| BuildError::because(format!("cannot open the context `{}`", path.display()), &error))
}
