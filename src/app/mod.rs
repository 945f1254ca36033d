//! One function per verb over an options struct: loads the project, talks to the supervisor or reads the state on disk.

pub mod attach;
pub mod build;
pub mod change;
pub mod commit;
pub mod config;
pub mod copy;
pub mod digests;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod explain;
pub mod export;
pub mod image;
pub mod list;
pub mod login;
pub mod logs;
pub mod network;
pub mod options;
pub mod project;
pub mod provider;
pub mod publish;
pub mod pull;
pub mod push;
pub mod registry;
pub mod remote;
pub mod run;
pub mod session;
pub mod stats;
pub mod system;
pub mod watch;

use std::collections::BTreeMap;
use std::io;

use crate::base::diagnostic::Diagnostic;
pub use crate::compose::LoadOptions;
pub use crate::compose::lint;
use crate::control::Failed;
use crate::plan::PlanError;
use crate::state::Roots;

use session::{Session, SessionError};

/// What every verb starts from.
#[derive(Clone, Debug)]
pub struct App {
    pub roots: Roots,
    /// The environment of the process.
    pub environment: BTreeMap<String, String>,
    /// Which project, and how it is loaded.
    pub load: LoadOptions,
    /// Tell what a change would do, and do nothing.
    pub dry_run: bool,
}

/// Why a verb could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The project's files are wrong: errors and warnings, in order.
    #[error("the project cannot be loaded")]
    Input(Vec<Diagnostic>),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the change could not be made")]
    Failed(Vec<Failed>),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("cannot {doing}")]
    Io { doing: String, source: io::Error },
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    #[error("service `{service}` is not running{}", index.map(|index| format!(" container #{index}")).unwrap_or_default())]
    NotRunning { service: String, index: Option<u32> },
    /// Images that cannot be had, one diagnostic for each.
    #[error("images cannot be pulled")]
    Images(Vec<Diagnostic>),
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    #[error("{kind} `{name}` declared as external, but could not be found")]
    ExternalMissing { kind: &'static str, name: String },
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    #[error(transparent)]
    Volume(#[from] crate::volume::Error),
    #[error("{}the image of service `{service}` cannot be built: {error}", before(place))]
    Build { service: String, place: Option<String>, error: Box<crate::build::BuildError> },
    #[error("no such service: `{service}`")]
    NoService { service: String },
    #[error("{0}")]
    Usage(String),
    /// There is nothing to do, which is no failure.
    #[error("{0}")]
    Nothing(&'static str),
    /// The program could not be run: the status that says why.
    #[error("{}", failed.message)]
    Program { failed: Failed, status: u8 },
}

/// A place as it stands before a message.
fn before(place: &Option<String>) -> String {
    place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default()
}

impl AppError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

impl App {
    fn session(&self, project: &str) -> Session {
        Session::new(project, &self.roots)
    }
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
