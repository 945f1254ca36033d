//! Registries from both sides: pulling and pushing against one that can lie, and our own against the specification.

mod fake;
mod pull;
mod push;
mod serve;
