//! federation-hub: agents share memory through a hub.

pub mod engine;
pub mod model;
mod node;
pub mod protocol;
pub mod storage;
pub mod transport;
