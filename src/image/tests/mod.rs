//! The store from outside, on archives made here.

mod concurrent;
mod fixture;
mod host;
mod hostile;
mod round_trip;
mod store;
