//! Registries from both sides: pulling and pushing against one that can lie, and our own against the specification.

mod bomb;
mod digests;
mod fake;
mod kill;
mod proxy;
mod pull;
mod push;
pub(crate) mod serve;
