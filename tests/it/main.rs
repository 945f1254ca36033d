//! The integration tests: one binary, so that one link serves all of them.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod attributes;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod build;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod compose;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod elsewhere;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod escapes;
#[cfg(test)]
mod firewalls;
#[cfg(test)]
mod format;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod keeper;
#[cfg(test)]
mod main_job;
#[cfg(test)]
mod networks;
#[cfg(test)]
mod oci;
#[cfg(test)]
mod planner;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod rootless;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod support;
