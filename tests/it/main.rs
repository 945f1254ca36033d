//! The integration tests: one binary, so that one link serves all of them.

mod architecture;
mod engine;
mod keeper;
