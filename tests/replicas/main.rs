//! Replicas and a hub's store, without a network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod convergence;
mod hostile;
mod identity;
mod nothing_left;
mod sharing;
mod triggers;
mod world;
mod writes;
