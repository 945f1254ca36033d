//! rcompose: runs an unmodified `compose.yaml` without a daemon.
//!
//! ```text
//! compose file ─► compose ─► model ─► plan ─► steps ─► reconcile ─► runtime (the seam)
//!                                      ▲                                │
//!                             observed state ◄── state ◄── supervisor ──┤
//!                                                                       ▼
//!                                   engine  network  image  volume  logs ─► sys ─► kernel
//! cli ─► app (one function per verb) ─► compose, plan, control ─► supervisor ─► keeper ─► containers
//! ```
//!
//! What each module may import is a table in `tests/it/architecture.rs`; `docs/architecture.md` explains it.

pub mod app;
pub mod base;
pub mod build;
pub mod cli;
pub mod compose;
pub mod control;
pub mod copy;
pub mod engine;
pub mod image;
pub mod init;
pub mod keeper;
pub mod logs;
pub mod model;
pub mod network;
pub mod oci;
pub mod plan;
pub mod reconcile;
pub mod registry;
pub mod remote;
pub mod runtime;
pub mod spec;
pub mod state;
pub mod supervisor;
pub mod sys;
pub mod ui;
pub mod volume;
