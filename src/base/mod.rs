//! Vocabulary with no opinions: ids, units, diagnostics with places, atomic file replacement, trash. Imports nothing of ours.

pub mod boot;
pub mod diagnostic;
pub mod disk;
pub mod ids;
pub mod reason;
pub mod trash;
pub mod units;
pub mod visible;
