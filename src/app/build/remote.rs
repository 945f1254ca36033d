//! What builds take from elsewhere: contexts, and sources of `ADD`.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use crate::app::App;
use crate::app::build::request::Planned;
use crate::build::{BuildError, Dockerfile, Event, Fetched, Request, Source};
use crate::image::Workshop;
use crate::registry::Settings;
use crate::remote::{self, Address, Downloads, Limits};

/// More than any Dockerfile has, in bytes.
const MAX_DOCKERFILE: u64 = 4 << 20;

/// What a remote context turned out to be.
enum Context {
    Folder(PathBuf),
    /// A Dockerfile alone.
    Text(String),
}

impl App {
    /// The request with its remote contexts fetched into folders of the workshop.
    pub(super) fn with_remotes<'a>(
        &self,
        one: &'a Planned,
        workshop: &Workshop<'_>,
        tell: &(dyn Fn(Event) + Sync),
    ) -> Result<Cow<'a, Request>, BuildError> {
        if one.remote_context.is_none() && one.remote_contexts.is_empty() {
            return Ok(Cow::Borrowed(&one.request));
        }
        let mut request = one.request.clone();
        // As in BuildKit.
        let keep =
            request.args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").is_some_and(|value| value == "1" || value == "true");
        if let Some(url) = &one.remote_context {
            tell(Event::Warning(format!("{}: fetching the context {url}", one.service)));
            match self.fetch_context(url, workshop, keep)? {
                Context::Folder(folder) => request.context = Source::Fetched(folder),
                Context::Text(text) => request.dockerfile = Dockerfile::Text(text),
            }
        }
        for (name, url) in &one.remote_contexts {
            let Context::Folder(folder) = self.fetch_context(url, workshop, false)? else {
                return Err(BuildError::new(format!(
                    "the context `{name}` at `{url}` is neither a repository nor an archive"
                )));
            };
            request.contexts.insert(name.clone(), Source::Fetched(folder));
        }
        Ok(Cow::Owned(request))
    }

    fn fetch_context(&self, url: &str, workshop: &Workshop<'_>, keep_git_dir: bool) -> Result<Context, BuildError> {
        let path = match self.fetch(url, &workshop.folder()?, keep_git_dir)? {
            Fetched::Repository { folder, .. } => return Ok(Context::Folder(folder)),
            Fetched::File { path, .. } => path,
        };
        let reading = |error: std::io::Error| BuildError::because(format!("cannot use `{url}` as a context"), &error);
        let folder = workshop.folder()?;
        if crate::build::unpack_context(&path, &folder).map_err(reading)? {
            return Ok(Context::Folder(folder));
        }
        if fs::metadata(&path).map_err(reading)?.len() > MAX_DOCKERFILE {
            return Err(BuildError::new(format!("`{url}` is neither an archive nor a Dockerfile")));
        }
        fs::read_to_string(&path).map(Context::Text).map_err(reading)
    }

    /// Fetches a file or a repository into an empty folder.
    pub(super) fn fetch(&self, url: &str, folder: &Path, keep_git_dir: bool) -> Result<Fetched, BuildError> {
        let fetched = self.fetch_address(url, folder, keep_git_dir);
        fetched.map_err(|error| {
            let message = crate::app::pull::chain(&error);
            match error.help() {
                Some(help) => BuildError::new(message).help(help),
                None => BuildError::new(message),
            }
        })
    }

    fn fetch_address(&self, url: &str, folder: &Path, keep_git_dir: bool) -> Result<Fetched, remote::Error> {
        match Address::parse(url)? {
            Address::File(url) => {
                let settings = Settings::read(&self.environment)?;
                let (path, name) = Downloads::new(&self.roots.data).fetch(&settings, &url, folder)?;
                Ok(Fetched::File { path, name })
            }
            Address::Git(repository) => {
                let (commit, folder) = remote::check_out(&repository, folder, keep_git_dir, Limits::default())?;
                Ok(Fetched::Repository { folder, commit })
            }
        }
    }
}
