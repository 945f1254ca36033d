//! The integration tests: one binary, so that one link serves all of them.

mod architecture;
#[cfg(test)]
mod engine;
mod keeper;
mod simulation;
