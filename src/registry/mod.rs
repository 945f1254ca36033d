//! Registries: the OCI Distribution API, from the side that asks.
//!
//! Pure parts (`auth`, `retry`, the parsing of settings) know no socket. [`Registries`] is the way in; it blocks, and is
//! used by short-lived processes with a few threads.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

mod artifact;
mod auth;
mod blob;
mod cache;
mod client;
mod credentials;
mod endpoint;
mod error;
mod given;
mod pull;
mod push;
mod retry;
mod serve;
mod settings;
mod transport;

pub use artifact::{ArtifactFile, COMPOSE_ENV_FILE, COMPOSE_FILE};
pub use client::Registries;
pub use credentials::{CredentialFile, Credentials};
pub use error::Error;
pub use pull::{Pulled, Step, Told};
pub use push::{PushStep, PushTold};
pub use serve::Server;
pub use settings::Settings;
pub use transport::downloads;
