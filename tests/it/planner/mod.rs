//! From the text of a Compose file to the steps of a plan: lowering, and the rules of convergence.

mod convergence;
mod lowering;
mod random;
mod teardown;
mod world;
