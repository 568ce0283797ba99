//! Replicas and a hub's store, without a network.

mod convergence;
mod sharing;
mod world;
